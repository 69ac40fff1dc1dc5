"""Opening a connection: resolve, check, connect, through a proxy where one is set, TLS.

This room owns the way from a URL to a socket that may carry a request. It must not send one.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from relay_agent.certificates import Certificate, read_certificate
from relay_agent.clock import Deadline
from relay_agent.exchange import Exchange
from relay_agent.fault_mapping import name_fault, os_fault
from relay_agent.faults import DiskFault, ProxyFault, TransportFault
from relay_agent.hostnames import is_for, openssl_cannot_judge
from relay_agent.http1 import BadFraming, BadHead, Response
from relay_agent.models import Code, Headers, Phase, Shown, Url
from relay_agent.proxies import Proxy, Trust
from relay_agent.resolver import Address, Resolver
from relay_agent.sockets import ClockedSocket
from relay_agent.socks5 import ask_for_connection
from relay_agent.tls import TlsSocket

NEXT_ADDRESS_SECONDS = 0.25
"""How long one address has to answer before the next is tried beside it (RFC 8305 §8)."""
WINNER_SECONDS = 600.0
"""How long the address that answered first is asked first again (RFC 8305 §4)."""
WAKE_SECONDS = 0.1
KEEP_ALIVE_SECONDS = 60
KEEP_ALIVE_AGAIN_SECONDS = 30
REFUSAL_SECONDS = 2.0
"""How long a proxy that refuses a tunnel has to say why."""
MAX_PROXY_ANSWER = 256 * 1024
"""Bytes kept of what a proxy says when it refuses a tunnel."""


CERTIFICATE_SECONDS = 2.0
"""How long a call that failed may take longer, so that the certificate it failed for can be named."""
LOOK_AGAIN_SECONDS = 300.0
_MOST_SHOWN = 256


class ProxyRefused(ProxyFault):
    """A proxy answered `to` in place of what lies behind it: CONNECT, or the method of a request that it was to pass on."""

    def __init__(self, proxy: Proxy, status: int, to: str) -> None:
        super().__init__(Code.EBADRESPONSE, proxy.masked, f"answered {status} to {to}", status=status, forwarded=to != "CONNECT")
        self.status = status


class TunnelRefused(ProxyRefused):
    """A proxy answered CONNECT with something else than 2xx; what it said is the answer (PROTOCOL §4)."""

    def __init__(self, proxy: Proxy, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(proxy, status, "CONNECT")
        self.headers = headers
        self.body = body


class Dialer:
    """Makes connected sockets. Shared by all threads.

    Remembers only the certificates that were refused of late, and the addresses that answered first.
    """

    def __init__(self, trust: Trust, resolver: Resolver) -> None:
        self._trust = trust
        self._resolver = resolver
        self._shown: dict[tuple[str, int, str], tuple[float, Shown | None]] = {}
        self._winners: dict[frozenset[tuple[object, ...]], tuple[float, tuple[object, ...]]] = {}

    def dial(self, exchange: Exchange) -> Any:
        """Give a socket to the exchange's target, or to the proxy that forwards to it.

        Raises:
            TransportFault: it cannot be had; the text says whether the proxy is at fault. A certificate that was refused is looked at.
            TunnelRefused: the proxy answered, and said no.
        """
        try:
            return self._dial(exchange)
        except TransportFault as fault:
            fault.during(exchange.phase)
            if exchange.verify and exchange.phase is Phase.TLS and fault.at_certificate:
                fault.show(self._looked(exchange))
            raise

    def _looked(self, exchange: Exchange) -> Shown | None:
        """Look at the certificate, once in a while: Python tells nothing of one that it refuses."""
        place, now = _place(exchange.url, exchange.proxy), time.monotonic()
        known = self._shown.get(place)
        if known is not None and now - known[0] < LOOK_AGAIN_SECONDS:
            return known[1]
        found = self._look(exchange)
        if len(self._shown) >= _MOST_SHOWN:
            self._shown.clear()
        self._shown[place] = now, found
        return found

    def _look(self, exchange: Exchange) -> Shown | None:
        """Go the same way once more, without verifying."""
        limit = Deadline(min(CERTIFICATE_SECONDS, exchange.deadline.remaining()))
        look = replace(exchange, verify=False, deadline=limit, connect_seconds=limit.seconds)
        with contextlib.suppress(TransportFault, OSError):
            sock = self._dial(look)
            try:
                certificate = read_certificate(sock.getpeercert(True) or b"")
            finally:
                sock.close()
            return None if certificate is None else _told(certificate, self._trust.said)
        return None

    def _dial(self, exchange: Exchange) -> Any:
        limit = Deadline(min(exchange.connect_seconds, exchange.deadline.remaining()))
        try:
            if exchange.proxy is None:
                sock: Any = self._direct(exchange, limit)
            else:
                sock = self._through(exchange.proxy, exchange, limit)
        except TimeoutError:
            late = f"took longer than {round(limit.seconds, 2):g} s"
            if exchange.proxy is not None and exchange.phase.of_proxy:
                raise TransportFault(Code.ETIMEDOUT, f"{exchange.phase} {late}").at(exchange.proxy.masked) from None
            raise TransportFault(Code.ETIMEDOUT, f"{exchange.phase} to {exchange.peer} {late}") from None
        sock.deadline = exchange.deadline
        return sock

    def _direct(self, exchange: Exchange, limit: Deadline) -> Any:
        url = exchange.url
        exchange.enter(Phase.NAME)
        addresses = self._resolver.resolve(url.host, url.port, limit, exchange.waiting)
        for address in addresses:
            exchange.check_address(address.text)
        exchange.enter(Phase.CONNECT)
        sock = self._connect(addresses, exchange, limit, None)
        if url.scheme == "http":
            return sock
        exchange.enter(Phase.TLS)
        return self._tls(sock, exchange, url.host, exchange.verify, f"TLS {url.host}:{url.port}")

    def _through(self, proxy: Proxy, exchange: Exchange, limit: Deadline) -> Any:
        exchange.enter(Phase.PROXY_NAME)
        try:
            addresses = self._resolver.resolve(proxy.host, proxy.port, limit, exchange.waiting)
        except TransportFault as fault:
            raise fault.at(proxy.masked) from None
        exchange.enter(Phase.PROXY_CONNECT)
        sock: Any = self._connect(addresses, exchange, limit, proxy.masked)
        with _closed_on_failure(sock):
            if proxy.scheme == "socks5h":
                exchange.enter(Phase.TUNNEL)
                ask_for_connection(sock, proxy, exchange.url.host, exchange.url.port)
        if proxy.scheme == "https":
            exchange.enter(Phase.PROXY_TLS)
            sock = self._tls_with_proxy(sock, proxy, exchange)
        if exchange.url.scheme == "http":
            return sock
        if proxy.scheme != "socks5h":
            exchange.enter(Phase.TUNNEL)
            _tunnel(sock, proxy, exchange)
        exchange.enter(Phase.TLS)
        return self._tls(sock, exchange, exchange.url.host, exchange.verify, f"TLS {exchange.peer}")

    def _connect(self, addresses: list[Address], exchange: Exchange, limit: Deadline, proxy: str | None) -> ClockedSocket:
        """Connect to one of a name's addresses, the one first that was the quickest of late."""
        if len(addresses) < 2:
            return _connect(addresses, exchange, limit, proxy)[0]
        name, now = frozenset(address.sockaddr for address in addresses), time.monotonic()
        until, winner = self._winners.get(name, (0.0, ()))
        ordered = _by_turns(addresses)
        if now < until:
            ordered.sort(key=lambda address: address.sockaddr != winner)
        sock, answered = _connect(ordered, exchange, limit, proxy)
        if len(self._winners) >= _MOST_SHOWN:
            self._winners.clear()
        self._winners[name] = now + WINNER_SECONDS, answered.sockaddr
        return sock

    def _tls_with_proxy(self, sock: Any, proxy: Proxy, exchange: Exchange) -> Any:
        try:
            return self._tls(sock, exchange, proxy.host, True, f"TLS {proxy.host}:{proxy.port}", "the proxy")
        except DiskFault:
            raise
        except TransportFault as fault:
            raise fault.at(proxy.masked) from None

    def _tls(self, sock: Any, exchange: Exchange, host: str, verify: bool, doing: str, who: str = "the target") -> TlsSocket:
        """Shake hands over a connected socket, which is closed where that fails."""
        name = host.partition("%")[0].rstrip(".")
        ours = verify and openssl_cannot_judge(name)
        with _closed_on_failure(sock):
            context = self._context(verify, doing, names=not ours)
            try:
                wrapped = TlsSocket(sock, context, name, ragged_ends=not verify)
            except ValueError:
                raise TransportFault(Code.EPROTO, f"{doing}: the name cannot be checked") from None
            exchange.opened(wrapped)
            try:
                wrapped.do_handshake()
            except TimeoutError:
                raise
            except OSError as error:
                raise os_fault(error, doing, who, wrapped.first_heard) from None
            if ours and not _is_for(wrapped, name):
                raise name_fault(doing)
            return wrapped

    def _context(self, verify: bool, doing: str, *, names: bool) -> ssl.SSLContext:
        try:
            return self._trust.context(verify, names=names)
        except OSError as error:
            raise DiskFault(Code.EPROTO, f"{doing}: the trusted roots cannot be read: {type(error).__name__}") from None


