"""One command's HTTP exchange: redirects, cookies, size caps, and every fault as a value.

This module owns what a target sees and what its answer becomes. It must not know queues, journals or threads;
one Executor belongs to one worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from relay_agent import USER_AGENT
from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import Interrupted
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, Headers, HttpRequest, HttpResponse, Url, size_of
from relay_agent.relay.target.cookies import Cookies
from relay_agent.relay.target.redirects import MAX_REDIRECTS, Hop, cookie_host, field_values, next_hop, redirect_location, with_cookies
from relay_agent.relay.target.response_reader import ResponseReader, elapsed_ms
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_connect import TunnelRefused
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.session import Transport

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
    """Executes requests one after the other; nothing of one shows in the next but kept connections."""

    def __init__(
        self,
        transport: Transport,
        policy: Policy,
        proxies: ProxyRouter,
        limits: Limits,
        buffer_dir: Path | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._watcher = watcher or _Nobody()
        self._transport = transport
        self._policy = policy
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
            outcome = self._chain(request, deadline, before_send)
        finally:
            # From here on the worker has its own time, counted anew: the exchange may have had a day.
            self.ends_at = min(deadline.ends_at, deadline.now())
        if self._interrupted:
            # What was read may look whole and be cut: a body that ends with its connection ends with a broken one too.
            if isinstance(outcome, HttpResponse):
                outcome.content.close()
            raise Interrupted("broken off by the agent's stop")
        return outcome

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

    def _chain(self, request: HttpRequest, deadline: Deadline, before_send: Callable[[], None]) -> HttpResponse | Failure:
        jar = Cookies()
        hop = Hop(request.url, request.method, request.headers, request.body)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = self._exchange(hop, request, deadline, jar, before_send)
            except TransportFault as fault:
                if not self._interrupted:
                    self._watcher.failed(hop.url, fault, secure=request.secure)
                return Failure(fault.code, fault.message, str(hop.url), elapsed_ms(deadline), facts=fault.facts)
            if isinstance(answer, HttpResponse):
                return answer
            hop, before_send = answer, nothing
        return Failure(Code.ETOOMANYREDIRECTS, f"more than {MAX_REDIRECTS} redirects", str(hop.url), elapsed_ms(deadline))

    def _exchange(
        self, hop: Hop, request: HttpRequest, deadline: Deadline, jar: Cookies, before_send: Callable[[], None]
    ) -> HttpResponse | Hop:
        self._policy.check_url(hop.method, hop.url).require()
        exchange = Exchange(
            method=hop.method,
            url=hop.url,
            headers=_field_lines(hop, jar),
            body=hop.body,
            deadline=deadline,
            verify=not request.ignore_tls_certificate,
            proxy=self._proxies.route(Leg.TARGET, hop.url).proxy,
            connect_seconds=self._connect_seconds,
        )
        try:
            with self._transport.send(exchange, _Guard(hop, self._policy, self._check_stop, before_send)) as response:
                location = redirect_location(response.status_code, response.fields) if request.follow_redirects else None
                if location is None:
                    answer = self._reader.read(response, exchange)
                    self._watcher.answered(exchange, response.status_code, secure=request.secure)
                    return answer
                following = next_hop(hop, response.status_code, location)
                jar.store(field_values(response.fields, "set-cookie"), cookie_host(hop), hop.url.target)
                response.drain()
                self._watcher.answered(exchange, response.status_code, secure=request.secure)
                return following
        except TunnelRefused as refused:
            if refused.status < 400:
                raise  # What is no error status cannot be told as the target's.
            self._watcher.failed(exchange.url, refused, secure=request.secure)
            return self._reader.read_refusal(refused, exchange)


class _Guard(ExchangeObserver):
    """Lets an exchange go on until the agent's stop breaks it off, and only to addresses that the policy allows."""

    def __init__(self, hop: Hop, policy: Policy, check_stop: Callable[[], None], before_send: Callable[[], None]) -> None:
        self._hop = hop
        self._policy = policy
        self._check_stop = check_stop
        self._before_send = before_send

    def check_address(self, address: str) -> None:
        url = self._hop.url
        self._policy.check_address(url, address, url.port, self._hop.method).require()

    def check_stop(self) -> None:
        self._check_stop()

    def before_send(self) -> None:
        self._check_stop()
        self._before_send()

    def after_send(self) -> None:
        reach(Point.SENT)


def _field_lines(hop: Hop, jar: Cookies) -> Headers:
    """The header fields to send: the command's, and only what the protocol needs besides."""
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
