"""Answers of a hostile peer: heads, framing, and content codings."""

from __future__ import annotations

import gzip
import http.client
import io
import sys
import zlib
from collections.abc import Iterable
from typing import Any

import brotli

from relay_agent.transport.content_encoding import PIECE, BadCoding, TooLarge, decodable, decode
from relay_agent.transport.response_parser import MAX_FIELDS, BadFraming, BadHead, Response, final_status
from tests.fuzz.harness import Harness

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

METHODS = ("GET", "HEAD", "CONNECT", "POST")
WHOLE = 1 << 20


class Peer(io.RawIOBase):
    """A connection on which the data arrives in pieces of one size."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__()
        self.data, self.size, self.read_bytes = data, size, 0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The stream that http.client reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Hand out the next piece."""
        piece = self.data[self.read_bytes : self.read_bytes + min(self.size, len(buffer))]
        buffer[: len(piece)] = piece
        self.read_bytes += len(piece)
        return len(piece)


class Answer:
    """What is read of one answer, and whether the connection could be used again."""

    def __init__(self, data: bytes, method: str, size: int) -> None:
        self.peer = Peer(data, size)
        self.response = Response(self.peer, method=method)
        self.body, self.error, self.began = b"", "", False
        try:
            self.response.begin()
            self.began = True
            while piece := self.response.read(4096):
                self.body += piece
        except (BadHead, BadFraming, http.client.IncompleteRead, http.client.RemoteDisconnected) as error:
            self.error = type(error).__name__
        self.complete = self.began and not self.error and self.response.isclosed()
        self.response.close()

    @property
    def seen(self) -> tuple[object, ...]:
        """What must not depend on how the bytes arrived."""
        response = self.response
        status = (response.status, response.reason, response.fields) if self.began else ()
        return self.error, self.body, status, response.will_close if self.began else None, response.broken


def response(data: bytes) -> None:
    """An answer is read, or fails as documented, the same however its bytes arrive; what follows it is noticed."""
    method, data = METHODS[data[0] % len(METHODS)] if data else "GET", data[1:]
    whole, slow = Answer(data, method, WHOLE), Answer(data, method, 1)
    assert whole.seen == slow.seen, "it depends on how the bytes arrive"
    status = final_status(bytearray(data))
    if not whole.began:
        return
    assert len(whole.response.fields) <= MAX_FIELDS and len(whole.body) <= len(data)
    assert all(not set(name + value) & set("\r\n\0") for name, value in whole.response.fields)
    assert status == whole.response.status, "an early answer has another status"
    if whole.complete and not whole.response.will_close and not whole.response.broken:
        follows = slow.peer.read_bytes < len(data)
        assert whole.response.tainted == follows, "bytes after the answer are not noticed"


def response_seeds() -> list[bytes]:
    """Answers of every framing."""
    ok = b"HTTP/1.1 200 OK\r\n"
    answers = [
        ok + b"Content-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
        ok + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        ok + b"transfer-encoding: identity, chunked, chunked\r\nContent-Length: 3\r\n\r\n00\n\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103  Early\r\nLink: <a>\r\n\r\n" + ok + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.0 404 \xff\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        ok + b"A: b\r\n c\r\n\td\r\nno colon\r\n: e\r\nF :\tg\0h\ri\r\n\r\nuntil the end",
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ok + b"Content-Length: 05, 5,,\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 101 Switching\n\nraw",
        b"HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"",
    ]
    return [bytes((number,)) + answer for answer in answers for number in range(len(METHODS))]


CODINGS = [["gzip"], ["deflate"], ["br"], ["zstd"], ["br", "gzip"], ["x-gzip", "deflate", "gzip"], ["gzip", "zstd"]]
LIMIT = 2 * PIECE


def coding(data: bytes) -> None:
    """A body is decoded within its limit, or is refused as documented, the same however its bytes arrive."""
    codings, data = CODINGS[data[0] % len(CODINGS)] if data else ["gzip"], data[1:]
    assert decodable(codings)
    whole = decoded([data], codings)
    assert whole == decoded([data[place : place + 1] for place in range(len(data))], codings), "it depends on how the bytes arrive"


def decoded(pieces: Iterable[bytes], codings: list[str]) -> bytes | None:
    """The body; None if it was refused."""
    out = bytearray()
    try:
        for piece in decode(pieces, codings, LIMIT, lambda: None):
            assert 0 < len(piece) <= PIECE
            out += piece
            assert len(out) <= LIMIT
    except (BadCoding, TooLarge):
        return None
    return bytes(out)


def coding_seeds() -> list[bytes]:
    """Short and long bodies in each coding, several members and frames, padding, and too much."""
    found = [b"\0" + gzip.compress(b"a", mtime=0) * 2 + b"\0\0", b"\0" + gzip.compress(b"", mtime=0), b"\1" + zlib.compress(b"ab")[2:-4]]
    found += [b"\3" + zstd.compress(b"a") + zstd.compress(b"b"), b"\3" + bytes.fromhex("502a4d18040000000000000028b52ffd0000010000")]
    for number, codings in enumerate(CODINGS):
        for body in (b"hello", bytes(1000), bytes(2 * LIMIT)):
            for name in codings:
                body = ENCODERS[name.removeprefix("x-")](body)
            found.append(bytes((number,)) + body)
    return found


ENCODERS: dict[str, Any] = {
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}

HARNESSES = [Harness("response", response, response_seeds), Harness("coding", coding, coding_seeds, 1024)]
