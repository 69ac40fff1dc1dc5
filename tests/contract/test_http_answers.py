"""HTTP responses (PROTOCOL §4): the sender gets what the target answered, and no answer that it did not give.

The tests look only at the body of PROTOCOL §4.
"""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator

import brotli  # type: ignore[import-untyped]
import pytest
from backports import zstd

from tests.contract.relaying import Relay, code, field
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, closed_port, in_turn, play, raw, reply


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        yield server


def ok(body: bytes, *lines: bytes) -> bytes:
    """A response with these header lines and the body's true length."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Content-Length: %d" % len(body), b"", body])


def chunked(*chunks: bytes) -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def content(answer: dict[str, object]) -> bytes:
    """The body's bytes, whichever way they were relayed (UTF-8 text or base64)."""
    text = answer["body"]
    assert isinstance(text, str)
    return text.encode() if answer["bodyEncoding"] == "utf-8" else base64.b64decode(text, validate=True)


# --- the shape ---


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, "SUCCESS"),
        (201, "SUCCESS"),
        (204, "SUCCESS"),
        (299, "SUCCESS"),
        (304, "SUCCESS"),
        (399, "SUCCESS"),
        (400, "FAILURE"),
        (404, "FAILURE"),
        (407, "FAILURE"),
        (500, "FAILURE"),
        (503, "FAILURE"),
        (599, "FAILURE"),
        (999, "FAILURE"),
    ],
)
def test_any_status_is_an_answer(relay: Relay, target: ByteTarget, status: int, verdict: str) -> None:
    """Every HTTP response has its statusCode; below 400 the command succeeded."""
    target.on("/", reply(status, [("X-A", "1")]))
    answer = relay({"url": target.url()})
    assert (answer["statusCode"], answer["status"], field(answer, "X-A")) == (status, verdict, "1")
    assert "code" not in answer


def test_answer_has_every_field(relay: Relay, target: ByteTarget) -> None:
    """statusCode, headers, body, bodyEncoding, url and elapsedMs, no more."""
    target.on("/x", reply(200, [("Content-Type", "text/plain")], "hi"))
    answer = relay({"url": target.url("/x?y#z")})
    assert answer.pop("status") == "SUCCESS"
    elapsed = answer.pop("elapsedMs")
    assert isinstance(elapsed, int)
    assert 0 <= elapsed < 5000
    assert answer == {
        "statusCode": 200,
        "headers": [{"Content-Type": "text/plain"}, {"Content-Length": "2"}],
        "body": "hi",
        "bodyEncoding": "utf-8",
        "url": target.url("/x?y"),
    }


def test_header_order_case_and_repeats_are_kept(relay: Relay, target: ByteTarget) -> None:
    """One object a name, in the order received, a repeated name as one list."""
    target.on(
        "/",
        raw(
            ok(b"", b"X-b: 1", b"sEt-CoOkIe: a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT", b"A: x,y", b"sEt-CoOkIe: b=2", b"X-b: 1"),
            then="keep",
        ),
    )
    assert relay({"url": target.url()})["headers"] == [
        {"X-b": ["1", "1"]},
        {"sEt-CoOkIe": ["a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT", "b=2"]},
        {"A": "x,y"},
        {"Content-Length": "0"},
    ]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"X:  \t padded  in \t", "padded  in"),
        (b"X:tight", "tight"),
        (b"X:", ""),
        (b"X: caf\xe9", "café"),
        (b"X: \xc3\xa9", "\xc3\xa9"),
        (b"X: \xa0a\x85b\xa0", "\xa0a\x85b\xa0"),
        (b"X: a\x0bb\x0cc\x1cd", "a\x0bb\x0cc\x1cd"),
        (b'X: a: b; c="d"', 'a: b; c="d"'),
        (b"X: =?utf-8?q?not_decoded?=", "=?utf-8?q?not_decoded?="),
    ],
)
def test_header_value_is_exact(relay: Relay, target: ByteTarget, line: bytes, value: str) -> None:
    """A value is its bytes as ISO-8859-1, without the spaces and tabs around it."""
    target.on("/", raw(ok(b"body", line, b"Y: after"), then="keep"))
    answer = relay({"url": target.url()})
    assert (field(answer, "X"), field(answer, "Y"), answer["body"]) == (value, "after", "body")


