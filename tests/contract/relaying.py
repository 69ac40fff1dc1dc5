"""How the contract tests run a command: payload in, the body of PROTOCOL §4 and its status out.

Connects the parts of the agent that this needs. What a test expects is in the test.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import BadRequest
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure
from relay_agent.protocol.requests import decode_request
from relay_agent.protocol.responses import failure_body, response_body
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.storage.spool import Spool
from relay_agent.transport.connection_pool import ConnectionPool
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.target_certificates import ca_pem


class Relay:
    """Runs commands one after the other, those with the same options on one worker's Executor, as the agent would."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._executors: dict[tuple[object, ...], Executor] = {}
        self._pools: dict[tuple[object, ...], ConnectionPool] = {}

    def __call__(
        self,
        payload: object,
        *,
        deadline: float = 8.0,
        before_send: Callable[[], None] = nothing,
        proxy: str = "none",
        no_proxy: str = "",
        trust: bool = True,
        max_response_bytes: int = 100_000_000,
        connect_seconds: float = 30.0,
        worker: int = 0,
    ) -> dict[str, Any]:
        """Execute one payload; `deadline` is what is left until expiresAt, in seconds, `trust` adds the tests' authority."""
        executor = self.executor(proxy, no_proxy, trust, max_response_bytes, connect_seconds, worker)
        return run(executor, payload, deadline, before_send, Spool(self._directory))

    def executor(
        self,
        proxy: str = "none",
        no_proxy: str = "",
        trust: bool = True,
        max_response_bytes: int = 100_000_000,
        connect_seconds: float = 30.0,
        worker: int = 0,
    ) -> Executor:
        """The Executor for these options; the same one for the same options."""
        key = (proxy, no_proxy, trust, max_response_bytes, connect_seconds, worker)
        if key not in self._executors:
            ca_file = self._directory / "ca.pem"
            ca_file.write_bytes(ca_pem())
            dialer = Dialer(TlsContexts(ca_file=ca_file if trust else None), Resolver())
            pool = self._pools.setdefault(key[:-1], ConnectionPool())  # shared by all workers, as in the agent
            transport = Transport(dialer, pool)
            limits = Limits(max_response_bytes=max_response_bytes, connect_seconds=connect_seconds)
            proxies = ProxyRouter({}, no_proxy, {Leg.TARGET: proxy})
            self._executors[key] = Executor(transport, Policy(), proxies, limits, self._directory)
        return self._executors[key]

    def close(self) -> None:
        """Close every connection that is kept."""
        for executor in self._executors.values():
            executor.close()
        for pool in self._pools.values():
            pool.close()


def run(executor: Executor, payload: object, deadline: float, before_send: Callable[[], None], spool: Spool) -> dict[str, Any]:
    """Decode, execute, and encode as PROTOCOL §4 has it, with the command's `status` beside."""
    try:
        request = decode_request(payload, keep=spool.hold)
    except BadRequest as error:
        return {"status": "FAILURE", **json.loads(failure_body(Failure(Code.EBADCOMMAND, str(error))))}
    seconds = deadline if request.timeout is None else min(request.timeout, deadline)
    try:
        outcome = executor.execute(request, Deadline(seconds), before_send)
    finally:
        if request.body is not None and not isinstance(request.body, bytes):
            request.body.close()
    if isinstance(outcome, Failure):
        return {"status": "FAILURE", **json.loads(failure_body(outcome))}
    try:
        body = json.loads("".join(response_body(outcome)))
    finally:
        outcome.content.close()
    return {"status": "SUCCESS" if outcome.status_code < 400 else "FAILURE", **body}


def code(answer: dict[str, Any]) -> object:
    """The code of a failure that has no HTTP response."""
    assert "statusCode" not in answer, f"an HTTP response came: {str(answer)[:500]}"
    assert answer["status"] == "FAILURE"
    return answer["code"]


def field(answer: dict[str, Any], name: str) -> object:
    """A header's value, or list of values, whatever the case of its name; None where it is missing."""
    return next((value for entry in answer["headers"] for key, value in entry.items() if key.lower() == name.lower()), None)


def _measure(url: str) -> None:
    """Relay one GET in this process and print how much text came out and how much memory that took at most."""
    with tempfile.TemporaryDirectory() as directory:
        relay = Relay(Path(directory))
        outcome = relay.executor().execute(decode_request({"url": url}), Deadline(20))
        assert not isinstance(outcome, Failure), outcome
        characters = sum(len(piece) for piece in response_body(outcome))
        outcome.content.close()
        relay.close()
    # VmHWM, not ru_maxrss: that one is inherited from the test process.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    print(json.dumps({"characters": characters, "peak_bytes": int(line.split()[1]) * 1024}))


if __name__ == "__main__":
    _measure(sys.argv[1])
