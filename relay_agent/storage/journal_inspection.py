"""A look at a journal from outside, while an agent may be at work on it, that changes nothing.

This room owns how the file is looked at, and for how long. What damage is, `damage` says; it must not mend any, or leave a
file behind where the journal lies.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import JournalDamaged, JournalError
from relay_agent.storage import integrity, salvage, schema
from relay_agent.storage.group_commit import unwritable, words_of

INSPECTION_SECONDS = 5.0
LOCK_SECONDS = 2.0
MOST_COPIED = 256 * 1024 * 1024
"""Bytes of a journal and its log that are copied to look at them; larger ones are looked at less closely."""
_STEPS = 10_000
"""Of SQLite's machine, between two looks at the clock: some milliseconds."""


def look(path: Path, *, in_use: bool, seconds: float = INSPECTION_SECONDS) -> None:
    """Look for damage, for at most so many seconds; what could not be read to its end by then counts as sound.

    `in_use` says that an agent works on it: then it is read as SQLite lets readers read, beside the writer. A journal that a
    crash left with its log is looked at in a copy, since SQLite could not read it without making files beside it.

    Raises:
        JournalDamaged: it does not hold what was written to it.
        JournalError: it cannot be used for another reason: a newer agent's, or it cannot be read.
    """
    try:
        if not path.exists():
            return
        aside = salvage.set_aside_already(path)
        if aside is not None:
            raise JournalDamaged(aside)
        log = path.with_name(f"{path.name}-wal")
        if in_use:
            if not path.with_name(f"{path.name}-shm").exists():
                return  # It is being opened or closed; a reader would leave a log of its own.
            _read(f"{path.resolve().as_uri()}?mode=ro", Deadline(seconds))
        elif log.exists() and log.stat().st_size:
            _look_at_copy(path, log)
        elif path.stat().st_size:
            # Nobody writes and there is no log: the file is all there is, and SQLite need not make one.
            _read(f"{path.resolve().as_uri()}?mode=ro&immutable=1", Deadline(seconds))
    except sqlite3.Error as error:
        if unwritable(error):
            raise JournalError(f"it cannot be read: {type(error).__name__}") from None
        raise JournalDamaged(words_of(error)[:200]) from None
    except UnicodeDecodeError:
        raise JournalDamaged("its texts are damaged") from None
    except OSError as error:
        raise JournalError(f"it cannot be read ({error.strerror})") from None


def locked(path: Path, seconds: float = LOCK_SECONDS) -> bool:
    """Whether somebody holds the right to write for so long; an agent's own commit takes milliseconds.

    Only for a journal that an agent has open: the last who closes one moves its log into the file.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=seconds)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return False


def _read(uri: str, deadline: Deadline) -> None:
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1.0)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        schema.check(connection)
        connection.set_progress_handler(lambda: deadline.passed, _STEPS)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                return
            raise
        if found != ["ok"]:
            raise JournalDamaged(f"SQLite finds: {found[0].splitlines()[-1][:200] if found else 'nothing'}")


def _look_at_copy(path: Path, log: Path) -> None:
    if path.stat().st_size + log.stat().st_size > MOST_COPIED:
        return
    with tempfile.TemporaryDirectory(prefix="relay-agent-look-") as place:
        for name in (path.name, log.name, "journal.witness"):
            if path.with_name(name).exists():
                shutil.copyfile(path.with_name(name), Path(place) / name)
        integrity.judge(Path(place) / path.name)