@contextlib.contextmanager
def _closed_on_failure(sock: Any) -> Iterator[None]:
    """Close the socket where the block fails, whatever the failure is."""
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _is_for(session: TlsSocket, host: str) -> bool:
    try:
        return is_for(session.getpeercert(), host)
    except (ValueError, ssl.SSLError):
        return False  # It has a name that Python cannot read.


def _place(url: Url, proxy: Proxy | None) -> tuple[str, int, str]:
    return url.host, url.port, proxy.masked if proxy else ""


def _told(certificate: Certificate, roots: str) -> Shown:
    return Shown(
        issuer=certificate.issuer,
        names=", ".join(certificate.names[:5]) or certificate.subject,
        begins=f"{certificate.not_before:%Y-%m-%d}",
        ends=f"{certificate.not_after:%Y-%m-%d}",
        roots=roots,
    )


_Connected = tuple[ClockedSocket, Address]


class _Attempts:
    """Connections that are being opened to the addresses of one name, side by side (RFC 8305 §5)."""

    def __init__(self, exchange: Exchange, limit: Deadline, proxy: str | None) -> None:
        self._exchange = exchange
        self._limit = limit
        self._proxy = proxy
        self._poller = select.poll()
        self._open: dict[int, tuple[ClockedSocket, Address]] = {}
        self.faults: list[TransportFault] = []

    def begin(self, address: Address) -> _Connected | None:
        """Begin to connect; the socket where that is done at once."""
        try:
            sock = ClockedSocket(address.family, socket.SOCK_STREAM)
        except OSError as error:  # No descriptor is left, or the family is switched off.
            self._failed(address, error)
            return None
        with _closed_on_failure(sock):
            self._exchange.opened(sock)
            _keep_alive(sock)
            sock.settimeout(0.0)
            try:
                sock.connect(address.sockaddr)
            except BlockingIOError:
                self._open[sock.fileno()] = sock, address
                self._poller.register(sock, select.POLLOUT)
                return None
            except OSError as error:
                sock.close()
                self._failed(address, error)
                return None
        return sock, address

    def wait(self, seconds: float) -> _Connected | None:
        """Wait for the first that is connected; None where there is none yet. One that fails ends the wait."""
        for descriptor, _ in self._poller.poll(max(1, int(seconds * 1000))):
            sock, address = self._open.pop(descriptor)
            self._poller.unregister(descriptor)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number:
                return sock, address
            sock.close()
            self._failed(address, OSError(number, os.strerror(number)))
        return None

    @property
    def under_way(self) -> bool:
        """Whether any is still being opened."""
        return bool(self._open)

    def close(self) -> None:
        """Close those that were not first."""
        for sock, _ in self._open.values():
            sock.close()
        self._open.clear()

    def late(self) -> None:
        """Note for each that is still being opened that there is no more time."""
        for _, address in self._open.values():
            self._failed(address, TimeoutError())
        self.close()

    @contextlib.contextmanager
    def noted(self, connected: _Connected) -> Iterator[None]:
        """Say as a fault what the system refuses of a connection that was reset as soon as it stood."""
        try:
            yield
        except OSError as error:
            self._failed(connected[1], error)
            raise self.faults[-1] from None

    def _failed(self, address: Address, error: OSError) -> None:
        where = f"[{address.text}]" if address.family == socket.AF_INET6 else address.text
        self.faults.append(os_fault(error, f"connect {where}:{address.sockaddr[1]}").at(self._proxy))


