"""One command's HTTP exchange: redirects, cookies, size caps, and every fault as a value.

This module owns what a target sees and what its answer becomes. It must not know queues, journals or threads;
one Executor belongs to one worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from relay_agent import USER_AGENT
from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import Interrupted
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code, TableKey
from relay_agent.core.header_syntax import folded_name
from relay_agent.core.models import RETURNS_REQUEST, Failure, Headers, HttpRequest, HttpResponse, Url, size_of
from relay_agent.core.urls import DEFAULT_PORTS, BadUrl, normal_host, split_host_port
from relay_agent.relay.target.concurrency import ConcurrencyLimit
from relay_agent.relay.target.cookies import Cookies
from relay_agent.relay.target.redirects import MAX_REDIRECTS, Hop, cookie_host, field_values, next_hop, redirect_location, with_cookies
from relay_agent.relay.target.response_reader import ResponseReader, elapsed_ms
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.policy import Policy, TargetCall, Verdict
from relay_agent.transport.proxy_connect import TunnelRefused
from relay_agent.transport.proxy_routing import Leg, ProxyRouter, Route
from relay_agent.transport.session import Transport
from relay_agent.transport.target_settings import CallRules, TargetSettings

ACCEPT_ENCODING = "gzip, deflate, br, zstd"
_WITH_LENGTH_ZERO = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one exchange may take: bytes of a decoded response, seconds for a connection to open."""

    max_response_bytes: int = 100_000_000
    connect_seconds: float = 30.0


class Watcher(Protocol):
    """Who wants to know how the ways to targets are. Called by each worker's thread; must not wait.

    `secure` says that a secure command asked: the host is known to its sender and this agent only.
    """

    def answered(self, exchange: Exchange, status: int, *, secure: bool) -> None:
        """A whole answer came."""

    def failed(self, url: Url, fault: TransportFault, *, secure: bool) -> None:
        """None came, or a proxy's in its place."""


class _Nobody:
    def answered(self, exchange: Exchange, status: int, *, secure: bool) -> None:
        pass

    def failed(self, url: Url, fault: TransportFault, *, secure: bool) -> None:
        pass


