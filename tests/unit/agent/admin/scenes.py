"""The pages' sockets, stepped by hand under a clock of the test's own, and clients of every manner: the scenes of the tests of `admin`."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from waitress import wasyncore

from relay_agent.agent.admin import connections
from relay_agent.agent.admin.server import Admin
from relay_agent.diagnostics.causes import Problem
from relay_agent.telemetry.logger import Logger

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE_BYTES = 12_000_000
"""More than the system buffers for a client that does not read."""


class Known:
    """An agent that lives, of which nothing else is known."""

    def live(self) -> list[Problem]:
        return []

    def ready(self) -> list[Problem]:
        return []

    def status(self) -> dict[str, Any]:
        return {}

    def recent(self) -> list[Any]:
        return []


class Stepped:
    """The pages on both sockets. `step` serves once; `until` steps until something holds, 10 s at most."""

    def __init__(self, directory: Path, monotonic: Callable[[], float] | None = None) -> None:
        self.now = 1000.0
        self.path = directory / "admin.sock"
        self.admin = Admin(
            Known(),
            lambda: b"m" * LARGE_BYTES,
            ("127.0.0.1", 0),
            self.path,
            cast("Logger", self),
            {},
            monotonic=monotonic or (lambda: self.now),
        )
        self.said: list[dict[str, str]] = []
        self._clients = contextlib.ExitStack()

    def warning(self, event: str, **fields: str) -> None:
        """What the server logs."""
        self.said.append({"event": event, **fields})

    def close(self) -> None:
        self._clients.close()
        self.admin.close()

    def step(self) -> None:
        self.admin.wake()
        self.admin.step()

    def until(self, holds: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < 10, "what was waited for did not happen"
            self.step()

    def call(self, *, tcp: bool = True) -> socket.socket:
        """A client that may not be accepted yet."""
        client = socket.create_connection(("127.0.0.1", self.admin.port or 0)) if tcp else socket.socket(socket.AF_UNIX)
        self._clients.callback(client.close)
        if not tcp:
            client.connect(str(self.path))
        return client

    def connect(self, *, tcp: bool = True) -> socket.socket:
        """A client that was accepted."""
        before = self.connected
        client = self.call(tcp=tcp)
        self.until(lambda: self.connected == before + 1)
        return client

    @property
    def connected(self) -> int:
        return len(self._connections)

    @property
    def at_work(self) -> bool:
        """Whether a task thread has an answer to write."""
        return any(each.requests for each in self._connections)

    @property
    def _connections(self) -> list[connections.Connection]:
        return [connection for each in self.admin._servers for connection in each._open.values()]

    def answered(self, client: socket.socket) -> bytes:
        """What a client gets next: at least an answer's head."""
        got = b""
        client.setblocking(False)

        def some() -> bool:
            nonlocal got
            with contextlib.suppress(BlockingIOError):
                more = client.recv(1 << 20)
                assert more, f"closed after {got[:100]!r}"
                got += more
            return b"\r\n\r\n" in got

        self.until(some)
        return got

    def closed(self, client: socket.socket) -> bool:
        """Whether the server has closed a client's connection."""
        client.setblocking(False)
        try:
            while client.recv(1 << 20):
                continue
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        return True

    def asked(self, tcp: bool) -> bytes:
        """The answer to a new client."""
        client = self.call(tcp=tcp)
        client.sendall(GET)
        answer = self.answered(client)
        client.close()
        self.step()
        return answer


def idle(client: socket.socket) -> None:
    """Send nothing."""


def start(client: socket.socket) -> None:
    """Send a part of a request."""
    client.sendall(GET[:9])


def start_a_body(client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\nExpect: 100-continue\r\n\r\n")


def start_chunks(client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")


def never_read(client: socket.socket) -> None:
    client.sendall(LARGE)


def pipeline(client: socket.socket) -> None:
    client.sendall(LARGE * 50)


def urgent(client: socket.socket) -> None:
    client.send(b"!", socket.MSG_OOB)


MANNERS = [idle, start, start_a_body, start_chunks, never_read, pipeline]


class Rounds:
    """Count the loop's iterations while nothing happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        poll2 = wasyncore.poll2

        def counted(timeout: float = 0.0, map: Any = None) -> None:
            self.count += 1
            poll2(timeout, map)

        monkeypatch.setattr(wasyncore, "poll2", counted)

    def within(self, pages: Stepped, seconds: float) -> int:
        before, ends = self.count, time.monotonic() + seconds
        while time.monotonic() < ends:
            pages.admin.step()
        return self.count - before


@contextlib.contextmanager
def looping(admin: Admin) -> Iterator[None]:
    """Serve the pages on a thread, for a client that waits for its answer."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            admin.step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        admin.wake()
        thread.join(10)
    assert not thread.is_alive()
