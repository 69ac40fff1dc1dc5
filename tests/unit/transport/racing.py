"""A network of several addresses without sockets: each answers, fails or is silent as a test says, in a time that the test owns."""

from __future__ import annotations

import errno
import select
import socket
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.transport import happy_eyeballs
from relay_agent.transport.progress import Progress
from relay_agent.transport.resolver import Address
from tests.unit.transport.fake_socket import exchange

SILENT = 1e9
"""When an address answers that never does."""


def address(text: str) -> Address:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return Address(family, text, (text, 80))


class RacingSocket:
    """A socket of the network, as far as connecting needs it."""

    def __init__(self, network: Network, number: int) -> None:
        self._network = network
        self._number = number
        self.to = ""
        self.at = 0.0
        self.deadline: Deadline | None = None
        self.options: dict[tuple[int, int], int] = {}
        self.closed = False

    def fileno(self) -> int:
        return self._number

    def settimeout(self, _seconds: float) -> None:
        """Nothing is waited for."""

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if option == socket.TCP_NODELAY and level == socket.IPPROTO_TCP and self.to in self._network.resets:
            raise OSError(errno.ECONNRESET, "reset")
        self.options[level, option] = value

    def getsockopt(self, _level: int, _option: int) -> int:
        return self._network.errors.get(self.to, 0)

    def connect(self, peer: tuple[str, int]) -> None:
        self.to = peer[0]
        self._network.begun.append((self.to, round(self._network.time, 2)))
        self._network.sockets.append(self)
        self.at = self._network.time + self._network.answers.get(self.to, SILENT)
        if self.to in self._network.at_once:
            raise OSError(self._network.at_once[self.to], "at once")
        raise BlockingIOError

    def close(self) -> None:
        self.closed = True


class RacingPoll:
    """`select.poll` of the network: waiting moves its time."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._registered: dict[int, RacingSocket] = {}

    def register(self, sock: RacingSocket, _events: int) -> None:
        self._registered[sock.fileno()] = sock

    def unregister(self, descriptor: int) -> None:
        del self._registered[descriptor]

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        until = self._network.time + milliseconds / 1000
        due = min((sock.at for sock in self._registered.values()), default=SILENT)
        self._network.time = max(self._network.time, min(due, until))
        return [(sock.fileno(), select.POLLOUT) for sock in self._registered.values() if sock.at <= self._network.time]


class Network:
    """What `happy_eyeballs` connects in, while a test runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 0.0
        self.answers: dict[str, float] = {}
        """How long after the beginning an address answers; never, if it is not named."""
        self.errors: dict[str, int] = {}
        """What an address answers in place of a connection."""
        self.at_once: dict[str, int] = {}
        """Errors of `connect` itself."""
        self.resets: set[str] = set()
        """Addresses that reset a connection as soon as it is made."""
        self.no_sockets = 0
        """How many sockets cannot be made first."""
        self.begun: list[tuple[str, float]] = []
        self.sockets: list[RacingSocket] = []
        self.progress = Progress(exchange())
        self.held: list[Any] = []
        monkeypatch.setattr(self.progress, "hold", self.held.append)
        monkeypatch.setattr(happy_eyeballs, "DeadlineSocket", self._socket)
        monkeypatch.setattr(happy_eyeballs, "select", SimpleNamespace(poll=lambda: RacingPoll(self), POLLOUT=select.POLLOUT))
        monkeypatch.setattr(happy_eyeballs, "Deadline", self.deadline)

    @property
    def deadline(self) -> partial[Deadline]:
        return partial(Deadline, monotonic=lambda: self.time)

    def connect(self, *texts: str, seconds: float = 10.0, proxy: str | None = None) -> tuple[Any, Address]:
        return happy_eyeballs.connect([address(text) for text in texts], self.progress, self.deadline(seconds), proxy)

    def _socket(self, family: int, _kind: int) -> RacingSocket:
        assert family in (socket.AF_INET, socket.AF_INET6)
        if self.no_sockets:
            self.no_sockets -= 1
            raise OSError(errno.EMFILE, "no more")
        return RacingSocket(self, len(self.sockets) + 100)
