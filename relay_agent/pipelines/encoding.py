"""The sender's side of the message formats: a request as a command's payload, and a command's answer (PROTOCOL §3 to §5).

This module owns these two translations, the mirror of `protocol`. It must not send anything.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, BinaryIO

from relay_agent.core.errors import RelayError
from relay_agent.pipelines.long_json import PIECE_BYTES, LongText, as_text, read_json
from relay_agent.pipelines.spool import Spool
from relay_agent.protocol.charsets import codec_of, encode
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
        if isinstance(body, LongText):
            with self.open() as file:
                return file.read()
        if body is None:
            return b""
        if not isinstance(body, str):
            raise BadAnswer("body must be a string")
        if self.body.get("bodyEncoding") == "base64":
            return _from_base64(body)
        try:
            return encode(body, self._charset())
        except UnicodeEncodeError:
            return body.encode("utf-8", "surrogatepass")

    def open(self) -> BinaryIO:
        """Return the response's bytes as a file, which the caller must close; beyond 8 MB they are on a disk.

        Raises:
            BadAnswer: the body does not have the form of PROTOCOL §4.
        """
        body, spool = self.body.get("body"), Spool()
        if not isinstance(body, LongText):
            spool.write(self.content())
            return spool.reader()
        try:
            for data in self._long_content(body):
                spool.write(data)
        except UnicodeEncodeError:
            spool.close()
            spool = Spool()
            for text in body.pieces():
                spool.write(text.encode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise BadAnswer("body is not a string of JSON") from error
        return spool.reader()

    def _long_content(self, body: LongText) -> Iterator[bytes]:
        if self.body.get("bodyEncoding") == "base64":
            yield from _pieces_from_base64(body.pieces())
            return
        encoder = codecs.getincrementalencoder(codec_of(self._charset()) or "utf-8")("strict")
        for text in body.pieces():
            if text:
                yield encoder.encode(text)
        yield encoder.encode("", True)

    def _charset(self) -> str | None:
        """The charset that the response names, from which the agent decoded the text."""
        content_type = next((value for name, value in self.headers() if name.lower() == "content-type"), "")
        return parameter(content_type, "charset") or None


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
    from relay_agent.protocol.jwe import seal_command  # Here, because loading the cipher takes as long as loading requests.

    plaintext = json_bytes(payload)
    return {"jwe": seal_command(plaintext, keyring, aud=agent_id, exp=math.ceil(expires_at.timestamp()), jti=jti)}


def json_bytes(value: Any) -> bytes:
    """Return the shortest JSON in UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:  # A lone surrogate can only be escaped.
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def read_answer(command: Mapping[str, Any]) -> Answer:
    """Read a finished plain command (PROTOCOL §4).

    Raises:
        BadAnswer: the response body is not an object, or is encrypted.
    """
    body = _body_of(command)
    if "jwe" in body:
        raise BadAnswer("the response is encrypted, and no key is given")
    return Answer(_id_of(command), str(command.get("status", "")), _whole_but_body(body))


def read_sealed_answer(command: Mapping[str, Any], keyring: Keyring, jti: str) -> Answer:
    """Read a finished secure command that had `jti`, and asked for an encrypted answer (PROTOCOL §5).

    Raises:
        BadAnswer: the answer is not encrypted, or cannot be read.
        SecureCommandError: it cannot be decrypted, or is another command's.
    """
    from relay_agent.protocol.jwe import open_answer, open_long_answer

    # The platform could forge what is not encrypted. So a response is accepted only if it is encrypted for this command; an answer in
    # the clear can only say that there is none.
    command_id, outside = _id_of(command), _body_of(command)
    if "jwe" not in outside:
        if "statusCode" in outside or command.get("status") == "SUCCESS":
            raise BadAnswer("the answer to a secure command is not encrypted: it is rejected, since anybody could have written it")
        return Answer(command_id, str(command.get("status", "")), _whole_but_body(outside))
    jwe = outside["jwe"]
    if isinstance(jwe, LongText):
        body = _object(open_long_answer(lambda: _text_of(jwe), keyring, cid=command_id, jti=jti))
    else:
        body = _object(_in_pieces(open_answer(jwe, keyring, cid=command_id, jti=jti)))
    if body is None:
        raise BadAnswer("the decrypted response is not a JSON object")
    answer = Answer(command_id, "FAILURE", _whole_but_body(body), sealed=True)
    return replace(answer, status="SUCCESS") if answer.http and (answer.status_code or 0) < 400 else answer