class Executor:
    """Executes requests one after the other; they share nothing but kept connections."""

    def __init__(
        self,
        transport: Transport,
        rules: Callable[[], CallRules],
        proxies: ProxyRouter,
        limits: Limits,
        buffer_dir: Path | None = None,
        watcher: Watcher | None = None,
        concurrency: ConcurrencyLimit | None = None,
    ) -> None:
        """`rules` returns those in force: the same object until they change. It is called for each request and each redirect."""
        self._watcher = watcher or _Nobody()
        self._transport = transport
        self._rules = rules
        self._concurrency = concurrency or ConcurrencyLimit()
        self._proxies = proxies
        self._connect_seconds = limits.connect_seconds
        self._reader = ResponseReader(limits.max_response_bytes, buffer_dir)
        self._interrupted = False
        self.ends_at: float | None = None
        """When the exchange under way must be over, or the last one was, on the monotonic clock; None before the first."""

    def execute(self, request: HttpRequest, deadline: Deadline, before_send: Callable[[], None] = nothing) -> HttpResponse | Failure:
        """Send the request, follow its redirects, and give the response or why there is none.

        `before_send` is called once, before the first byte of the first request leaves; whatever it raises
        comes through. Everything that is wrong with the target is a Failure, never an exception.

        Raises:
            Interrupted: `interrupt` broke it off, or came before its first byte had left.
        """
        self.ends_at = deadline.ends_at
        try:
            run = _Run(request, deadline, Cookies())
            outcome = self._chain(run, before_send)
        finally:
            # From here on the worker has a time limit of its own: the exchange may have had a day.
            self.ends_at = min(deadline.ends_at, deadline.now())
        if self._interrupted:
            # What was read may look whole and be cut: a body that ends with its connection ends with a broken one too.
            if isinstance(outcome, HttpResponse):
                outcome.content.close()
            raise Interrupted("broken off by the agent's stop")
        return outcome if run.would_refuse is None else replace(outcome, would_refuse=run.would_refuse)

    def close(self) -> None:
        """Close the connections that are kept."""
        self._transport.close()

    def interrupt(self) -> None:
        """Break off what is under way and start nothing more, from another thread: the agent's stop has waited long enough."""
        self._interrupted = True
        self._transport.abort()

    def _check_stop(self) -> None:
        if self._interrupted:
            raise Interrupted("broken off by the agent's stop")

    def _chain(self, run: _Run, before_send: Callable[[], None]) -> HttpResponse | Failure:
        request, deadline = run.request, run.deadline
        hop = Hop(request.url, request.method, request.headers, request.body)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = self._exchange(hop, run, before_send)
            except TransportFault as fault:
                if hop.url is not request.url:
                    fault.following("a redirect")
                if not self._interrupted:
                    self._watcher.failed(hop.url, fault, secure=request.secure)
                return Failure(fault.code, fault.message, str(hop.url), elapsed_ms(deadline), facts=fault.facts)
            if isinstance(answer, HttpResponse):
                return answer
            hop, before_send = answer, nothing
        return Failure(Code.ETOOMANYREDIRECTS, f"more than {MAX_REDIRECTS} redirects", str(hop.url), elapsed_ms(deadline))

    def _exchange(self, hop: Hop, run: _Run, before_send: Callable[[], None]) -> HttpResponse | Hop:
        while True:
            rules = self._rules()
            target = rules.target(hop.url.host)
            route = target.route or self._proxies.route(Leg.TARGET, hop.url)
            guard = _Guard(hop, run, rules.policy, target, route, self._check_stop, before_send)
            guard.check_url()
            try:
                with self._concurrency.place(target, run.deadline, partial(self._check_while_waiting, rules)):
                    return self._call(hop, run, guard, target, route)
            except _RulesChanged:
                continue

    def _check_while_waiting(self, rules: CallRules) -> None:
        """Raise Interrupted if the agent stops, _RulesChanged if `rules` are not in force any more: a wait may take a day."""
        self._check_stop()
        if self._rules() is not rules:
            raise _RulesChanged

    def _call(self, hop: Hop, run: _Run, guard: _Guard, target: TargetSettings, route: Route) -> HttpResponse | Hop:
        exchange = Exchange(
            method=hop.method,
            url=hop.url,
            headers=_field_lines(hop, run.jar, target),
            body=hop.body,
            deadline=run.deadline.at_most(target.timeout_seconds),
            verify=not run.request.ignore_tls_certificate,
            proxy=route.proxy,
            connect_seconds=self._connect_seconds,
            tls=target.tls if target.tls is None or hop.at_origin else target.tls.without_client,
            auth=target.auth if _may_add_secrets(hop) else None,
            proxy_auth=target.proxy_auth,
            early_store=lambda: self._reader.early_store(target.max_response_bytes),
        )
        return self._send(hop, run, exchange, guard, target)

    def _send(self, hop: Hop, run: _Run, exchange: Exchange, guard: _Guard, target: TargetSettings) -> HttpResponse | Hop:
        request = run.request
        try:
            with self._transport.send(exchange, guard) as response:
                location = redirect_location(response.status_code, response.fields) if request.follow_redirects else None
                if location is None:
                    answer = self._reader.read(response, exchange, target.max_response_bytes)
                    self._watcher.answered(exchange, response.status_code, secure=request.secure)
                    return answer
                following = next_hop(hop, response.status_code, location, target.redirect_headers)
                _store_cookies(run.jar, hop, response.fields)
                response.drain()
                self._watcher.answered(exchange, response.status_code, secure=request.secure)
                return following
        except TunnelRefused as refused:
            if refused.status < 400:
                raise  # A status below 400 must not be reported as the target's answer.
            self._watcher.failed(exchange.url, refused, secure=request.secure)
            return self._reader.read_refusal(refused, exchange, target.max_response_bytes)


class _RulesChanged(Exception):
    """The policy changed while a request waited for its place: it is judged again, with the new limit."""


@dataclass(slots=True)
class _Run:
    """One command's request on its way through redirects, and what is kept between them."""

    request: HttpRequest
    deadline: Deadline
    jar: Cookies
    would_refuse: str | None = None


