"""What is answered while the request is still being sent: it is kept, read first, and freed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay_agent.core.failures import Code
from relay_agent.transport.early_answer import MAX_EARLY_BYTES, EarlyAnswer
from relay_agent.transport.errors import TransportFault
from tests.unit.transport.fake_socket import FakeSocket


def test_what_came_early_is_read_first_and_then_the_rest() -> None:
    sock = FakeSocket(b" OK\r\n\r\n")
    early = EarlyAnswer(sock)
    assert not early.arrived(b"HTTP/1.1 200")
    with early.makefile() as stream:
        assert stream.read() == b"HTTP/1.1 200 OK\r\n\r\n"


def test_a_connection_that_ends_early_ends_the_sending() -> None:
    assert EarlyAnswer(FakeSocket()).arrived(b"")


class Store:
    """Keeps an early answer, and notes whether it is closed."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.closed = 0

    def write(self, data: bytes) -> None:
        self.data.append(data)

    def chunks(self) -> Iterator[bytes]:
        yield from self.data

    def close(self) -> None:
        self.closed += 1


def test_an_early_success_goes_into_the_store_of_the_exchange_which_is_freed_once_it_was_read() -> None:
    store = Store()
    early = EarlyAnswer(FakeSocket(b"the rest"), lambda: store)
    for piece in (b"HTTP/1.1 200 OK\r\n", b"a" * MAX_EARLY_BYTES, b"b"):
        assert not early.arrived(piece)
    assert store.data == [b"a" * MAX_EARLY_BYTES, b"b"]
    with early.makefile() as stream:
        assert stream.read(MAX_EARLY_BYTES + 18) == b"HTTP/1.1 200 OK\r\n" + b"a" * MAX_EARLY_BYTES + b"b"
        assert not store.closed
        assert stream.read() == b"the rest"
        assert store.closed


def test_a_store_that_was_not_read_is_freed_with_the_stream() -> None:
    store = Store()
    early = EarlyAnswer(FakeSocket(), lambda: store)
    early.arrived(b"HTTP/1.1 200 OK\r\n")
    early.arrived(b"a")
    early.makefile().close()
    assert store.closed


def test_nothing_is_stored_before_the_status_is_known() -> None:
    early = EarlyAnswer(FakeSocket(), Store)
    for piece in (b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 20", b"0 OK\r\n"):
        assert not early.arrived(piece)
    with early.makefile() as stream:
        assert stream.read() == b"HTTP/1.1 200 OK\r\n"


def test_without_a_store_an_early_answer_that_is_large_is_a_fault() -> None:
    early = EarlyAnswer(FakeSocket())
    early.arrived(b"HTTP/1.1 200 OK\r\n")
    early.arrived(b"x" * MAX_EARLY_BYTES)
    with pytest.raises(TransportFault) as caught:
        early.arrived(b"x")
    assert caught.value.code is Code.ERESPONSETOOLARGE
    early.close()
