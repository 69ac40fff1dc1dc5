"""Traces the route of a command to its URL, stage by stage, up to the stage that fails.

Owns the stages and what is recorded of each. It must not open a connection itself: the agent's own dialer, proxies and policy do, so
that a trace shows what happens to a command. It sends nothing but the handshakes and CONNECT to a proxy, except for `send`, which lets
the agent's own Executor send the whole request.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from ssl import TLSVersion
from typing import Any

from relay_agent.cli.checks.result import Status
from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Cause, Code, FaultFacts, Phase
from relay_agent.core.models import Failure, HttpRequest, HttpResponse, Url, host_and_port
from relay_agent.core.urls import parse_url
from relay_agent.diagnostics.network_causes import TO_TARGET, Destination, on_the_way
from relay_agent.relay.target.executor import Executor
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.policy import Policy, TargetCall, Verdict
from relay_agent.transport.progress import Progress
from relay_agent.transport.proxy_routing import Leg, ProxyRouter, Route
from relay_agent.transport.target_settings import NO_SETTINGS, CallRules, TargetSettings
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
_VERSIONS = {TLSVersion.TLSv1_2: "1.2", TLSVersion.TLSv1_3: "1.3"}
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
    target: TargetSettings = NO_SETTINGS
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

    def __init__(self, call: TargetCall, policy: Policy | None) -> None:
        self._call = call
        self._policy = policy
        self.marks: list[tuple[Phase, float]] = []
        self.addresses: list[str] = []
        self.verdict: Verdict | None = None

    def entered(self, phase: Phase) -> None:
        self.marks.append((phase, time.monotonic()))

    def check_addresses(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        if self._policy is not None:
            self.verdict = self._policy.check_addresses(self._call, addresses)
            if not self.verdict.allowed:
                raise _Denied(", ".join(addresses), self.verdict)


class Walker:
    """Traces one leg. `rules` is None for calls to the platform; `roots` describes the trusted CA bundle."""

    def __init__(
        self,
        dialer: Dialer,
        proxies: ProxyRouter,
        *,
        roots: str,
        rules: CallRules | None = None,
        leg: Leg = Leg.TARGET,
        subject: Destination = TO_TARGET,
        connect_seconds: float = 30.0,
    ) -> None:
        self._dialer = dialer
        self._proxies = proxies
        self._roots = roots
        self._policy = rules.policy if rules else None
        self._rules = rules
        self._leg = leg
        self._subject = subject
        self._connect_seconds = connect_seconds

    def walk(self, request: HttpRequest, deadline: Deadline) -> Walk:
        """Trace the route up to the last handshake."""
        allowed = Verdict(True, "the policy does not apply to the platform's addresses")
        target = self._rules.target(request.url.host) if self._rules else NO_SETTINGS
        route = target.route or self._proxies.route(self._leg, request.url)
        call = TargetCall(request.method, request.url, request.secure, None if route.proxy is None else ())
        verdict = self._policy.check_url(call) if self._policy else allowed
        found = Walk(request.url, request.method, route, verdict, target)
        if not verdict.allowed:
            self._fail(found, "policy", FaultFacts(Code.EPOLICY, rule=verdict.rule), verdict.message, 0.0)
            return found
        would = f"; {verdict.would_refuse} would refuse it in the mode enforce" if verdict.would_refuse else ""
        found.stages.append(Stage("policy", Status.WARNING if would else Status.OK, f"{verdict.rule}{_if_undecided(verdict)}{would}"))
        if target is not NO_SETTINGS:
            found.stages.append(Stage("target", Status.OK, described_settings(target)))
        found.stages.append(Stage("proxy", Status.OK, described_route(found.route)))
        self._dial(found, call, deadline)
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
        own = facts.certificate is not None and facts.certificate.of_table
        return on_the_way(replace(facts, host=url.host, port=url.port), self._subject, None if own else self._roots)

    # --- up to the handshake ---

    def _dial(self, found: Walk, call: TargetCall, deadline: Deadline) -> None:
        exchange = Exchange(
            found.method,
            found.url,
            (),
            None,
            deadline,
            proxy=found.route.proxy,
            connect_seconds=self._connect_seconds,
            tls=found.target.tls,
            proxy_auth=found.target.proxy_auth,
        )
        trace = _Trace(call, self._policy)
        try:
            with contextlib.closing(self._dialer.dial(exchange, Progress(exchange, trace))) as sock:
                ended = time.monotonic()
                self._passed(found, trace, ended, _Peer(sock))
        except TransportFault as fault:
            self._stopped(found, trace, fault)

    def _passed(self, found: Walk, trace: _Trace, ended: float, peer: _Peer) -> None:
        if trace.verdict == found.verdict:
            trace.verdict = None  # The policy says nothing of the addresses that it has not said of the host.
        elif trace.verdict is not None:
            found.verdict = trace.verdict
        if found.url.scheme == "https":
            found.certificate = read_certificate(peer.der)
        for phase, seconds in _spans(trace.marks, ended):
            found.stages.append(Stage(STAGES[phase], Status.OK, self._said(phase, found, trace, peer), seconds))

    def _said(self, phase: Phase, found: Walk, trace: _Trace, peer: _Peer) -> str:
        proxy = found.route.proxy
        if phase is Phase.NAME:
            return f"{', '.join(trace.addresses)}{_decided(trace.verdict)}"
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
        trusted = found.target.tls.description if found.target.tls else self._roots
        return f"{peer.version}, {_described(found.certificate)}, trusted by {trusted}"

    def _stopped(self, found: Walk, trace: _Trace, fault: TransportFault) -> None:
        """Note the stages before the fault, and the fault."""
        ended = time.monotonic()
        spans = list(_spans(trace.marks, ended))
        for phase, seconds in spans[:-1]:
            found.stages.append(Stage(STAGES[phase], Status.OK, self._before(phase, found, trace), seconds))
        phase, seconds = spans[-1]
        text = f"resolves to {fault.addresses}: {fault.message}" if isinstance(fault, _Denied) else fault.message
        status = fault.facts.status
        if status is not None and status >= 400:
            found.status_code = status  # A refused tunnel is an answer (PROTOCOL §4), which a command would get.
        _note_denial(found, fault.facts)
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
        _note_denial(found, facts)
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


def _note_denial(found: Walk, facts: FaultFacts) -> None:
    if facts.rule is not None:
        found.verdict = Verdict(False, facts.rule)


class _Denied(TransportFault):
    """The policy forbids the addresses that the name resolves to."""

    def __init__(self, addresses: str, verdict: Verdict) -> None:
        super().__init__(Code.EPOLICY, verdict.message, rule=verdict.rule)
        self.addresses = addresses


class _Peer:
    """What a connected socket knows of its peer."""

    def __init__(self, sock: Any) -> None:
        self.version = sock.version() if hasattr(sock, "version") else ""
        self.der: bytes = (sock.getpeercert(True) if hasattr(sock, "getpeercert") else None) or b""
        try:
            host, port = sock.getpeername()[:2]
        except OSError:
            host, port = "an unknown address", 0
        self.address = host_and_port(host, port)


def _spans(marks: list[tuple[Phase, float]], ended: float) -> Iterator[tuple[Phase, float]]:
    """Yield each phase with its seconds; one that a proxy made necessary once more, by asking for credentials, stands where it was last."""
    ends = [began for _, began in marks[1:]] + [ended]
    found: dict[Phase, float] = {}
    for (phase, began), end in zip(marks, ends, strict=True):
        found[phase] = found.pop(phase, 0.0) + end - began
    yield from found.items()


def _if_undecided(verdict: Verdict) -> str:
    return ", if the addresses of the name match" if verdict.undecided else ""


def _decided(verdict: Verdict | None) -> str:
    """What the policy says of a name's addresses, if that is more than it said of the name."""
    if verdict is None:
        return ""
    return f": {verdict.rule}" if verdict.would_refuse is None else f": {verdict.would_refuse} would refuse it in the mode enforce"


