"""The sockets of the admin pages, stepped by hand under a clock of the test's own: no client keeps the others from an answer.

Owns the proof that connections, time, memory and work are bounded for each way in, whatever its clients do. What the pages show is
tested with a whole agent (`tests/integration/test_agent_pages.py`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from waitress import wasyncore

from relay_agent.agent.admin import connections, server
from relay_agent.agent.admin.client import ask
from relay_agent.agent.admin.connections import ANSWER_SECONDS, CONNECTIONS, IDLE_SECONDS, REFUSED_SECONDS, REQUEST_SECONDS
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
            lambda: "",
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


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    monkeypatch.setattr(server, "LOOP_SECONDS", 0.05)
    stepped = Stepped(tmp_path)
    yield stepped
    stepped.close()


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


MANNERS = [idle, start, start_a_body, start_chunks, never_read, pipeline]


@pytest.mark.parametrize("misbehave", MANNERS)
def test_the_unix_socket_answers_while_tcp_is_full_and_tcp_recovers_by_itself(
    pages: Stepped, misbehave: Callable[[socket.socket], None]
) -> None:
    crowd = [pages.connect() for _ in range(CONNECTIONS)]
    for client in crowd if misbehave not in (never_read, pipeline) else crowd[:5]:
        misbehave(client)
    for _ in range(5):
        pages.step()
    assert b"200 OK" in pages.asked(tcp=False)
    late = pages.call()
    late.sendall(GET)
    pages.now += ANSWER_SECONDS
    assert b"200 OK" in pages.answered(late)
    assert pages.connected == 1


def test_clients_of_the_unix_socket_can_fill_it_only_for_the_time_of_a_request(pages: Stepped) -> None:
    for _ in range(CONNECTIONS):
        pages.connect(tcp=False)
    assert b"200 OK" in pages.asked(tcp=True)
    pages.now += REQUEST_SECONDS
    assert b"200 OK" in pages.asked(tcp=False)


def test_a_byte_of_a_request_does_not_extend_its_time(pages: Stepped) -> None:
    client = pages.connect()
    for byte in range(10):
        client.sendall(GET[byte : byte + 1])
        pages.step()
        assert not pages.closed(client)
        pages.now += REQUEST_SECONDS / 10
    pages.until(lambda: pages.closed(client))


def test_blank_lines_before_a_request_do_not_extend_its_time(pages: Stepped) -> None:
    client = pages.connect()
    for _ in range(10):
        client.sendall(b"\r\n\r\n")
        pages.step()
        pages.now += REQUEST_SECONDS / 10
    pages.until(lambda: pages.closed(client))


def test_a_client_that_sends_request_after_request_keeps_its_connection(pages: Stepped) -> None:
    client = pages.connect()
    for _ in range(5):
        client.sendall(GET)
        assert b"200 OK" in pages.answered(client)
        pages.now += IDLE_SECONDS / 2
    pages.until(lambda: not pages.at_work)
    pages.step()
    assert not pages.closed(client)
    pages.now += IDLE_SECONDS
    pages.until(lambda: pages.closed(client))


def test_the_first_byte_of_a_later_request_starts_its_time(pages: Stepped) -> None:
    client = pages.connect()
    client.sendall(GET)
    pages.answered(client)
    pages.until(lambda: not pages.at_work)
    client.sendall(GET[:1])
    for _ in range(5):
        pages.step()
    assert not pages.closed(client)
    pages.now += REQUEST_SECONDS
    pages.until(lambda: pages.closed(client))


def test_a_response_that_is_read_too_slowly_is_cut_off(pages: Stepped) -> None:
    client = pages.connect()
    client.sendall(LARGE)
    taken = len(pages.answered(client))
    for _ in range(10):
        pages.now += ANSWER_SECONDS / 10
        with contextlib.suppress(BlockingIOError):
            taken += len(client.recv(10_000))
        pages.step()
    pages.until(lambda: pages.connected == 0)
    assert taken < LARGE_BYTES


def test_a_client_that_stops_reading_is_disconnected(pages: Stepped) -> None:
    never_read(pages.connect())
    pages.step()
    pages.until(lambda: not pages.at_work)
    for _ in range(20):
        pages.step()
    pages.now += ANSWER_SECONDS
    for _ in range(5):
        pages.step()
    assert pages.connected == 0


def test_only_the_first_of_pipelined_requests_is_answered_with_connection_close(pages: Stepped) -> None:
    client = pages.connect()
    client.sendall(GET * 20)
    pages.until(lambda: pages.connected == 0)
    client.settimeout(5)
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while more := client.recv(65536):
            got += more
    assert got.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in got


def test_no_worker_thread_waits_for_a_client_that_does_not_read(pages: Stepped) -> None:
    for _ in range(4):
        pipeline(pages.connect())
    for _ in range(20):
        pages.step()
    assert b"200 OK" in pages.asked(tcp=True)


@pytest.mark.parametrize(
    "head",
    [
        b"GET a://" + b"1" * 15_000 + b" x y",
        b"GET / HTTP/1.1\r\nX:" + b" " * 15_000 + b"a",
        b"GET / HTTP/1.1\r\nX:" + b" " * 15_000 + b"\x01",
        b"GET / HTTP/1.1\r\nX: a" + b"\r\n  " * 3_000,
        b"GET http://[::1 HTTP/1.1",
        b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5_000,
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=["line", "spaces", "control", "folded", "bracket", "digits", "tls"],
)
def test_a_malformed_head_is_answered_400_at_once(pages: Stepped, head: bytes) -> None:
    """The patterns of waitress took up to 24 s for one, and held up every thread of the agent meanwhile."""
    client = pages.connect()
    began = time.thread_time()
    client.sendall(head + b"\r\n\r\n")
    assert b" 400 " in pages.answered(client)
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize("size", ["head", "body"])
def test_a_request_that_is_too_large_is_refused(pages: Stepped, size: str) -> None:
    client = pages.connect()
    client.sendall(GET[:-2] + (b"X: " + b"a" * 17_000 if size == "head" else b"Content-Length: 17000\r\n\r\n"))
    assert (b" 431 " if size == "head" else b" 413 ") in pages.answered(client)


class Rounds:
    """How often the loop came round in a time in which nothing happened."""

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


def test_many_clients_are_served_in_turns(pages: Stepped) -> None:
    assert pages.admin.step() == 0
    for _ in range(server.CROWD + 1):
        pages.connect()
    assert pages.admin.step() == server.TURN_SECONDS


def urgent(client: socket.socket) -> None:
    client.send(b"!", socket.MSG_OOB)


@pytest.mark.parametrize("misbehave", [*MANNERS, urgent])
def test_an_idle_client_costs_nothing(pages: Stepped, misbehave: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop sleeps 0.05 s here where nothing happens."""
    misbehave(pages.connect())
    for _ in range(5):
        pages.step()
    pages.until(lambda: not pages.at_work)
    assert Rounds(monkeypatch).within(pages, 0.5) < 30


