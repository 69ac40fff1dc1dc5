"""The sender's calls to the platform: post a command, and wait until it is finished (PROTOCOL §1).

This module owns the calls and what their failures mean. It must not know what a payload or an answer holds: `commands` and `encoding` do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import PlatformError, PlatformRefused, RateLimited, UnknownAgent
from relay_agent.core.models import ACTION_HTTP, ACTION_SECURE
from relay_agent.pipelines.commands import (
    ANSWER_GRACE_SECONDS,
    MINIMUM_TTL_SECONDS,
    UNDER_WAY,
    Command,
    command,
    posted,
)
from relay_agent.pipelines.encoding import Answer
from relay_agent.pipelines.failures import Kind, NoAnswer, Unreached
from relay_agent.pipelines.long_json import PIECE_BYTES, read_json
from relay_agent.pipelines.network_faults import too_slow, unreached
from relay_agent.pipelines.threads import Threads
from relay_agent.protocol.keyring import Keyring

__all__ = ["ACTION_HTTP", "ACTION_SECURE", "CommandClient", "NoAnswer"]

CALL_TIMEOUT_SECONDS = (10.0, 30.0)
"""Connecting, and each read of an answer; for a large request's first byte the whole rest of the time."""
LARGE_BYTES = 64 * 1024
"""A larger request is sent in pieces: urllib3 applies the limit for connecting to whatever is sent at once."""
_MARGIN_SECONDS = 0.25
"""How long before its caller stops waiting a call ends by itself, so that the reason is the exact one."""
RATE_LIMIT_SECONDS = 30.0
"""How long `create` keeps trying while the platform answers 429."""
LAST_POLL_SECONDS = 1.0
"""How long before its end a wait polls for the last time."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 2.0
_PAUSE_SHARE = 0.25
"""A pause between two polls, as a part of the time that has passed."""
_MAX_ERROR_BYTES = 64 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+")
POOL_CONNECTIONS = 64
"""As many as an AsyncClient has requests under way (`httpx.MAX_REQUESTS`); requests' own 10 would close and open the others each time."""
_THREADS = Threads("relay-platform")


