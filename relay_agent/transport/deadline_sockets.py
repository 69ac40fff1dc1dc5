"""Sockets whose every wait ends at one wall-clock deadline.

A plain socket time-out is per call, so a peer that drips a byte a second defeats it. These sockets take
what is left of the deadline before each call. This room must not know HTTP.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from relay_agent.core.clock import Deadline


@contextlib.contextmanager
def closed_on_failure(sock: Any) -> Iterator[None]:
    """Close the socket where the block fails, whatever the failure is."""
    try:
        yield
    except BaseException:
        sock.close()
        raise


LONGEST_WAIT_SECONDS = 1_000_000.0
"""The limit of a single call. Python refuses time-outs that poll(2) cannot take, which are those beyond 24 days."""


_LOOK_MS = 1000
_FETCH = 64 * 1024


class Watch(Protocol):
    """Who looks at what a peer says while it is still being sent to."""

    def arrived(self, data: bytes) -> bool:
        """Take bytes that came, none at the end of the connection; whether sending must stop."""

    @property
    def full(self) -> bool:
        """Whether no more bytes are to be taken now."""


class DeadlineWait:
    """What both kinds of socket share: the deadline, and a count of the bytes the system took."""

    deadline: Deadline | None = None
    bytes_sent: int = 0

    def arm(self) -> None:
        """Give the next call what is left.

        Raises:
            TimeoutError: nothing is left.
        """
        if self.deadline is not None:
            left = self.deadline.remaining()
            if left <= 0:
                raise TimeoutError("deadline passed")
            self.settimeout(min(left, LONGEST_WAIT_SECONDS))

    def pending(self) -> int:
        """Bytes that have left the system's buffer and that nobody has read; a plain socket has none."""
        return 0

    def settimeout(self, value: float | None, /) -> None:
        """The socket's own; named here for the type checker."""
        raise NotImplementedError


class DeadlineSocket(socket.socket, DeadlineWait):
    """A plain socket with a deadline."""

    def recv(self, *args: Any) -> bytes:
        """As socket.recv, within the deadline."""
        self.arm()
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        """As socket.recv_into, within the deadline."""
        self.arm()
        return super().recv_into(*args)

    def send(self, *args: Any) -> int:
        """As socket.send, within the deadline, counted."""
        self.arm()
        sent = super().send(*args)
        self.bytes_sent += sent
        return sent

    def send_watching(self, data: Any, watch: Watch) -> bool:
        """Send all of it within the deadline, and hand over what comes meanwhile; whether all was sent, which the watch may stop.

        Raises:
            TimeoutError: the deadline passed.
            OSError: as the system says.
        """
        poller = select.poll()
        done = 0
        with memoryview(data) as view, view.cast("B") as rest:
            while done < len(rest):
                self.arm()
                poller.register(self, select.POLLOUT if watch.full else select.POLLOUT | select.POLLIN)
                limit = min(_LOOK_MS, max(1, int((self.gettimeout() or 1.0) * 1000)))
                ready = dict(poller.poll(limit)).get(self.fileno(), 0)
                if ready & select.POLLIN and self._heard(watch.arrived):
                    return False
                if ready & (select.POLLOUT | select.POLLERR | select.POLLHUP):
                    done += self._send_now(rest[done:])
        return True

    def _heard(self, arrived: Callable[[bytes], bool]) -> bool:
        self.settimeout(0.0)
        try:
            data = super().recv(_FETCH)
        except BlockingIOError:
            return False
        return arrived(data)

    def _send_now(self, data: memoryview) -> int:
        self.settimeout(0.0)
        try:
            sent = super().send(data)
        except BlockingIOError:
            return 0
        self.bytes_sent += sent
        return sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As socket.sendall, but what left is counted, so that "nothing was sent" can be told."""
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            while done < len(rest):
                done += self.send(rest[done:], flags)
