"""Whether a journal holds what was written to it. Reads only."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from relay_agent.core.errors import JournalDamaged
from relay_agent.storage import commit_counter, schema
from relay_agent.storage.wal import check_frames, check_header, read_log

_MAGIC = b"SQLite format 3\x00"


SIDE_FILES = ("-wal", "-shm")


UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises: SQLite's own words may repeat its bytes, which are no UTF-8."""


_CONTRADICTIONS = (
    "state NOT IN ('admitted', 'started', 'finished', 'delivered')"
    " OR (state = 'admitted' AND (started_at IS NOT NULL OR repeatable IS NOT NULL))"
    " OR (state = 'finished' AND message IS NULL)"
    " OR (state = 'delivered' AND (raw IS NOT NULL OR message IS NOT NULL OR delivered_at IS NULL))"
)
"""Rows that no change of ours leaves."""


class CommitsMissing(JournalDamaged):
    """The database is older than it was: what its rows say may not be the last that was written."""


def digest(text: str | bytes) -> bytes:
    """What tells one message's text from another's, and a text from its damaged copy."""
    return hashlib.sha256(_bytes(text)).digest()


def seal(*parts: str | bytes | None) -> bytes:
    """What an outcome's row must agree with."""
    return digest(b"\x00".join(b"" if part is None else _bytes(part) for part in parts))


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def judge(path: Path) -> None:
    """Judge a copy of a journal and of its log; the copy may be changed by it.

    Raises:
        JournalDamaged: it does not hold what was written to it.
        JournalError: a newer agent wrote it.
        sqlite3.Error: as SQLite says.
    """
    check_files(path, read_log(path))


def check_files(path: Path, log: bytes) -> None:
    """Look at the file without changing it: neither it nor its log may be lost to the look.

    Raises:
        JournalDamaged: it does not hold what was written to it.
        JournalError: a newer agent wrote it.
        sqlite3.Error: as SQLite says.
    """
    with path.open("rb") as file:
        head = file.read(len(_MAGIC) + 4)
    if not head:
        raise CommitsMissing("it is empty, and was not")
    if not head.startswith(_MAGIC):
        raise JournalDamaged("it is no SQLite database")
    if not set(head[18:20]) <= {1, 2}:  # https://sqlite.org/fileformat2.html#file_format_version_numbers
        raise JournalDamaged("its header is damaged")
    sums = check_header(log)
    with opened_read_only(path) as connection:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise JournalDamaged(f"SQLite finds: {found[0].splitlines()[-1][:200] if found else 'nothing'}")
        schema.check(connection)
        if not _all_there(connection, commit_counter.told(path)):
            check_frames(log, sums)


def _all_there(connection: sqlite3.Connection, told: int) -> bool:
    """Whether every commit that was made is there for sure; False where the witness cannot tell.

    Raises:
        JournalDamaged: commits are missing: the log was cut at a commit's end, is damaged, or is gone.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'progress'").fetchone():
        return False  # version 1
    row = connection.execute("SELECT commits FROM progress").fetchone()
    count = int(row[0]) if row else 0
    if count < told:
        raise CommitsMissing(f"the last {told - count} commits are missing: its write-ahead log was cut, is damaged, or is gone")
    # One more than told: killed between a commit and its note. A witness that a power cut left far behind tells nothing.
    return told > 0 and 0 <= count - told <= 1


@contextmanager
def opened_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing, and leaves nothing behind: SQLite makes a log and its index even to read.

    What was there before stays: SQLite's locks are on the index, and another program's would be gone with it.
    """
    path.chmod(0o600)  # These get the database's own mode.
    made = [other for other in (path.with_name(path.name + ending) for ending in SIDE_FILES) if not other.exists()]
    try:
        with closing(schema.connect_to_read(path)) as connection:
            yield connection
    finally:
        for other in made:
            other.unlink(missing_ok=True)


def count_doubtful(connection: sqlite3.Connection) -> int:
    """Hold every open row against what was noted when it was written; how many do not agree any more.

    Of such a command nothing is believed but its id: it counts as started, and its message as lost.
    """
    bad = [(command_id,) for command_id in _disagreeing(connection)]
    if bad:
        with connection:
            connection.execute("BEGIN")
            connection.executemany(
                "UPDATE commands SET state = 'started', repeatable = 0, raw = NULL, message = NULL, spool = NULL,"
                " upload_url = NULL, fallback = NULL, seal = NULL WHERE id = ?",
                bad,
            )
    return len(bad)


def _disagreeing(connection: sqlite3.Connection) -> list[str]:
    """The ids of open rows whose content is not what was written, read one row at a time."""
    text_factory, connection.text_factory = connection.text_factory, bytes  # A damaged text may be no UTF-8.
    try:
        waiting = connection.execute("SELECT id, digest, raw FROM commands WHERE state IN ('admitted', 'started') AND raw IS NOT NULL")
        bad = [command_id for command_id, known, raw in waiting if digest(raw) != known]
        finished = connection.execute(
            "SELECT id, seal, message, spool, upload_url, fallback, status FROM commands WHERE state = 'finished' AND seal IS NOT NULL"
        )
        bad += [command_id for command_id, known, *parts in finished if seal(*parts) != known]
        bad += [row[0] for row in connection.execute(f"SELECT id FROM commands WHERE {_CONTRADICTIONS}")]  # noqa: S608 - constants
    finally:
        connection.text_factory = text_factory
    return [command_id.decode("utf-8", "replace") for command_id in bad]
