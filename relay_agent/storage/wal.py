"""SQLite's write-ahead log, read as bytes: SQLite ignores a damaged end of it without an error.

This module owns the log's format (https://sqlite.org/fileformat2.html#walformat). It must not open the database or change a file.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

from relay_agent.core.errors import JournalDamaged

_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_MAGIC_LITTLE_ENDIAN, _MAGIC_BIG_ENDIAN = 0x377F0682, 0x377F0683


def wal_path(database: Path) -> Path:
    """Return the path of a database's write-ahead log."""
    return database.with_name(f"{database.name}-wal")


def read_log(database: Path) -> bytes:
    """Return the write-ahead log, empty if there is none; call it before SQLite opens the database and drops what it cannot use."""
    with suppress(FileNotFoundError):
        return wal_path(database).read_bytes()
    return b""


def check_header(log: bytes) -> tuple[int, int]:
    """Return the header's checksum, with which that of the first frame begins; (0, 0) if the log is too short to hold a frame.

    Raises:
        JournalDamaged: the header is damaged, and SQLite ignores the whole log.
    """
    if len(log) < _HEADER_BYTES + _FRAME_HEADER_BYTES:
        return 0, 0
    magic = struct.unpack(">I", log[:4])[0]
    checksum = struct.unpack(">2I", log[_HEADER_BYTES - 8 : _HEADER_BYTES])
    if magic not in (_MAGIC_LITTLE_ENDIAN, _MAGIC_BIG_ENDIAN) or _checksum((0, 0), log[: _HEADER_BYTES - 8], _byte_order(log)) != checksum:
        raise JournalDamaged("the header of the write-ahead log is damaged")
    return checksum[0], checksum[1]


def check_frames(log: bytes, checksum: tuple[int, int]) -> None:
    """Check that no whole commit follows the first invalid frame; `checksum` is the header's.

    Raises:
        JournalDamaged: there is one.
    """
    # SQLite reads the log up to the first frame with a wrong checksum. After it comes the rest of unfinished transactions; but if that
    # rest contains a commit of the same generation (the salts), damage has made it unreadable. A commit that a full disk interrupted,
    # followed by a shorter one, looks the same: so call this only if the commit counter does not decide.
    if len(log) < _HEADER_BYTES + _FRAME_HEADER_BYTES:
        return
    order = _byte_order(log)
    size, salts, sound = _FRAME_HEADER_BYTES + struct.unpack(">I", log[8:12])[0], log[16:24], True
    for start in range(_HEADER_BYTES, len(log) - size + 1, size):
        _page, pages_after_commit = struct.unpack(">2I", log[start : start + 8])
        ours = log[start + 8 : start + 16] == salts
        if sound and ours:
            checksum = _checksum(checksum, log[start : start + 8], order)
            checksum = _checksum(checksum, log[start + _FRAME_HEADER_BYTES : start + size], order)
        sound = sound and ours and struct.pack(">2I", *checksum) == log[start + 16 : start + _FRAME_HEADER_BYTES]
        if not sound and ours and pages_after_commit:
            raise JournalDamaged("the write-ahead log is damaged before its last commit")


def _byte_order(log: bytes) -> str:
    """Return the byte order of the log's checksums, as `struct` writes it; the magic number's last bit says it."""
    return ">" if log[3] & 1 else "<"


def _checksum(begin: tuple[int, int], data: bytes, order: str) -> tuple[int, int]:
    first, second = begin
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
