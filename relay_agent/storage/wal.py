"""Reading SQLite's write-ahead log, to find what is missing from it."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

from relay_agent.core.errors import JournalDamaged

_WAL_HEADER, _FRAME_HEADER = 32, 24


def read_log(path: Path) -> bytes:
    """The write-ahead log as the last run left it: SQLite forgets what it cannot use when it opens the database."""
    with suppress(FileNotFoundError):
        return path.with_name(f"{path.name}-wal").read_bytes()
    return b""


def check_header(log: bytes) -> tuple[int, int]:
    """Look at the log's header (https://sqlite.org/fileformat2.html#walformat); its checksum, which that of the frames goes on from.

    Raises:
        JournalDamaged: it is damaged, and with it everything that the log holds.
    """
    if len(log) < _WAL_HEADER + _FRAME_HEADER:
        return 0, 0
    magic = struct.unpack(">I", log[:4])[0]
    sum_1, sum_2 = struct.unpack(">2I", log[_WAL_HEADER - 8 : _WAL_HEADER])
    if magic not in (0x377F0682, 0x377F0683) or _checksum((0, 0), log[:24], _order(log)) != (sum_1, sum_2):
        raise JournalDamaged("the header of the write-ahead log is damaged")
    return sum_1, sum_2


def check_frames(log: bytes, sums: tuple[int, int]) -> None:
    """Find damage in the log that SQLite will pass over, where no witness tells.

    SQLite takes the log up to the first frame whose checksum is wrong, without a word. What lies behind it is the rest of
    unfinished transactions, or, where that rest holds a whole commit of the same generation, what damage has cut off. (A commit that
    a full disk broke off and a shorter one behind it look the same: that is why the witness is asked first.)

    Raises:
        JournalDamaged: there is such a commit.
    """
    if len(log) < _WAL_HEADER + _FRAME_HEADER:
        return
    size, salts, sound = _FRAME_HEADER + struct.unpack(">I", log[8:12])[0], log[16:24], True
    for start in range(_WAL_HEADER, len(log) - size + 1, size):
        _page, pages_after_commit = struct.unpack(">2I", log[start : start + 8])
        ours = log[start + 8 : start + 16] == salts
        if sound and ours:
            sums = _checksum(_checksum(sums, log[start : start + 8], _order(log)), log[start + _FRAME_HEADER : start + size], _order(log))
        sound = sound and ours and struct.pack(">2I", *sums) == log[start + 16 : start + _FRAME_HEADER]
        if not sound and ours and pages_after_commit:
            raise JournalDamaged("the write-ahead log is damaged before its last commit")


def _order(log: bytes) -> str:
    """The byte order of the log's checksums, by its magic number."""
    return ">" if log[3] & 1 else "<"


def _checksum(sums: tuple[int, int], data: bytes, order: str) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
