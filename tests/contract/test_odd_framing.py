"""Framing errors of real HTTP/1.1 servers that clients tolerate (PROTOCOL §3), and those that could smuggle and are refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.relaying import Relay, code, field
from tests.targets import ByteTarget, raw, reply


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        yield server


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1  200 OK", b"HTTP/1.1 200", b"HTTP/1.1   200  many  blanks", b"HTTP/1.0  200 ", b"HTTP/1.1 \t200 OK"]
)
def test_several_blanks_in_the_status_line_are_as_one(relay: Relay, target: ByteTarget, head: bytes) -> None:
    target.on("/", raw(head + b"\r\nContent-Length: 2\r\n\r\nok"))
    assert (relay({"url": target.url()})["statusCode"], relay({"url": target.url()})["body"]) == (200, "ok")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200\tOK", b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200 OK\r", b"HTTP/1.1 200\r"])
def test_white_space_of_any_kind_may_stand_before_and_in_the_reason(relay: Relay, target: ByteTarget, head: bytes) -> None:
    target.on("/", raw(head + b"\r\nContent-Length: 2\r\n\r\nok", then="keep"))
    assert relay({"url": target.url()})["body"] == "ok"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 2,",
        b"Content-Length: , 2,,",
        b"Content-Length: " + b"0" * 30 + b"2",
        b"Content-Length: " + b"0" * 90_000 + b"2",
        b"Content-Length: 02, 2\r\nContent-Length: 2",
    ],
    ids=["behind", "before and behind", "30 zeros", "90,000 zeros", "two spellings of one"],
)
def test_empty_elements_and_zeros_before_a_length_mean_nothing(relay: Relay, target: ByteTarget, lines: bytes) -> None:
    target.on("/", raw(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\nok", then="keep"))
    assert relay({"url": target.url()})["body"] == "ok"


@pytest.mark.parametrize(
    "lines",
    [b"Content-Length:", b"Content-Length: ,", b"Content-Length: 2\r\nContent-Length:", b"Content-Length: 2, 3,", b"Content-Length: 2, +2"],
)
def test_no_length_and_two_lengths_are_none(relay: Relay, target: ByteTarget, lines: bytes) -> None:
    target.on("/", raw(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\nok"))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"


@pytest.mark.parametrize("zeros", [1, 20, 60_000])
def test_zeros_before_the_size_of_a_chunk_mean_nothing(relay: Relay, target: ByteTarget, zeros: int) -> None:
    body = b"0" * zeros + b"5\r\nhello\r\n" + b"0" * zeros + b"\r\n\r\n"
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body, then="keep"))
    assert relay({"url": target.url()})["body"] == "hello"


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1\t200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK", b"HTTP /1.1 200"]
)
def test_what_is_no_status_line_is_no_answer(relay: Relay, target: ByteTarget, head: bytes) -> None:
    target.on("/", raw(head + b"\r\nContent-Length: 2\r\n\r\nok"))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"


@pytest.mark.parametrize(
    "lines",
    [
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: identity, chunked\r\nTransfer-Encoding: Chunked",
    ],
)
def test_chunked_named_twice_was_applied_once_and_the_connection_is_not_kept(relay: Relay, target: ByteTarget, lines: bytes) -> None:
    target.on("/", raw(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n", then="keep"))
    target.on("/next", reply(200, body="next"))
    assert relay({"url": target.url()})["body"] == "hello"
    assert relay({"url": target.url("/next")})["body"] == "next"
    assert target.connections == 2


def test_a_field_folded_many_times_is_one_line_and_takes_its_time_once(relay: Relay, target: ByteTarget) -> None:
    folds = b"".join(b"\r\n\t%x" % (place % 16) for place in range(60_000)) + b"\r\n  \r\n last"
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nX: first" + folds + b"\r\nContent-Length: 2\r\n\r\nok"))
    found = field(relay({"url": target.url(), "timeout": 10}), "X")
    assert isinstance(found, str)
    assert (found[:9], found[-8:], len(found)) == ("first 0 1", "e f last", 5 + 2 * 60_000 + 5)


@pytest.mark.parametrize("coding", [b"identity", b"none", b"None", b"identity, none"])
def test_no_transfer_coding_may_be_named(relay: Relay, target: ByteTarget, coding: bytes) -> None:
    target.on("*", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: " + coding + b"\r\n\r\nok", then="keep"))
    assert [relay({"url": target.url()})["body"] for _ in range(2)] == ["ok", "ok"]
    assert target.connections == 1, "the length counts"


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked, gzip", b"chunked;q=1", b"xchunked"])
def test_another_transfer_coding_is_refused(relay: Relay, target: ByteTarget, coding: bytes) -> None:
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"
