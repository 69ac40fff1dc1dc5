"""Opens a connection for an exchange: resolve the host, check its addresses, connect (through a proxy if one is set), TLS."""

from __future__ import annotations

import contextlib
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

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code, Phase, RefusedCertificate
from relay_agent.core.models import Url
from relay_agent.transport.deadline_sockets import DeadlineSocket, closed_on_failure
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.fault_mapping import name_fault, os_fault
from relay_agent.transport.hostnames import has_certificate_for, openssl_cannot_judge
from relay_agent.transport.progress import Progress
from relay_agent.transport.proxy import Proxy
from relay_agent.transport.proxy_connect import open_tunnel
from relay_agent.transport.resolver import Address, Resolver
from relay_agent.transport.socks5 import ask_for_connection
from relay_agent.transport.tls import TlsContexts
from relay_agent.transport.tls_socket import TlsSocket
from relay_agent.transport.x509 import Certificate, read_certificate

NEXT_ADDRESS_SECONDS = 0.25
"""Time after which the next address is tried beside one that has not answered (RFC 8305 §8)."""
WINNER_SECONDS = 600.0
"""How long the address that answered first is tried first again (RFC 8305 §4)."""
WAKE_SECONDS = 0.1
KEEP_ALIVE_SECONDS = 60
KEEP_ALIVE_AGAIN_SECONDS = 30
CERTIFICATE_SECONDS = 2.0
"""By how much a call that failed may be prolonged to read the certificate that it refused."""
LOOK_AGAIN_SECONDS = 300.0
"""How long a refused certificate is remembered."""
_MAX_REMEMBERED = 256
_MAX_NAMES = 5
"""Names of a refused certificate that are kept."""

_Connected = tuple[DeadlineSocket, Address]