def test_folded_header_is_unfolded(relay: Relay, target: ByteTarget) -> None:
    """An obsolete line fold is white space (RFC 9112 §5.2)."""
    target.on("/", raw(ok(b"body", b"X: one", b"   two", b"\tthree", b"Y: after"), then="keep"))
    answer = relay({"url": target.url()})
    assert (str(field(answer, "X")).split(), field(answer, "Y"), answer["body"]) == (["one", "two", "three"], "after", "body")


@pytest.mark.parametrize("line", [b"no colon here", b": no name", b"bad name: 1", b"Spaced : 1"])
def test_malformed_header_line_swallows_nothing(relay: Relay, target: ByteTarget, line: bytes) -> None:
    """A line that is no field is an error or ignored; the fields after it and the body stay what they are."""
    target.on("/", raw(ok(b"body", b"A: 1", line, b"Y: after"), then="keep"))
    answer = relay({"url": target.url()})
    if "statusCode" in answer:
        assert (field(answer, "A"), field(answer, "Y"), answer["body"]) == ("1", "after", "body")
    else:
        assert code(answer) == "EBADRESPONSE"


def test_bare_line_feeds_are_taken(relay: Relay, target: ByteTarget) -> None:
    """A head that ends its lines with LF alone is read (RFC 9112 §2.2)."""
    target.on("/", raw(b"HTTP/1.1 200 OK\nX: 1\nContent-Length: 2\n\nhi", then="keep"))
    answer = relay({"url": target.url()})
    assert (field(answer, "X"), answer["body"]) == ("1", "hi")


@pytest.mark.parametrize("line", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"HTTP/1.1 200 a b  c \xe9"])
def test_status_line_may_be_sparse(relay: Relay, target: ByteTarget, line: bytes) -> None:
    """A reason may be missing or any text; HTTP/1.0 is HTTP."""
    target.on("/", raw(line + b"\r\nX: 1\r\n\r\nbody"))
    answer = relay({"url": target.url()})
    assert (answer["statusCode"], field(answer, "X"), answer["body"]) == (200, "1", "body")


# --- bodies ---


def test_large_text_is_whole_across_chunks(relay: Relay, target: ByteTarget) -> None:
    """Characters that straddle a chunk's edge stay whole."""
    text = "x" + "é€\U0001f600" * 300_000
    target.on("/", reply(200, [("Content-Type", "text/plain; charset=utf-8")], text))
    answer = relay({"url": target.url()})
    assert (answer["bodyEncoding"], answer["body"] == text) == ("utf-8", True)


@pytest.mark.parametrize("body", [b"\x80", b"\xff\xd8\xff\xe0", bytes(range(256)) * 500, b"ok until \xc3"])
def test_binary_is_base64(relay: Relay, target: ByteTarget, body: bytes) -> None:
    """What is no text in its charset comes as base64, exactly."""
    target.on("/", reply(200, [("Content-Type", "application/octet-stream")], body))
    answer = relay({"url": target.url()})
    assert answer["bodyEncoding"] == "base64"
    assert base64.b64decode(answer["body"], validate=True) == body


