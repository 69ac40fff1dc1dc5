"""Sockets on which every wait ends at one deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.transport.deadline_sockets import DeadlineSocket


@pytest.fixture
def pair() -> Iterator[tuple[DeadlineSocket, socket.socket]]:
    """A socket with a deadline and its peer, on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server, DeadlineSocket(socket.AF_INET, socket.SOCK_STREAM) as ours:
        ours.connect(server.getsockname())
        theirs, _ = server.accept()
        with theirs:
            yield ours, theirs


def test_without_a_deadline_it_is_a_plain_socket(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(b"abc")
    assert theirs.recv(10) == b"abc"
    theirs.sendall(b"def")
    assert ours.recv(10) == b"def"


def test_a_wait_ends_at_the_deadline(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, _ = pair
    ours.deadline = Deadline(0.1)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        ours.recv(1)
    with pytest.raises(TimeoutError):
        ours.recv_into(bytearray(1))
    assert 0.1 <= time.monotonic() - begun < 2


def test_nothing_is_sent_after_the_deadline(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, _ = pair
    ours.deadline = Deadline(0)
    for call in (lambda: ours.send(b"x"), lambda: ours.sendall(b"x"), lambda: ours.recv(1)):
        with pytest.raises(TimeoutError):
            call()
    assert ours.bytes_sent == 0


def test_a_peer_that_sends_byte_by_byte_does_not_move_the_deadline(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    """The test's clock advances by a second for each received byte."""
    ours, theirs = pair
    now = 0.0
    ours.deadline = Deadline(3.0, lambda: now)
    theirs.sendall(b"drip" * 10)
    read = 0
    with pytest.raises(TimeoutError):
        while True:
            read += len(ours.recv(1))
            now += 1.0
    assert read == 3


def test_the_bytes_that_the_system_accepted_are_counted(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, theirs = pair
    data = b"x" * 3_000_000
    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(theirs.recv(65536))

    reader = threading.Thread(target=read)
    reader.start()
    ours.deadline = Deadline(10)
    ours.sendall(memoryview(data))
    reader.join(10)
    assert (ours.bytes_sent, bytes(got)) == (len(data), data)


def test_a_peer_that_does_not_read_ends_the_sending_at_the_deadline(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, _ = pair
    data = b"x" * 50_000_000
    ours.deadline = Deadline(0.3)
    with pytest.raises(TimeoutError):
        ours.sendall(data)
    assert 0 < ours.bytes_sent < 50_000_000


def test_it_is_readable_if_there_are_data_or_the_end_has_come(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, theirs = pair
    assert not ours.readable()
    theirs.sendall(b"xy")
    ours.deadline = Deadline(10)
    assert ours.recv(1) == b"x"
    assert ours.readable()
    assert ours.recv(1) == b"y"
    assert not ours.readable()
    theirs.close()
    ours.recv(1)
    assert ours.readable()


@pytest.mark.parametrize("wait", [lambda sock: sock.recv(1), lambda sock: sock.sendall(b"x" * 50_000_000)], ids=["receive", "send"])
def test_a_shutdown_by_another_thread_ends_a_wait(
    pair: tuple[DeadlineSocket, socket.socket], wait: Callable[[DeadlineSocket], object]
) -> None:
    ours, _ = pair
    ours.deadline = Deadline(50)
    ended = threading.Event()

    def waiting() -> None:
        with contextlib.suppress(OSError):
            wait(ours)
        ended.set()

    threading.Thread(target=waiting, daemon=True).start()
    while not ended.wait(0.05):
        assert not ours.deadline.passed
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)
    assert ours.deadline.remaining() > 30