class Dialer:
    """Opens connections. Shared by all threads.

    Remembers only the certificates that were refused recently, and the addresses that answered first.
    """

    def __init__(self, trust: TlsContexts, resolver: Resolver) -> None:
        self._trust = trust
        self._resolver = resolver
        self._refused: dict[tuple[str, int, str], tuple[float, RefusedCertificate | None]] = {}
        self._winners: dict[frozenset[tuple[object, ...]], tuple[float, tuple[object, ...]]] = {}

    def dial(self, exchange: Exchange, progress: Progress | None = None) -> Any:
        """Return a socket that is connected to the exchange's target, or to the proxy that forwards to it.

        `progress` holds each socket while it is waited for, so that the exchange can be aborted.

        Raises:
            TransportFault: there is no connection. The fault names the proxy if that is the cause, and has the certificate if that
                was refused.
            TunnelRefused: the proxy answered with another status than 2xx.
        """
        progress = progress or Progress(exchange)
        try:
            return self._dial(exchange, progress)
        except TransportFault as fault:
            fault.during(progress.phase)
            if exchange.verify and progress.phase is Phase.TLS and fault.at_certificate:
                fault.show(self._refused_certificate(exchange, progress))
            raise

    def _refused_certificate(self, exchange: Exchange, progress: Progress) -> RefusedCertificate | None:
        key, now = _key(exchange.url, exchange.proxy), time.monotonic()
        known = self._refused.get(key)
        if known is not None and now - known[0] < LOOK_AGAIN_SECONDS:
            return known[1]
        found = self._read_certificate(exchange, progress)
        if len(self._refused) >= _MAX_REMEMBERED:
            self._refused.clear()
        self._refused[key] = now, found
        return found

    def _read_certificate(self, exchange: Exchange, progress: Progress) -> RefusedCertificate | None:
        # A second connection, without verification: Python does not give the certificate that it has refused.
        limit = Deadline(min(CERTIFICATE_SECONDS, exchange.deadline.remaining()))
        look = replace(exchange, verify=False, deadline=limit, connect_seconds=limit.seconds)
        with contextlib.suppress(TransportFault, OSError):
            sock = self._dial(look, _Unreported(look, progress))
            try:
                certificate = read_certificate(sock.getpeercert(True) or b"")
            finally:
                sock.close()
            return None if certificate is None else _refused_certificate(certificate, self._trust.description)
        return None

    def _dial(self, exchange: Exchange, progress: Progress) -> Any:
        limit = Deadline(min(exchange.connect_seconds, exchange.deadline.remaining()))
        try:
            if exchange.proxy is None:
                sock: Any = self._direct(exchange, progress, limit)
            else:
                sock = self._through(exchange.proxy, exchange, progress, limit)
        except TimeoutError:
            late = f"took longer than {round(limit.seconds, 2):g} s"
            if exchange.proxy is not None and progress.phase.of_proxy:
                raise TransportFault(Code.ETIMEDOUT, f"{progress.phase} {late}").at(exchange.proxy.masked) from None
            raise TransportFault(Code.ETIMEDOUT, f"{progress.phase} to {exchange.peer} {late}") from None
        sock.deadline = exchange.deadline
        return sock

    def _direct(self, exchange: Exchange, progress: Progress, limit: Deadline) -> Any:
        url = exchange.url
        progress.enter(Phase.NAME)
        addresses = self._resolver.resolve(url.host, url.port, limit, progress.check_stop)
        for address in addresses:
            progress.check_address(address.text)
        progress.enter(Phase.CONNECT)
        sock = self._connect(addresses, progress, limit, None)
        if url.scheme == "http":
            return sock
        progress.enter(Phase.TLS)
        return self._tls(sock, progress, url.host, exchange.verify, f"TLS {url.host}:{url.port}")

    def _through(self, proxy: Proxy, exchange: Exchange, progress: Progress, limit: Deadline) -> Any:
        progress.enter(Phase.PROXY_NAME)
        try:
            addresses = self._resolver.resolve(proxy.host, proxy.port, limit, progress.check_stop)
        except TransportFault as fault:
            raise fault.at(proxy.masked) from None
        progress.enter(Phase.PROXY_CONNECT)
        sock: Any = self._connect(addresses, progress, limit, proxy.masked)
        with closed_on_failure(sock):
            if proxy.scheme == "socks5h":
                progress.enter(Phase.TUNNEL)
                ask_for_connection(sock, proxy, exchange.url.host, exchange.url.port)
        if proxy.scheme == "https":
            progress.enter(Phase.PROXY_TLS)
            sock = self._tls_with_proxy(sock, proxy, progress)
        if exchange.url.scheme == "http":
            return sock
        if proxy.scheme != "socks5h":
            progress.enter(Phase.TUNNEL)
            open_tunnel(sock, proxy, exchange)
        progress.enter(Phase.TLS)
        return self._tls(sock, progress, exchange.url.host, exchange.verify, f"TLS {exchange.peer}")

    def _connect(self, addresses: list[Address], progress: Progress, limit: Deadline, proxy: str | None) -> DeadlineSocket:
        """Connect to one of a name's addresses; the one that answered first the last time is tried first."""
        if len(addresses) < 2:
            return _connect(addresses, progress, limit, proxy)[0]
        name, now = frozenset(address.sockaddr for address in addresses), time.monotonic()
        until, winner = self._winners.get(name, (0.0, ()))
        ordered = _interleaved(addresses)
        if now < until:
            ordered.sort(key=lambda address: address.sockaddr != winner)
        sock, answered = _connect(ordered, progress, limit, proxy)
        if len(self._winners) >= _MAX_REMEMBERED:
            self._winners.clear()
        self._winners[name] = now + WINNER_SECONDS, answered.sockaddr
        return sock

    def _tls_with_proxy(self, sock: Any, proxy: Proxy, progress: Progress) -> Any:
        try:
            return self._tls(sock, progress, proxy.host, True, f"TLS {proxy.host}:{proxy.port}", "the proxy")
        except DiskFault:
            raise
        except TransportFault as fault:
            raise fault.at(proxy.masked) from None

    def _tls(self, sock: Any, progress: Progress, host: str, verify: bool, operation: str, peer: str = "the target") -> TlsSocket:
        """Return a TLS session over a connected socket, which is closed if the handshake fails."""
        name = host.partition("%")[0].rstrip(".")
        check_name = verify and openssl_cannot_judge(name)
        with closed_on_failure(sock):
            context = self._context(verify, operation, names=not check_name)
            try:
                wrapped = TlsSocket(sock, context, name, ragged_ends=not verify)
            except ValueError:
                raise TransportFault(Code.EPROTO, f"{operation}: the name cannot be checked") from None
            progress.hold(wrapped)
            try:
                wrapped.do_handshake()
            except TimeoutError:
                raise
            except OSError as error:
                raise os_fault(error, operation, peer, wrapped.first_received) from None
            if check_name and not has_certificate_for(wrapped, name):
                raise name_fault(operation)
            return wrapped

    def _context(self, verify: bool, operation: str, *, names: bool) -> ssl.SSLContext:
        try:
            return self._trust.context(verify, names=names)
        except OSError as error:
            raise DiskFault(Code.EPROTO, f"{operation}: the trusted roots cannot be read: {type(error).__name__}") from None


class _Unreported(Progress):
    """The progress of the second connection, for the certificate: an abort ends it, but its phases are not the exchange's."""

    def __init__(self, exchange: Exchange, first: Progress) -> None:
        super().__init__(exchange)
        self._first = first

    def check_address(self, address: str) -> None:
        self._first.check_address(address)

    def hold(self, sock: Any) -> None:
        self._first.hold(sock)

    def check_stop(self) -> None:
        self._first.check_stop()


def _key(url: Url, proxy: Proxy | None) -> tuple[str, int, str]:
    return url.host, url.port, proxy.masked if proxy else ""