class CommandClient:
    """Posts commands for one agent. As safe for several threads as its `session` is.

    `session` brings proxies and certificates for the way to the platform; without one, the client makes its own, which takes both from
    the environment as requests does, but no password from `.netrc`. Setting `stop` ends every wait early.
    """

    def __init__(
        self,
        api_target: str,
        org_slug: str,
        jwt: str,
        agent_id: str,
        session: requests.Session | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        if not _TOKEN.fullmatch(jwt) or not _TOKEN.fullmatch(org_slug):
            raise ValueError("the JWT and the ORG_SLUG must be visible ASCII characters")
        if urlsplit(api_target).scheme not in ("http", "https") or not urlsplit(api_target).hostname:
            raise ValueError("the API_TARGET must be a URL with its scheme, such as https://api.tetrascience.com")
        self.agent_id = agent_id
        self._org_slug = org_slug
        self._base = api_target.rstrip("/").removesuffix("/v1").rstrip("/")
        self._headers = {"ts-auth-token": jwt, "x-org-slug": org_slug, "Accept": "application/json"}
        self._host = urlsplit(api_target).hostname or ""
        self._owned = session is None
        self._session = session if session is not None else _own_session()
        self._stop = stop

    def close(self) -> None:
        """Close the connections to the platform, unless the session was given; the client stays usable."""
        if self._owned:
            self._session.close()

    def create(self, action: str, payload: Mapping[str, Any], *, ttl_seconds: float, metadata: Mapping[str, str] | None = None) -> str:
        """Post a command that expires in `ttl_seconds` (at least 65), and return its id. It is never posted twice.

        Raises:
            PlatformRefused, UnknownAgent, RateLimited, PlatformError: the message says what to do about it.
            TooLarge: the platform would not accept it.
        """
        expires_at = datetime.now(UTC) + timedelta(seconds=max(ttl_seconds, MINIMUM_TTL_SECONDS))
        return self._create(Command(action, payload, expires_at), metadata, Deadline(max(ttl_seconds, MINIMUM_TTL_SECONDS)))

    def wait(self, command_id: str, timeout: float) -> dict[str, Any]:
        """Poll the command until it is finished, for `timeout` seconds and one more poll; return it, a long text in it as a `LongText`.

        Raises:
            NoAnswer: it is not finished, or `stop` was set.
            PlatformRefused, UnknownAgent, PlatformError: the platform refuses the question, or could not be reached to the end.
        """
        return _Wait(self, command_id, Deadline(timeout), Deadline(timeout + LAST_POLL_SECONDS)).run()

    def exchange(self, payload: Mapping[str, Any], *, timeout_seconds: float, keyring: Keyring | None = None) -> Answer:
        """Have the agent send one HTTP request (PROTOCOL §3), and return the answer; a `keyring` makes it a secure command.

        Takes at most `timeout_seconds` and 10 more.

        Raises:
            NoAnswer, PlatformError: as `create` and `wait`.
            BadAnswer: the answer cannot be read, or the answer to a secure command is not encrypted.
            SecureCommandError: the answer cannot be decrypted, or is another command's.
        """
        until = Deadline(timeout_seconds + ANSWER_GRACE_SECONDS)
        asked = command(payload, self.agent_id, timeout_seconds, keyring)
        command_id = self._create(asked, None, until)
        last_poll = Deadline(until.remaining() - LAST_POLL_SECONDS)
        return asked.read(_Wait(self, command_id, last_poll, until).run_or_no_answer())

    def _create(self, asked: Command, metadata: Mapping[str, str] | None, deadline: Deadline) -> str:
        data = posted(asked, self.agent_id, metadata)
        repeating = deadline.at_most(RATE_LIMIT_SECONDS)
        while True:
            try:
                command_id = self.call("POST", "/v1/commands", deadline, data).get("id")
            except RateLimited as error:  # The platform did not accept it, so it may be posted again.
                pause = error.retry_after + secrets.randbelow(1000) / 1000
                if pause > repeating.remaining() or self.stopped(pause):
                    raise
                continue
            if not isinstance(command_id, str) or not command_id:
                raise PlatformError("POST /v1/commands", "the answer names no command id: is API_TARGET the platform's API?")
            return command_id

    def stopped(self, seconds: float) -> bool:
        """Wait for `stop`, at most so many seconds; return whether it was set."""
        return (self._stop or threading.Event()).wait(seconds)

    def call(self, method: str, path: str, deadline: Deadline, data: bytes | None = None) -> dict[str, Any]:
        """Call the platform once, until `deadline` at the latest, and return the JSON object that it answers.

        Raises:
            PlatformRefused, UnknownAgent, RateLimited, Unreached, PlatformError: there is none.
        """
        call = f"{method} {re.sub(r'(?<=/v1/commands/).+', '{id}', path)}"
        asked = _Asked()
        result = _THREADS.run(lambda: self._called(asked, call, (method, path), deadline, data))
        try:
            if result not in wait({result}, max(deadline.remaining(), 2 * _MARGIN_SECONDS)).done:
                raise too_slow(call, self._host)
        finally:
            if not result.done():
                asked.give_up()
        try:
            return result.result()
        finally:
            del result  # Otherwise this frame and the exception would keep each other, and the request with them.

    def _called(self, asked: _Asked, call: str, request: tuple[str, str], deadline: Deadline, data: bytes | None) -> dict[str, Any]:
        method, path = request
        large = data is not None and len(data) > LARGE_BYTES
        left = max(deadline.remaining() - _MARGIN_SECONDS, _MARGIN_SECONDS)
        timeout = (min(left, CALL_TIMEOUT_SECONDS[0]), left if large else min(left, CALL_TIMEOUT_SECONDS[1]))
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        body = io.BytesIO(data) if large and data is not None else data
        try:
            with self._session.request(
                method, self._base + path, data=body, headers=headers, timeout=timeout, allow_redirects=False, stream=True
            ) as response:
                asked.response = response
                return self._read(call, response, deadline)
        except requests.RequestException as error:
            found = unreached(call, error, self._host)
        except OSError as error:  # requests raises it as it is, where it finds no file of REQUESTS_CA_BUNDLE.
            found = Unreached(call, str(error), Kind.REFUSED, errno.errorcode.get(error.errno or errno.ENOENT, "ENOENT"))
        try:
            raise found  # Outside the except, so that no traceback shows the original, which may hold a proxy's password.
        finally:
            del found

    def _read(self, call: str, response: requests.Response, deadline: Deadline) -> dict[str, Any]:
        status = response.status_code
        if 200 <= status < 300:
            answer = _json_object(_limited(response.iter_content(PIECE_BYTES), deadline.remaining))
            if answer is None:
                raise PlatformError(call, "the answer is not a JSON object: is API_TARGET the platform's API?", status)
            return answer
        reason = _message(_json_object(iter([next(response.iter_content(_MAX_ERROR_BYTES), b"")])))
        if status in (401, 403):
            cure = f"JWT and ORG_SLUG ({self._org_slug}) do not belong together, the JWT has expired, or it lacks the role for commands"
            raise PlatformRefused(call, f"the platform refused it ({status}): {cure}", status)
        if status == 404:
            raise UnknownAgent(call, f"not found: {reason}; check AGENT_ID ({self.agent_id}), ORG_SLUG and API_TARGET", status)
        if status == 429:
            raise RateLimited(call, _retry_after(response))
        raise PlatformError(call, f"the platform answered {status}: {reason}", status)


class _Asked:
    """One call under way on a thread of its own, and its response as soon as that has begun."""

    response: requests.Response | None = None

    def give_up(self) -> None:
        """Have the reading end at once. A call without a response ends with the connection's own limits."""
        with contextlib.suppress(AttributeError, ValueError, RuntimeError, OSError):
            if self.response is not None:
                self.response.raw.shutdown()


class _Wait:
    """Polls for one command until `last_poll`; no call lasts beyond `end`."""

    def __init__(self, client: CommandClient, command_id: str, last_poll: Deadline, end: Deadline) -> None:
        self._client = client
        self._id = command_id
        self._last_poll = last_poll
        self._end = end
        self._status = ""
        self._error: PlatformError | None = None

    def run_or_no_answer(self) -> dict[str, Any]:
        """Return the finished command, its id included; whatever kept it from coming in time is a NoAnswer."""
        try:
            return {**self.run(), "id": self._id}
        except PlatformError as error:
            if not _may_pass(error):
                raise
            raise NoAnswer(self._id, self._status, round(self._end.elapsed(), 1), str(error)) from None
        except NoAnswer as error:
            raise NoAnswer(self._id, error.status, round(self._end.elapsed(), 1)) from None

    def run(self) -> dict[str, Any]:
        while True:
            finished = self._poll()
            if finished is not None:
                return finished
            if self._last_poll.passed or self._client.stopped(min(self._pause(), self._last_poll.remaining())):
                raise self._error or NoAnswer(self._id, self._status, self._last_poll.seconds)

    def _poll(self) -> dict[str, Any] | None:
        try:
            found = self._client.call("GET", f"/v1/commands/{quote(self._id, safe='')}", self._end)
        except PlatformError as error:
            if not _may_pass(error):
                raise
            self._error = error
            return None
        self._error, self._status = None, str(found.get("status", ""))
        return found if self._status and self._status not in UNDER_WAY else None

    def _pause(self) -> float:
        """Return the seconds until the next poll: 10 ms at first, then a quarter of the time that has passed, at most 2 s."""
        pause = min(max(_FIRST_PAUSE_SECONDS, self._last_poll.elapsed() * _PAUSE_SHARE), _LONGEST_PAUSE_SECONDS)
        if self._error is None:
            return pause
        return max(pause, self._error.retry_after if isinstance(self._error, RateLimited) else 1.0)


def _own_session() -> requests.Session:
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=POOL_CONNECTIONS))
    session.auth = _unchanged  # Otherwise requests would look for a password in .netrc.
    return session


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _limited(chunks: Iterator[bytes], remaining: Callable[[], float]) -> Iterator[bytes]:
    """Yield the chunks while there is time."""
    for chunk in chunks:
        yield chunk
        if not remaining():
            raise requests.exceptions.ReadTimeout("the answer took too long")


def _may_pass(error: PlatformError) -> bool:
    """Return whether a retry may help: after a network fault, a rate limit, or a 5xx."""
    return isinstance(error, Unreached) or error.status is None or error.status == 429 or error.status >= 500


def _json_object(chunks: Iterator[bytes]) -> dict[str, Any] | None:
    try:
        value = read_json(chunks)
    except ValueError as error:
        if isinstance(error, requests.RequestException):
            raise
        return None
    return value if isinstance(value, dict) else None


def _message(answer: dict[str, Any] | None) -> str:
    """Return the platform's message, cut to one line; the text of anything else, such as a proxy's page, is not repeated."""
    message = (answer or {}).get("message")
    return " ".join(message.split())[:300] if isinstance(message, str) else "without a reason; is there a proxy in between?"


def _retry_after(response: requests.Response) -> float:
    value = response.headers.get("Retry-After", "").strip()
    return float(value) if re.fullmatch(r"\d{1,5}", value) else 1.0
