"""Reading a response's body from its connection."""

from __future__ import annotations

import ssl

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code, Phase
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.response_parser import Response
from relay_agent.transport.streamed_response import DRAIN_BYTES, DRAIN_SECONDS, StreamedResponse
from tests.unit.transport.fake_socket import FakeSocket, exchange


def response(
    answer: bytes, error: OSError | None = None, asked: Exchange | None = None, sock: FakeSocket | None = None
) -> StreamedResponse:
    sock, asked = sock or FakeSocket(), asked or exchange()
    sock.answer, sock.error = answer, error
    raw = Response(sock, method=asked.method)
    raw.begin()
    return StreamedResponse(raw, asked, sock)


def test_fields_are_as_received_and_the_body_comes_in_pieces() -> None:
    found = response(b"HTTP/1.1 404 Not here\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 5\r\n\r\nabcde")
    assert (found.status_code, found.reason, found.announced_length) == (404, "Not here", 5)
    assert found.fields == (("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("Content-Length", "5"))
    assert not found.body_began
    assert [found.read(3), found.read(3), found.read(3)] == [b"abc", b"de", b""]
    assert found.body_began
    assert not found.raw.broken


@pytest.mark.parametrize(
    ("head", "body", "error", "code", "text"),
    [
        (b"Content-Length: 9", b"abc", None, Code.EBADRESPONSE, "closed before the end of the body"),
        (b"Transfer-Encoding: chunked", b"9\r\nabc", None, Code.EBADRESPONSE, "closed before the end of the body"),
        (b"Transfer-Encoding: chunked", b"+9\r\nabc", None, Code.EBADRESPONSE, "not valid HTTP"),
        (b"Content-Length: 9", b"abc", ssl.SSLEOFError(8, "EOF"), Code.EBADRESPONSE, "closed before the end of the body"),
        (b"Content-Length: 9", b"abc", ConnectionResetError(104, "reset"), Code.ECONNRESET, "read ECONNRESET"),
        (b"Content-Length: 9", b"abc", TimeoutError("deadline passed"), Code.ETIMEDOUT, "took longer than 60 s"),
    ],
)
def test_a_body_that_breaks_off_is_a_fault(head: bytes, body: bytes, error: OSError | None, code: Code, text: str) -> None:
    found = response(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body, error)
    with pytest.raises(TransportFault, match=text) as caught:
        while found.read(3):
            pass
    assert (caught.value.code, caught.value.facts.phase) == (code, Phase.BODY)
    found.raw.close()
    assert found.raw.broken


def test_work_on_what_was_read_ends_with_the_exchange_s_time() -> None:
    response(b"HTTP/1.1 204 No\r\n\r\n").check_deadline()
    with pytest.raises(TransportFault) as caught:
        response(b"HTTP/1.1 204 No\r\n\r\n", asked=exchange(deadline=Deadline(0.0))).check_deadline()
    assert caught.value.code == Code.ETIMEDOUT


@pytest.mark.parametrize(("size", "whole"), [(0, True), (5, True), (DRAIN_BYTES, True), (DRAIN_BYTES + 2, False)])
def test_a_short_body_is_drained_and_a_long_one_is_not(size: int, whole: bool) -> None:
    sock = FakeSocket()
    found = response(b"HTTP/1.1 302 Found\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size, sock=sock)
    found.drain()
    found.raw.close()
    assert found.raw.broken is not whole
    assert sock.deadline is not None
    assert sock.deadline.seconds == DRAIN_SECONDS


def test_a_body_that_breaks_off_while_it_is_drained_is_nobody_s_fault() -> None:
    response(b"HTTP/1.1 302 Found\r\nContent-Length: 9\r\n\r\nabc", ConnectionResetError(104, "reset")).drain()


def test_requests_finds_no_cookies_and_joins_no_fields() -> None:
    found = response(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX: 1\r\nX: 2\r\nContent-Length: 0\r\n\r\n")
    assert (dict(found.headers), dict(found.cookies)) == ({}, {})
