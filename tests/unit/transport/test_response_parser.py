"""Responses read within bounds, field by field as received, and where each body ends (RFC 9112); the byte stream is the test's.

What a sender gets of odd responses is tested against real sockets (`tests/contract/test_odd_framing.py`, `test_http_answers.py`).
"""

from __future__ import annotations

import contextlib
import http.client

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.transport.response_parser import MAX_FIELDS, MAX_HEAD_BYTES, BadFraming, BadHead, Response, final_status
from tests.unit.transport.fake_socket import FakeSocket

OK = b"HTTP/1.1 200 OK\r\n"


def parsed(data: bytes, method: str = "GET", error: OSError | None = None) -> Response:
    response = Response(FakeSocket(data, error=error), method=method)
    response.begin()
    return response


def body(data: bytes, method: str = "GET") -> tuple[bytes, Response]:
    response = parsed(data, method)
    return response.read(), response


# --- the status line ---


@pytest.mark.parametrize(
    ("line", "status", "reason", "version"),
    [
        (b"HTTP/1.1 200 OK", 200, "OK", 11),
        (b"HTTP/1.0 404 Not Found", 404, "Not Found", 10),
        (b"HTTP/1.1 204", 204, "", 11),
        (b"HTTP/1.1  200  OK ", 200, "OK", 11),
        (b"HTTP/1.1 200\tOK", 200, "OK", 11),
        (b"HTTP/1.1 \t200 OK", 200, "OK", 11),
        (b"HTTP/1.0  \t 200\vOK", 200, "OK", 10),
        (b"HTTP/1.1 \v\f\r200", 200, "", 11),
        (b"HTTP/1.7 999 ?", 999, "?", 11),
        (b"HTTP/1.1 200 a\rb", 200, "a b", 11),
        (b"HTTP/1.1 200 \xe4", 200, "\u00e4", 11),
    ],
)
def test_a_status_line_is_read_as_all_clients_read_it(line: bytes, status: int, reason: str, version: int) -> None:
    response = parsed(line + b"\r\n\r\n")
    assert (response.status, response.reason, response.version) == (status, reason, version)


@pytest.mark.parametrize(
    "line", [b"HTTP/2 200 OK", b"http/1.1 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 0200", b"HTTP/1.1 200OK", b"ICY 200 OK", b"", b"SSH-2.0"]
)
def test_anything_else_is_no_http_response(line: bytes) -> None:
    with pytest.raises(BadHead, match="is not an HTTP"):
        parsed(line + b"\r\n\r\n")


