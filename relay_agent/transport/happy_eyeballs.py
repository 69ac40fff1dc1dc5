"""Connects to the one of a name's addresses that answers first: families take turns, and a silent address does not stop the next.

"Happy Eyeballs" (RFC 8305). This module owns the order of the addresses and which of several faults is reported. It must not resolve names
or know TLS.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections import deque
from collections.abc import Iterator
from itertools import zip_longest

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.core.models import bracketed
from relay_agent.transport.deadline_sockets import DeadlineSocket, closed_on_failure
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.fault_mapping import os_fault
from relay_agent.transport.progress import Progress
from relay_agent.transport.resolver import Address

NEXT_ADDRESS_SECONDS = 0.25
"""Time after which the next address is tried beside one that has not answered (RFC 8305 §8)."""
WAKE_SECONDS = 0.1
KEEP_ALIVE_SECONDS = 60
KEEP_ALIVE_AGAIN_SECONDS = 30

Connected = tuple[DeadlineSocket, Address]


def connect(addresses: list[Address], progress: Progress, limit: Deadline, proxy: str | None) -> Connected:
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
    raise most_telling(attempts.faults)


class Attempts:
    """Connections that are being opened to the addresses of one name, side by side (RFC 8305 §5)."""

    def __init__(self, progress: Progress, limit: Deadline, proxy: str | None) -> None:
        self._progress = progress
        self._limit = limit
        self._proxy = proxy
        self._poller = select.poll()
        self._open: dict[int, tuple[DeadlineSocket, Address]] = {}
        self.faults: list[TransportFault] = []

    def begin(self, address: Address) -> Connected | None:
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

    def wait(self, seconds: float) -> Connected | None:
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
    def as_faults(self, connected: Connected) -> Iterator[None]:
        """Raise an OSError of the block as a fault: the connection may have been reset at once."""
        try:
            yield
        except OSError as error:
            self._failed(connected[1], error)
            raise self.faults[-1] from None

    def _failed(self, address: Address, error: OSError) -> None:
        where = f"{bracketed(address.text)}:{address.sockaddr[1]}"
        self.faults.append(os_fault(error, f"connect {where}").at(self._proxy))


def _keep_alive(sock: socket.socket) -> None:
    """Have the system send keep-alive probes after a minute without data."""
    # A call may compute for an hour before its answer begins, and firewalls drop connections that are idle for long.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", KEEP_ALIVE_SECONDS), ("TCP_KEEPINTVL", KEEP_ALIVE_AGAIN_SECONDS), ("TCP_KEEPCNT", 8)):
        if hasattr(socket, option):  # macOS has another name for the first.
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def interleaved(addresses: list[Address]) -> list[Address]:
    """Return the addresses with their families alternating, beginning with the first one's (RFC 8305 §4)."""
    first = [address for address in addresses if address.family == addresses[0].family]
    others = [address for address in addresses if address.family != addresses[0].family]
    pairs = zip_longest(first, others)
    return [address for pair in pairs for address in pair if address is not None]


def most_telling(faults: list[TransportFault]) -> TransportFault:
    """Return the last answer of a host; if there is none, the last time-out; if there is none, the last missing route."""
    timed_out = (Code.ETIMEDOUT,)
    no_route = (Code.ENETUNREACH, Code.EHOSTUNREACH)
    answered = [fault for fault in faults if fault.code not in timed_out + no_route]
    found = (answered or [fault for fault in faults if fault.code in timed_out] or faults)[-1]
    if len(faults) > 1:
        found.text = f"{found.text} ({len(faults)} addresses were tried)"
    return found
