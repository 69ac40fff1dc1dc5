"""Writing a request, and the early answers that end it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from relay_agent.core.failures import Code
from relay_agent.transport.early_answer import EarlyAnswer
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.proxy import parse_proxy
from relay_agent.transport.request_writer import write_request
from tests.unit.transport.fake_socket import FakeSocket, exchange


def written(asked: Exchange) -> bytes:
    sock = FakeSocket()
    assert write_request(sock, asked, EarlyAnswer(sock))
    return sock.sent


def test_field_lines_go_out_as_they_are() -> None:
    headers = (("x-A", "1"), ("Host", "h"), ("X-a", "\xe9"))
    assert written(exchange(headers=headers)) == b"GET /a HTTP/1.1\r\nx-A: 1\r\nHost: h\r\nX-a: \xe9\r\n\r\n"


@pytest.mark.parametrize("size", [5, 200_000], ids=["in one write", "in two"])
def test_the_body_follows(size: int) -> None:
    assert written(exchange(method="PUT", body=b"b" * size)) == b"PUT /a HTTP/1.1\r\nHost: dev.lab.example\r\n\r\n" + b"b" * size


def test_a_proxy_that_forwards_is_given_the_whole_url_and_the_agent_s_own_login() -> None:
    headers = (("Proxy-Authorization", "the command's"), ("Host", "h"))
    head = written(exchange(headers=headers, proxy=parse_proxy("http://lab:pw@127.0.0.1:3128"))).decode()
    assert head == "GET http://dev.lab.example/a HTTP/1.1\r\nHost: h\r\nProxy-Authorization: Basic bGFiOnB3\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0b", "\u20ac"])
def test_what_would_break_the_head_is_not_sent(value: str) -> None:
    sock = FakeSocket()
    with pytest.raises(TransportFault) as caught:
        write_request(sock, exchange(headers=(("X", value),)), EarlyAnswer(sock))
    assert (caught.value.code, sock.sent) == (Code.EBADCOMMAND, b"")


def test_a_body_that_the_disk_does_not_give_is_the_disk_s_fault() -> None:
    class Lost:
        size = 5

        def chunks(self) -> Iterator[bytes]:
            raise OSError(5, "Input/output error")
            yield b""

        def __len__(self) -> int:
            return self.size

    sock = FakeSocket()
    with pytest.raises(DiskFault, match="Input/output error"):
        write_request(sock, exchange(method="PUT", body=cast("Any", Lost())), EarlyAnswer(sock))


@pytest.mark.parametrize(
    ("early", "whole"),
    [
        (b"HTTP/1.1 413 Too Large\r\n", False),
        (b"HTTP/1.1 302 Found\r\n", False),
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", True),
        (b"HTTP/1.1 1", True),
        (b"no HTTP\r\n", False),
    ],
)
def test_an_early_answer_ends_the_sending_unless_it_is_a_success_or_none_yet(early: bytes, whole: bool) -> None:
    sock = FakeSocket(early=early)
    answer = EarlyAnswer(sock)
    assert write_request(sock, exchange(method="PUT", body=b"b" * 10), answer) is whole
    assert answer.received
