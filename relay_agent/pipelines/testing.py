"""For the tests of code that sends through an agent: an agent in this process, and a `context` for the sandbox.

Owns these two stand-ins. `LocalAgent` runs the agent's own code, which the extra `testing` installs; nothing else of `pipelines` may.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from relay_agent.core.clock import Deadline, iso
from relay_agent.core.errors import BadRequest
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, HttpRequest, HttpResponse
from relay_agent.pipelines.answer_table import UNANSWERED, Answers, found_in
from relay_agent.pipelines.commands import UNDER_WAY, command, posted
from relay_agent.pipelines.context_client import Ttl
from relay_agent.pipelines.encoding import Answer
from relay_agent.pipelines.long_json import PIECE_BYTES, as_text, read_json
from relay_agent.protocol.keyring import Keyring

if TYPE_CHECKING:
    from relay_agent.relay.target.executor import Executor

Json = dict[str, Any]
__all__ = ["Answers", "LocalAgent", "SandboxContext"]


_NEEDS_EXTRA = "LocalAgent executes with the agent's own code, which needs {}: pip install 'tdp-relay-agent[testing]'"


class LocalAgent:
    """A client that executes in this process with the agent's own code: no platform, no queue. Safe for several threads.

    With `answers` it calls nothing, and answers from this table (`Answers` says what may be in it); a URL's query counts only if the table
    names it. `ca_file` is what
    RELAY_CA_FILE is to the agent: further roots to trust, in PEM. `requests` holds the payload of each request, as the agent would get it.
    """

    _lock: threading.Lock
    _new_executor: Callable[[], Executor] | None
    _close: Callable[[], None] | None

    def __init__(self, answers: Answers | None = None, *, ca_file: str | Path | None = None, agent_id: str = "local-agent") -> None:
        self.agent_id = agent_id
        self.requests: list[Json] = []
        self._answers = answers
        self._ca_file = None if ca_file is None else Path(ca_file)
        self._reset()

    def exchange(self, payload: Mapping[str, Any], *, timeout_seconds: float, keyring: Keyring | None = None) -> Answer:
        """Execute one HTTP request (PROTOCOL §3) and return the answer; a `keyring` seals both on the way, as a secure command.

        Raises:
            BadAnswer, SecureCommandError: as any client.
            TooLarge: no agent could get this request.
            ValueError: what the table has for it is no answer.
            ModuleNotFoundError: the extra `testing` is not installed.
        """
        # Through JSON and the envelope, as on the way to an agent: what cannot go there must not work here.
        asked = command(payload, self.agent_id, timeout_seconds, keyring)
        command_id = str(uuid.uuid4())
        received = json.loads(posted(asked, self.agent_id))["payload"]
        if keyring is not None:
            received = self._opened(received, keyring)
        self.requests.append(dict(received))
        status, pieces = self._run(received, timeout_seconds)
        if keyring is not None and status not in UNANSWERED:
            status, pieces = self._sealed(status, pieces, keyring, command_id, asked.jti)
        body = read_json(piece.encode("utf-8", "surrogatepass") for piece in pieces)
        return asked.read({"id": command_id, "status": status, "responseBody": body})

    def close(self) -> None:
        """Close the kept connections to targets; the agent stays usable."""
        with self._lock:
            close = self._close
            self._new_executor = self._close = None
        if close is not None:
            close()

    def __getstate__(self) -> Json:
        """Leave out what is built when it is needed: a session of requests is pickled with its adapters, and so with their clients."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_new_executor", "_close")}

    def __setstate__(self, state: Json) -> None:
        """Take the rest, and make a lock."""
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._new_executor = None
        self._close = None

    def _opened(self, payload: Mapping[str, Any], keyring: Keyring) -> Json:
        from relay_agent.protocol.jwe import open_command

        found: Json = json.loads(open_command(payload["jwe"], keyring, agent_id=self.agent_id, now=datetime.now(UTC)).plaintext)
        return found

    def _sealed(self, status: str, pieces: Iterator[str], keyring: Keyring, command_id: str, jti: str) -> tuple[str, Iterator[str]]:
        from relay_agent.protocol.jwe import seal_answer
        from relay_agent.protocol.responses import sealed_body, sealed_failure

        plaintext = "".join(pieces).encode("utf-8", "surrogatepass")
        inside = json.loads(plaintext)
        jwe = "".join(seal_answer([plaintext], keyring, cid=command_id, jti=jti))
        if "statusCode" not in inside:
            return status, iter([sealed_failure(inside["code"], jwe)])
        before, after = sealed_body(inside["statusCode"])
        return status, iter([before, jwe, after])

    def _run(self, payload: Mapping[str, Any], timeout_seconds: float) -> tuple[str, Iterator[str]]:
        from relay_agent.protocol.requests import decode_request

        try:
            request = decode_request(dict(payload))
        except BadRequest as error:
            return _failed(Failure(Code.EBADCOMMAND, str(error)))
        if request.not_after is not None and request.not_after <= datetime.now(UTC):
            return _failed(Failure(Code.EEXPIRED, "the command expired before it could start"), "REJECTED")
        if self._answers is not None:
            return self._from_table(self._answers, request.method, payload)
        return self._executed(request, min(request.timeout or timeout_seconds, timeout_seconds))

    def _executed(self, request: HttpRequest, seconds: float) -> tuple[str, Iterator[str]]:
        from relay_agent.protocol.responses import response_body

        outcome = self._executor().execute(request, Deadline(seconds))
        if isinstance(outcome, Failure):
            return _failed(outcome)
        return "SUCCESS" if outcome.status_code < 400 else "FAILURE", _closing(outcome, response_body(outcome))

    def _executor(self) -> Executor:
        with self._lock:
            if self._new_executor is None:
                try:
                    self._new_executor = self._prepared()
                except ModuleNotFoundError as error:
                    raise ModuleNotFoundError(_NEEDS_EXTRA.format(error.name), name=error.name) from None
            new = self._new_executor
        return new()

    def _prepared(self) -> Callable[[], Executor]:
        """Load the agent's code, which takes longer than loading the rest, and build what its workers share."""
        from relay_agent.relay.target.executor import Executor, Limits
        from relay_agent.transport.connection_pool import ConnectionPool
        from relay_agent.transport.dialer import Dialer
        from relay_agent.transport.policy import Policy
        from relay_agent.transport.proxy_routing import ProxyRouter
        from relay_agent.transport.resolver import Resolver
        from relay_agent.transport.session import Transport
        from relay_agent.transport.target_settings import CallRules
        from relay_agent.transport.tls import TlsContexts

        dialer, pool = Dialer(TlsContexts(ca_file=self._ca_file), Resolver()), ConnectionPool()
        rules, router = CallRules(Policy()), ProxyRouter({})
        # Closed also when nobody holds the agent any more: a session that is never closed is no error of its owner's.
        self._close = weakref.finalize(self, pool.close)
        return lambda: Executor(Transport(dialer, pool), lambda: rules, router, Limits())

    def _from_table(self, answers: Answers, method: str, payload: Mapping[str, Any]) -> tuple[str, Iterator[str]]:
        status, found = found_in(answers, method, payload)
        if isinstance(found, Failure):
            return _failed(found, status)
        return status, iter([json.dumps(found)])


