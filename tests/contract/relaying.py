"""How the contract tests run a command: payload in, the body of PROTOCOL §4 and its status out.

Connects the parts of the agent that this needs. What a test expects is in the test.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from relay_agent.config.policy_file import load_policy
from relay_agent.config.policy_tls import BaseTrust
from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import BadRequest
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure
from relay_agent.protocol.requests import decode_request
from relay_agent.protocol.responses import failure_body, response_body
from relay_agent.relay.target.concurrency import ConcurrencyLimit
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.storage.spool import Spool
from relay_agent.transport.connection_pool import ConnectionPool
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.target_settings import CallRules
from relay_agent.transport.tls import TlsContexts
from tests.target_certificates import ca_pem


class Options(TypedDict, total=False):
    """What a test may say of the agent that runs its command: the fields of `Setup`."""

    proxy: str
    no_proxy: str
    trust: bool | bytes
    max_response_bytes: int
    connect_seconds: float
    policy: str
    pool: ConnectionPool
    worker: int


@dataclass(frozen=True)
class Setup:
    """The agent that runs a command, and which of its workers does.

    `trust` adds the tests' authority, or these certificates (PEM), to certifi's roots. `policy` is the text of a policy file, which may
    name files in the relay's directory. `pool` holds the idle connections, in place of the one that all workers of such an agent share.
    """

    proxy: str = "none"
    no_proxy: str = ""
    trust: bool | bytes = True
    max_response_bytes: int = 100_000_000
    connect_seconds: float = 30.0
    policy: str = ""
    pool: ConnectionPool | None = None
    worker: int = 0


class Relay:
    """Runs commands one after the other, those with the same setup on one worker's Executor, as the agent would."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._executors: dict[Setup, Executor] = {}
        self._pools: dict[Setup, ConnectionPool] = {}
        self._rules: dict[tuple[object, ...], CallRules] = {}
        self._concurrency = ConcurrencyLimit()

    def __call__(
        self,
        payload: object,
        *,
        deadline: float = 8.0,
        before_send: Callable[[], None] = nothing,
        secure: bool = False,
        **options: Unpack[Options],
    ) -> dict[str, Any]:
        """Execute one payload; `deadline` is what is left until expiresAt, in seconds."""
        return run(self.executor(**options), payload, deadline, before_send, Spool(self._directory), secure)

    def executor(self, **options: Unpack[Options]) -> Executor:
        """The Executor for these options; the same one for the same options."""
        setup = Setup(**options)
        if setup not in self._executors:
            self._executors[setup] = self._build(setup)
        return self._executors[setup]

    def _build(self, setup: Setup) -> Executor:
        trusted = setup.trust if isinstance(setup.trust, bytes) else ca_pem()
        ca_file = self._directory / f"ca-{hashlib.sha256(trusted).hexdigest()[:16]}.pem"
        ca_file.write_bytes(trusted)
        dialer = Dialer(TlsContexts(ca_file=ca_file if setup.trust else None), Resolver())
        # Shared by all workers, as in the agent.
        pool = self._pools.setdefault(replace(setup, worker=0), setup.pool or ConnectionPool())
        rules = self.rules(setup.policy, bool(setup.trust))
        return Executor(
            Transport(dialer, pool),
            lambda: rules,
            ProxyRouter({}, setup.no_proxy, {Leg.TARGET: setup.proxy}),
            Limits(setup.max_response_bytes, setup.connect_seconds),
            self._directory,
            concurrency=self._concurrency,
        )

    def rules(self, policy: str, trust: bool = True) -> CallRules:
        """The rules of a policy file with this text; the same ones for all workers, as in the agent."""
        if not policy:
            return CallRules(Policy())
        if (policy, trust) not in self._rules:
            ca_file = self._directory / "ca.pem"
            ca_file.write_bytes(ca_pem())
            file = self._directory / "policy.toml"
            file.write_text(policy, encoding="utf-8")
            self._rules[policy, trust] = load_policy(file, trust=BaseTrust(ca_file=ca_file if trust else None)).rules
        return self._rules[policy, trust]

    def read_rules_again(self) -> None:
        """Read each policy anew when it is next used, as the agent does when one of its files has changed."""
        self._rules.clear()

    def close(self) -> None:
        """Close every connection that is kept."""
        for executor in self._executors.values():
            executor.close()
        for pool in self._pools.values():
            pool.close()


def run(
    executor: Executor, payload: object, deadline: float, before_send: Callable[[], None], spool: Spool, secure: bool = False
) -> dict[str, Any]:
    """Decode, execute, and encode as PROTOCOL §4 has it, with the command's `status` beside."""
    try:
        request = decode_request(payload, secure=secure, keep=spool.hold)
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
