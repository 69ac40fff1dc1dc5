"""How an answer becomes an HttpResponse (PROTOCOL §4)."""

from __future__ import annotations

import gzip
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.core.models import Headers, HttpResponse
from relay_agent.relay.target.response_reader import EARLY_FACTOR, MAX_REFUSAL_BYTES, ResponseReader
from relay_agent.storage.buffer import Buffer
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.proxy import parse_proxy
from relay_agent.transport.proxy_connect import TunnelRefused
from relay_agent.transport.response_parser import Response
from relay_agent.transport.streamed_response import StreamedResponse
from tests.unit.transport.fake_socket import FakeSocket, exchange

LIMIT = 1000


TEXT = b"no " * 100
CORRUPT = gzip.compress(TEXT, mtime=0)[:-8] + bytes(8)
TOO_LARGE = gzip.compress(bytes(MAX_REFUSAL_BYTES + 1), compresslevel=1, mtime=0)


def read(tmp_path: Path, fields: list[bytes], body: bytes, seconds: float = 60.0) -> HttpResponse:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n"
    asked, sock = exchange(method="PUT", body=b"sent", deadline=Deadline(seconds)), FakeSocket(head + body)
    raw = Response(sock, method="PUT")
    raw.begin()
    return ResponseReader(LIMIT, tmp_path).read(StreamedResponse(raw, asked, sock), asked)


def content(response: HttpResponse) -> bytes:
    with closing(response.content) as found:
        return b"".join(found.chunks())


def names(headers: Headers) -> list[str]:
    return [name for name, _ in headers]


def test_a_body_is_read_whole_with_its_charset(tmp_path: Path) -> None:
    found = read(tmp_path, [b"Content-Type: text/plain; charset=ISO-8859-1"], b"\xe9")
    assert (found.status_code, found.charset, found.text, found.bytes_out) == (200, "ISO-8859-1", True, 4)
    assert found.url == "http://dev.lab.example/a"
    assert content(found) == b"\xe9"


def test_codings_are_undone_and_their_fields_taken_out(tmp_path: Path) -> None:
    found = read(tmp_path, [b"Content-Encoding: gzip", b"X: y"], gzip.compress(b"hello"))
    assert names(found.headers) == ["X"]
    assert content(found) == b"hello"


def test_fields_of_a_coded_body_that_did_not_come_stay(tmp_path: Path) -> None:
    assert names(read(tmp_path, [b"Content-Encoding: gzip"], b"").headers) == ["Content-Encoding", "Content-Length"]


def test_a_coding_that_is_not_known_is_left_alone(tmp_path: Path) -> None:
    found = read(tmp_path, [b"Content-Encoding: rot13"], b"uryyb")
    assert names(found.headers) == ["Content-Encoding", "Content-Length"]
    assert content(found) == b"uryyb"


@pytest.mark.parametrize(
    ("fields", "body", "seconds", "code"),
    [
        ([], b"x" * (LIMIT + 1), 60.0, Code.ERESPONSETOOLARGE),
        ([b"Content-Encoding: gzip"], gzip.compress(b"x" * (LIMIT + 1)), 60.0, Code.ERESPONSETOOLARGE),
        ([b"Content-Encoding: gzip"], b"no gzip", 60.0, Code.EBADRESPONSE),
        ([], b"late", 0.0, Code.ETIMEDOUT),
    ],
    ids=["too large", "too large when decoded", "not as it says", "late"],
)
def test_what_cannot_be_relayed_is_a_fault_and_leaves_no_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: list[bytes], body: bytes, seconds: float, code: Code
) -> None:
    closed: list[Buffer] = []

    def close(buffer: Buffer) -> None:
        closed.append(buffer)

    monkeypatch.setattr(Buffer, "close", close)
    with pytest.raises(TransportFault) as caught:
        read(tmp_path, fields, body, seconds)
    assert caught.value.code == code
    assert len(closed) == 1


def test_a_disk_that_does_not_take_it_is_this_machine_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_buffer: Buffer, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Buffer, "write", full)
    with pytest.raises(DiskFault, match="No space left"):
        read(tmp_path, [], b"hello")


