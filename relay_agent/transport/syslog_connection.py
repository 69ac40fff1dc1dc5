"""The way to a syslog receiver: datagrams (RFC 5426), or messages with their length over TCP (RFC 6587 §3.4.1) or TLS (RFC 5425).

Every wait has a deadline. It must not retry or keep a message: its caller does.
"""

from __future__ import annotations

import contextlib
import select
import socket
from dataclasses import replace
from typing import Any

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code, Phase
from relay_agent.core.models import SyslogReceiver, Url
from relay_agent.transport.deadline_sockets import DeadlineSocket
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.fault_mapping import os_fault
from relay_agent.transport.progress import Progress
from relay_agent.transport.resolver import Resolver

OPEN_SECONDS = 5.0
SEND_SECONDS = 5.0
_LOOK_SECONDS = 0.05
"""How long a look for the end of the connection may wait for the rest of a TLS record."""


class SyslogConnection:
    """One connection, opened again after each failure. Belongs to one thread; only `abort` may be called from another.

    No proxy is used. Of `dialer` only its TLS and its way to choose among addresses are used: there is no HTTP here.
    """

    def __init__(self, receiver: SyslogReceiver, dialer: Dialer, resolver: Resolver) -> None:
        self.receiver = receiver
        self._dialer = dialer
        self._resolver = resolver
        self._sock: Any = None
        self._progress: Progress | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is open, as far as is known."""
        return self._sock is not None

    def open(self, seconds: float = OPEN_SECONDS) -> None:
        """Connect. A datagram's receiver is only looked up: whether one listens shows after the first message, if at all.

        Raises:
            TransportFault: there is no connection.
        """
        it = self.receiver
        deadline = Deadline(seconds)
        url = Url("https" if it.transport == "tls" else "http", it.host, it.port, "/")
        exchange = Exchange("", url, (), None, deadline, connect_seconds=seconds)
        self._progress = progress = Progress(exchange)
        try:
            self._sock = self._datagrams(deadline, progress) if it.transport == "udp" else self._dialer.dial(exchange, progress)
        except TransportFault as fault:
            raise self._named(fault)  # noqa: B904 - it is the same fault

    def send(self, message: str) -> None:
        """Send one message; after a failure the connection is closed, and the receiver may or may not have the message.

        Raises:
            TransportFault: it could not be handed to the system.
        """
        data = message.encode("ascii", "replace")
        if self.receiver.transport != "udp":
            data = b"%d %s" % (len(data), data)
        self._sock.deadline = Deadline(SEND_SECONDS)
        try:
            self._sock.sendall(data)
        except OSError as error:
            self.close()
            raise self._named(os_fault(error, f"send {self._where}", "the log receiver").during(Phase.SENDING)) from None

    def look(self, seconds: float = 0.0) -> None:
        """Look whether the connection has ended, before a message is lost on it; closes it in that case. Waits for `seconds` for its end.

        Raises:
            TransportFault: it has ended.
        """
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        if not poller.poll(int(seconds * 1000)):
            return
        # A receiver sends nothing, but TLS has messages of its own after the handshake.
        self._sock.deadline = Deadline(max(seconds, _LOOK_SECONDS))
        try:
            ended = not self._sock.recv(4096) and self.receiver.transport != "udp"
        except TimeoutError:
            return
        except OSError as error:
            self.close()
            raise self._named(os_fault(error, f"send {self._where}", "the log receiver").during(Phase.SENDING)) from None
        if ended:
            self.close()
            raise self._named(TransportFault(Code.ECONNRESET, f"{self._where}: closed by the log receiver").during(Phase.SENDING))

    def close(self) -> None:
        """Close the connection; what was sent is still delivered by the system."""
        sock, self._sock, self._progress = self._sock, None, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def abort(self) -> None:
        """Make a wait for the receiver end with an error. Any thread."""
        progress = self._progress
        if progress is not None:
            progress.abort()

    @property
    def _where(self) -> str:
        return str(self.receiver).partition("://")[2]

    def _named(self, fault: TransportFault) -> TransportFault:
        fault.facts = replace(fault.facts, host=self.receiver.host, port=self.receiver.port)
        return fault

    def _datagrams(self, deadline: Deadline, progress: Progress) -> DeadlineSocket:
        progress.enter(Phase.NAME)
        last: TransportFault | None = None
        for address in self._resolver.resolve(self.receiver.host, self.receiver.port, deadline, progress.check_stop):
            try:
                sock = DeadlineSocket(address.family, socket.SOCK_DGRAM)
            except OSError as error:
                last = os_fault(error, f"connect {self._where}")
                continue
            try:
                sock.connect(address.sockaddr)
            except OSError as error:
                sock.close()
                last = os_fault(error, f"connect {self._where}").during(Phase.CONNECT)
                continue
            progress.hold(sock)
            return sock
        raise last or TransportFault(Code.ENOTFOUND, f"{self.receiver.host} has no address")