def described_settings(target: TargetSettings) -> str:
    """Name the settings of a target's table; no value of a header is shown."""
    tls = target.tls
    parts = [
        f"certificates are trusted by {tls.description}" if tls else "",
        f"client certificate {tls.client.certificate}" if tls and tls.client else "",
        f"TLS {_VERSIONS[tls.minimum]} or later" if tls else "",
        f"{len(tls.pins)} pinned key{'' if len(tls.pins) == 1 else 's'}" if tls and tls.pins else "",
        "" if target.allow_ignore_tls else "ignore_tls_certificate is refused",
        f"proxy {target.route.proxy.masked if target.route.proxy else 'none'}" if target.route else "",
        f"at most {target.max_concurrency} at a time" if target.max_concurrency else "",
        f"at most {target.timeout_seconds:g} s" if target.timeout_seconds else "",
        f"at most {target.max_response_bytes:,} bytes of response" if target.max_response_bytes else "",
        f"the agent adds {', '.join(name for name, _ in target.headers)}" if target.headers else "",
        f"auth: {target.auth.scheme} as {target.auth.user}" if target.auth else "",
        f"proxy_auth: {target.proxy_auth.scheme} as {target.proxy_auth.user}" if target.proxy_auth else "",
        f"redirects may carry {', '.join(sorted(target.redirect_headers))}" if target.redirect_headers else "",
    ]
    return f"{target.name}: {'; '.join(part for part in parts if part) or 'no settings but its hosts'}"


def described_route(route: Route) -> str:
    """Say by which proxy a call goes, and why; no password is shown."""
    return f"directly: {route.reason}" if route.proxy is None else f"{route.proxy.masked}: {route.reason}"


def _described(certificate: Certificate | None) -> str:
    if certificate is None:
        return "a certificate that cannot be read"
    return f"subject {certificate.subject}, issuer {certificate.issuer}, expires {certificate.not_after:%Y-%m-%d}"