@pytest.mark.parametrize("text", ["", "\x00\x01\x7f\x9f", "\ufeffbom", "\ufffe\uffff", "\r\n\r", '"\\/', "\u2028\U0010ffff"])
def test_any_text_survives(relay: Relay, target: ByteTarget, text: str) -> None:
    """Control characters, a byte order mark and noncharacters are text like any other."""
    target.on("/", reply(200, [], text))
    answer = relay({"url": target.url()})
    assert (answer["body"], answer["bodyEncoding"]) == (text, "utf-8")


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/plain; charset=iso-8859-1", "iso-8859-1"),
        ("text/plain; charset=utf-16", "utf-16"),
        ("text/plain; charset=UTF-16BE", "utf-16-be"),
        ("text/html; x=y; Charset=Shift_JIS", "shift_jis"),
        ("text/plain;charset=windows-1252", "windows-1252"),
        ('text/plain; charset="windows-1252"', "windows-1252"),
        ("text/plain ; charset=GB18030", "gb18030"),
        ("text/csv; charset=utf-8", "utf-8"),
        ("text/csv; charset=Windows-31J", "cp932"),
        ("text/csv; charset=x-sjis", "cp932"),
        ("text/csv; charset=ms932", "cp932"),
        (r'text/csv; x="a;charset=no\""; charset="utf\-8"', "utf-8"),
        ("text/csv; charset=utf-8; charset=utf-16", "utf-8"),
        ("text/csv; charset*=us-ascii''x", "utf-8"),
        ("text/csv; charset=", "utf-8"),
        ("application/json", "utf-8"),
        ("text/html", "utf-8"),
        ("", "utf-8"),
    ],
)
def test_text_is_decoded_in_its_charset(relay: Relay, target: ByteTarget, content_type: str, charset: str) -> None:
    """The response's charset decides, UTF-8 where it names none; headers and bytes are otherwise as they came."""
    text = "日本 テスト" if charset in ("shift_jis", "gb18030", "cp932") else "naïve ©"
    target.on("/", reply(200, [("Content-Type", content_type)], text.encode(charset)))
    answer = relay({"url": target.url()})
    assert (answer["body"], answer["bodyEncoding"], field(answer, "Content-Type")) == (text, "utf-8", content_type)


@pytest.mark.parametrize(
    "charset",
    [
        "rot13",
        "rot_13",
        "base64",
        "hex",
        "zlib",
        "bz2",
        "quopri",
        "uu",
        "idna",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
        "undefined",
        "x-unknown",
        "../../etc/passwd",
        "a" * 5000,
        "mbcs",
        "string-escape",
    ],
)
def test_unknown_charset_gives_base64(relay: Relay, target: ByteTarget, charset: str) -> None:
    """A name that is no charset, however Python knows it, never transforms a body."""
    target.on("/", raw(ok(b"uryyb 68656c6c6f", b"Content-Type: text/plain; charset=" + charset.encode()), then="keep"))
    answer = relay({"url": target.url()})
    assert (answer["bodyEncoding"], content(answer)) == ("base64", b"uryyb 68656c6c6f")


@pytest.mark.parametrize(
    ("charset", "body"),
    [
        ("utf-8", b"caf\xe9"),
        ("us-ascii", b"caf\xe9"),
        ("utf-16", b"odd"),
        ("shift_jis", b"\x81"),
        ("utf-8", b"\xed\xa0\x80"),
        (None, b"caf\xe9"),
        ("utf-16", "\ufeffa mark of the other kind".encode("utf-16-be")),
        ("utf-16", "no mark".encode("utf-16-le")),
        ("cp932", "\u2252".encode("cp932") + b"\x87\x90"),
        ("iso-2022-jp", b"\x1b(B\x1b(Bplain"),
        ("utf-8-sig", b"\xef\xbb\xbfmark"),
    ],
)
def test_wrong_charset_gives_base64(relay: Relay, target: ByteTarget, charset: str | None, body: bytes) -> None:
    """Bytes that do not decode in the charset, or cannot be had again from the text, are relayed as bytes."""
    target.on("/", reply(200, [("Content-Type", f"text/plain; charset={charset}" if charset else "text/plain")], body))
    answer = relay({"url": target.url()})
    assert (answer["bodyEncoding"], content(answer)) == ("base64", body)


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Encoding: gzip\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: x\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Encoding: gzip\r\n\r\n"),
    ],
)
def test_answer_without_body_ends_with_its_head(relay: Relay, target: ByteTarget, method: str, head: bytes) -> None:
    """HEAD, 204 and 304 have no body whatever they announce, and the connection stays usable."""
    target.on("/", raw(head, then="keep"))
    target.on("/next", reply(200, body="next"))
    answer = relay({"url": target.url(), "method": method})
    assert answer["body"] == ""
    assert relay({"url": target.url("/next")}).get("body") == "next"
    assert target.connections == 1