def _refused_certificate(certificate: Certificate, roots: str) -> RefusedCertificate:
    return RefusedCertificate(
        issuer=certificate.issuer,
        names=", ".join(certificate.names[:_MAX_NAMES]) or certificate.subject,
        begins=f"{certificate.not_before:%Y-%m-%d}",
        ends=f"{certificate.not_after:%Y-%m-%d}",
        roots=roots,
    )


def _connect(addresses: list[Address], progress: Progress, limit: Deadline, proxy: str | None) -> _Connected:
    """Connect to the address that answers first; the next is tried after NEXT_ADDRESS_SECONDS, or as soon as one fails (RFC 8305)."""
    attempts = Attempts(progress, limit, proxy)
    left = deque(addresses)
    with contextlib.ExitStack() as after:
        after.callback(attempts.close)
        while not limit.passed and (left or attempts.under_way):
            connected = attempts.begin(left.popleft()) if left else None
            next_at, failed = Deadline(NEXT_ADDRESS_SECONDS), len(attempts.faults)
            while connected is None and attempts.under_way and not limit.passed:
                if len(attempts.faults) > failed or (left and next_at.passed):
                    break
                progress.check_stop()
                connected = attempts.wait(min(WAKE_SECONDS, limit.remaining(), next_at.remaining() if left else WAKE_SECONDS))
            if connected is not None:
                sock, _ = connected
                with closed_on_failure(sock), attempts.as_faults(connected):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.deadline = limit
                    progress.hold(sock)  # It held the socket that was begun last, which need not be this one.
                return connected
        attempts.late()
    if not attempts.faults:
        raise TimeoutError
    raise _most_telling(attempts.faults)


class Attempts:
    """Connections that are being opened to the addresses of one name, side by side (RFC 8305 §5)."""

    def __init__(self, progress: Progress, limit: Deadline, proxy: str | None) -> None:
        self._progress = progress
        self._limit = limit
        self._proxy = proxy
        self._poller = select.poll()
        self._open: dict[int, tuple[DeadlineSocket, Address]] = {}
        self.faults: list[TransportFault] = []

    def begin(self, address: Address) -> _Connected | None:
        """Begin to connect; return the connection if it is made at once, else None."""
        try:
            sock = DeadlineSocket(address.family, socket.SOCK_STREAM)
        except OSError as error:  # There are no more descriptors, or the address family is disabled.
            self._failed(address, error)
            return None
        with closed_on_failure(sock):
            self._progress.hold(sock)
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
        """Wait for the first connection; returns None if there is none yet, or one has failed."""
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
        """Whether any connection is still being opened."""
        return bool(self._open)

    def close(self) -> None:
        """Close all connections that are still being opened."""
        for sock, _ in self._open.values():
            sock.close()
        self._open.clear()

    def late(self) -> None:
        """Add a time-out fault for each connection that is still being opened, and close it."""
        for _, address in self._open.values():
            self._failed(address, TimeoutError())
        self.close()

    @contextlib.contextmanager
    def as_faults(self, connected: _Connected) -> Iterator[None]:
        """Raise an OSError of the block as a fault: the connection may have been reset at once."""
        try:
            yield
        except OSError as error:
            self._failed(connected[1], error)
            raise self.faults[-1] from None

    def _failed(self, address: Address, error: OSError) -> None:
        where = f"[{address.text}]" if address.family == socket.AF_INET6 else address.text
        self.faults.append(os_fault(error, f"connect {where}:{address.sockaddr[1]}").at(self._proxy))


def _keep_alive(sock: socket.socket) -> None:
    """Have the system send keep-alive probes after a minute without data."""
    # A call may compute for an hour before its answer begins, and firewalls drop connections that are idle for long.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", KEEP_ALIVE_SECONDS), ("TCP_KEEPINTVL", KEEP_ALIVE_AGAIN_SECONDS), ("TCP_KEEPCNT", 8)):
        if hasattr(socket, option):  # macOS has another name for the first.
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _interleaved(addresses: list[Address]) -> list[Address]:
    """Return the addresses with their families alternating, beginning with the first one's (RFC 8305 §4)."""
    first = [address for address in addresses if address.family == addresses[0].family]
    others = [address for address in addresses if address.family != addresses[0].family]
    pairs = zip_longest(first, others)
    return [address for pair in pairs for address in pair if address is not None]


def _most_telling(faults: list[TransportFault]) -> TransportFault:
    """Return the last answer of a host; if there is none, the last time-out; if there is none, the last missing route."""
    timed_out = (Code.ETIMEDOUT,)
    no_route = (Code.ENETUNREACH, Code.EHOSTUNREACH)
    answered = [fault for fault in faults if fault.code not in timed_out + no_route]
    found = (answered or [fault for fault in faults if fault.code in timed_out] or faults)[-1]
    if len(faults) > 1:
        found.text = f"{found.text} ({len(faults)} addresses were tried)"
    return found
