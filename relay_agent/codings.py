"""Content codings undone, piece by piece (RFC 9110 §8.4).

Every piece that comes out is bounded, however much the coding expands, and a body that ends before its coding
does is an error: half an answer is no answer. This room must not know limits or headers beyond the coding's name.
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
MAX_CODINGS = 5
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_WINDOW_LOG = 23
"""8 MiB: what RFC 9659 §3 lets a response ask a receiver to hold."""


class BadCoding(Exception):
    """The bytes are not what the coding's name says, or end too early."""


def decodable(codings: list[str]) -> bool:
    """Whether all of them are codings that can be undone here."""
    return 0 < len(codings) <= MAX_CODINGS and all(coding in _DECODERS for coding in codings)


def decode(pieces: Iterable[bytes], codings: list[str]) -> Iterator[bytes]:
    """Undo the codings, the last one first, and yield what comes out in bounded pieces.

    Raises:
        BadCoding: while yielding, when the bytes do not decode.
    """
    for coding in reversed(codings):
        pieces = _DECODERS[coding](pieces)
    return iter(pieces)


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
