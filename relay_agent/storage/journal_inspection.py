"""Inspecting a journal from another process, while an agent may have it open.

This module owns how the file is read, and for how long. It must not change the journal or leave a file beside it; `integrity`
and `row_checks` decide what damage is.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import JournalDamaged, JournalError
from relay_agent.storage import commit_counter, integrity, salvage, schema
from relay_agent.storage.disk_faults import is_locked, is_unwritable, text_of
from relay_agent.storage.row_checks import altered_rows
from relay_agent.storage.wal import wal_path

INSPECTION_SECONDS = 5.0
LOCK_SECONDS = 2.0
MOST_COPIED = 256 * 1024 * 1024
"""Bytes of a journal and its log; larger ones left by a crash are not inspected."""
_STEPS = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock: some milliseconds."""


def look(path: Path, *, in_use: bool, seconds: float = INSPECTION_SECONDS) -> None:
    """Look for damage for at most `seconds`; a journal that could not be read to its end by then counts as sound.

    `in_use` says that an agent has it open.

    Raises:
        JournalDamaged: the journal does not hold what was written to it.
        JournalError: a newer agent wrote it, or it cannot be read.
    """
    try:
        if not path.exists():
            return
        damage = salvage.damage_being_salvaged(path)
        if damage is not None:
            raise JournalDamaged(damage)
        log = wal_path(path)
        if in_use:
            if not path.with_name(f"{path.name}-shm").exists():
                return  # The agent is opening or closing it; a reader would leave a log of its own.
            _read(f"{path.resolve().as_uri()}?mode=ro", Deadline(seconds))
        elif log.exists() and log.stat().st_size:
            # A crash left the log: SQLite would create files beside the journal to read it.
            _inspect_copy(path, log)
        elif path.stat().st_size:
            # Nobody writes and there is no log, so SQLite may take the file as immutable and make none.
            _read(f"{path.resolve().as_uri()}?mode=ro&immutable=1", Deadline(seconds))
    except sqlite3.Error as error:
        if is_unwritable(error):
            raise JournalError(f"it cannot be read: {type(error).__name__}") from None
        raise JournalDamaged(text_of(error)[:200]) from None
    except UnicodeDecodeError:
        raise JournalDamaged("its text is not valid UTF-8") from None
    except OSError as error:
        raise JournalError(f"it cannot be read ({error.strerror})") from None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a full inspection found in a journal without damage."""

    schema_version: int
    commands: int
    complete: bool
    """False if the time was over before every page and row was read."""


def inspect(path: Path, *, in_use: bool, seconds: float = INSPECTION_SECONDS) -> Inspection:
    """Check every page, and every row against its digest, for at most `seconds`; nothing is changed. `in_use` as for `look`.

    Raises:
        JournalDamaged: the journal does not hold what was written to it.
        JournalError: there is none, a newer agent wrote it, or it cannot be read.
    """
    if not path.exists():
        raise JournalError("there is no journal")
    try:
        with _readable(path, in_use) as uri, closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1.0)) as connection:
            return _inspected(connection, Deadline(seconds))
    except sqlite3.Error as error:
        if is_unwritable(error):
            raise JournalError(f"it cannot be read: {type(error).__name__}") from None
        raise JournalDamaged(text_of(error)[:200]) from None
    except UnicodeDecodeError:
        raise JournalDamaged("its text is not valid UTF-8") from None
    except OSError as error:
        raise JournalError(f"it cannot be read ({error.strerror})") from None


@contextmanager
def _readable(path: Path, in_use: bool) -> Iterator[str]:
    """Yield the URI under which the journal can be read without changing a file; after a crash, that of a copy."""
    log = wal_path(path)
    if in_use:
        if not path.with_name(f"{path.name}-shm").exists():
            raise JournalError("the agent is opening or closing it; try again")
        yield f"{path.resolve().as_uri()}?mode=ro"
    elif not (log.exists() and log.stat().st_size):
        yield f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    elif path.stat().st_size + log.stat().st_size > MOST_COPIED:
        raise JournalError("a crash left it too large to be copied; start the agent, which checks it")
    else:
        with tempfile.TemporaryDirectory(prefix="relay-agent-look-") as place:
            for file in (path, log):
                shutil.copyfile(file, Path(place) / file.name)
            yield f"{(Path(place) / path.name).resolve().as_uri()}?mode=rw"


def _inspected(connection: sqlite3.Connection, deadline: Deadline) -> Inspection:
    connection.text_factory = schema.readable
    schema.check(connection)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (commands,) = connection.execute("SELECT COUNT(*) FROM commands").fetchone()
    connection.set_progress_handler(lambda: deadline.passed, _STEPS)
    try:
        integrity.check_pages(connection, "integrity_check")
        # An older agent's rows have other columns.
        altered = sum(1 for _ in altered_rows(connection, 0.0)) if version == schema.SCHEMA_VERSION else 0
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:  # The deadline has passed.
            raise
        return Inspection(version, commands, complete=False)
    if altered:
        raise JournalDamaged(f"{altered} rows are not as they were written")
    return Inspection(version, commands, complete=True)


def locked(path: Path, seconds: float = LOCK_SECONDS) -> bool:
    """Return whether the write lock cannot be had within `seconds`; an agent's own commit takes milliseconds.

    Call it only while an agent has the journal open: the last process to close one changes its files.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=seconds)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return is_locked(error)
    return False


def _read(uri: str, deadline: Deadline) -> None:
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1.0)) as connection:
        connection.text_factory = schema.readable
        schema.check(connection)
        connection.set_progress_handler(lambda: deadline.passed, _STEPS)
        try:
            integrity.check_pages(connection, "quick_check")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:  # The deadline has passed.
                raise


def _inspect_copy(path: Path, log: Path) -> None:
    if path.stat().st_size + log.stat().st_size > MOST_COPIED:
        return
    with tempfile.TemporaryDirectory(prefix="relay-agent-look-") as place:
        for name in (path.name, log.name, commit_counter.FILE_NAME):
            if path.with_name(name).exists():
                shutil.copyfile(path.with_name(name), Path(place) / name)
        integrity.check_copy(Path(place) / path.name)
