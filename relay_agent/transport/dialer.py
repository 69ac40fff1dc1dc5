"""Opens a connection for an exchange: resolve the host, check its addresses, connect (through a proxy if one is set), TLS."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code, Phase, RefusedCertificate, TableKey
from relay_agent.core.models import Url
from relay_agent.transport.deadline_sockets import DeadlineSocket, closed_on_failure
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.fault_mapping import name_fault, os_fault
from relay_agent.transport.happy_eyeballs import connect, interleaved
from relay_agent.transport.hostnames import has_certificate_for, openssl_cannot_judge
from relay_agent.transport.progress import Progress
from relay_agent.transport.proxy import Proxy
from relay_agent.transport.proxy_connect import Tunnel
from relay_agent.transport.resolver import Address, Resolver
from relay_agent.transport.socks5 import ask_for_connection
from relay_agent.transport.tls import TlsContexts
from relay_agent.transport.tls_socket import TlsSocket
from relay_agent.transport.x509 import Certificate, public_key_digest, read_certificate

WINNER_SECONDS = 600.0
"""How long the address that answered first is tried first again (RFC 8305 §4)."""
CERTIFICATE_SECONDS = 2.0
"""By how much a call that failed may be prolonged to read the certificate that it refused."""
LOOK_AGAIN_SECONDS = 300.0
"""How long a refused certificate is remembered."""
_NOT_PINNED = f"refused by the agent's policy: {TableKey.PIN_SHA256} does not name the target's public key"
_MAX_REMEMBERED = 256
_MAX_NAMES = 5
"""Names of a refused certificate that are kept."""


class PeerObserver(Protocol):
    """What wants to know which certificates are in use. Called after each handshake, on the thread that dials; must not wait or raise."""

    def accepted(self, host: str, port: int, der: bytes, *, proxy: bool) -> None:
        """Take the certificate of a peer that was verified: of the proxy, or of the target itself."""


class Dialer:
    """Opens connections. Shared by all threads.

    Remembers only the certificates that were refused recently, and the addresses that answered first.
    """

    def __init__(self, trust: TlsContexts, resolver: Resolver, peers: PeerObserver | None = None) -> None:
        self._trust = trust
        self._resolver = resolver
        self._peers = peers
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
                shown = self._refused_certificate(exchange, progress)
                # Not remembered with the certificate: the policy may change, and other calls to this host may be under other roots.
                trusted = (exchange.tls or self._trust).trusted
                fault.show(shown and replace(shown, roots=trusted.setting, of_table=trusted.of_table))
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
        # The peer is not who it should be, so it is shown no client certificate.
        look = replace(exchange, verify=False, tls=None, deadline=limit, connect_seconds=limit.seconds)
        with contextlib.suppress(TransportFault, OSError):
            sock = self._dial(look, _Unreported(look, progress))
            try:
                certificate = read_certificate(sock.getpeercert(True) or b"")
            finally:
                sock.close()
            return None if certificate is None else _refused_certificate(certificate)
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
        resolved = tuple(address.text for address in addresses)
        progress.check_addresses(resolved)
        progress.enter(Phase.CONNECT)
        sock = self._connect(addresses, progress, limit, None)
        sock.resolved = resolved
        if url.scheme == "http":
            return sock
        progress.enter(Phase.TLS)
        return self._tls_with_target(sock, exchange, progress, f"TLS {url.host}:{url.port}")

    def _through(self, proxy: Proxy, exchange: Exchange, progress: Progress, limit: Deadline) -> Any:
        sock = self._to_proxy(proxy, exchange, progress, limit)
        if exchange.url.scheme == "http":
            return sock
        if proxy.scheme != "socks5h":
            progress.enter(Phase.TUNNEL)
            tunnel = Tunnel(proxy, exchange)
            while not tunnel.open(sock):
                sock = self._to_proxy(proxy, exchange, progress, limit)
                progress.enter(Phase.TUNNEL)
        progress.enter(Phase.TLS)
        return self._tls_with_target(sock, exchange, progress, f"TLS {exchange.peer}")

    def _to_proxy(self, proxy: Proxy, exchange: Exchange, progress: Progress, limit: Deadline) -> Any:
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
        return sock

    def _connect(self, addresses: list[Address], progress: Progress, limit: Deadline, proxy: str | None) -> DeadlineSocket:
        """Connect to one of a name's addresses; the one that answered first the last time is tried first."""
        if len(addresses) < 2:
            return connect(addresses, progress, limit, proxy)[0]
        name, now = frozenset(address.sockaddr for address in addresses), time.monotonic()
        until, winner = self._winners.get(name, (0.0, ()))
        ordered = interleaved(addresses)
        if now < until:
            ordered.sort(key=lambda address: address.sockaddr != winner)
        sock, answered = connect(ordered, progress, limit, proxy)
        if len(self._winners) >= _MAX_REMEMBERED:
            self._winners.clear()
        self._winners[name] = now + WINNER_SECONDS, answered.sockaddr
        return sock

    def _tls_with_target(self, sock: Any, exchange: Exchange, progress: Progress, operation: str) -> Any:
        trust = exchange.tls or self._trust
        session = self._tls(sock, progress, exchange.url.host, trust, exchange.verify, operation)
        if trust.pins and public_key_digest(session.getpeercert(True) or b"") not in trust.pins:
            session.close()
            raise TransportFault(Code.EPOLICY, _NOT_PINNED, rule=TableKey.PIN_SHA256, table_key=TableKey.PIN_SHA256)
        if exchange.verify:
            self._report(session, exchange.url.host, exchange.url.port)
        return session

    def _tls_with_proxy(self, sock: Any, proxy: Proxy, progress: Progress) -> Any:
        try:
            session = self._tls(sock, progress, proxy.host, self._trust, True, f"TLS {proxy.host}:{proxy.port}", "the proxy")
        except DiskFault:
            raise
        except TransportFault as fault:
            raise fault.at(proxy.masked) from None
        self._report(session, proxy.host, proxy.port, proxy=True)
        return session

    def _report(self, session: TlsSocket, host: str, port: int, *, proxy: bool = False) -> None:
        if self._peers is not None:
            self._peers.accepted(host, port, session.getpeercert(True) or b"", proxy=proxy)

    def _tls(
        self, sock: Any, progress: Progress, host: str, trust: TlsContexts, verify: bool, operation: str, peer: str = "the target"
    ) -> TlsSocket:
        """Return a TLS session over a connected socket, which is closed if the handshake fails."""
        name = host.partition("%")[0].rstrip(".")
        check_name = verify and openssl_cannot_judge(name)
        with closed_on_failure(sock):
            context = _context(trust, verify, operation, names=not check_name)
            try:
                wrapped = TlsSocket(sock, context, name, ragged_ends=not verify, shows_certificate=trust.client is not None)
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


