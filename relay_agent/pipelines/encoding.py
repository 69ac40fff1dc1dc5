"""The sender's side of the message formats: a request as a command's payload, and a command's answer (PROTOCOL §3 to §5).

This module owns these two translations, the mirror of `protocol`. It must not send anything.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from relay_agent.core.errors import RelayError
from relay_agent.protocol.charsets import encode
from relay_agent.protocol.jwe import open_answer, seal_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.protocol.media_types import parameter

_WITHOUT_ANSWER = {
    "EXPIRED": "the agent did not answer before the command expired: is it running, and is its queue enabled?",
    "PURGED": "the command was purged from the agent's queue",
    "UNSENT": "the platform could not put the command into the agent's queue: enable the agent's queue",
    "ERROR": "the platform could not carry out the command",
}


class BadAnswer(RelayError):
    """A command's response body is not one of PROTOCOL §4; the message never repeats it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a command. `body` is the response body, decrypted; `sealed` says that it was encrypted, and so is the agent's own."""

    command_id: str
    status: str
    body: Mapping[str, Any] = field(repr=False)
    sealed: bool = False

    @property
    def http(self) -> bool:
        """Whether this is the target's whole response; one that could not be delivered has a status and a code, but no body."""
        return isinstance(self.body.get("statusCode"), int) and "code" not in self.body

    @property
    def status_code(self) -> int | None:
        """The target's HTTP status, None if there is no response."""
        value = self.body.get("statusCode")
        return value if isinstance(value, int) else None

    @property
    def code(self) -> str:
        """Why there is no response: a code of PROTOCOL §4, else the command's status."""
        value = self.body.get("code")
        return value if isinstance(value, str) else self.status

    @property
    def message(self) -> str:
        """Why there is no response, for people."""
        value = self.body.get("message")
        if isinstance(value, str):
            return value
        return _WITHOUT_ANSWER.get(self.status, f"the command ended as {self.status} without an answer")

    @property
    def elapsed_ms(self) -> int:
        """How long the agent's exchange with the target took, in milliseconds."""
        value = self.body.get("elapsedMs")
        return value if isinstance(value, int) else 0

    def headers(self) -> list[tuple[str, str]]:
        """Return the response's header fields in order, each repeat as a field of its own.

        Raises:
            BadAnswer: they do not have the form of PROTOCOL §4.
        """
        fields = self.body.get("headers") or []
        if not isinstance(fields, list) or not all(isinstance(entry, dict) for entry in fields):
            raise BadAnswer("headers must be a list of objects")
        named = [pair for entry in fields for pair in entry.items()]
        return [(name, str(value)) for name, found in named for value in (found if isinstance(found, list) else [found])]

    def content(self) -> bytes:
        """Return the response's bytes, as the target sent them.

        Raises:
            BadAnswer: the body does not have the form of PROTOCOL §4.
        """
        body = self.body.get("body")
        if body is None:
            return b""
        if not isinstance(body, str):
            raise BadAnswer("body must be a string")
        if self.body.get("bodyEncoding") == "base64":
            try:
                return base64.b64decode(body, validate=True)
            except (binascii.Error, ValueError):
                raise BadAnswer("body is not base64, though bodyEncoding says so") from None
        return self._encoded(body)

    def _encoded(self, text: str) -> bytes:
        """Encode the text in the charset that the response names, from which the agent decoded it."""
        content_type = next((value for name, value in self.headers() if name.lower() == "content-type"), "")
        try:
            return encode(text, parameter(content_type, "charset") or None)
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogatepass")


def request_payload(
    method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes | None, timeout_seconds: float
) -> dict[str, Any]:
    """Return a request as a command's payload, to which other fields of PROTOCOL §3 may be added."""
    payload: dict[str, Any] = {"method": method, "url": url, "headers": [{name: value} for name, value in headers]}
    if body is not None:
        payload["body"] = _body(body)
    payload["timeout"] = timeout_seconds
    return payload


def sealed_payload(payload: Mapping[str, Any], keyring: Keyring, *, agent_id: str, expires_at: datetime, jti: str) -> dict[str, str]:
    """Encrypt a payload for one agent and one use, until `expires_at`, at most seven days ahead (PROTOCOL §5).

    Raises:
        SecureCommandError: ENOKEY, the keyring is empty.
    """
    plaintext = json.dumps(payload, separators=(",", ":")).encode("utf-8")
    return {"jwe": seal_command(plaintext, keyring, aud=agent_id, exp=math.ceil(expires_at.timestamp()), jti=jti)}


def read_answer(command: Mapping[str, Any]) -> Answer:
    """Read a finished plain command (PROTOCOL §4).

    Raises:
        BadAnswer: the response body is not an object, or is encrypted.
    """
    body = _body_of(command)
    if "jwe" in body:
        raise BadAnswer("the response is encrypted, and no key is given")
    return Answer(_id_of(command), str(command.get("status", "")), body)


def read_sealed_answer(command: Mapping[str, Any], keyring: Keyring, jti: str) -> Answer:
    """Read a finished secure command that had `jti`, and asked for an encrypted answer (PROTOCOL §5).

    Raises:
        BadAnswer: the answer is not encrypted, or cannot be read.
        SecureCommandError: it cannot be decrypted, or is another command's.
    """
    # The platform could forge what is not encrypted. So a response is accepted only if it is encrypted for this command; an answer in
    # the clear can only say that there is none.
    command_id, outside = _id_of(command), _body_of(command)
    if "jwe" not in outside:
        if "statusCode" in outside or command.get("status") == "SUCCESS":
            raise BadAnswer("the answer to a secure command is not encrypted: it is rejected, since anybody could have written it")
        return Answer(command_id, str(command.get("status", "")), outside)
    body = _object(open_answer(outside["jwe"], keyring, cid=command_id, jti=jti))
    if body is None:
        raise BadAnswer("the decrypted response is not a JSON object")
    answer = Answer(command_id, "FAILURE", body, sealed=True)
    return replace(answer, status="SUCCESS") if answer.http and (answer.status_code or 0) < 400 else answer


def _id_of(command: Mapping[str, Any]) -> str:
    return str(command.get("id", ""))


def _body_of(command: Mapping[str, Any]) -> dict[str, Any]:
    body = command.get("responseBody")
    if isinstance(body, str):
        body = _object(body)
    if body is not None and not isinstance(body, dict):
        raise BadAnswer("the response body is not a JSON object")
    return body or {}


def _object(text: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"mode": "raw", "raw": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"mode": "base64", "base64": base64.b64encode(body).decode("ascii")}
