"""A witness of the journal's commits, beside it: a write-ahead log that was cut, or is gone, looks whole to SQLite.

Each commit counts itself in the database, and then here, without an fsync: after `kill -9` both agree, after a power cut
the witness may be behind, and never ahead. A database that counts less than its witness has lost commits.
This room owns one number in one file. It must not judge.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from pathlib import Path

_NUMBER = struct.Struct(">Q")


def beside(journal: Path) -> Path:
    """Where a journal's witness lies."""
    return journal.with_name("journal.witness")


def told(journal: Path) -> int:
    """How many commits the witness has seen, 0 where there is none."""
    try:
        data = beside(journal).read_bytes()
    except OSError:
        return 0
    return int(_NUMBER.unpack(data)[0]) if len(data) == _NUMBER.size else 0


def count(connection: sqlite3.Connection) -> int:
    """Count one more commit, in its transaction; the number."""
    row = connection.execute("UPDATE progress SET commits = commits + 1 RETURNING commits").fetchone()
    return int(row[0])


class CommitCounter:
    """The witness of an open journal. Only the writer's leader calls."""

    def __init__(self, journal: Path) -> None:
        self._file = os.open(beside(journal), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, number: int) -> None:
        """Note a commit that is on the disk; a disk that does not take it takes no commit either, and says so."""
        with contextlib.suppress(OSError):
            os.pwrite(self._file, _NUMBER.pack(number), 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
