"""Why the disk takes nothing: which errors mean it, and which comes first."""

from __future__ import annotations

import errno
import sqlite3
from types import SimpleNamespace

import pytest

from relay_agent.core.errors import JournalDamaged, JournalError, JournalUnwritable
from relay_agent.core.failures import Obstacle, StorageTrouble
from relay_agent.storage.disk_faults import intake_obstacle, journal_error, space_obstacle


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("text")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "kind", "trouble"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), JournalUnwritable, StorageTrouble.FULL),
        (sqlite_error(sqlite3.SQLITE_READONLY_DIRECTORY), JournalUnwritable, StorageTrouble.READ_ONLY),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), JournalUnwritable, StorageTrouble.LOCKED),
        (sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), JournalUnwritable, None),
        (sqlite_error(sqlite3.SQLITE_CORRUPT_INDEX), JournalDamaged, None),
        (sqlite_error(sqlite3.SQLITE_ERROR), JournalError, None),
        (OSError(errno.ENOSPC, "text"), JournalUnwritable, StorageTrouble.FULL),
        (OSError(errno.EDQUOT, "text"), JournalUnwritable, StorageTrouble.FULL),
        (OSError(errno.EROFS, "text"), JournalUnwritable, StorageTrouble.READ_ONLY),
        (OSError(errno.EIO, "text"), JournalUnwritable, None),
        (OSError(errno.EACCES, "text"), JournalError, None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_error_of_sqlite_or_the_disk_becomes_a_journal_error(
    error: sqlite3.Error | OSError, kind: type[JournalError], trouble: StorageTrouble | None
) -> None:
    found = journal_error(error, "cannot open it")
    assert (type(found), found.trouble) == (kind, trouble)
    assert str(found).startswith("cannot open it: ")


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ((True, True, True), "the disk of the state directory is read-only"),
        ((False, True, True), "the disk of the state directory is full"),
        ((False, False, True), "the disk of the state directory is almost full"),
        ((False, False, False), None),
    ],
)
def test_the_figures_of_a_disk_name_its_worst_trouble(figures: tuple[bool, bool, bool], reason: str | None) -> None:
    read_only, full, almost_full = figures
    found = space_obstacle(read_only=read_only, full=full, almost_full=almost_full)
    assert (None if found is None else found.reason) == reason


def test_a_failed_commit_is_named_before_the_figures_of_the_disk() -> None:
    commit, space = Obstacle("no commit"), Obstacle("no space")
    for unwritable, obstacle, first in ((commit, space, commit), (None, space, space), (None, None, None)):
        assert intake_obstacle(SimpleNamespace(unwritable=unwritable), SimpleNamespace(obstacle=obstacle)) is first
