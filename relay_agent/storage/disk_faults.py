"""Why the disk accepts no writes, from an error or from the disk's figures: the only place that decides and words it.

This module owns the verdict. It must not measure the disk, retry, wait or free space.
"""

from __future__ import annotations

import errno
import sqlite3
from typing import Protocol

from relay_agent.core.errors import JournalDamaged, JournalError, JournalUnwritable
from relay_agent.core.failures import Obstacle, StorageTrouble

_UNWRITABLE_CODES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM}
)
_UNWRITABLE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_DAMAGED_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_TROUBLE_BY_CODE = {
    sqlite3.SQLITE_FULL: StorageTrouble.FULL,
    sqlite3.SQLITE_READONLY: StorageTrouble.READ_ONLY,
    sqlite3.SQLITE_BUSY: StorageTrouble.LOCKED,
}
_TROUBLE_BY_ERRNO = {
    errno.ENOSPC: StorageTrouble.FULL,
    errno.EDQUOT: StorageTrouble.FULL,
    errno.EROFS: StorageTrouble.READ_ONLY,
}


class _Journal(Protocol):
    @property
    def unwritable(self) -> Obstacle | None: ...


class _Disk(Protocol):
    @property
    def obstacle(self) -> Obstacle | None: ...


def intake_obstacle(journal: _Journal, disk: _Disk) -> Obstacle | None:
    """Return why no command may be admitted: the last commit failed, or the disk is about to refuse the next. None if neither."""
    return journal.unwritable or disk.obstacle


def space_obstacle(*, read_only: bool, full: bool, almost_full: bool) -> Obstacle | None:
    """Return why the state directory's disk cannot be used, by its figures; None if it can."""
    if read_only:
        return Obstacle("the disk of the state directory is read-only", StorageTrouble.READ_ONLY)
    if full:
        return Obstacle("the disk of the state directory is full", StorageTrouble.FULL)
    return Obstacle("the disk of the state directory is almost full", StorageTrouble.FULL) if almost_full else None


def journal_error(error: Exception, failed: str) -> JournalError:
    """Return the error to raise in place of one of SQLite's or the system's; `failed` says what could not be done.

    JournalUnwritable if the disk accepts no writes now, JournalDamaged if SQLite finds the file corrupt, else JournalError.
    """
    if not isinstance(error, sqlite3.Error | OSError):
        # The error's own text may repeat the value.
        return JournalError(f"{failed}: it contains a value that SQLite cannot store ({type(error).__name__})")
    kind = JournalUnwritable if is_unwritable(error) else JournalDamaged if _primary_code(error) in _DAMAGED_CODES else JournalError
    return kind(f"{failed}: {text_of(error)}", trouble_of(error))


def is_unwritable(error: sqlite3.Error | OSError) -> bool:
    """Return whether the disk accepts no writes: it is full, read-only, failing or locked by another program."""
    return error.errno in _UNWRITABLE_ERRNOS if isinstance(error, OSError) else _primary_code(error) in _UNWRITABLE_CODES


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether another connection holds the lock."""
    return trouble_of(error) is StorageTrouble.LOCKED


def trouble_of(error: sqlite3.Error | OSError) -> StorageTrouble | None:
    """Return what an error says of the disk; None if it says nothing."""
    return _TROUBLE_BY_ERRNO.get(error.errno or 0) if isinstance(error, OSError) else _TROUBLE_BY_CODE.get(_primary_code(error))


def text_of(error: Exception) -> str:
    """Return an error's text for people, without the value that SQLite appends to an error about a text that is not UTF-8."""
    return str(error).partition(" with text ")[0]


def _primary_code(error: sqlite3.Error | OSError) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
