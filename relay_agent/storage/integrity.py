"""Whether a journal's file holds what was written to it.

This module owns the judgement of a file; `row_checks` judges its rows. It must not change or repair it: `salvage` does.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from relay_agent.core.errors import JournalDamaged
from relay_agent.storage import schema
from relay_agent.storage.commit_counter import recorded_commits
from relay_agent.storage.wal import check_frames, check_header, read_log

SIDE_FILES = ("-wal", "-shm")
"""The suffixes of the files that SQLite creates beside the database."""
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises: SQLite's error may quote bytes of the file, which need not be UTF-8."""

MOST_COMMITS = 2**53
"""SQLite continues a larger count as a floating-point number, which adding one does not change."""
_MAGIC = b"SQLite format 3\x00"
_FORMAT_VERSIONS = slice(18, 20)
"""The header's two version bytes, 1 or 2 (https://sqlite.org/fileformat2.html#file_format_version_numbers)."""


class CommitsMissing(JournalDamaged):
    """Commits are missing at the end: the rows may be older versions than the last that were written."""


# --- the digests that a row carries ---


def digest(text: str | bytes) -> bytes:
    """Return the digest of a message's text, to compare it with another text or to detect damage."""
    return hashlib.sha256(_bytes(text)).digest()


def seal(*parts: str | bytes | None) -> bytes:
    """Return the digest of an outcome's columns."""
    return digest(b"\x00".join(b"" if part is None else _bytes(part) for part in parts))


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


# --- the files ---


def check_copy(path: Path) -> None:
    """Check a copy of a journal and of its log, as `check_files` does.

    Raises:
        JournalDamaged, JournalError, sqlite3.Error: as `check_files`.
    """
    check_files(path, read_log(path))


def check_files(path: Path, log: bytes) -> None:
    """Check a journal that no process has open, and its log as `read_log` returned it; neither is changed.

    Raises:
        JournalDamaged: the journal does not hold what was written to it.
        JournalError: a newer agent wrote it.
        sqlite3.Error: SQLite cannot read it.
    """
    with path.open("rb") as file:
        head = file.read(len(_MAGIC) + 4)
    if not head:
        raise CommitsMissing("it is empty, although commits were recorded")
    if not head.startswith(_MAGIC):
        raise JournalDamaged("it is not an SQLite database")
    if not set(head[_FORMAT_VERSIONS]) <= {1, 2}:
        raise JournalDamaged("its header is damaged")
    checksum = check_header(log)
    with opened_read_only(path) as connection:
        check_pages(connection, "integrity_check")
        schema.check(connection)
        if not _has_all_commits(connection, recorded_commits(path)):
            check_frames(log, checksum)


def check_pages(connection: sqlite3.Connection, pragma: str) -> None:
    """Let SQLite check the database's pages; `pragma` is `integrity_check` or the quicker `quick_check`.

    Raises:
        JournalDamaged: it finds something.
        sqlite3.Error: SQLite cannot read the file.
    """
    found = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}(1)")]
    if found != ["ok"]:
        raise JournalDamaged(f"SQLite finds: {found[0].splitlines()[-1][:200] if found else 'nothing'}")


@contextmanager
def opened_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection, and remove the side files that SQLite creates even for reading.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    path.chmod(0o600)  # SQLite gives the side files the database's mode.
    # Side files that exist stay: SQLite's locks are in the index, and removing it would take another program's lock away.
    made = [side for side in (path.with_name(path.name + ending) for ending in SIDE_FILES) if not side.exists()]
    try:
        with closing(schema.connect_to_read(path)) as connection:
            yield connection
    finally:
        for side in made:
            side.unlink(missing_ok=True)


def commits_of(connection: sqlite3.Connection) -> int | None:
    """Return the number of commits in the database, None if its row was altered.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    counts = [row[0] for row in connection.execute("SELECT commits FROM progress")]
    return counts[0] if len(counts) == 1 and isinstance(counts[0], int) and 0 <= counts[0] < MOST_COMMITS else None


def _has_all_commits(connection: sqlite3.Connection, recorded: int) -> bool:
    """Return whether every commit is certainly present; False if the commit counter does not show it.

    Raises:
        CommitsMissing: the log was truncated at the end of a commit, is damaged, or is missing.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'progress'").fetchone():
        return False  # Version 1 did not count.
    count = commits_of(connection)
    if count is None:
        # What was changed is the counter: that shows nothing about the log, and the rows must not count as older versions for it.
        return False
    if count < recorded:
        raise CommitsMissing(f"the last {recorded - count} commits are missing: its write-ahead log was cut, is damaged, or is missing")
    # One more than recorded: the process was killed between the commit and its record. A counter that a power cut left further
    # behind does not show it.
    return recorded > 0 and 0 <= count - recorded <= 1
