"""Sockets whose every wait ends at one wall-clock deadline.

A plain socket time-out is per call, so a peer that drips a byte a second defeats it. These sockets take
what is left of the deadline before each call. This room must not know HTTP.
"""

from __future__ import annotations

import socket
from typing import Any

from relay_agent.clock import Deadline

LONGEST_WAIT_SECONDS = 1_000_000.0
"""The limit of a single call. Python refuses time-outs that poll(2) cannot take, which are those beyond 24 days."""


class Clocked:
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


class ClockedSocket(socket.socket, Clocked):
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

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As socket.sendall, but what left is counted, so that "nothing was sent" can be told."""
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            while done < len(rest):
                done += self.send(rest[done:], flags)
