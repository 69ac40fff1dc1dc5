"""The number of commits, kept in a file beside the journal: SQLite does not notice a truncated or missing write-ahead log.

This module owns that file and the count in the database. It must not decide whether a journal is damaged: `integrity` does.

Each commit adds one to the count in the database and is then recorded in the file, without an fsync. After `kill -9` both agree or
the file is one behind; after a power cut it may be further behind; it is never ahead. A database with a lower count has lost commits.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from pathlib import Path

FILE_NAME = "journal.witness"
_NUMBER = struct.Struct(">Q")


def counter_path(journal: Path) -> Path:
    """Return the path of the counter's file for this journal."""
    return journal.with_name(FILE_NAME)


def recorded_commits(journal: Path) -> int:
    """Return the number in the counter's file, 0 if there is none."""
    try:
        data = counter_path(journal).read_bytes()
    except OSError:
        return 0
    return int(_NUMBER.unpack(data)[0]) if len(data) == _NUMBER.size else 0


def count_commit(connection: sqlite3.Connection) -> int:
    """Add one to the count in the database, within the open transaction, and return the count."""
    row = connection.execute("UPDATE progress SET commits = commits + 1 RETURNING commits").fetchone()
    return int(row[0])


class CommitCounter:
    """The counter's file of an open journal. Only the leader of the group commit calls."""

    def __init__(self, journal: Path) -> None:
        """Open or create the file.

        Raises:
            OSError: the disk does not allow it.
        """
        self._file = os.open(counter_path(journal), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def record(self, number: int) -> None:
        """Record the count after a commit."""
        with contextlib.suppress(OSError):  # A disk that fails here fails the next commit too, and that is reported.
            os.pwrite(self._file, _NUMBER.pack(number), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
