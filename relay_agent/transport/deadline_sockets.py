"""Sockets on which every wait ends at one deadline.

The time-out of a plain socket starts again with each call, so that a peer which sends a byte a second never runs into it. It also costs
three system calls for each read or write (its setting, a poll, the call), and each of them may give the interpreter to another thread.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from relay_agent.core.clock import Deadline

LONGEST_WAIT_SECONDS = 1_000_000.0
"""The longest wait of one call: poll(2) takes no more than 24 days."""
RECEIVE_BYTES = 64 * 1024


class Watch(Protocol):
    """Receives what a peer sends before the request has been sent completely."""

    def arrived(self, data: bytes) -> bool:
        """Take bytes that were received, none at the end of the connection; return whether sending must stop.

        Whatever it raises ends the sending.
        """


@contextlib.contextmanager
def closed_on_failure(sock: Any) -> Iterator[None]:
    """Close the socket if the block raises anything."""
    try:
        yield
    except BaseException:
        sock.close()
        raise


class DeadlineWait:
    """A deadline for every wait, and a count of the bytes that the system has accepted."""

    deadline: Deadline | None = None
    bytes_sent: int = 0
    resolved: tuple[str, ...] = ()
    """All addresses to which the name of the peer resolved when the connection was made; empty if a proxy made it."""

    def check_deadline(self) -> None:
        """Raise TimeoutError if the deadline has passed."""
        if self.deadline is not None and self.deadline.passed:
            raise TimeoutError("deadline passed")

    def pending(self) -> int:
        """Return how many received bytes are buffered in this object; a plain socket has none."""
        return 0


class DeadlineSocket(socket.socket, DeadlineWait):
    """A plain socket with a deadline. It does not block from its first read or write on: what would wait, waits here."""

    def recv(self, *args: Any) -> bytes:
        """Receive as socket.recv does, within the deadline."""
        while True:
            self._prepare()
            try:
                return super().recv(*args)
            except BlockingIOError:
                self._wait(select.POLLIN)

    def recv_into(self, *args: Any) -> int:
        """Receive as socket.recv_into does, within the deadline."""
        while True:
            self._prepare()
            try:
                return super().recv_into(*args)
            except BlockingIOError:
                self._wait(select.POLLIN)

    def send(self, *args: Any) -> int:
        """Send as socket.send does, within the deadline."""
        while True:
            self._prepare()
            try:
                sent = super().send(*args)
            except BlockingIOError:
                self._wait(select.POLLOUT)
            else:
                self.bytes_sent += sent
                return sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send as socket.sendall does, within the deadline."""
        # Not by socket.sendall, which does not say how much it has sent when it fails.
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            while done < len(rest):
                done += self.send(rest[done:], flags)

    def readable(self) -> bool:
        """Return whether a read would not wait now: there are data, the connection's end, or an error."""
        poller = select.poll()
        poller.register(self, select.POLLIN)
        return bool(poller.poll(0))

    def send_watching(self, data: Any, watch: Watch) -> bool:
        """Send within the deadline, and pass what is received meanwhile to `watch`; return False if `watch` stopped the sending.

        It never stops receiving: a peer that answers while it reads would stop reading until its answer is taken.

        Raises:
            TimeoutError: the deadline passed.
            OSError: any other error of the system.
        """
        done = 0
        with memoryview(data) as view, view.cast("B") as rest:
            while done < len(rest):
                self._prepare()
                ready = self._wait(select.POLLOUT | select.POLLIN)
                if ready & select.POLLIN and self._receive_now(watch.arrived):
                    return False
                if ready & (select.POLLOUT | select.POLLERR | select.POLLHUP):
                    done += self._send_now(rest[done:])
        return True

    def _prepare(self) -> None:
        self.check_deadline()
        if self.gettimeout() != 0.0:
            self.settimeout(0.0)

    def _wait(self, events: int) -> int:
        """Wait until one of the events of poll(2) has happened, or the deadline has passed, and return those that have."""
        poller = select.poll()
        poller.register(self, events)
        left = LONGEST_WAIT_SECONDS if self.deadline is None else min(self.deadline.remaining(), LONGEST_WAIT_SECONDS)
        return dict(poller.poll(left * 1000)).get(self.fileno(), 0)

    def _receive_now(self, arrived: Callable[[bytes], bool]) -> bool:
        try:
            data = super().recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        return arrived(data)

    def _send_now(self, data: memoryview) -> int:
        try:
            sent = super().send(data)
        except BlockingIOError:
            return 0
        self.bytes_sent += sent
        return sent