class SandboxContext:
    """A task script's `context` for the sandbox at `url`: its `run_cmd` is that of ts-sdk 2.3 or later, but silent and quick.

    To a `ContextClient`, which reads it in pieces, it gives a long body as a `LongText`; to anybody else as text. `org_slug` is the
    sandbox's. Everything else of the SDK's context is missing.
    """

    def __init__(self, url: str, org_slug: str = "sandbox") -> None:
        self.org_slug = org_slug
        self._url = url.rstrip("/") + "/internal"
        self._headers = {"x-org-slug": org_slug}

    def run_cmd(
        self,
        target_id: str,
        action: str,
        metadata: Mapping[str, Any] | None,
        payload: Mapping[str, Any],
        ttl_sec: int = 300,
        initial_delay_sec: int = 0,
        return_command: bool = False,
    ) -> Any:
        """Post a command, wait for its end, and return its response body, or all of it; raises a bare Exception as the SDK does."""
        if not 60 <= ttl_sec <= 900:
            raise Exception("Param ttl_sec must be between 60 and 900 seconds")  # noqa: TRY002  # as the SDK
        with requests.Session() as session:
            session.trust_env = False
            expires_at = iso(datetime.fromtimestamp(time.time() + ttl_sec, UTC))
            body = {"targetId": target_id, "action": action, "metadata": dict(metadata or {}), "expiresAt": expires_at, "payload": payload}
            created = session.post(self._url, json=body, headers=self._headers, timeout=30)
            if created.status_code != 200:
                raise Exception(created.text)  # noqa: TRY002  # as the SDK
            found = self._finished(session, created.json()["id"], ttl_sec)
        if not isinstance(ttl_sec, Ttl):
            found = as_text(found)
        if return_command:
            return found
        if found["status"] != "SUCCESS":
            raise Exception(found.get("responseBody") or "Command TTL has expired")  # noqa: TRY002  # as the SDK
        return found.get("responseBody")

    def _finished(self, session: requests.Session, command_id: str, ttl_sec: int) -> Json:
        deadline = Deadline(float(ttl_sec))
        while True:
            with session.get(f"{self._url}/{command_id}", headers=self._headers, timeout=30, stream=True) as response:
                found: Json = read_json(response.iter_content(PIECE_BYTES))
            if found["status"] not in UNDER_WAY or deadline.passed:
                return found
            pause = min(0.05 + deadline.elapsed() * 0.1, ttl_sec - deadline.elapsed())
            time.sleep(max(pause, 0.0))  # noqa: TID251  # The SDK's own way of waiting; nothing here could end it.


def _failed(failure: Failure, status: str = "FAILURE") -> tuple[str, Iterator[str]]:
    from relay_agent.protocol.responses import failure_body

    return status, iter([failure_body(failure)])


def _closing(response: HttpResponse, pieces: Iterator[str]) -> Iterator[str]:
    try:
        yield from pieces
    finally:
        response.content.close()