def test_head_keeps_what_it_announces(relay: Relay, target: ByteTarget) -> None:
    """Content-Length and Content-Encoding of a HEAD stay: nothing was decoded."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Encoding: gzip\r\n\r\n", then="keep"))
    answer = relay({"url": target.url(), "method": "HEAD"})
    assert answer["headers"] == [{"Content-Length": "1000"}, {"Content-Encoding": "gzip"}]


# --- chunked ---


@pytest.mark.parametrize(
    "body",
    [
        chunked(b"hel", b"lo"),
        b'3\r\nhel\r\n2;ext="a;b";c\r\nlo\r\n0\r\n\r\n',
        b"0003\r\nhel\r\n00002\r\nlo\r\n000\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\nX-Two: 2\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("coding", [b"chunked", b"Chunked"])
def test_chunks_are_joined(relay: Relay, target: ByteTarget, body: bytes, coding: bytes) -> None:
    """Extensions and trailers are not part of the body, and the connection stays usable."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\nX: 1\r\n\r\n", body, then="keep"))
    target.on("/next", reply(200, body="next"))
    answer = relay({"url": target.url()})
    assert (answer["body"], field(answer, "X"), field(answer, "X-Trailer")) == ("hello", "1", None)
    assert field(answer, "Transfer-Encoding") == coding.decode()
    assert relay({"url": target.url("/next")}).get("body") == "next"
    assert target.connections == 1


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"ffffffffffffffffff\r\nhello",
    ],
)
def test_malformed_chunk_is_no_answer(relay: Relay, target: ByteTarget, body: bytes) -> None:
    """A chunk that is none makes the response EBADRESPONSE, never a wrong body."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"


@pytest.mark.parametrize("body", [b"", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n", b"5"])
def test_chunked_body_closed_early_is_no_answer(relay: Relay, target: ByteTarget, body: bytes) -> None:
    """Without the last chunk the response is not complete (RFC 9112 §8): EBADRESPONSE."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"