class _Guard(ExchangeObserver):
    """Lets an exchange continue until the agent's stop aborts it, connect only where the policy allows, and keep a challenge's cookies."""

    def __init__(
        self,
        hop: Hop,
        run: _Run,
        policy: Policy,
        target: TargetSettings,
        route: Route,
        check_stop: Callable[[], None],
        before_send: Callable[[], None],
    ) -> None:
        self._hop = hop
        self._run = run
        self._policy = policy
        self._target = target
        # A proxy resolves names itself, so that their addresses are never known here.
        self._call = TargetCall(hop.method, hop.url, run.request.secure, None if route.proxy is None else ())
        # The command's record names only the host that it asked for.
        self._redirect = "" if hop.at_origin else f" (redirect to {hop.url.scheme}://{hop.url.netloc})"
        self._check_stop = check_stop
        self._before_send = before_send

    def check_url(self) -> None:
        """Raise TransportFault if the call must not be made, whatever its host resolves to."""
        self._require(self._policy.check_url(self._call))
        if self._run.request.ignore_tls_certificate and not self._target.allow_ignore_tls:
            verdict = Verdict(False, f"{TableKey.ALLOW_IGNORE_TLS} is false for {self._call.url.host}")
            raise TransportFault(Code.EPOLICY, verdict.message, rule=verdict.rule, table_key=TableKey.ALLOW_IGNORE_TLS)

    def check_addresses(self, addresses: Sequence[str]) -> None:
        self._require(self._policy.check_addresses(self._call, addresses))

    def check_stop(self) -> None:
        self._check_stop()

    def challenged(self, fields: Headers, headers: Headers) -> Headers:
        # A target may keep its session in a cookie that it sets with the challenge, and want both back (RFC 6265 §3).
        _store_cookies(self._run.jar, self._hop, fields)
        return _field_lines(self._hop, self._run.jar, self._target)

    def before_send(self) -> None:
        self._check_stop()
        self._before_send()

    def after_send(self) -> None:
        reach(Point.SENT)

    def _require(self, verdict: Verdict) -> None:
        if verdict.would_refuse is not None and self._run.would_refuse is None:
            self._run.would_refuse = verdict.would_refuse + self._redirect
        verdict.require()


def _store_cookies(jar: Cookies, hop: Hop, fields: Headers) -> None:
    """Keep the cookies that a response to the hop sets."""
    jar.store(field_values(fields, "set-cookie"), cookie_host(hop), hop.url.target)


def _may_add_secrets(hop: Hop) -> bool:
    """Return whether the agent's own secrets may go with a request: to the origin that the command names, and never with TRACE.

    TRACE makes a target send back what it was sent (RFC 9110 §9.3.8), so that the sender would read them. A Host field of the command's
    own may lead to another site on the same server, which would read them.
    """
    return hop.at_origin and hop.method.upper() not in RETURNS_REQUEST and _names_its_host(hop)


def _names_its_host(hop: Hop) -> bool:
    """Return whether the Host field is the one that the URL makes (RFC 9112 §3.2)."""
    for value in field_values(hop.headers, "host"):
        try:
            host, port = split_host_port(value)
            if normal_host(host) != hop.url.host or (port or DEFAULT_PORTS[hop.url.scheme]) != hop.url.port:
                return False
        except BadUrl:
            return False
    return True


def _field_lines(hop: Hop, jar: Cookies, target: TargetSettings) -> Headers:
    """The header fields to send: the command's, those that its target's settings add, and only what the protocol needs besides."""
    if target.headers and hop.at_origin:
        added = {folded_name(name) for name, _ in target.headers}
        kept = tuple(pair for pair in hop.headers if folded_name(pair[0]) not in added)
        hop = replace(hop, headers=(*kept, *target.headers) if _may_add_secrets(hop) else kept)
    given = {name.lower() for name, _ in hop.headers}
    before: list[tuple[str, str]] = []
    if "host" not in given:
        before.append(("Host", hop.url.netloc))
    if "user-agent" not in given:
        before.append(("User-Agent", USER_AGENT))
    if "accept-encoding" not in given:
        before.append(("Accept-Encoding", ACCEPT_ENCODING))
    if hop.url.authorization is not None and "authorization" not in given:
        before.append(("Authorization", hop.url.authorization))
    after: list[tuple[str, str]] = []
    size = size_of(hop.body)
    if size or (hop.body is not None and hop.method not in ("GET", "HEAD")) or hop.method in _WITH_LENGTH_ZERO:
        after.append(("Content-Length", str(size)))
    return (*before, *with_cookies(hop, jar), *after)
