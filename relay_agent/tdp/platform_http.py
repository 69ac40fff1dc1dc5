"""HTTP to the platform: one exchange with a deadline, from any thread, through the proxy and trusted roots for the platform.

This module owns the transports to the platform, one for each thread. It must not know what the calls mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus

from relay_agent import USER_AGENT
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import Call, PlatformUnreachable
from relay_agent.core.failures import Code
from relay_agent.core.models import Body, Headers, size_of
from relay_agent.core.urls import parse_url
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.policy import Policy, TargetCall
from relay_agent.transport.proxy_connect import ProxyRefused
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.session import Transport
from relay_agent.transport.streamed_response import StreamedResponse

_READ = 64 * 1024
CALL_SECONDS = 15.0
"""Deadline of one call, except for a receive and transfers of bodies."""
MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of a platform answer that are read; SQS and the REST calls stay far below."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the platform, read to its end."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header field of that name, None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def is_web_page(self) -> bool:
        """Whether a proxy's or firewall's block page answered: the platform answers JSON, S3 XML or nothing, and they HTML."""
        declared = (self.header("content-type") or "").lower().startswith("text/html")
        return declared or self.body.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def unreachable(call: Call, fault: TransportFault, url: str) -> PlatformUnreachable:
    """Return the PlatformError for a fault on the way to `url`, with all facts that distinguish its causes (`platform_causes`)."""
    parsed = parse_url(url)
    return PlatformUnreachable(call, f"{fault.code}: {fault.message}", replace(fault.facts, host=parsed.host, port=parsed.port))


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body is still on its way: `pieces` raises TransportFault where it breaks off or is too large."""

    status: int
    headers: Headers
    pieces: Iterator[bytes]

    def whole(self) -> Answer:
        """Read the body."""
        return Answer(self.status, self.headers, b"".join(self.pieces))


class PlatformHttp:
    """Sends requests to the platform. Each thread gets a transport of its own; `abort` may be called from any."""

    def __init__(self, make_transport: Callable[[], Transport], proxies: ProxyRouter, policy: Policy) -> None:
        """`policy` says where calls may go: the platform names hosts, and could have the agent call what only it can reach."""
        self._make_transport = make_transport
        self._proxies = proxies
        self._policy = policy
        self._local = threading.local()
        self._lock = threading.Lock()
        self._transports: dict[str, Transport] = {}

    def send(self, method: str, url: str, headers: Headers, body: Body | None, seconds: float, max_bytes: int = MAX_ANSWER) -> Answer:
        """Send a request and read the whole answer within `seconds`.

        Raises:
            TransportFault: there was no answer, or one too large.
        """
        with self.stream(method, url, headers, body, seconds, max_bytes) as answer:
            return answer.whole()

    @contextmanager
    def stream(
        self, method: str, url: str, headers: Headers, body: Body | None, seconds: float, max_bytes: int = MAX_ANSWER
    ) -> Iterator[Stream]:
        """Send a request, and yield the answer, to be read within what is left of `seconds`.

        Raises:
            TransportFault: there was no answer. EPOLICY: it must not be asked.
        """
        parsed = parse_url(url)
        call = TargetCall(method, parsed)
        self._policy.check_url(call).require()
        given = {name.lower() for name, _ in headers}
        needed = [("Host", parsed.netloc), ("User-Agent", USER_AGENT), ("Accept-Encoding", "identity")]
        length = [("Content-Length", str(size_of(body)))] if body is not None or method in ("POST", "PUT") else []
        exchange = Exchange(
            method=method,
            url=parsed,
            headers=(
                *(pair for pair in needed if pair[0].lower() not in given),
                *(pair for pair in headers if pair[0].lower() != "content-length"),
                *length,
            ),
            body=body,
            deadline=Deadline(seconds),
            proxy=self._proxies.route(Leg.PLATFORM, parsed).proxy,
            connect_seconds=min(10.0, seconds),
            # Every call to the platform may be made twice: an update that is sent again is the same byte for byte.
            repeatable=True,
        )
        with self._transport().send(exchange, _AddressCheck(self._policy, call)) as response:
            if response.status_code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and exchange.forwarded and exchange.proxy is not None:
                raise ProxyRefused(exchange.proxy, response.status_code, exchange.method)
            yield Stream(response.status_code, response.fields, _pieces(response, exchange, max_bytes))

    def abort(self, thread: str) -> None:
        """Break off what the thread of that name waits for."""
        with self._lock:
            transport = self._transports.get(thread)
        if transport is not None:
            transport.abort()

    def close(self) -> None:
        """Close every connection; no thread may be sending."""
        with self._lock:
            transports, self._transports = list(self._transports.values()), {}
        for transport in transports:
            transport.close()

    def _transport(self) -> Transport:
        transport: Transport | None = getattr(self._local, "transport", None)
        if transport is None:
            transport = self._make_transport()
            name = threading.current_thread().name
            with self._lock:
                stale = self._transports.get(name)
                self._transports[name] = transport
            if stale is not None:
                stale.close()
            self._local.transport = transport
        return transport


class _AddressCheck(ExchangeObserver):
    """Lets an exchange go only to addresses that the policy allows."""

    def __init__(self, policy: Policy, call: TargetCall) -> None:
        self._policy = policy
        self._call = call

    def check_addresses(self, addresses: Sequence[str]) -> None:
        self._policy.check_addresses(self._call, addresses).require()


def _pieces(response: StreamedResponse, exchange: Exchange, max_bytes: int) -> Iterator[bytes]:
    size = 0
    while data := response.read(_READ):
        size += len(data)
        if size > max_bytes:
            raise TransportFault(Code.ERESPONSETOOLARGE, f"{exchange.peer} sent more than {max_bytes} bytes")
        yield data