@pytest.mark.parametrize("end", [b"0\r\n", b"0\r\nX-Trailer: 1", b"0\r\nX-Trailer: 1\r\n"])
def test_chunked_body_closed_in_its_trailers(relay: Relay, target: ByteTarget, end: bytes) -> None:
    """Closed after the last chunk the body is whole (RFC 9112 §8), or refused, and never another."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + end))
    answer = relay({"url": target.url()})
    assert answer.get("body", "hello") == "hello"
    assert answer.get("code", "EBADRESPONSE") == "EBADRESPONSE"


# --- content codings ---

PLAIN = b"The quick brown fox. " * 200


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS = [
    ("gzip", gzip.compress(PLAIN)),
    ("x-gzip", gzip.compress(PLAIN)),
    ("GZip", gzip.compress(PLAIN)),
    ("gzip", gzip.compress(PLAIN[:100]) + gzip.compress(PLAIN[100:])),
    ("deflate", zlib.compress(PLAIN)),
    ("deflate", _raw_deflate(PLAIN)),
    ("br", brotli.compress(PLAIN)),
    ("zstd", zstd.compress(PLAIN)),
    ("gzip, br", brotli.compress(gzip.compress(PLAIN))),
]


@pytest.mark.parametrize(
    ("coding", "packed"), CODINGS, ids=["gzip", "x-gzip", "GZip", "two members", "zlib", "raw deflate", "br", "zstd", "gzip in br"]
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_content_coding_is_undone(relay: Relay, target: ByteTarget, coding: str, packed: bytes, framing: str) -> None:
    """The body is decoded, and the fields that describe the encoded bytes are removed."""
    lines = [b"HTTP/1.1 200 OK", b"A: 1", b"Content-Encoding: " + coding.encode(), b"Content-Type: text/plain", b"Vary: accept-encoding"]
    if framing == "length":
        target.on("/", raw(b"\r\n".join([*lines, b"Content-Length: %d" % len(packed), b"", packed]), then="keep"))
    else:
        target.on("/", raw(b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", chunked(packed[:7], packed[7:])]), then="keep"))
    answer = relay({"url": target.url()})
    assert content(answer) == PLAIN
    names = [name.lower() for entry in answer["headers"] for name in entry]
    assert names[:3] == ["a", "content-type", "vary"]
    assert "content-encoding" not in names
    assert "content-length" not in names


@pytest.mark.parametrize(
    "coding",
    [
        *("x-unknown", "aws-chunked", "identity", "compress", "none", "", "gzip, compress"),
        *("gzip, gzip, gzip, gzip", "br, br", "zstd, gzip, br"),
    ],
)
def test_coding_that_is_not_known_is_kept(relay: Relay, target: ByteTarget, coding: str) -> None:
    """Bytes in a coding that the agent does not undo, or in more than it undoes, come as they are, with their fields."""
    target.on("/", reply(200, [("Content-Encoding", coding)], b"as it is"))
    answer = relay({"url": target.url()})
    assert (answer["body"], field(answer, "Content-Encoding"), field(answer, "Content-Length")) == ("as it is", coding, "8")


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", b"this is not gzip"),
        ("gzip", gzip.compress(PLAIN)[:-20]),
        ("gzip", gzip.compress(PLAIN)[:-8] + b"\x00" * 8),
        ("deflate", b"\xff\xff\xff\xff nope"),
        ("br", b"\xff" * 40),
        ("zstd", b"not zstd at all"),
        ("br", brotli.compress(PLAIN)[:-5]),
        ("zstd", zstd.compress(PLAIN)[:-5]),
        ("deflate", zlib.compress(PLAIN)[:-10]),
    ],
    ids=["no gzip", "short gzip", "gzip checksum", "no deflate", "no br", "no zstd", "short br", "short zstd", "short deflate"],
)
def test_coding_that_lies_is_no_answer(relay: Relay, target: ByteTarget, coding: str, packed: bytes) -> None:
    """What does not decode, or ends before its end, is EBADRESPONSE, never half a body."""
    target.on("/", reply(200, [("Content-Encoding", coding)], packed))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"


# --- limits ---


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("br", lambda plain: brotli.compress(plain, quality=1)),
        ("zstd", zstd.compress),
        ("deflate", zlib.compress),
        ("gzip, gzip", lambda plain: gzip.compress(gzip.compress(plain))),
    ],
    ids=["gzip", "br", "zstd", "deflate", "twice"],
)
def test_bomb_is_capped(relay: Relay, target: ByteTarget, coding: str, pack: Callable[[bytes], bytes]) -> None:
    """A small body that would grow over the limit is ERESPONSETOOLARGE."""
    target.on("/", reply(200, [("Content-Encoding", coding)], pack(b"\x00" * 20_000_000)))
    assert code(relay({"url": target.url()}, max_response_bytes=1_000_000)) == "ERESPONSETOOLARGE"


def test_limit_is_exact(relay: Relay, target: ByteTarget) -> None:
    """A body of exactly the limit is relayed, one byte more is not."""
    target.on("/", in_turn(reply(200, body=b"x" * 5000), reply(200, body=b"x" * 5001), raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5001)))
    assert len(relay({"url": target.url()}, max_response_bytes=5000)["body"]) == 5000
    assert code(relay({"url": target.url()}, max_response_bytes=5000)) == "ERESPONSETOOLARGE"
    assert code(relay({"url": target.url()}, max_response_bytes=5000)) == "ERESPONSETOOLARGE"


def test_announced_excess_is_not_read(relay: Relay, target: ByteTarget) -> None:
    """A Content-Length over the limit is refused at once, without waiting for the bytes."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx", then="hang"))
    assert code(relay({"url": target.url()}, deadline=1.0)) == "ERESPONSETOOLARGE"


def test_endless_body_is_cut_off(relay: Relay, target: ByteTarget) -> None:
    """A body without end stops at the limit and the connection is closed."""
    closed = target.gate()

    def pour(conn: Connection) -> None:
        try:
            while True:
                conn.send(b"x" * 65536)
        except OSError:
            closed.pass_through(0)
            raise

    target.on("/", play(lambda conn: conn.send(b"HTTP/1.1 200 OK\r\n\r\n"), pour))
    assert code(relay({"url": target.url()}, max_response_bytes=1_000_000)) == "ERESPONSETOOLARGE"
    closed.wait_reached(2.0)


