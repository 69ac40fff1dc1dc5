"""Limits for clients of the pages, stepped by hand under a clock of the test's own: connections, time, memory and work are bounded.

Owns the proof that they are for each way in, whatever its clients do. What the pages show is tested with a whole agent
(`tests/integration/test_agent_pages.py`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.agent.admin.connections import ANSWER_SECONDS, CONNECTIONS, IDLE_SECONDS, REFUSED_SECONDS, REQUEST_SECONDS
from tests.unit.agent.admin.scenes import GET, LARGE, LARGE_BYTES, Rounds, Stepped, never_read, pipeline


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