def test_without_file_descriptors_the_loop_waits_logs_it_once_and_goes_on(pages: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pages.call()
    client.sendall(GET)
    with no_descriptors():
        assert Rounds(monkeypatch).within(pages, 0.5) < 30
    assert [(line["event"], line["reason"]) for line in pages.said] == [("admin-waits", "Too many open files")]
    pages.now += REFUSED_SECONDS
    assert b"200 OK" in pages.answered(client)


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process have no further file descriptor."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in held:
            os.close(each)


def test_a_full_port_is_logged_once(pages: Stepped) -> None:
    for _ in range(CONNECTIONS):
        pages.connect()
    for _ in range(5):
        pages.step()
    ((event, address),) = [(line["event"], line["address"]) for line in pages.said]
    assert (event, address) == ("admin-waits", "127.0.0.1:0")


def test_the_health_check_is_answered_while_the_port_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    stepped = Stepped(tmp_path, time.monotonic)
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            stepped.admin.step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with contextlib.ExitStack() as crowd:
            for _ in range(CONNECTIONS + 20):
                crowd.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", stepped.admin.port or 0)))).sendall(b"G")
            assert ask(stepped.path, "/healthz")[0] == 200
            with contextlib.closing(socket.create_connection(("127.0.0.1", stepped.admin.port or 0), timeout=20)) as client:
                client.sendall(GET)
                assert b"200 OK" in client.recv(65536)
    finally:
        over.set()
        stepped.admin.wake()
        thread.join(10)
        stepped.close()