def test_fifty_megabytes_pass_within_the_memory_limit(target: ByteTarget) -> None:
    """A body of 50 MB is relayed by a process that never holds 200 MB."""
    block = bytes(range(256)) * 4096
    count = 50 * 1024 * 1024 // len(block)

    def pour(conn: Connection, _request: RawRequest) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(block) * count), *[block] * count)

    target.on("/", pour)
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.relaying", target.url()], capture_output=True, text=True, timeout=30, check=True
    )
    report = json.loads(done.stdout)
    assert report["characters"] > 4 * 50 * 1024 * 1024 // 3
    assert report["peak_bytes"] < 200_000_000


def _fields(count: int, size: int = 1) -> bytes:
    return b"".join(b"X-%d: %s\r\n" % (number, b"v" * size) for number in range(count))


@pytest.mark.parametrize(
    ("head", "count"),
    [(_fields(999), 999), (_fields(150, 1000), 150), (_fields(1, 100_000), 1), (_fields(3, 80_000), 3)],
    ids=["999 fields", "150 KB", "100 KB line", "240 KB"],
)
def test_large_head_is_relayed(relay: Relay, target: ByteTarget, head: bytes, count: int) -> None:
    """A head below 1,000 fields and 256 KB arrives whole, one field however long included."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: 2\r\n\r\nhi", then="keep"))
    answer = relay({"url": target.url()})
    assert (len(answer["headers"]), answer["body"]) == (count + 1, "hi")


@pytest.mark.parametrize(
    "head",
    [
        _fields(1100),
        _fields(300, 1000),
        b"X: " + b"v" * 300_000 + b"\r\n",
        b"X: 1\r\n" + b" fold\r\n" * 50_000,
        b"no colon at all\r\n" * 20_000,
    ],
    ids=["1,100 fields", "300 KB", "one line", "folds", "junk"],
)
def test_head_over_the_limits_is_no_answer(relay: Relay, target: ByteTarget, head: bytes) -> None:
    """More than 1,000 fields or 256 KB is EBADRESPONSE."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: 2\r\n\r\nhi"))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 "], ids=["status line", "field", "reason"])
def test_endless_head_is_cut_off(relay: Relay, target: ByteTarget, start: bytes) -> None:
    """A line that never ends costs at most the header limit."""
    target.on("/", raw(start, b"x" * 600_000, then="hang"))
    assert code(relay({"url": target.url()}, deadline=3.0)) == "EBADRESPONSE"


# --- interim responses ---


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-Early: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 199 Whatever\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_interim_responses_are_passed_over(relay: Relay, target: ByteTarget, interim: bytes) -> None:
    """1xx before the answer is not the answer, and leaves no field in it."""
    target.on("/", raw(interim, ok(b"final", b"X: 1"), then="keep"))
    answer = relay({"url": target.url()})
    assert (answer["statusCode"], answer["body"], answer["headers"]) == (200, "final", [{"X": "1"}, {"Content-Length": "5"}])