def test_a_connection_that_ends_before_the_first_byte_is_distinguished_from_one_that_ends_later() -> None:
    response = Response(FakeSocket(b""))
    with pytest.raises(http.client.RemoteDisconnected):
        response.begin()
    assert not response.head_started
    with pytest.raises(BadHead, match="closed within the header block"):
        parsed(OK + b"X: 1\r\n")
    with pytest.raises(BadHead, match="closed after an interim response"):
        parsed(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_interim_responses_are_skipped_with_their_fields_and_101_is_final() -> None:
    response = parsed(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 C\r\n\r\n" + OK + b"X: 1\r\n\r\n")
    assert (response.status, response.fields) == (200, [("X", "1")])
    assert parsed(b"HTTP/1.1 101 Switching\r\n\r\n").status == 101


# --- the fields ---


def test_every_field_is_kept_in_order_with_its_name_as_received() -> None:
    data = OK + b"b: 1\r\nA:2\r\nb:  3 \t\r\nEmpty:\r\nx : y\r\nLatin: \xe4\r\n\r\n"
    assert parsed(data).fields == [("b", "1"), ("A", "2"), ("b", "3"), ("Empty", ""), ("x", "y"), ("Latin", "\u00e4")]


def test_a_folded_field_is_one_line_and_a_line_that_is_no_field_is_left_out() -> None:
    data = OK + b"X: a\r\n  b\r\n\tc\r\n \r\nnonsense\r\n: no name\r\nY: d\r\n\r\n"
    assert parsed(data).fields == [("X", "a b c"), ("Y", "d")]


def test_a_bare_cr_or_nul_in_a_field_counts_as_a_space() -> None:
    assert parsed(OK + b"X: a\rb\0c\r\n\r\n").fields == [("X", "a b c")]


def test_lines_may_end_with_lf_alone() -> None:
    assert parsed(b"HTTP/1.1 200 OK\nX: 1\n\n").fields == [("X", "1")]


def test_the_number_of_fields_is_bounded() -> None:
    assert len(parsed(OK + b"X: 1\r\n" * MAX_FIELDS + b"\r\n").fields) == MAX_FIELDS
    with pytest.raises(BadHead, match="more than 1000 header fields"):
        parsed(OK + b"X: 1\r\n" * (MAX_FIELDS + 1) + b"\r\n")


def test_the_size_of_the_head_is_bounded_interim_responses_included() -> None:
    room = MAX_HEAD_BYTES - len(OK) - len(b"X: \r\n\r\n")
    assert parsed(OK + b"X: " + b"x" * room + b"\r\n\r\n").status == 200
    with pytest.raises(BadHead, match="larger than"):
        parsed(OK + b"X: " + b"x" * (room + 1) + b"\r\n\r\n")
    with pytest.raises(BadHead, match="larger than"):
        parsed(b"HTTP/1.1 103 E\r\n\r\n" * 20_000 + OK + b"\r\n")


# --- where the body ends ---


@pytest.mark.parametrize(
    ("fields", "data", "expected"),
    [
        (b"Content-Length: 3\r\n", b"abcdef", b"abc"),
        (b"Content-Length: 3, 3\r\ncontent-length: 0003\r\n", b"abcdef", b"abc"),
        (b"Content-Length: 3,\r\n", b"abcdef", b"abc"),
        (b"", b"abcdef", b"abcdef"),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n00;x=y\r\n\r\n", b"abc"),
        (b"Transfer-Encoding: identity, chunked\r\nContent-Length: 99\r\n", b"3\nabc\n0\r\nTrailer: x\r\n\r\n", b"abc"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: CHUNKED\r\n", b"A \r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"Transfer-Encoding: chunked\r\n", b"1f\r\n" + b"x" * 31 + b"\r\n0\r\n\r\n", b"x" * 31),
        (b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n", b"abcdef", b"abc"),
        (b"Transfer-Encoding: None\r\nContent-Length: 3\r\n", b"abcdef", b"abc"),
        (b"Transfer-Encoding: none\r\n", b"abcdef", b"abcdef"),
        (b"Transfer-Encoding: none, chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    ],
    ids=[
        "length",
        "the same length repeated",
        "empty element",
        "the end",
        "chunks",
        "chunks win",
        "chunked twice",
        "two digits",
        "identity",
        "none",
        "none, without a length",
        "none, then chunked",
    ],
)
def test_a_body_ends_where_rfc_9112_says(fields: bytes, data: bytes, expected: bytes) -> None:
    assert body(OK + fields + b"\r\n" + data)[0] == expected


@pytest.mark.parametrize(("status", "method"), [(204, "GET"), (304, "GET"), (200, "HEAD"), (200, "CONNECT"), (299, "CONNECT")])
def test_these_responses_have_no_body_whatever_their_fields_say(status: int, method: str) -> None:
    assert body(b"HTTP/1.1 %d X\r\nContent-Length: 3\r\n\r\nabc" % status, method)[0] == b""


def test_a_refused_connect_has_a_body() -> None:
    assert body(b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nabc", "CONNECT")[0] == b"abc"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (b"Transfer-Encoding: gzip, chunked\r\n", "transfer-coding other than chunked"),
        (b"Content-Length: 3\r\nContent-Length: 4\r\n", "conflicting Content-Length"),
        (b"Content-Length: x\r\n", "not a number"),
        (b"Content-Length: -1\r\n", "not a number"),
        (b"Content-Length: +1\r\n", "not a number"),
        (b"Content-Length: \xb2\r\n", "not a number"),
        (b"Content-Length:\r\n", "not a number"),
        (b"Content-Length: 1000000000000000\r\n", "not a number"),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n", "not a number"),
    ],
)
def test_framing_that_cannot_be_trusted_is_refused(fields: bytes, words: str) -> None:
    with pytest.raises(BadHead, match=words):
        parsed(OK + fields + b"\r\nabc")


def test_a_length_of_fifteen_digits_is_a_number() -> None:
    assert parsed(OK + b"Content-Length: 999999999999999\r\n\r\n").length == 999_999_999_999_999


@pytest.mark.parametrize("size", [b"x", b"", b"-3", b"+3", b"3_0", b"0x3", b"1" * 16, b"3 3"])
def test_a_chunk_size_is_hex_digits_and_nothing_else(size: bytes) -> None:
    response = parsed(OK + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nabc\r\n0\r\n\r\n")
    with pytest.raises(BadFraming):
        response.read()
    assert response.broken


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"3\r\nabcX\r\n", BadFraming),
        (b"3\r\nab", http.client.IncompleteRead),
        (b"3\r\nabc", http.client.IncompleteRead),
        (b"3\r\nabc\r\n", http.client.IncompleteRead),
        (b"3\r\nabc\r\n0\r\n", http.client.IncompleteRead),
        (b"0\r\nTrailer: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", BadFraming),
    ],
    ids=["no line end", "in a chunk", "behind a chunk", "before the last chunk", "before the trailer's end", "long trailer"],
)
def test_chunks_that_end_early_or_are_malformed_leave_no_whole_body(data: bytes, kind: type[Exception]) -> None:
    response = parsed(OK + b"Transfer-Encoding: chunked\r\n\r\n" + data)
    with pytest.raises(kind):
        response.read()


def test_a_body_shorter_than_its_length_is_broken() -> None:
    response = parsed(OK + b"Content-Length: 5\r\n\r\nabc")
    assert response.read(3) == b"abc"
    with pytest.raises(http.client.IncompleteRead):
        response.read(3)
    assert response.broken


def test_a_reset_ends_only_a_body_that_nothing_else_ends() -> None:
    response = parsed(OK + b"\r\nabc", error=ConnectionResetError())
    response.end_at_reset()
    assert response.read() == b"abc"
    framed = parsed(OK + b"Content-Length: 5\r\n\r\nabc", error=ConnectionResetError())
    framed.end_at_reset()
    with pytest.raises(ConnectionResetError):
        framed.read()


# --- whether the connection may be used again ---


@pytest.mark.parametrize(
    ("head", "closes"),
    [
        (OK + b"Content-Length: 0\r\n", False),
        (OK + b"Transfer-Encoding: chunked\r\n", False),
        (OK + b"Content-Length: 0\r\nConnection: keep-alive, CLOSE\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n", False),
        (OK, True),
        (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", True),
        (OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", True),
        (b"HTTP/1.1 101 Switching\r\nContent-Length: 0\r\n", True),
    ],
)
def test_the_connection_is_used_again_only_if_the_peer_and_the_framing_allow_it(head: bytes, closes: bool) -> None:
    assert parsed(head + b"\r\n0\r\n\r\n").will_close == closes


@pytest.mark.parametrize(("more", "tainted"), [(b"", False), (b"HTTP/1.1 200 OK\r\n\r\n", True)])
def test_bytes_behind_the_response_taint_the_connection(more: bytes, tainted: bool) -> None:
    assert body(OK + b"Content-Length: 3\r\n\r\nabc" + more)[1].tainted == tainted


def test_whether_more_bytes_came_is_looked_at_without_waiting_for_them() -> None:
    """A read beyond the body would wait until the deadline."""
    response = parsed(OK + b"Content-Length: 3\r\n\r\nabc", error=TimeoutError())
    assert (response.read(), response.tainted) == (b"abc", False)


def test_a_body_that_was_not_read_to_its_end_is_broken() -> None:
    response = parsed(OK + b"Content-Length: 3\r\n\r\nabc")
    response.close()
    assert response.broken
    _, whole = body(OK + b"Content-Length: 3\r\n\r\nabc")
    whole.close()
    assert not whole.broken


# --- what came early ---


@pytest.mark.parametrize(
    ("data", "status", "left"),
    [
        (b"", None, b""),
        (b"HTTP/1.1 4", None, b"HTTP/1.1 4"),
        (b"HTTP/1.1 413 Too Large\r\n", 413, b"HTTP/1.1 413 Too Large\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", None, b""),
        (b"HTTP/1.1 100 Continue\r\nX: 1\r\n", None, b"HTTP/1.1 100 Continue\r\nX: 1\r\n"),
        (b"HTTP/1.1 100 Continue\n\nHTTP/1.1 401 No\r\n", 401, b"HTTP/1.1 401 No\r\n"),
        (b"HTTP/1.1 101 Switching\r\n", 101, b"HTTP/1.1 101 Switching\r\n"),
        (b"SSH-2.0\r\n", 0, b"SSH-2.0\r\n"),
    ],
)
def test_the_final_status_is_found_behind_interim_responses(data: bytes, status: int | None, left: bytes) -> None:
    found = bytearray(data)
    assert (final_status(found), bytes(found)) == (status, left)


@pytest.mark.parametrize(("beginning", "most"), [(b"", 16 * 1024), (b"HTTP/1.1 100 C\r\nX: ", 16 * 1024)])
def test_what_has_no_end_is_no_http_once_it_is_too_long(beginning: bytes, most: int) -> None:
    assert final_status(bytearray(beginning.ljust(most, b"x"))) is None
    assert final_status(bytearray(beginning.ljust(most + 1, b"x"))) == 0


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: OK + rest))
def test_any_bytes_are_a_response_or_an_error_of_http(data: bytes) -> None:
    with contextlib.suppress(http.client.HTTPException):
        parsed(data).read()
