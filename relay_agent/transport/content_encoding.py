"""Decodes content codings piece by piece, with bounds on each piece and on the total (RFC 9110 §8.4).

A body that ends before its coding does is an error.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE = 64 * 1024
"""Bytes of the largest piece that is yielded."""
# Small, because the rest of a slice is copied at the end of each member or frame in it, even of an empty one.
SLICE = 4 * 1024
"""Bytes that a decoder gets at once."""
MAX_CODINGS = 3
# br needs up to 26 MB while its window grows and 17 MB afterwards, zstd 9 MB, the others 50 KB.
MAX_WINDOWED = 1
"""How many of a body's codings may have a window of megabytes."""
_WINDOWED = frozenset({"br", "zstd"})
GZIP_MAGIC = b"\x1f\x8b"
_NOT_THE_CODING = "the body is not in its Content-Encoding"
_ZSTD_WINDOW_LOG = 23
"""8 MiB, the largest window that a response may use (RFC 9659 §3)."""


class BadCoding(Exception):
    """The bytes are not in the coding that is named, or end too early."""


class CutShort(BadCoding):
    """The bytes are in the coding that is named as far as they go, but end too early."""


class TooLarge(Exception):
    """The body, or the output of one of its codings, exceeds the limit."""


def decodable(codings: list[str]) -> bool:
    """Return whether all codings of a body can be decoded here, in little memory."""
    known = 0 < len(codings) <= MAX_CODINGS and all(coding in _DECODERS for coding in codings)
    return known and sum(coding in _WINDOWED for coding in codings) <= MAX_WINDOWED


def decode(pieces: Iterable[bytes], codings: list[str], max_bytes: int, check: Callable[[], None]) -> Iterator[bytes]:
    """Decode the codings, the last one first, and yield the body in pieces of at most PIECE bytes.

    `check` is called for each slice of input and each piece of output, so that it can end decoding that gives no output.

    Raises:
        BadCoding: while yielding: the bytes cannot be decoded.
        TooLarge: while yielding: a coding gives more than `max_bytes`, or the input is longer than `max_bytes` could be encoded to.
    """
    # Incompressible input grows by less than 1/32 when it is encoded.
    pieces = _counted(pieces, max_bytes + max_bytes // 32 + PIECE, check)
    for coding in reversed(codings):
        pieces = _counted(_DECODERS[coding](_sliced(pieces, check)), max_bytes, check)
    return iter(pieces)


def _sliced(pieces: Iterable[bytes], check: Callable[[], None]) -> Iterator[bytes]:
    for data in pieces:
        for start in range(0, len(data), SLICE):
            check()
            yield data[start : start + SLICE]


def _counted(pieces: Iterable[bytes], max_bytes: int, check: Callable[[], None]) -> Iterator[bytes]:
    size = 0
    for data in pieces:
        check()
        size += len(data)
        if size > max_bytes:
            raise TooLarge
        yield data


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decode one or more members (RFC 1952 §2.2); anything else after them is padding, and is skipped."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    started, pieces = False, iter(pieces)
    for data in pieces:
        while data:
            started = True
            out = _inflate(unpacker, data)
            yield from _nonempty(out)
            if not unpacker.eof:
                data = unpacker.unconsumed_tail
                continue
            data = unpacker.unused_data
            if data == GZIP_MAGIC[:1]:  # The next byte decides whether a member begins.
                data += next(pieces, b"")
            if data and not data.startswith(GZIP_MAGIC):
                for _ in pieces:
                    pass
                return
            if data:
                unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    _check_whole(unpacker.eof or not started)


def _deflate(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decode zlib's format, as RFC 9110 says, or the bare deflate stream that some servers send."""
    unpacker: zlib._Decompress | None = None
    head = b""
    for data in pieces:
        if unpacker is None:
            head += data
            if len(head) < 2:
                continue
            unpacker, data = zlib.decompressobj(zlib.MAX_WBITS if _is_zlib(head) else -zlib.MAX_WBITS), head
        full = False
        while (data or full) and not unpacker.eof:
            out = _inflate(unpacker, data)
            yield from _nonempty(out)
            data, full = unpacker.unconsumed_tail, len(out) == PIECE
    _check_whole(not head if unpacker is None else unpacker.eof)


def _is_zlib(head: bytes) -> bool:
    """Return whether a stream begins as RFC 1950 §2.2 says: method 8, and the first two bytes a multiple of 31."""
    return head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0


def _inflate(unpacker: zlib._Decompress, data: bytes) -> bytes:
    try:
        return unpacker.decompress(data, PIECE)
    except zlib.error:
        raise BadCoding(_NOT_THE_CODING) from None


def _brotli(pieces: Iterable[bytes]) -> Iterator[bytes]:
    unpacker = brotli.Decompressor()
    started = False
    try:
        for data in pieces:
            started = started or bool(data)
            # The library rounds the limit up, and may have more output even when it asks for more input.
            while out := unpacker.process(data, output_buffer_limit=PIECE):
                yield from (out[start : start + PIECE] for start in range(0, len(out), PIECE))
                data = b""
    except brotli.error:
        raise BadCoding(_NOT_THE_CODING) from None
    _check_whole(unpacker.is_finished() or not started)


def _zstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decode one or more frames (RFC 8878 §3)."""
    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    unpacker = zstd.ZstdDecompressor(options=options)
    started = False
    try:
        for data in pieces:
            started = started or bool(data)
            while data or not (unpacker.needs_input or unpacker.eof):
                if unpacker.eof:
                    unpacker = zstd.ZstdDecompressor(options=options)
                yield from _nonempty(unpacker.decompress(data, PIECE))
                data = unpacker.unused_data if unpacker.eof else b""
    except zstd.ZstdError:
        raise BadCoding(_NOT_THE_CODING) from None
    _check_whole(unpacker.eof or not started)


def _nonempty(data: bytes) -> Iterator[bytes]:
    if data:
        yield data


def _check_whole(ended: bool) -> None:
    if not ended:
        raise CutShort("the body ends before its Content-Encoding does")


_DECODERS: dict[str, Callable[[Iterable[bytes]], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