def test_switching_protocols_unasked_ends(relay: Relay, target: ByteTarget) -> None:
    """101 is the end of HTTP on that connection: it is relayed or refused, without waiting for more."""
    target.on("/", raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", then="hang"))
    answer = relay({"url": target.url()}, deadline=2.0)
    assert answer.get("statusCode") == 101 or code(answer) == "EBADRESPONSE"


# --- what is no answer ---


@pytest.mark.parametrize("lengths", [[b"5", b"5"], [b"5, 5"]])
def test_same_length_twice_is_one_length(relay: Relay, target: ByteTarget, lengths: list[bytes]) -> None:
    """A repeated identical Content-Length is what it says (RFC 9110 §8.6)."""
    lines = b"".join(b"Content-Length: %s\r\n" % length for length in lengths)
    target.on("/", raw(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\nhello", then="keep"))
    assert relay({"url": target.url()}).get("body") == "hello"


@pytest.mark.parametrize(
    "lengths", [[b"5", b"7"], [b"5, 7"], [b"-1"], [b"abc"], [b"5x"], [b"+5"], [b"0x5"], [b"1_0"], [b"5.0"], [b"\xb2"], [b""], [b"5", b""]]
)
def test_invalid_length_is_no_answer(relay: Relay, target: ByteTarget, lengths: list[bytes]) -> None:
    """Conflicting, negative or garbage Content-Length is EBADRESPONSE (RFC 9112 §6.3)."""
    lines = b"".join(b"Content-Length: %s\r\n" % length for length in lengths)
    target.on("/", raw(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\nhello"))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"


def test_chunked_wins_over_length(relay: Relay, target: ByteTarget) -> None:
    """With both framings chunked counts and the connection is not trusted further (RFC 9112 §6.3)."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello"), then="keep"))
    target.on("/next", reply(200, body="next"))
    assert relay({"url": target.url()}).get("body") == "hello"
    assert relay({"url": target.url("/next")}).get("body") == "next"
    assert target.connections == 2


@pytest.mark.parametrize("body", [b"", b"short"])
def test_body_shorter_than_announced_is_no_answer(relay: Relay, target: ByteTarget, body: bytes) -> None:
    """Closed before Content-Length is reached: EBADRESPONSE, without a statusCode."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + body))
    answer = relay({"url": target.url()})
    assert code(answer) == "EBADRESPONSE"
    assert "statusCode" not in answer


@pytest.mark.parametrize(
    "head", [b"H", b"HTTP/1.1", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: 1", b"HTTP/1.1 200 OK\r\nX: 1\r\n"]
)
def test_head_closed_early_is_no_answer(relay: Relay, target: ByteTarget, head: bytes) -> None:
    """Closed within the head: EBADRESPONSE."""
    target.on("/", raw(head))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"<html>hello</html>",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"\x00" * 100,
        b"http/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 -20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
    ],
)
def test_what_is_not_http_is_no_answer(relay: Relay, target: ByteTarget, data: bytes) -> None:
    """Anything but an HTTP/1 response is EBADRESPONSE."""
    target.on("/", raw(data))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"


def test_nothing_after_an_interim_response_is_no_answer(relay: Relay, target: ByteTarget) -> None:
    """A 100 and then the end: no answer came, or not the whole of one."""
    target.on("/", raw(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert code(relay({"url": target.url()})) in {"EBADRESPONSE", "ECONNRESET"}


@pytest.mark.parametrize("how", ["close", "reset"])
def test_no_answer_at_all_is_a_reset(relay: Relay, target: ByteTarget, how: str) -> None:
    """Closed or reset without a byte: ECONNRESET, and the request was sent once."""
    target.on("/", raw(then=how))
    answer = relay({"url": target.url(), "method": "POST", "body": "x"})
    assert code(answer) == "ECONNRESET"
    assert len(target.requests) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\n\r\npart",
    ],
    ids=["head", "length", "chunk", "until close"],
)
def test_reset_within_the_answer_is_a_reset(relay: Relay, target: ByteTarget, data: bytes) -> None:
    """RST is ECONNRESET wherever it comes, a body that only the end of the connection ends included."""
    reading = target.gate()

    def handle(conn: Connection, _request: RawRequest) -> None:
        conn.send(data)
        reading.pass_through(0.05)  # let the bytes be read: an RST discards unread ones
        conn.reset()

    target.on("/", handle)
    assert code(relay({"url": target.url()})) == "ECONNRESET"


def test_refused_port_is_reported_with_its_address(relay: Relay) -> None:
    """ECONNREFUSED has no statusCode, and its message names where the connection was tried."""
    port = closed_port()
    answer = relay({"url": f"http://127.0.0.1:{port}/x"})
    assert (code(answer), answer["status"], answer["url"]) == ("ECONNREFUSED", "FAILURE", f"http://127.0.0.1:{port}/x")
    assert f"127.0.0.1:{port}" in answer["message"]
    assert isinstance(answer["elapsedMs"], int)
    assert set(answer) == {"status", "code", "message", "url", "elapsedMs"}


def test_answer_before_the_body_was_read_is_the_answer(relay: Relay, target: ByteTarget) -> None:
    """A target that refuses a large body early (413) and closes is relayed as its answer, or as the reset that it was."""

    def refuse(conn: Connection) -> bool:
        conn.read_head()
        conn.respond(413, [("Connection", "close")], b"too much")
        return False

    target.on_accept = refuse
    answer = relay({"url": target.url(), "method": "POST", "body": "x" * 5_000_000})
    assert answer.get("statusCode") == 413 or code(answer) in {"ECONNRESET", "EPIPE"}