def _keep_alive(sock: socket.socket) -> None:
    """Have the system ask whether the other side is there, after a minute of silence.

    A call may compute for an hour before its answer begins, and a firewall forgets connections that are silent for long.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", KEEP_ALIVE_SECONDS), ("TCP_KEEPINTVL", KEEP_ALIVE_AGAIN_SECONDS), ("TCP_KEEPCNT", 8)):
        if hasattr(socket, option):  # macOS calls the first by another name.
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _by_turns(addresses: list[Address]) -> list[Address]:
    """The addresses with their families taking turns, the first family first (RFC 8305 §4)."""
    first = [address for address in addresses if address.family == addresses[0].family]
    others = [address for address in addresses if address.family != addresses[0].family]
    pairs = zip_longest(first, others)
    return [address for pair in pairs for address in pair if address is not None]


def _connect(addresses: list[Address], exchange: Exchange, limit: Deadline, proxy: str | None) -> _Connected:
    """Connect to the address that answers first; the next is tried after NEXT_ADDRESS_SECONDS, or as soon as one fails (RFC 8305)."""
    attempts = _Attempts(exchange, limit, proxy)
    left = deque(addresses)
    with contextlib.ExitStack() as after:
        after.callback(attempts.close)
        while not limit.passed and (left or attempts.under_way):
            connected = attempts.begin(left.popleft()) if left else None
            next_at, failed = Deadline(NEXT_ADDRESS_SECONDS), len(attempts.faults)
            while connected is None and attempts.under_way and not limit.passed:
                if len(attempts.faults) > failed or (left and next_at.passed):
                    break
                exchange.waiting()
                connected = attempts.wait(min(WAKE_SECONDS, limit.remaining(), next_at.remaining() if left else WAKE_SECONDS))
            if connected is not None:
                sock, _ = connected
                with _closed_on_failure(sock), attempts.noted(connected):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.deadline = limit
                    exchange.opened(sock)  # Several were in reach of an abort: from here on it is this one.
                return connected
        attempts.late()
    if not attempts.faults:
        raise TimeoutError
    raise _most_telling(attempts.faults)


def _most_telling(faults: list[TransportFault]) -> TransportFault:
    """What a host answered says more than silence, and that more than that one of its address families has no route."""
    silent = (Code.ETIMEDOUT,)
    nowhere = (Code.ENETUNREACH, Code.EHOSTUNREACH)
    answered = [fault for fault in faults if fault.code not in silent + nowhere]
    found = (answered or [fault for fault in faults if fault.code in silent] or faults)[-1]
    if len(faults) > 1:
        found.text = f"{found.text} ({len(faults)} addresses were tried)"
    return found


def _refusal(sock: Any, response: Response) -> bytes:
    """What a proxy says when it refuses. One that neither says how much nor closes has said it when it is silent.

    Raises:
        BadHead: it closed before the end, or its length cannot be read.
    """
    sock.deadline = Deadline(min(REFUSAL_SECONDS, sock.deadline.remaining()))
    response.end_at_reset()
    answered = f"it answered {response.status} to CONNECT"
    said = bytearray()
    try:
        while len(said) < MAX_PROXY_ANSWER and (piece := response.read1(MAX_PROXY_ANSWER - len(said))):
            said += piece
    except TimeoutError:
        return bytes(said)
    except BadFraming:
        raise BadHead(f"{answered}, and the length of what it said cannot be read") from None
    except (http.client.HTTPException, OSError):
        raise BadHead(f"{answered}, and closed before the end of what it said") from None
    if response.length and len(said) < MAX_PROXY_ANSWER:
        raise BadHead(f"{answered}, and closed before the end of what it said")
    return bytes(said)


def _tunnel(sock: Any, proxy: Proxy, exchange: Exchange) -> None:
    """Ask an HTTP proxy for a tunnel (RFC 9110 §9.3.6); the socket is closed where it gives none."""
    host = exchange.url.host if ":" not in exchange.url.host else f"[{exchange.url.host}]"
    where = f"{host}:{exchange.url.port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    broken: OSError | None = None
    with _closed_on_failure(sock), contextlib.ExitStack() as after:
        try:
            sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        except ConnectionError as error:
            broken = error  # It may have answered before it closed, or said in TLS why it does.
        try:
            response = Response(sock, method="CONNECT")
            after.callback(response.close)
            response.begin()
            if not 200 <= response.status < 300:
                raise TunnelRefused(proxy, response.status, tuple(response.fields), _refusal(sock, response))
        except TimeoutError:
            raise
        except OSError as error:
            why = error if broken is None or isinstance(error, ssl.SSLError) else broken
            raise os_fault(why, "tunnel", "the proxy").at(proxy.masked) from None
        except http.client.HTTPException as error:
            raise TransportFault(Code.EBADRESPONSE, str(error)).at(proxy.masked) from None
