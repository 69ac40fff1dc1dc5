"""One command's HTTP exchange: redirects, cookies, size caps, and every fault as a value.

This room owns what a target sees and what its answer becomes. It must not know queues, journals or threads;
one Executor belongs to one worker.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import requests
import urllib3

from relay_agent import __version__
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import Interrupted
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, Headers, HttpRequest, HttpResponse, Url, size_of
from relay_agent.protocol.charsets import TextCheck
from relay_agent.protocol.media_types import parameter
from relay_agent.relay.target.cookies import Cookies
from relay_agent.relay.target.redirects import MAX_REDIRECTS, Hop, cookie_host, field_values, next_hop, redirect_location, with_cookies
from relay_agent.storage.buffer import Buffer
from relay_agent.transport.content_encoding import BadCoding, TooLarge, decodable, decode
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.fault_mapping import explain
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_connect import TunnelRefused
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.session import Transport, announced_length, fields

MAX_REFUSAL_BYTES = 4 * 1024 * 1024
"""Bytes of a proxy's refusal, its codings undone, that are relayed."""
USER_AGENT = f"relay-agent/{__version__}"
ACCEPT_ENCODING = "gzip, deflate, br, zstd"
_WITH_LENGTH_ZERO = frozenset({"POST", "PUT", "PATCH"})
_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one exchange may take: bytes of a decoded response, seconds for a connection to open."""

    max_response_bytes: int = 100_000_000
    connect_seconds: float = 30.0


def _nothing() -> None:
    return None


def _sent() -> None:
    reach(Point.SENT)


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
        self._limits = limits
        self._buffer_dir = buffer_dir
        self._interrupted = False
        self.ends_at: float | None = None
        """When the exchange under way must be over, or the last one was, on the monotonic clock; None before the first."""

    def execute(self, request: HttpRequest, deadline: Deadline, before_send: Callable[[], None] = _nothing) -> HttpResponse | Failure:
        """Send the request, follow its redirects, and give the response or why there is none.

        `before_send` is called once, before the first byte of the first request leaves; whatever it raises
        comes through. Everything that is wrong with the target is a Failure, never an exception.

        Raises:
            Interrupted: `interrupt` broke it off, or came before its first byte had left.
        """
        self.ends_at = deadline.ends_at
        try:
            outcome = self._chain(request, deadline, lambda: self._permit_start(before_send))
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

    def _permit_more(self, _sock: object = None) -> None:
        if self._interrupted:
            raise Interrupted("broken off by the agent's stop")

    def _permit_start(self, before_send: Callable[[], None]) -> None:
        self._permit_more()
        before_send()

    def _chain(self, request: HttpRequest, deadline: Deadline, before_send: Callable[[], None]) -> HttpResponse | Failure:
        jar = Cookies()
        hop = Hop(request.url, request.method, request.headers, request.body)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = self._exchange(hop, request, deadline, jar, before_send)
            except TransportFault as fault:
                if not self._interrupted:
                    self._watcher.failed(hop.url, fault, secure=request.secure)
                return Failure(fault.code, fault.message, str(hop.url), _elapsed(deadline), facts=fault.facts)
            if isinstance(answer, HttpResponse):
                return answer
            hop, before_send = answer, self._permit_more
        return Failure(Code.ETOOMANYREDIRECTS, f"more than {MAX_REDIRECTS} redirects", str(hop.url), _elapsed(deadline))

    def _exchange(
        self, hop: Hop, request: HttpRequest, deadline: Deadline, jar: Cookies, before_send: Callable[[], None]
    ) -> HttpResponse | Hop:
        self._permit(hop)
        exchange = Exchange(
            method=hop.method,
            url=hop.url,
            headers=_field_lines(hop, jar),
            body=hop.body,
            deadline=deadline,
            verify=not request.ignore_tls_certificate,
            proxy=self._proxies.route(Leg.TARGET, hop.url).proxy,
            connect_seconds=self._limits.connect_seconds,
            before_send=before_send,
            after_send=_sent,
            opened=self._permit_more,
            check_address=lambda address: self._permit_address(hop, address),
        )
        try:
            with self._transport.send(exchange) as response:
                location = redirect_location(response) if request.follow_redirects else None
                if location is None:
                    answer = self._answer(response, exchange)
                    self._watcher.answered(exchange, response.status_code, secure=request.secure)
                    return answer
                following = next_hop(hop, response.status_code, location)
                jar.store(field_values(fields(response), "set-cookie"), cookie_host(hop), hop.url.target)
                self._transport.drain(response)
                self._watcher.answered(exchange, response.status_code, secure=request.secure)
                return following
        except TunnelRefused as refused:
            return self._refused(refused, exchange, request)

    def _permit(self, hop: Hop) -> None:
        self._policy.check_url(hop.method, hop.url).require()

    def _permit_address(self, hop: Hop, address: str) -> None:
        self._policy.check_address(hop.url, address, hop.url.port, hop.method).require()

    def _answer(self, response: requests.Response, exchange: Exchange) -> HttpResponse:
        received = fields(response)
        codings = _codings(received)
        if not decodable(codings):
            codings = []
        charset = _charset(received)
        buffer = Buffer(self._buffer_dir)
        try:
            text = self._read(response, buffer, TextCheck(charset), codings, exchange.deadline)
        except BaseException as error:
            buffer.close()
            if isinstance(error, urllib3.exceptions.HTTPError | http.client.HTTPException | OSError):
                raise explain(error, exchange) from None
            raise
        if codings and response.raw.tell():
            received = _without_coding(received)
        return HttpResponse(
            status_code=response.status_code,
            headers=received,
            content=buffer,
            charset=charset,
            text=text,
            url=str(exchange.url),
            elapsed_ms=_elapsed(exchange.deadline),
            bytes_out=size_of(exchange.body),
        )

    def _read(self, response: requests.Response, buffer: Buffer, check: TextCheck, codings: list[str], deadline: Deadline) -> bool:
        """Read the body into the buffer, counted after decoding; whether it is text in its charset."""
        limit = self._limits.max_response_bytes
        too_large = TransportFault(Code.ERESPONSETOOLARGE, f"the response is larger than {limit} bytes")
        if not codings and announced_length(response) > limit:
            raise too_large

        def in_time() -> None:
            # The socket keeps the time while it is read; a decoder works for long on what came at once.
            if deadline.passed:
                raise TimeoutError("deadline passed")

        try:
            for data in decode(_pieces(response), codings, limit, in_time):
                if buffer.size + len(data) > limit:
                    raise too_large
                _keep(buffer, data)
                check.take(data)
                in_time()
        except TooLarge:
            raise too_large from None
        except BadCoding as error:
            raise TransportFault(Code.EBADRESPONSE, str(error)) from None
        return check.is_text()

    def _refused(self, refused: TunnelRefused, exchange: Exchange, request: HttpRequest) -> HttpResponse:
        """A proxy's refusal is an answer (PROTOCOL §4); one that is no error status cannot be told as the target's."""
        if refused.status < 400:
            raise refused
        self._watcher.failed(exchange.url, refused, secure=request.secure)
        headers, body = _uncoded(refused, exchange.deadline)
        buffer = Buffer(self._buffer_dir)
        buffer.write(body)
        charset = _charset(headers)
        check = TextCheck(charset)
        check.take(body)
        elapsed = _elapsed(exchange.deadline)
        return HttpResponse(refused.status, headers, buffer, charset, check.is_text(), str(exchange.url), elapsed)


def _uncoded(refused: TunnelRefused, deadline: Deadline) -> tuple[Headers, bytes]:
    """What a proxy said, its codings undone as any response's are; as it came where that cannot be: only its beginning may be here."""

    def in_time() -> None:
        if deadline.passed:
            raise BadCoding

    codings = _codings(refused.headers)
    if not decodable(codings) or not refused.body:
        return refused.headers, refused.body
    try:
        body = b"".join(decode([refused.body], codings, MAX_REFUSAL_BYTES, in_time))
    except (BadCoding, TooLarge):
        return refused.headers, refused.body
    return _without_coding(refused.headers), body


def _without_coding(headers: Headers) -> Headers:
    return tuple(pair for pair in headers if pair[0].lower() not in ("content-encoding", "content-length"))


def _keep(buffer: Buffer, data: bytes) -> None:
    try:
        buffer.write(data)
    except OSError as error:
        # Our disk's fault, not the target's: it must not read as if the connection had broken.
        raise DiskFault(Code.ERESPONSETOOLARGE, f"the agent's disk does not take the response: {error.strerror}") from None


def _pieces(response: requests.Response) -> Iterator[bytes]:
    while data := response.raw.read(_READ, decode_content=False):
        yield data


def _elapsed(deadline: Deadline) -> int:
    return int(deadline.elapsed() * 1000)


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


def _codings(received: Headers) -> list[str]:
    parts = [part.strip().lower() for value in field_values(received, "content-encoding") for part in value.split(",")]
    return [part for part in parts if part and part != "identity"]


def _charset(received: Headers) -> str | None:
    """The charset that the first Content-Type names."""
    content_type = next(iter(field_values(received, "content-type")), "")
    return parameter(content_type, "charset") or None