def _id_of(command: Mapping[str, Any]) -> str:
    return str(command.get("id", ""))


def _body_of(command: Mapping[str, Any]) -> dict[str, Any]:
    body = command.get("responseBody")
    if isinstance(body, str):
        body = _object(_in_pieces(body.encode("utf-8", "surrogatepass")))
    elif isinstance(body, LongText):
        body = _object(text.encode("utf-8", "surrogatepass") for text in _text_of(body))
    if body is not None and not isinstance(body, dict):
        raise BadAnswer("the response body is not a JSON object")
    return body or {}


def _whole_but_body(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer with every long text as a string, such as a header's value; only the body stays a `LongText`."""
    try:
        return {name: value if name == "body" else as_text(value) for name, value in answer.items()}
    except ValueError:
        raise BadAnswer("the response is not JSON") from None


def _object(chunks: Iterable[bytes]) -> dict[str, Any] | None:
    try:
        value = read_json(chunks)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _in_pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))


def _text_of(long: LongText) -> Iterator[str]:
    """Yield a long text in pieces.

    Raises:
        BadAnswer: it is not a string of JSON.
    """
    pieces = long.pieces()
    while True:
        try:
            piece = next(pieces, None)
        except ValueError:
            break
        if piece is None:
            return
        yield piece
    raise BadAnswer("the response is not a string of JSON")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadAnswer("body is not base64, though bodyEncoding says so") from None


def _pieces_from_base64(pieces: Iterable[str]) -> Iterator[bytes]:
    rest = ""
    for piece in filter(None, pieces):
        if "=" in rest:
            raise BadAnswer("body is not base64, though bodyEncoding says so")
        rest += piece
        whole = len(rest) - len(rest) % 4
        whole -= 4 if whole == len(rest) and whole else 0  # The last group may be padded, and then nothing may follow it.
        if "=" in rest[:whole]:
            raise BadAnswer("body is not base64, though bodyEncoding says so")
        yield _from_base64(rest[:whole])
        rest = rest[whole:]
    yield _from_base64(rest)


def _body(body: bytes) -> dict[str, str]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return _as_base64(body)
    return _as_base64(body) if _longer_than_base64(text, len(body), ensure_ascii=False) else {"mode": "raw", "raw": text}


def for_ascii(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a payload that is posted as JSON in ASCII, with its body as base64 if that is shorter there."""
    body = payload.get("body")
    if not isinstance(body, dict) or not isinstance(body.get("raw"), str):
        return payload
    try:
        data = body["raw"].encode("utf-8")
    except UnicodeEncodeError:  # Half a surrogate pair, which the agent refuses.
        return payload
    return {**payload, "body": _as_base64(data)} if _longer_than_base64(body["raw"], len(data), ensure_ascii=True) else payload


def _longer_than_base64(text: str, size: int, *, ensure_ascii: bool) -> bool:
    """Return whether a body is longer as text of JSON than as base64; a short one is left readable."""
    if size <= PIECE_BYTES:
        return False
    escaped = json.dumps(text, ensure_ascii=ensure_ascii)
    return (len(escaped) if ensure_ascii else len(escaped) - len(text) + size) > (size + 2) // 3 * 4


def _as_base64(body: bytes) -> dict[str, str]:
    return {"mode": "base64", "base64": base64.b64encode(body).decode("ascii")}