def test_an_early_answer_is_kept_up_to_twice_the_limit_of_a_response(tmp_path: Path) -> None:
    for reader, own, limit in ((ResponseReader(LIMIT, tmp_path), None, LIMIT), (ResponseReader(LIMIT, tmp_path), 500, 500)):
        with closing(reader.early_store(own)) as store:
            store.write(b"a" * (EARLY_FACTOR * limit - 1))
            store.write(b"b")
            assert b"".join(store.chunks()) == b"a" * (EARLY_FACTOR * limit - 1) + b"b"
            with pytest.raises(TransportFault) as caught:
                store.write(b"c")
            assert caught.value.code is Code.ERESPONSETOOLARGE


def test_a_large_early_answer_is_not_kept_in_memory(tmp_path: Path) -> None:
    size = 5_000_000
    with closing(ResponseReader(10 * size, tmp_path).early_store()) as store:
        tracemalloc.start()
        try:
            for _ in range(size // 50_000):
                store.write(b"x" * 50_000)
            assert sum(map(len, store.chunks())) == size
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_while_an_early_answer_is_kept_or_read_is_this_machine_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with closing(ResponseReader(LIMIT, tmp_path).early_store()) as store:
        monkeypatch.setattr(Buffer, "chunks", broken)
        with pytest.raises(DiskFault, match="Input/output error"):
            list(store.chunks())
        monkeypatch.setattr(Buffer, "write", broken)
        with pytest.raises(DiskFault, match="Input/output error"):
            store.write(b"a")


@pytest.mark.parametrize(
    ("coding", "body", "said"),
    [
        ("identity", b"no", b"no"),
        ("gzip", gzip.compress(b"no", mtime=0), b"no"),
        ("gzip", gzip.compress(b"no", mtime=0)[:5], gzip.compress(b"no", mtime=0)[:5]),
        ("gzip", CORRUPT, CORRUPT),
        ("gzip", TOO_LARGE, TOO_LARGE),
    ],
    ids=["plain", "coded", "cut before its text", "corrupt", "too large"],
)
def test_a_proxy_s_refusal_is_an_answer_as_it_came_if_its_coding_cannot_be_undone(
    tmp_path: Path, coding: str, body: bytes, said: bytes
) -> None:
    proxy = parse_proxy("http://127.0.0.1:3128")
    assert proxy is not None
    refused = TunnelRefused(proxy, 407, (("Content-Encoding", coding), ("Content-Type", "text/html; charset=utf-8")), body)
    found = ResponseReader(2 * MAX_REFUSAL_BYTES, tmp_path).read_refusal(refused, exchange("https://dev.lab.example/"))
    assert (found.status_code, found.charset, found.url) == (407, "utf-8", "https://dev.lab.example/")
    assert content(found)[:100] == said[:100]


@pytest.mark.parametrize("seconds", [60.0, 0.0], ids=["by the proxy", "at the command's deadline"])
def test_of_a_proxy_s_refusal_that_was_cut_what_can_be_decoded_is_the_answer(tmp_path: Path, seconds: float) -> None:
    page = "".join(f"<p>{number * 7919 % 1000} not allowed" for number in range(100)).encode()
    proxy = parse_proxy("http://127.0.0.1:3128")
    assert proxy is not None
    fields = (("Content-Encoding", "gzip"), ("Content-Length", "10000"), ("X", "y"))
    refused = TunnelRefused(proxy, 403, fields, gzip.compress(page, mtime=0)[:-60])
    found = ResponseReader(LIMIT * 100, tmp_path).read_refusal(refused, exchange("https://dev.lab.example/", deadline=Deadline(seconds)))
    assert names(found.headers) == ["X"]
    said = content(found)
    assert len(said) > 100
    assert page.startswith(said)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("own", [None, LIMIT // 2])
def test_a_proxy_s_refusal_is_no_longer_than_a_response_may_be(tmp_path: Path, coding: str, own: int | None) -> None:
    text = b"no" * LIMIT
    proxy = parse_proxy("http://127.0.0.1:3128")
    assert proxy is not None
    refused = TunnelRefused(proxy, 407, (("Content-Encoding", coding),), gzip.compress(text, mtime=0) if coding == "gzip" else text)
    found = ResponseReader(LIMIT, tmp_path).read_refusal(refused, exchange("https://dev.lab.example/"), own)
    assert (found.status_code, content(found)) == (407, text[: own or LIMIT])
