"""The sender's calls to the platform: post a command, and wait until it is finished (PROTOCOL §1).

This module owns the calls and what their failures mean. It must not know what a payload or an answer holds: `encoding` does.
"""

from __future__ import annotations

import re
import ssl
import threading
import uuid
from collections.abc import Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import backoff
import requests

from relay_agent.core.clock import Deadline, iso
from relay_agent.core.errors import PlatformError, PlatformRefused, RateLimited, RelayError, UnknownAgent
from relay_agent.core.models import ACTION_SECURE
from relay_agent.pipelines.encoding import Answer, read_answer, read_sealed_answer, sealed_payload
from relay_agent.protocol.keyring import Keyring

ACTION_HTTP = "TetraScience.Connector.gdc.HttpRequest"
MINIMUM_TTL_SECONDS = 65.0
"""The platform wants 60, counted by its own clock from when it reads the request."""
ANSWER_GRACE_SECONDS = 15.0
"""How long an answer that was made just before the command expired may take to arrive."""
CALL_TIMEOUT_SECONDS = (10.0, 30.0)
"""Connecting, and each read of an answer."""
RATE_LIMIT_SECONDS = 30.0
"""How long `create` keeps trying while the platform answers 429."""

_UNDER_WAY = frozenset({"CREATED", "PENDING", "PROCESSING"})
_TOKEN = re.compile(r"[\x21-\x7e]+")


