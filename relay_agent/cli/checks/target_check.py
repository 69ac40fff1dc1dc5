"""What would happen to a command for a URL (`explain`), and the check of one target: both trace the same route (docs/operations.md).

Owns the verdict on a trace, and what of a URL is shown. It must not know how a route is traced; `route_trace` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from relay_agent.cli.checks.result import Check, Status, error, ok, warnings
from relay_agent.cli.checks.route_trace import Stage, Walk, Walker
from relay_agent.config.network import load_rules, proxy_router, roots, tls_contexts
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import BadRequest
from relay_agent.core.failures import Code, FaultFacts
from relay_agent.core.models import CertificateRole, HttpRequest, Url
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.certificates import ending
from relay_agent.diagnostics.network_causes import TARGET_UNWELL, TO_TARGET, on_the_way
from relay_agent.diagnostics.peer_certificates import PeerCertificates
from relay_agent.protocol.requests import decode_request
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.telemetry.secret_patterns import MASK, shown_target
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport

SEND_SECONDS = 60.0
"""The time limit of `--send`, unless the agent's own is shorter."""
_NOT_IMPLEMENTED = 501


@dataclass(frozen=True, slots=True)
class Explained:
    """What would happen to a command. `url` is masked; `verdict` is the policy's, None if it was not asked."""

    url: str
    verdict: str | None
    code: str | None
    status_code: int | None
    proxy: str | None
    stages: tuple[Stage, ...]
    rule: str | None = None
    """The policy's rule that decided."""

    @property
    def goes_through(self) -> bool:
        """Whether a command would reach the target, as far as the trace went."""
        return all(stage.status is not Status.ERROR for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`; the summary of a failed stage includes cause and cure."""
        stages = [
            {"stage": stage.stage, "status": stage.status, "summary": _whole(stage), "seconds": round(stage.seconds, 4)}
            for stage in self.stages
        ]
        return {"url": self.url, "verdict": self.verdict, "rule": self.rule, "code": self.code, "proxy": self.proxy, "stages": stages}


def explain(settings: Settings, url: str, method: str | None = None, *, send: bool = False, secure: bool = False) -> Explained:
    """Trace the route of a command, and send its request if asked to."""
    try:
        request = replace(decode_request({"url": url, "method": method}), secure=secure)
    except BadRequest as problem:
        return _refused(problem)
    deadline = Deadline(settings.connect_timeout_seconds)
    ways = Ways(settings)
    walk = ways.walker().walk(request, deadline)
    if send and walk.fault is None:
        _send(ways, walk, request, Deadline(min(SEND_SECONDS, settings.request_timeout_seconds)))
    return _explained(walk)


def check_target(settings: Settings, url: str, seconds: float, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Check:
    """Check one target: trace the route, then send a HEAD."""
    try:
        request = decode_request({"url": url, "method": "HEAD"})
    except BadRequest as problem:
        refused = _refused(problem).stages[-1]
        assert refused.cause is not None
        return error(refused.cause, refused.summary)
    ways, deadline = Ways(settings, seconds), Deadline(seconds)
    walk = ways.walker().walk(request, deadline)
    if walk.fault is None:
        _send(ways, walk, request, deadline)
    return _checked(walk, ending(ways.peers.in_use(), now()))


def shown(url: Url) -> str:
    """Return the URL without user info, with its query masked."""
    return f"{url.scheme}://{url.netloc}{shown_target(url.target)}"


class Ways:
    """The agent's own means to call targets, made from its settings."""

    def __init__(self, settings: Settings, connect_seconds: float | None = None) -> None:
        self._settings = settings
        self._connect_seconds = min(settings.connect_timeout_seconds, connect_seconds or settings.connect_timeout_seconds)
        self.peers = PeerCertificates(time.monotonic)
        self._dialer = Dialer(tls_contexts(settings), Resolver(), self.peers.leg(CertificateRole.TARGET))
        self._proxies = proxy_router(settings)
        self._rules = load_rules(settings).rules

    def walker(self) -> Walker:
        """Make the walker that traces a route."""
        return Walker(self._dialer, self._proxies, roots=roots(self._settings), rules=self._rules, connect_seconds=self._connect_seconds)

    @contextmanager
    def executor(self) -> Iterator[Executor]:
        """Make the executor that sends a request, as a worker does."""
        limits = Limits(self._settings.max_response_bytes, self._connect_seconds)
        executor = Executor(Transport(self._dialer), lambda: self._rules, self._proxies, limits)
        try:
            yield executor
        finally:
            executor.close()


def _send(ways: Ways, walk: Walk, request: HttpRequest, deadline: Deadline) -> None:
    with ways.executor() as executor:
        ways.walker().send(walk, request, executor, deadline)


def _refused(problem: BadRequest) -> Explained:
    """Show nothing of an invalid URL, since any part of it may be a secret."""
    cause = on_the_way(FaultFacts(Code.EBADCOMMAND, "it"), TO_TARGET)
    return Explained(MASK, None, Code.EBADCOMMAND, None, None, (Stage("request", Status.ERROR, str(problem), 0.0, cause),))


def _explained(walk: Walk) -> Explained:
    proxy = walk.route.proxy.masked if walk.route.proxy else None
    verdict = "allow" if walk.verdict.allowed else "deny"
    return Explained(shown(walk.url), verdict, walk.code, walk.status_code, proxy, tuple(walk.stages), walk.verdict.rule)


def _whole(stage: Stage) -> str:
    return f"{stage.summary}: {stage.cause.cause}; {stage.cause.cure}" if stage.cause else stage.summary


def _checked(walk: Walk, found: Sequence[Problem]) -> Check:
    """Return the result of a trace; `found` are the certificates on the way that end soon."""
    where, fault = shown(walk.url), walk.fault
    if fault is not None and fault.cause is not None:
        via = f" through the proxy {walk.route.proxy.masked} ({walk.route.reason})" if walk.route.proxy else ""
        return error(fault.cause, f"{where}{via}: {fault.stage}: {fault.summary}")
    status = walk.status_code or 0
    if status >= 500 and status != _NOT_IMPLEMENTED:  # 501 means that the target does not know HEAD, but can be reached.
        return error(TARGET_UNWELL.about(status=status), f"{where}: http: answered {status}")
    if found:
        return warnings("target", [(one.cause, one.reason) for one in found], f"{where}: reached {_how(walk)}, answered {status}; ")
    return ok("target", f"{where}: reached {_how(walk)}, answered {status}")


def _how(walk: Walk) -> str:
    return f"through the proxy {walk.route.proxy.masked}" if walk.route.proxy else "directly"
