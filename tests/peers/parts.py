"""The odd parts of answers: status lines, field lines, framings, codings, texts in charsets; each with its trait.

`draw` combines them.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from random import Random

import brotli  # type: ignore[import-untyped]
from backports import zstd

STATUS_LINES: dict[str, tuple[bytes, ...]] = {
    "reason-none": (b"HTTP/1.1 200", b"HTTP/1.1 200 "),
    "blanks": (b"HTTP/1.1  200 OK", b"HTTP/1.1   200   OK  so", b"HTTP/1.1  200"),
    "blanks-other": (b"HTTP/1.1 \t200 OK", b"HTTP/1.1  \t 200\tOK", b"HTTP/1.1 \v200 OK", b"HTTP/1.1 \f\r200", b"HTTP/1.0 \t200"),
    "1.0": (b"HTTP/1.0 200 OK", b"HTTP/1.0 200"),
    "minor-version": (b"HTTP/1.2 200 OK", b"HTTP/1.9 200 OK"),
    "long-minor-version": (b"HTTP/1.10 200 OK", b"HTTP/1.01 200 OK", b"HTTP/01.1 200 OK"),
    "other-version": (b"HTTP/2 200 OK", b"HTTP/2.0 200 OK", b"HTTP/3 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1 200 OK"),
    "lower-case": (b"http/1.1 200 OK", b"Http/1.1 200 OK"),
    "glued": (b"HTTP/1.1 200OK", b"HTTP/1.1 200-OK", b"HTTP/1.1 200\tOK"),
    "tab": (b"HTTP/1.1\t200 OK",),
    "no-blank": (b"HTTP/1.1200 OK", b"HTTP/ 200 OK", b"HTTP 200 OK"),
    "leading-blank": (b" HTTP/1.1 200 OK", b"\tHTTP/1.1 200 OK"),
    "leading-empty-line": (b"\r\nHTTP/1.1 200 OK", b"\nHTTP/1.1 200 OK"),
    "code-short": (b"HTTP/1.1 20 OK", b"HTTP/1.1 2 OK"),
    "code-long": (b"HTTP/1.1 2000 OK", b"HTTP/1.1 1000 OK"),
    "code-below-100": (b"HTTP/1.1 099 OK", b"HTTP/1.1 000 OK", b"HTTP/1.1 042"),
    "code-no-number": (b"HTTP/1.1 abc OK", b"HTTP/1.1 OK", b"HTTP/1.1 -20 OK", b"HTTP/1.1 +200 OK", b"HTTP/1.1"),
    "icy": (b"ICY 200 OK", b"RTSP/1.0 200 OK", b"SIP/2.0 200 OK"),
    "reason-odd": (
        b"HTTP/1.1 200 caf\xe9",
        b"HTTP/1.1 200 \xe6\x97\xa5\xe6\x9c\xac",
        b"HTTP/1.1 200 " + b"long " * 500,
        b"HTTP/1.1 200 a\tb",
    ),
    "reason-cr": (b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200 OK\r"),
    "code-rare": (b"HTTP/1.1 299 X", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 500 X", b"HTTP/1.1 799 X", b"HTTP/1.1 999 X", b"HTTP/1.1 600 X"),
}

FIELDS: dict[str, tuple[bytes, ...]] = {
    "folded": (b"X-Odd: one\r\n two\r\n\tthree", b"X-Odd:\r\n one", b"X-Odd: one\r\n  \r\n two"),
    "duplicate": (b"X-Odd: a\r\nx-odd: b\r\nX-ODD: a", b"X-Odd: a\r\nX-Between: 1\r\nX-Odd: b"),
    "lower-case": (b"x-odd: 1", b"X-ODD: 1", b"x-OdD:1"),
    "obs-text": (b"X-Odd: caf\xe9", b"X-Odd: \xc3\xa9", b"X-Odd: \xa0a\x85b", b"X-Odd: \xff\xfe"),
    "no-colon": (b"no colon here", b"X-Odd", b"<html>"),
    "no-name": (b": no name", b":"),
    "blank-before-colon": (b"X-Odd : 1", b"X-Odd\t: 1", b"X-Odd  : 1"),
    "blank-in-name": (b"X Odd: 1", b"X Odd Name: 1"),
    "separator-in-name": (b"X(Odd): 1", b"X@Odd: 1", b'"X-Odd": 1', b"[X]: 1", b"X/Odd: 1"),
    "obs-text-in-name": (b"X-\xe9: 1", b"\xc3\xa9: 1"),
    "control": (b"X-Odd: a\x0bb\x0cc", b"X-Odd: a\x1cb\x1db\x1eb\x1fb", b"X-Odd: \x01\x7f", b"X-Odd: a\x08b", b"X-Odd: \x0cform feed\x0c"),
    "nul": (b"X-Odd: a\x00b", b"X-Odd: \x00"),
    "nul-in-name": (b"X\x00Odd: 1",),
    "bare-cr": (b"X-Odd: a\rb", b"X-Odd: a\rX-Within: 1", b"X-Odd: a\r\r"),
    "empty": (b"X-Odd:", b"X-Odd: ", b"X-Odd: \t "),
    "padded": (b"X-Odd: \t padded \t", b"X-Odd:tight", b"X-Odd:\t1"),
    "colons": (b"X-Odd: a: b: c", b"X-Odd:: 1", b"X-Odd: http://x/"),
    "quoted": (b'X-Odd: "a, b"; c="d\\"e"', b'X-Odd: "open', b"X-Odd: =?utf-8?q?x?="),
    "long": (b"X-Odd: " + b"v" * 9000, b"X-Odd: " + b"v" * 60_000),
    "longer-than-64k": (b"X-Odd: " + b"v" * 70_000, b"X-Odd: " + b"v" * 90_000),
    "more-than-100k": (b"X-Odd: " + b"v" * 120_000, b"X-Odd: " + b"v" * 200_000),
    "over-the-limit": (b"X-Odd: " + b"v" * 320_000, b"\r\n".join(b"X-Odd-%d: 1" % number for number in range(1100))),
    "many": (b"\r\n".join(b"X-Odd-%d: %d" % (number, number) for number in range(90)),),
    "more-than-100": (b"\r\n".join(b"X-Odd-%d: %d" % (number, number) for number in range(130)),),
}

BODIES = (
    b"",
    b"x",
    b"hello",
    b'{"a": [1, 2, 3]}',
    b"line one\r\nline two\r\n\r\n",
    "caf\u00e9 \u20ac".encode(),
    bytes(range(256)),
    b"0123456789" * 3000,
)


def lengths(body: bytes) -> dict[str, tuple[list[bytes], bytes]]:
    """Field lines and bytes of framings by Content-Length."""
    size = len(body)
    return {
        "twice-same": ([b"Content-Length: %d" % size] * 2, body),
        "list-same": ([b"Content-Length: %d, %d" % (size, size)], body),
        "conflict": ([b"Content-Length: %d" % size, b"Content-Length: %d" % (size + 1)], body),
        "conflict-list": ([b"Content-Length: %d, %d" % (size, size + 3)], body),
        "plus": ([b"Content-Length: +%d" % size], body),
        "negative": ([b"Content-Length: -%d" % (size + 1)], body),
        "hex": ([b"Content-Length: 0x%x" % size], body),
        "text": ([b"Content-Length: many"], body),
        "empty": ([b"Content-Length:"], body),
        "trailing": ([b"Content-Length: %d bytes" % size], body),
        "trailing-separator": ([b"Content-Length: %d;" % size], body),
        "trailing-comma": ([b"Content-Length: %d," % size], body),
        "fraction": ([b"Content-Length: %d.0" % size], body),
        "underscore": ([b"Content-Length: 0_%d" % size], body),
        "zeros": ([b"Content-Length: 000%d" % size], body),
        "many-zeros": ([b"Content-Length: " + b"0" * 30 + b"%d" % size], body),
        "padded": ([b"Content-Length: \t %d \t" % size], body),
        "huge": ([b"Content-Length: 9" + b"9" * 24], body),
        "too-long": ([b"Content-Length: %d" % (size + 7)], body),
        "too-short": ([b"Content-Length: %d" % (size // 2)], body + b"more"),
        "other-spelling": ([b"content-length:%d" % size], body),
        "folded": ([b"Content-Length:\r\n %d" % size], body),
    }


def chunk(data: bytes, size: bytes | None = None, end: bytes = b"\r\n") -> bytes:
    """One chunk; `size` replaces its correct size line."""
    return (b"%x" % len(data) if size is None else size) + end + data + end


_END = b"0\r\n\r\n"


def chunkings(body: bytes) -> dict[str, tuple[list[bytes], bytes]]:
    """Field lines and bytes of framings by chunks."""
    body = body or b"chunk"
    half = len(body) // 2
    one, two = body[:half], body[half:]
    first = chunk(one) if one else b""
    plain, te, size = first + chunk(two), b"Transfer-Encoding: chunked", b"%x" % len(two)
    gzipped = gzip.compress(body, mtime=0)
    return {
        "plain": ([te], plain + _END),
        "upper-case": ([te], first + chunk(two, size.upper()) + _END),
        "zeros": ([te], first + chunk(two, b"000" + size) + b"000\r\n\r\n"),
        "many-zeros": ([te], first + chunk(two, b"0" * 20 + size) + _END),
        "extension": ([te], first + chunk(two, size + b";a=b;c") + b"0;last\r\n\r\n"),
        "extension-quoted": ([te], first + chunk(two, size + b';a="b;c\\"d"') + _END),
        "extension-long": ([te], first + chunk(two, size + b";" + b"e" * 9000) + _END),
        "blank-after-size": ([te], first + chunk(two, size + b"  ") + _END),
        "blank-before-size": ([te], first + chunk(two, b" " + size) + _END),
        "blank-before-extension": ([te], first + chunk(two, size + b" ; a=b") + _END),
        "trailers": ([te], plain + b"0\r\nX-Trailer: 1\r\nx-odd: 2\r\n\r\n"),
        "trailer-no-field": ([te], plain + b"0\r\nno field\r\n\r\n"),
        "line-feeds": ([te], (chunk(one, end=b"\n") if one else b"") + chunk(two, end=b"\n") + b"0\n\n"),
        "no-last-line": ([te], plain + b"0\r\n"),
        "no-last-chunk": ([te], plain),
        "cut-in-size": ([te], first + size),
        "cut-in-trailer": ([te], plain + b"0\r\nX-Tr"),
        "size-too-small": ([te], first + chunk(two + b"ab", size) + _END),
        "size-too-large": ([te], first + chunk(two, b"%x" % (len(two) + 3)) + _END),
        "negative": ([te], first + chunk(two, b"-" + size) + _END),
        "plus": ([te], first + chunk(two, b"+" + size) + _END),
        "0x": ([te], first + chunk(two, b"0x" + size) + _END),
        "underscore": ([te], first + chunk(two, b"0_" + size) + _END),
        "no-number": ([te], first + chunk(two, b"xyz") + _END),
        "junk-after-size": ([te], first + chunk(two, size + b" junk") + _END),
        "empty-size": ([te], first + chunk(two, b"") + _END),
        "no-line-end-after-data": ([te], first + size + b"\r\n" + two + _END),
        "not-chunked-at-all": ([te], body),
        "huge-size": ([te], first + chunk(two, b"f" * 20) + _END),
        "twice-in-list": ([b"Transfer-Encoding: chunked, chunked"], plain + _END),
        "twice-in-fields": ([te, te], plain + _END),
        "really-twice": ([b"Transfer-Encoding: chunked, chunked"], chunk(plain + _END) + _END),
        "identity": ([b"Transfer-Encoding: identity", b"Content-Length: %d" % len(body)], body),
        "identity-alone": ([b"Transfer-Encoding: identity"], body),
        "identity-and-chunked": ([b"Transfer-Encoding: identity, chunked"], plain + _END),
        "none": ([b"Transfer-Encoding: none", b"Content-Length: %d" % len(body)], body),
        "none-alone": ([b"Transfer-Encoding: None"], body),
        "none-and-chunked": ([b"Transfer-Encoding: none, chunked"], plain + _END),
        "empty-coding": ([b"Transfer-Encoding:", b"Content-Length: %d" % len(body)], body),
        "gzip-and-chunked": ([b"Transfer-Encoding: gzip, chunked"], chunk(gzipped) + _END),
        "gzip-alone": ([b"Transfer-Encoding: gzip"], gzipped),
        "and-length": ([te, b"Content-Length: %d" % len(body)], plain + _END),
        "and-wrong-length": ([b"Content-Length: 3", te], plain + _END),
        "other-case": ([b"transfer-encoding:Chunked"], plain + _END),
        "odd-name": ([b"Transfer-Encoding: xchunked"], plain + _END),
        "parameter": ([b"Transfer-Encoding: chunked;q=1"], plain + _END),
        "comma": ([b"Transfer-Encoding: chunked,"], plain + _END),
        "quoted": ([b'Transfer-Encoding: "chunked"'], plain + _END),
        "folded": ([b"Transfer-Encoding:\r\n chunked"], plain + _END),
        "blank-before-colon": ([b"Transfer-Encoding : chunked"], plain + _END),
        "surplus": ([te], plain + _END + b"surplus"),
    }


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def _damaged(packed: bytes) -> bytes:
    return packed[:-6] + bytes([packed[-6] ^ 0xFF]) + packed[-5:]


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


CODINGS: dict[str, Callable[[bytes], tuple[list[bytes], bytes]]] = {
    "gzip": lambda data: ([b"Content-Encoding: gzip"], _gzip(data)),
    "gzip-other-case": lambda data: ([b"content-encoding:GZIP"], _gzip(data)),
    "x-gzip": lambda data: ([b"Content-Encoding: x-gzip"], _gzip(data)),
    "gzip-with-name": lambda data: ([b"Content-Encoding: gzip"], b"\x1f\x8b\x08\x08\0\0\0\0\0\xffname\0" + _gzip(data)[10:]),
    "gzip-members": lambda data: ([b"Content-Encoding: gzip"], _gzip(data) + _gzip(b"second") + _gzip(b"")),
    "gzip-padding": lambda data: ([b"Content-Encoding: gzip"], _gzip(data) + b"\0" * 16),
    "gzip-junk": lambda data: ([b"Content-Encoding: gzip"], _gzip(data) + b"junk behind"),
    "gzip-truncated": lambda data: ([b"Content-Encoding: gzip"], _gzip(data)[:-9]),
    "gzip-no-trailer": lambda data: ([b"Content-Encoding: gzip"], _gzip(data)[:-8]),
    "gzip-half-trailer": lambda data: ([b"Content-Encoding: gzip"], _gzip(data)[:-3]),
    "gzip-checksum": lambda data: ([b"Content-Encoding: gzip"], _damaged(_gzip(data))),
    "gzip-that-is-none": lambda data: ([b"Content-Encoding: gzip"], b"plain " + data),
    "gzip-that-is-zlib": lambda data: ([b"Content-Encoding: gzip"], zlib.compress(data)),
    "gzip-no-bytes": lambda _: ([b"Content-Encoding: gzip"], b""),
    "gzip-twice": lambda data: ([b"Content-Encoding: gzip, gzip"], _gzip(_gzip(data))),
    "gzip-named-twice": lambda data: ([b"Content-Encoding: gzip", b"Content-Encoding: gzip"], _gzip(data)),
    "gzip-of-deflate": lambda data: ([b"Content-Encoding: deflate", b"Content-Encoding: gzip"], _gzip(zlib.compress(data))),
    "gzip-comma": lambda data: ([b"Content-Encoding: gzip,"], _gzip(data)),
    "gzip-parameter": lambda data: ([b"Content-Encoding: gzip;q=1"], _gzip(data)),
    "zlib": lambda data: ([b"Content-Encoding: deflate"], zlib.compress(data)),
    "deflate-raw": lambda data: ([b"Content-Encoding: deflate"], _deflate(data)),
    "zlib-truncated": lambda data: ([b"Content-Encoding: deflate"], zlib.compress(data)[:-5]),
    "zlib-checksum": lambda data: ([b"Content-Encoding: deflate"], zlib.compress(data)[:-1] + b"\x00"),
    "zlib-junk": lambda data: ([b"Content-Encoding: deflate"], zlib.compress(data) + b"junk"),
    "deflate-that-is-gzip": lambda data: ([b"Content-Encoding: deflate"], _gzip(data)),
    "deflate-that-is-none": lambda data: ([b"Content-Encoding: deflate"], b"plain " + data),
    "br": lambda data: ([b"Content-Encoding: br"], brotli.compress(data)),
    "br-truncated": lambda data: ([b"Content-Encoding: br"], brotli.compress(data + b"x" * 40)[:-2]),
    "br-junk": lambda data: ([b"Content-Encoding: br"], brotli.compress(data) + b"junk"),
    "zstd": lambda data: ([b"Content-Encoding: zstd"], zstd.compress(data)),
    "zstd-frames": lambda data: ([b"Content-Encoding: zstd"], zstd.compress(data) + zstd.compress(b"second")),
    "zstd-truncated": lambda data: ([b"Content-Encoding: zstd"], zstd.compress(data)[:-2]),
    "identity": lambda data: ([b"Content-Encoding: identity"], data),
    "identity-and-gzip": lambda data: ([b"Content-Encoding: identity, gzip"], _gzip(data)),
    "empty": lambda data: ([b"Content-Encoding:"], data),
    "none": lambda data: ([b"Content-Encoding: none"], data),
    "charset": lambda data: ([b"Content-Encoding: utf-8"], data),
    "unknown": lambda data: ([b"Content-Encoding: foo"], data),
    "compress": lambda data: ([b"Content-Encoding: compress"], data),
    "four": lambda data: ([b"Content-Encoding: gzip, gzip, gzip, gzip"], _gzip(_gzip(_gzip(_gzip(data))))),
    "seven": lambda data: ([b"Content-Encoding: " + b", ".join([b"gzip"] * 7)], data),
}

_JAPANESE = "\u65e5\u672c\u8a9e \uff76\uff80\uff76\uff85 ~\\"
TEXTS: dict[str, tuple[str, bytes]] = {
    "utf-16-be-mark": ("utf-16", b"\xfe\xff" + "text \u20ac".encode("utf-16-be")),
    "utf-16-le-mark": ("utf-16", b"\xff\xfe" + "text \u20ac".encode("utf-16-le")),
    "utf-16-no-mark": ("utf-16", "text".encode("utf-16-be")),
    "utf-16-odd": ("utf-16", b"\xfe\xff\x00t\x00"),
    "utf-16be-mark": ("UTF-16BE", b"\xfe\xff" + "text".encode("utf-16-be")),
    "utf-8-mark": ("utf-8", b"\xef\xbb\xbftext"),
    "utf-8-broken": ("utf-8", b"text \xc3"),
    "utf-7": ("utf-7", b"text +AKM-"),
    "cp932-doubles": ("Windows-31J", b"\x81\xe6 \xfa\x5b \x87\x90 \xed\x40"),
    "cp932-as-shift-jis": ("Shift_JIS", b"\x87\x40\x81\x60\x81\x5c"),
    "x-sjis": ("x-sjis", _JAPANESE.encode("cp932")),
    "ms932": ("MS932", _JAPANESE.encode("cp932")),
    "euc-jp": ("EUC-JP", "\u65e5\u672c\u8a9e".encode("euc-jp")),
    "iso-2022-jp": ("ISO-2022-JP", "\u65e5\u672c\u8a9e".encode("iso2022-jp")),
    "iso-2022-jp-escapes": ("ISO-2022-JP", b"\x1b(B\x1b$B\x46\x7c\x1b(B\x1b(Btext"),
    "iso-2022-jp-jis78": ("ISO-2022-JP", b"\x1b$@\x46\x7c\x1b(J\\text\x1b(B"),
    "latin-1": ("ISO-8859-1", bytes(range(256))),
    "cp1252-holes": ("windows-1252", b"\x80\x81\x8d"),
    "gbk": ("GBK", "\u4e2d\u6587\u20ac".encode("gbk", "ignore")),
    "gb2312-really-gbk": ("gb2312", b"\x80\x81\x40"),
    "big5": ("Big5", "\u4e2d\u6587".encode("big5")),
    "unknown": ("x-lab-7", b"text \xe9"),
    "quoted": ('"iso-8859-1"', b"caf\xe9"),
    "empty": ("", b"caf\xe9"),
    "codec-of-python": ("rot13", b"text"),
}


def pick(rng: Random, table: dict[str, tuple[bytes, ...]]) -> tuple[str, bytes]:
    """A part of the catalogue, each trait as often as another."""
    name = rng.choice(list(table))
    return name, rng.choice(table[name])