class NoAnswer(RelayError):
    """A command was not finished in time. `status` is the last that the platform gave, empty if it gave none."""

    def __init__(self, command_id: str, status: str, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s; {_progress(status)} (command {command_id})")
        self.command_id = command_id
        self.status = status


class CommandClient:
    """Posts commands for one agent. As safe for several threads as its `session` is.

    `session` brings proxies and certificates (its `trust_env` should be False); setting `stop` ends every wait early.
    """

    def __init__(
        self, api_target: str, org_slug: str, jwt: str, agent_id: str, session: requests.Session, stop: threading.Event | None = None
    ) -> None:
        if not _TOKEN.fullmatch(jwt) or not _TOKEN.fullmatch(org_slug):
            raise ValueError("the JWT and the ORG_SLUG must be visible ASCII characters")
        self.agent_id = agent_id
        self._org_slug = org_slug
        self._base = api_target.rstrip("/").removesuffix("/v1").rstrip("/")
        self._headers = {"ts-auth-token": jwt, "x-org-slug": org_slug, "Accept": "application/json"}
        self._session = session
        self._stop = stop or threading.Event()

    def create(self, action: str, payload: Mapping[str, Any], *, ttl_seconds: float, metadata: Mapping[str, str] | None = None) -> str:
        """Post a command that expires in `ttl_seconds` (at least 65), and return its id. It is never posted twice.

        Raises:
            PlatformRefused, UnknownAgent, RateLimited, PlatformError: the message says what to do about it.
        """
        expires_at = datetime.now(UTC) + timedelta(seconds=max(ttl_seconds, MINIMUM_TTL_SECONDS))
        return self._create(action, payload, expires_at, metadata)

    def wait(self, command_id: str, timeout: float) -> dict[str, Any]:
        """Poll the command until it is finished, for at most `timeout` seconds, and return it.

        Raises:
            NoAnswer: it is not finished, or `stop` was set.
            PlatformRefused, UnknownAgent, PlatformError: the platform refuses the question, or could not be reached to the end.
        """
        deadline = Deadline(timeout)
        pauses = _pauses()
        status, last_error = "", None
        while True:
            pause = next(pauses)
            try:
                command = self._call("GET", f"/v1/commands/{quote(command_id, safe='')}", deadline)
            except PlatformError as error:
                if not _may_pass(error):
                    raise
                last_error = error
                pause = max(pause, error.retry_after if isinstance(error, RateLimited) else 1.0)
            else:
                last_error, status = None, str(command.get("status", ""))
                if status and status not in _UNDER_WAY:
                    return command
            if self._stop.wait(min(pause, deadline.remaining())) or deadline.passed:
                raise last_error or NoAnswer(command_id, status, timeout)

    def exchange(self, payload: Mapping[str, Any], *, timeout_seconds: float, keyring: Keyring | None = None) -> Answer:
        """Have the agent send one HTTP request (PROTOCOL §3), and return the answer; a `keyring` makes it a secure command.

        Raises:
            NoAnswer, PlatformError: as `create` and `wait`.
            BadAnswer: the answer cannot be read, or the answer to a secure command is not encrypted.
            SecureCommandError: the answer cannot be decrypted, or is another command's.
        """
        ttl_seconds = max(timeout_seconds, MINIMUM_TTL_SECONDS)
        expires_at = datetime.now(UTC) + timedelta(seconds=ttl_seconds)
        if keyring is None:
            command_id = self._create(ACTION_HTTP, payload, expires_at, None)
            return read_answer(self._finished(command_id, ttl_seconds))
        jti = str(uuid.uuid4())
        asked = {**payload, "encrypt_response": True}
        sealed = sealed_payload(asked, keyring, agent_id=self.agent_id, expires_at=expires_at, jti=jti)
        command_id = self._create(ACTION_SECURE, sealed, expires_at, None)
        return read_sealed_answer(self._finished(command_id, ttl_seconds), keyring, jti)

    def _finished(self, command_id: str, ttl_seconds: float) -> dict[str, Any]:
        return {**self.wait(command_id, ttl_seconds + ANSWER_GRACE_SECONDS), "id": command_id}

    def _create(self, action: str, payload: Mapping[str, Any], expires_at: datetime, metadata: Mapping[str, str] | None) -> str:
        body: dict[str, Any] = {"targetId": self.agent_id, "action": action, "expiresAt": iso(expires_at), "payload": payload}
        if metadata:
            body["metadata"] = metadata
        deadline = Deadline(RATE_LIMIT_SECONDS)
        while True:
            try:
                command_id = self._call("POST", "/v1/commands", deadline, body).get("id")
            except RateLimited as error:  # The platform did not accept it, so it may be posted again.
                pause = error.retry_after + backoff.full_jitter(1.0)
                if pause > deadline.remaining() or self._stop.wait(pause):
                    raise
                continue
            if not isinstance(command_id, str) or not command_id:
                raise PlatformError("POST /v1/commands", "the answer names no command id: is API_TARGET the platform's API?")
            return command_id

    def _call(self, method: str, path: str, deadline: Deadline, body: object = None) -> dict[str, Any]:
        call = f"{method} {re.sub(r'(?<=/v1/commands/).+', '{id}', path)}"
        connect, read = (min(limit, max(deadline.remaining(), 1.0)) for limit in CALL_TIMEOUT_SECONDS)
        try:
            response = self._session.request(
                method, self._base + path, json=body, headers=self._headers, timeout=(connect, read), allow_redirects=False
            )
        except requests.RequestException as error:
            reason = _network_reason(error, urlsplit(self._base).hostname or "")
        else:
            return self._read(call, response)
        raise PlatformError(call, reason)  # Outside the except, so that no traceback shows the original, which may hold a proxy's password.

    def _read(self, call: str, response: requests.Response) -> dict[str, Any]:
        answer = _json_object(response)
        status = response.status_code
        if status in (401, 403):
            cure = f"JWT and ORG_SLUG ({self._org_slug}) do not belong together, the JWT has expired, or it lacks the role for commands"
            raise PlatformRefused(call, f"the platform refused it ({status}): {cure}", status)
        if status == 404:
            raise UnknownAgent(call, f"not found: {_message(answer)}; check AGENT_ID ({self.agent_id}), ORG_SLUG and API_TARGET", status)
        if status == 429:
            raise RateLimited(call, _retry_after(response))
        if not 200 <= status < 300:
            raise PlatformError(call, f"the platform answered {status}: {_message(answer)}", status)
        if answer is None:
            raise PlatformError(call, "the answer is not a JSON object: is API_TARGET the platform's API?", status)
        return answer


def _pauses() -> Generator[float, None, None]:
    """Yield the seconds between two polls: 50 ms at first, 1 s after about 4 s, at most 5 s."""
    pauses = backoff.expo(base=1.3, factor=0.05, max_value=5.0)
    next(pauses)  # The first value of backoff's generators is None.
    return pauses


def _may_pass(error: PlatformError) -> bool:
    """Return whether a retry may help: after a network fault, a rate limit, or a 5xx."""
    return error.status is None or error.status == 429 or error.status >= 500


def _progress(status: str) -> str:
    """Return what an unfinished command's status means."""
    if status == "PROCESSING":
        return "the agent is still working on it"
    if status in ("CREATED", "PENDING"):
        return f"the command is still {status}: is the agent running, and is its queue enabled?"
    return "the platform did not give the command's status"


def _json_object(response: requests.Response) -> dict[str, Any] | None:
    try:
        value = response.json()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _message(answer: dict[str, Any] | None) -> str:
    """Return the platform's message, cut to one line; the text of anything else, such as a proxy's page, is not repeated."""
    message = (answer or {}).get("message")
    return " ".join(message.split())[:300] if isinstance(message, str) else "without a reason; does a proxy stand in between?"


def _retry_after(response: requests.Response) -> float:
    value = response.headers.get("Retry-After", "").strip()
    return float(value) if re.fullmatch(r"\d{1,5}", value) else 1.0


def _network_reason(error: requests.RequestException, host: str) -> str:
    root = _root(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        peer = "the proxy" if isinstance(error, requests.exceptions.ProxyError) else host
        return f"the certificate of {peer} is not trusted: set RELAY_CA_FILE if a proxy re-signs TLS ({root.verify_message})"
    detail = root.strerror if isinstance(root, OSError) and root.strerror else type(root).__name__
    reason = next((reason for kind, reason in _NETWORK if isinstance(error, kind)), "cannot call {host}")
    return f"{reason.format(host=host)} ({detail})"


_NETWORK: tuple[tuple[type[requests.RequestException], str], ...] = (
    (requests.exceptions.ProxyError, "the proxy for {host} cannot be reached or refuses: check https_proxy, RELAY_PLATFORM_PROXY"),
    (requests.exceptions.SSLError, "TLS with {host} fails: check the port and the scheme of API_TARGET"),
    (requests.exceptions.Timeout, "{host} did not answer in time: check API_TARGET and the proxy settings"),
    (requests.exceptions.ConnectionError, "cannot reach {host}: check API_TARGET, the name resolution and the proxy settings"),
)


def _root(error: BaseException) -> BaseException:
    """Return the original error, which urllib3 and requests wrap several times."""
    for _ in range(10):
        inner = [*error.args, getattr(error, "reason", None), error.__cause__, error.__context__]
        causes = [value for value in inner if isinstance(value, BaseException)]
        if not causes:
            return error
        error = causes[0]
    return error
