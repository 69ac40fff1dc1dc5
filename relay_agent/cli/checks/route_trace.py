"""Traces the route of a command to its URL, stage by stage, up to the stage that fails.

Owns the stages and what is recorded of each. It must not open a connection itself: the agent's own dialer, proxies and policy do, so
that a trace shows what happens to a command. It sends nothing but the handshakes and CONNECT to a proxy, except for `send`, which lets
the agent's own Executor send the whole request.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from relay_agent.cli.checks.result import Status
from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Cause, Code, FaultFacts, Phase
from relay_agent.core.models import Failure, HttpRequest, HttpResponse, Url
from relay_agent.core.urls import parse_url
from relay_agent.diagnostics.network_causes import TO_TARGET, Destination, on_the_way
from relay_agent.relay.target.executor import Executor
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.policy import Policy, Verdict
from relay_agent.transport.progress import Progress
from relay_agent.transport.proxy_routing import Leg, ProxyRouter, Route
from relay_agent.transport.x509 import Certificate, read_certificate

STAGES = {
    Phase.NAME: "resolve",
    Phase.CONNECT: "connect",
    Phase.TLS: "tls",
    Phase.PROXY_NAME: "resolve",
    Phase.PROXY_CONNECT: "connect",
    Phase.PROXY_TLS: "proxy-tls",
    Phase.TUNNEL: "tunnel",
}
"""The stage of each of the dialer's phases."""
_PROXY_STATUSES = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; `cause` is set only if it failed."""

    stage: str
    status: Status
    summary: str
    seconds: float = 0.0
    cause: Cause | None = None


@dataclass(slots=True)
class Walk:
    """The result of a trace. `code` is the error code that a command would get (PROTOCOL §4), None if it would get an answer."""

    url: Url
    method: str
    route: Route
    verdict: Verdict
    stages: list[Stage] = field(default_factory=list)
    code: Code | None = None
    certificate: Certificate | None = None
    status_code: int | None = None

    @property
    def fault(self) -> Stage | None:
        """The stage that failed, None if all succeeded."""
        return next((stage for stage in self.stages if stage.status is Status.ERROR), None)


class _Trace(ExchangeObserver):
    """Notes the phases as the dialer enters them, and the addresses that it finds; stops at one that the policy denies."""

    def __init__(self, exchange: Exchange, policy: Policy | None) -> None:
        self._exchange = exchange
        self._policy = policy
        self.marks: list[tuple[Phase, float]] = []
        self.addresses: list[str] = []

    def entered(self, phase: Phase) -> None:
        self.marks.append((phase, time.monotonic()))

    def check_address(self, address: str) -> None:
        if address not in self.addresses:  # It is dialled once more for a look at a certificate that is refused.
            self.addresses.append(address)
        url, method = self._exchange.url, self._exchange.method
        verdict = self._policy.check_address(url, address, url.port, method) if self._policy else None
        if verdict is not None and not verdict.allowed:
            raise _Denied(address, verdict)


class Walker:
    """Traces one leg. `policy` is None for calls to the platform; `roots` describes the trusted CA bundle."""

    def __init__(
        self,
        dialer: Dialer,
        proxies: ProxyRouter,
        *,
        roots: str,
        policy: Policy | None = None,
        leg: Leg = Leg.TARGET,
        subject: Destination = TO_TARGET,
        connect_seconds: float = 30.0,
    ) -> None:
        self._dialer = dialer
        self._proxies = proxies
        self._roots = roots
        self._policy = policy
        self._leg = leg
        self._subject = subject
        self._connect_seconds = connect_seconds

    def walk(self, request: HttpRequest, deadline: Deadline) -> Walk:
        """Trace the route up to the last handshake."""
        allowed = Verdict(True, "the policy does not apply to the platform's addresses")
        verdict = self._policy.check_url(request.method, request.url) if self._policy else allowed
        found = Walk(request.url, request.method, self._proxies.route(self._leg, request.url), verdict)
        if not verdict.allowed:
            self._fail(found, "policy", FaultFacts(Code.EPOLICY, rule=verdict.rule), verdict.message, 0.0)
            return found
        found.stages.append(Stage("policy", Status.OK, verdict.rule))
        found.stages.append(Stage("proxy", Status.OK, _route(found.route)))
        self._dial(found, deadline)
        return found

    def send(self, found: Walk, request: HttpRequest, executor: Executor, deadline: Deadline) -> None:
        """Send the request after a trace without a fault, and record the outcome as the stage `http`."""
        began = time.monotonic()
        outcome = executor.execute(request, deadline)
        seconds = time.monotonic() - began
        if isinstance(outcome, Failure):
            self._failed(found, outcome, seconds)
            return
        try:
            self._judge(found, outcome, seconds)
        finally:
            outcome.content.close()

    def cause(self, facts: FaultFacts, url: Url) -> Cause:
        """Return the cause of a network fault of this URL, with the trusted roots."""
        return on_the_way(replace(facts, host=url.host, port=url.port), self._subject, self._roots)

    # --- up to the handshake ---

    def _dial(self, found: Walk, deadline: Deadline) -> None:
        exchange = Exchange(found.method, found.url, (), None, deadline, proxy=found.route.proxy, connect_seconds=self._connect_seconds)
        trace = _Trace(exchange, self._policy)
        try:
            with contextlib.closing(self._dialer.dial(exchange, Progress(exchange, trace))) as sock:
                ended = time.monotonic()
                self._passed(found, trace, ended, _Peer(sock))
        except _Denied as denied:
            found.verdict = denied.verdict
            self._stopped(found, trace, denied)
        except TransportFault as fault:
            self._stopped(found, trace, fault)

    def _passed(self, found: Walk, trace: _Trace, ended: float, peer: _Peer) -> None:
        if found.url.scheme == "https":
            found.certificate = read_certificate(peer.der)
        for phase, seconds in _spans(trace.marks, ended):
            found.stages.append(Stage(STAGES[phase], Status.OK, self._said(phase, found, trace, peer), seconds))

    def _said(self, phase: Phase, found: Walk, trace: _Trace, peer: _Peer) -> str:
        proxy = found.route.proxy
        if phase is Phase.NAME:
            return ", ".join(trace.addresses)
        if phase is Phase.PROXY_NAME:
            assert proxy is not None
            return f"the proxy {proxy.host}; the proxy resolves {found.url.host}, so the policy cannot judge its addresses"
        if phase is Phase.CONNECT:
            return f"connected to {peer.address}"
        if phase is Phase.PROXY_CONNECT:
            assert proxy is not None
            through = f", and through it to {found.url.host}:{found.url.port}" if proxy.scheme == "socks5h" else ""
            return f"connected to the proxy at {peer.address}{through}"
        if phase is Phase.TUNNEL:
            return f"the proxy opened a tunnel to {found.url.host}:{found.url.port}"
        if phase is Phase.PROXY_TLS:
            return f"TLS with the proxy, whose certificate is trusted by {self._roots}"
        return f"{peer.version}, {_described(found.certificate)}, trusted by {self._roots}"

    def _stopped(self, found: Walk, trace: _Trace, fault: TransportFault) -> None:
        """Note the stages before the fault, and the fault."""
        ended = time.monotonic()
        spans = list(_spans(trace.marks, ended))
        for phase, seconds in spans[:-1]:
            found.stages.append(Stage(STAGES[phase], Status.OK, self._before(phase, found, trace), seconds))
        phase, seconds = spans[-1]
        text = f"resolves to {fault.address}: {fault.message}" if isinstance(fault, _Denied) else fault.message
        status = fault.facts.status
        if status is not None and status >= 400:
            found.status_code = status  # A refused tunnel is an answer (PROTOCOL §4), which a command would get.
        self._fail(found, STAGES[phase], fault.facts, text, seconds)

    def _before(self, phase: Phase, found: Walk, trace: _Trace) -> str:
        proxy = found.route.proxy
        said = {
            Phase.NAME: ", ".join(trace.addresses),
            Phase.CONNECT: f"connected to port {found.url.port}",
            Phase.PROXY_NAME: f"the proxy {proxy.host}" if proxy else "",
            Phase.PROXY_CONNECT: "connected to the proxy",
            Phase.PROXY_TLS: "TLS with the proxy",
            Phase.TUNNEL: "the proxy opened a tunnel",
        }
        return said.get(phase, "")

    def _fail(self, found: Walk, stage: str, facts: FaultFacts, text: str, seconds: float) -> None:
        found.code = None if facts.status is not None and facts.status >= 400 else facts.code
        found.stages.append(Stage(stage, Status.ERROR, text, seconds, self.cause(facts, found.url)))

    # --- the answer ---

    def _failed(self, found: Walk, outcome: Failure, seconds: float) -> None:
        """Record why there is no answer; after redirects it names the last host, and the rule that denies it."""
        url = parse_url(outcome.url) if outcome.url else found.url
        text = outcome.message if url.origin == found.url.origin else f"redirected to {url.scheme}://{url.netloc}: {outcome.message}"
        facts = outcome.facts or FaultFacts(outcome.code)
        if facts.rule is not None:
            found.verdict = Verdict(False, facts.rule)
        found.code = outcome.code
        found.stages.append(Stage("http", Status.ERROR, text, seconds, self.cause(facts, url)))

    def _judge(self, found: Walk, response: HttpResponse, seconds: float) -> None:
        found.status_code = status = response.status_code
        proxy = found.route.proxy
        text = f"answered {status}"
        forwarded = proxy is not None and found.url.scheme == "http" and proxy.scheme != "socks5h"
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED or (forwarded and status in _PROXY_STATUSES):
            facts = FaultFacts(None, proxy=proxy.masked if proxy else None, status=status, forwarded=True)
            found.stages.append(Stage("http", Status.ERROR, text, seconds, self.cause(facts, found.url)))
        elif status >= 400:
            found.stages.append(Stage("http", Status.WARNING, f"{text}: a command would end as FAILURE with this statusCode", seconds))
        else:
            found.stages.append(Stage("http", Status.OK, text, seconds))


class _Denied(TransportFault):
    """The policy forbids an address that the name resolves to."""

    def __init__(self, address: str, verdict: Verdict) -> None:
        super().__init__(Code.EPOLICY, verdict.message, rule=verdict.rule)
        self.address = address
        self.verdict = verdict


class _Peer:
    """What a connected socket knows of its peer."""

    def __init__(self, sock: Any) -> None:
        self.version = sock.version() if hasattr(sock, "version") else ""
        self.der: bytes = (sock.getpeercert(True) if hasattr(sock, "getpeercert") else None) or b""
        try:
            host, port = sock.getpeername()[:2]
        except OSError:
            host, port = "an unknown address", 0
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _spans(marks: list[tuple[Phase, float]], ended: float) -> Iterator[tuple[Phase, float]]:
    ends = [began for _, began in marks[1:]] + [ended]
    for (phase, began), end in zip(marks, ends, strict=True):
        yield phase, end - began


def _route(route: Route) -> str:
    return f"directly: {route.reason}" if route.proxy is None else f"{route.proxy.masked}: {route.reason}"


def _described(certificate: Certificate | None) -> str:
    if certificate is None:
        return "a certificate that cannot be read"
    return f"subject {certificate.subject}, issuer {certificate.issuer}, expires {certificate.not_after:%Y-%m-%d}"


def ends_soon(certificate: Certificate | None, days: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> bool:
    """Whether a certificate expires within so many days."""
    return certificate is not None and certificate.left(now()).days < days
