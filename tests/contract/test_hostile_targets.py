"""Whatever a target sends, a command ends in time with an answer or a code of PROTOCOL §4.

Deliberately hostile answers. Which of the two results an answer deserves is tested with the rule for it.
"""

from __future__ import annotations

import gzip
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
from backports import zstd
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.contract.relaying import Relay
from tests.examples import examples
from tests.targets import ByteTarget, raw

SECONDS = 2.0
CODES = {
    *("ECONNRESET", "EPIPE", "ETIMEDOUT", "ERESPONSETOOLARGE", "ETOOMANYREDIRECTS", "EBADRESPONSE"),
    *("EPOLICY", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENOTFOUND", "EPROTO"),
}
"""What a target's bytes may lead to, out of PROTOCOL §4."""

PACKERS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd.compress}
CHARSETS = ["utf-8", "utf-16", "utf-32", "iso-2022-jp", "iso-2022-kr", "hz-gb-2312", "x-sjis", "big5-hkscs", "latin1", "utf-7", "undefined"]


def noise(most: int = 40) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=most) | st.text(st.sampled_from("\";=,/:% \t\\aZ09*'\r\n"), max_size=most).map(str.encode)


def mixed(*words: str) -> st.SearchStrategy[bytes]:
    """Words that mean something, and noise, put together."""
    return st.lists(st.sampled_from([word.encode() for word in words]) | noise(12), max_size=6).map(b"".join)


FIELDS = st.one_of(
    st.tuples(
        st.just(b"Content-Type"),
        mixed("text/plain", ";", "charset", "=", '"', "boundary", *CHARSETS)
        | st.sampled_from(CHARSETS).map(lambda charset: b"text/plain; charset=" + charset.encode()),
    ),
    st.tuples(st.just(b"Content-Encoding"), mixed(*PACKERS, ", ", "identity", "compress")),
    st.tuples(
        st.just(b"Set-Cookie"), mixed("a=1", "; ", "Path=/", "Domain=", "127.0.0.1", "Expires=", "Thu, 01 Jan 1970 00:00:00", "Max-Age=9")
    ),
    st.tuples(st.just(b"Location"), mixed("/", "http://127.0.0.1", ":", "//", "?", "#", "[::1]", "xn--", "..", "/self")),
    st.tuples(st.just(b"Content-Length"), mixed("0", "5", "99999999999", "-", ",")),
    st.tuples(st.just(b"Transfer-Encoding"), mixed("chunked", ", ", "gzip", "identity")),
    st.tuples(st.just(b"Connection"), mixed("close", "keep-alive", ", ", "upgrade")),
    st.tuples(noise(12), noise()),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A response that is one more or less, or bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(noise(200))
    status = draw(st.sampled_from([200, 200, 200, 204, 206, 302, 302, 307, 404, 407, 503, 101, 999]) | st.integers(0, 1200))
    fields = draw(st.lists(FIELDS, max_size=6))
    body = draw(noise(200) | st.sampled_from(CHARSETS[:6]).map(lambda charset: "日本 text é".encode(charset, "ignore")))
    for coding in draw(st.lists(st.sampled_from(list(PACKERS)), max_size=3)):
        body = PACKERS[coding](body)
        fields.append((b"Content-Encoding", coding.encode()))
    if draw(st.booleans()):
        fields.append((b"Content-Length", b"%d" % len(body)))
    body = body[: draw(st.integers(0, len(body)))] if draw(st.integers(0, 4)) == 0 else body
    return b"HTTP/1.1 %d OK\r\n" % status + b"".join(b"%s: %s\r\n" % pair for pair in fields) + b"\r\n" + body


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        yield server


@pytest.fixture(autouse=True)
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody outside is asked for the names that redirects lead to."""
    real = socket.getaddrinfo

    def loopback_only(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "127.0.0.1":
            return real(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", loopback_only)


def put(relay: Relay, target: ByteTarget, answer: bytes) -> None:
    """Relay an answer; whatever comes of it is one of the two ends, and in time."""
    target.on("*", raw(answer))
    before = time.monotonic()
    reported = relay({"url": target.url("/self"), "timeout": SECONDS, "headers": [{"Cookie": "a=0"}]}, max_response_bytes=50_000_000)
    assert time.monotonic() - before < 10 * SECONDS
    if "statusCode" in reported:
        assert (reported["bodyEncoding"] in ("utf-8", "base64"), isinstance(reported["body"], str)) == (True, True)
    else:
        assert reported["code"] in CODES, reported


@given(answer=answers())
@example(answer=b"HTTP/1.1 302 \r\nLocation: http://127.0.0.1:\xb2/\r\n\r\n")
@example(answer=b"HTTP/1.1 302 \r\nLocation: http://\xc3\xa9\xe9/\r\n\r\n")
@example(answer=b"HTTP/1.1 302 \r\nLocation: //[::1%25\xff]/\r\n\r\n")
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_answer_is_relayed_or_has_a_code(relay: Relay, target: ByteTarget, answer: bytes) -> None:
    put(relay, target, answer)


LONG = 250_000


@pytest.mark.parametrize(
    "field",
    [
        b'Content-Type: a;"' + b";" * LONG,
        b"Content-Type: a;" + b'x="' * (LONG // 3),
        b"Content-Type: a;" + b"x=y;" * (LONG // 4),
        b'Content-Type: a; charset="' + b"\\" * LONG,
        b"Content-Type: a; charset=" + b"u" * LONG,
        b"Content-Encoding: " + b"gzip," * (LONG // 5),
        b"Content-Encoding: " + b"," * LONG,
        b"Set-Cookie: a=1" + b";" * LONG,
        b"Set-Cookie: a=1; Expires=" + b"1 " * (LONG // 2),
        b"Set-Cookie: " + b"a" * LONG,
        b"Set-Cookie: a=1; Max-Age=" + b"9" * LONG,
        b"Set-Cookie: a=1\r\n" * (900),
        b"Location: /" + b"../" * (60_000 // 3),
        b"Location: http://" + b"a." * 30_000 + b"/",
        b"Location: http://" + b"\xc3\xa9" * 30_000 + b"/",
        b"Location: /" + b"\xe9" * 60_000,
        b"Connection: " + b"a," * (LONG // 2),
        b"Keep-Alive: " + b"timeout=" * (LONG // 8),
        b"Transfer-Encoding: " + b"identity," * (LONG // 9),
        b"Content-Length: " + b"5," * (LONG // 2) + b"5",
    ],
    ids=lambda field: f"{field[:24]!r}{field[-6:]!r}",
)
@pytest.mark.parametrize("status", [200, 302])
def test_a_field_as_long_as_a_head_may_be_costs_a_moment(relay: Relay, target: ByteTarget, field: bytes, status: int) -> None:
    """A moment is far below what a parser takes that looks at each character as often as there are characters."""
    before = time.process_time()
    put(relay, target, b"HTTP/1.1 %d OK\r\n" % status + field.rstrip(b"\r\n") + b"\r\nContent-Length: 5\r\n\r\nhello")
    assert time.process_time() - before < SECONDS
