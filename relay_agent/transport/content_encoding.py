"""Content codings undone, piece by piece (RFC 9110 §8.4).

Every piece that comes out is bounded, however much a coding expands, so is what each layer gives in all, and a body that ends before
its coding does is an error: half an answer is no answer. This room must not know headers beyond the coding's name, or whose the
bytes are.
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
"""Bytes of the largest piece that comes out."""
SLICE = 4 * 1024
"""Bytes that a decoder is given at once. What it leaves of them is copied for each member or frame that ends within, empty ones too."""
MAX_CODINGS = 3
MAX_WINDOWED = 1
"""How many of them may remember megabytes of what they gave: br up to 26 MB while it grows and 17 MB then, zstd 9 MB; the others 50 KB."""
_WINDOWED = frozenset({"br", "zstd"})
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_WINDOW_LOG = 23
"""8 MiB: what RFC 9659 §3 lets a response ask a receiver to hold."""


class BadCoding(Exception):
    """The bytes are not what the coding's name says, or end too early."""


class TooLarge(Exception):
    """One of the layers gives, or the first takes, more bytes than are wanted in all."""


def decodable(codings: list[str]) -> bool:
    """Whether all of them are codings that can be undone here, and together take little memory."""
    known = 0 < len(codings) <= MAX_CODINGS and all(coding in _DECODERS for coding in codings)
    return known and sum(coding in _WINDOWED for coding in codings) <= MAX_WINDOWED


def decode(pieces: Iterable[bytes], codings: list[str], max_bytes: int, check: Callable[[], None]) -> Iterator[bytes]:
    """Undo the codings, the last one first, and yield what comes out in bounded pieces, `max_bytes` at most from each layer.

    `check` is called at short intervals, also where nothing comes out for long; whatever it raises comes through.

    Raises:
        BadCoding: while yielding, when the bytes do not decode.
        TooLarge: while yielding, when a layer gives more than `max_bytes`, or more than that and what codings add comes in.
    """
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
    """One or more members (RFC 1952 §2.2); what follows them and is no member is padding."""
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
            if data and not data.startswith(_GZIP_MAGIC[: len(data)]):
                for _ in pieces:
                    pass
                return
            if data:
                unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    _whole(unpacker.eof or not started)


def _deflate(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Zlib's format as RFC 9110 has it, or the bare deflate stream that some servers send."""
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
    _whole(not head if unpacker is None else unpacker.eof)


def _is_zlib(head: bytes) -> bool:
    """RFC 1950 §2.2: method 8, and a check that makes the first two bytes a multiple of 31."""
    return head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0


def _inflate(unpacker: zlib._Decompress, data: bytes) -> bytes:
    try:
        return unpacker.decompress(data, PIECE)
    except zlib.error:
        raise BadCoding("the body is not what its Content-Encoding says") from None


def _brotli(pieces: Iterable[bytes]) -> Iterator[bytes]:
    unpacker = brotli.Decompressor()
    started = False
    try:
        for data in pieces:
            started = started or bool(data)
            # The limit is rounded up by the library, and output may wait though it says that it wants more input.
            while out := unpacker.process(data, output_buffer_limit=PIECE):
                yield from (out[start : start + PIECE] for start in range(0, len(out), PIECE))
                data = b""
    except brotli.error:
        raise BadCoding("the body is not what its Content-Encoding says") from None
    _whole(unpacker.is_finished() or not started)


def _zstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """One or more frames (RFC 8878 §3)."""
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
        raise BadCoding("the body is not what its Content-Encoding says") from None
    _whole(unpacker.eof or not started)


def _nonempty(data: bytes) -> Iterator[bytes]:
    if data:
        yield data


def _whole(ended: bool) -> None:
    if not ended:
        raise BadCoding("the body ends before its Content-Encoding does")


_DECODERS: dict[str, Callable[[Iterable[bytes]], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