def _context(trust: TlsContexts, verify: bool, operation: str, *, names: bool) -> ssl.SSLContext:
    try:
        return trust.context(verify, names=names)
    except OSError as error:
        raise DiskFault(Code.EPROTO, f"{operation}: the trusted roots cannot be read: {type(error).__name__}") from None


class _Unreported(Progress):
    """The progress of the second connection, for the certificate: an abort ends it, but its phases are not the exchange's."""

    def __init__(self, exchange: Exchange, first: Progress) -> None:
        super().__init__(exchange)
        self._first = first

    def check_addresses(self, addresses: Sequence[str]) -> None:
        self._first.check_addresses(addresses)

    def hold(self, sock: Any) -> None:
        self._first.hold(sock)

    def check_stop(self) -> None:
        self._first.check_stop()


def _key(url: Url, proxy: Proxy | None) -> tuple[str, int, str]:
    return url.host, url.port, proxy.masked if proxy else ""


def _refused_certificate(certificate: Certificate) -> RefusedCertificate:
    return RefusedCertificate(
        issuer=certificate.issuer,
        names=", ".join(certificate.names[:_MAX_NAMES]) or certificate.subject,
        begins=f"{certificate.not_before:%Y-%m-%d}",
        ends=f"{certificate.not_after:%Y-%m-%d}",
        roots="",
    )
