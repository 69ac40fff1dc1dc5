"""A journal looked at from outside, which changes nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalDamaged, JournalError
from relay_agent.storage.journal import Journal
from relay_agent.storage.journal_inspection import Inspection, inspect, look
from relay_agent.storage.schema import SCHEMA_VERSION


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with some commands in it, closed."""
    path = tmp_path / "journal.db"
    opened = Journal(path, Clock())
    opened.admit([(f"id-{number}", "text " * 200, "receipt") for number in range(50)])
    opened.close()
    return path


def crash_left(journal: Path, copy: Path) -> Path:
    """The journal as a crash leaves it: with changes that are only in its log."""
    opened = Journal(journal, Clock())
    opened.admit([("in-the-log", "text", "receipt")])
    for ending in ("", "-wal"):
        (copy / f"journal.db{ending}").write_bytes(journal.with_name(f"journal.db{ending}").read_bytes())
    opened.close()
    return copy / "journal.db"


def test_a_missing_a_sound_and_a_used_journal_are_ok(tmp_path: Path, journal: Path) -> None:
    look(tmp_path / "nothing.db", in_use=False)
    look(journal, in_use=False)
    opened = Journal(journal, Clock())
    opened.admit([("one-more", "text", "receipt")])
    look(journal, in_use=True)
    opened.admit([("and-one-more", "text", "receipt")])
    opened.close()
    look(journal, in_use=False)


def test_a_journal_left_by_a_crash_is_checked_without_changing_it(tmp_path: Path, journal: Path) -> None:
    place = tmp_path / "crashed"
    place.mkdir()
    left = crash_left(journal, place)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    look(left, in_use=False)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


@pytest.mark.parametrize("in_use", [False, True])
def test_a_damaged_journal_is_found(journal: Path, in_use: bool) -> None:
    data = bytearray(journal.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    journal.write_bytes(data)
    if in_use:  # What an open journal has beside it.
        journal.with_name("journal.db-shm").touch()
    with pytest.raises(JournalDamaged):
        look(journal, in_use=in_use)


def test_damage_hidden_by_the_write_ahead_log_is_found(tmp_path: Path, journal: Path) -> None:
    place = tmp_path / "crashed"
    place.mkdir()
    left = crash_left(journal, place)
    left.write_bytes(b"no database at all " * 1000)
    with pytest.raises(JournalDamaged):
        look(left, in_use=False)


def test_a_newer_agent_s_journal_is_not_damaged(journal: Path) -> None:
    with closing(sqlite3.connect(journal)) as connection:
        connection.executescript("PRAGMA journal_mode=DELETE; PRAGMA user_version=99;")
    with pytest.raises(JournalError, match="newer agent"):
        look(journal, in_use=False)


# --- the full inspection ---


def test_a_full_inspection_counts_what_a_sound_journal_holds(tmp_path: Path, journal: Path) -> None:
    assert inspect(journal, in_use=False) == Inspection(SCHEMA_VERSION, 50, complete=True)
    opened = Journal(journal, Clock())
    opened.admit([("one-more", "text", "receipt")])
    assert inspect(journal, in_use=True).commands == 51
    opened.close()
    place = tmp_path / "crashed"
    place.mkdir()
    left = crash_left(journal, place)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert inspect(left, in_use=False).commands == 52
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_a_full_inspection_finds_a_row_that_is_not_as_it_was_written(journal: Path) -> None:
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE commands SET raw = 'another text' WHERE id = 'id-7'")
    look(journal, in_use=False)
    with pytest.raises(JournalDamaged, match="1 rows"):
        inspect(journal, in_use=False)


def test_a_full_inspection_says_if_its_time_was_over(journal: Path) -> None:
    opened = Journal(journal, Clock())
    for batch in range(40):
        opened.admit([(f"more-{batch}-{number}", "text " * 50, "receipt") for number in range(50)])
    opened.close()
    assert inspect(journal, in_use=False, seconds=0.0).complete is False


def test_a_missing_and_a_newer_journal_cannot_be_inspected(tmp_path: Path, journal: Path) -> None:
    with pytest.raises(JournalError, match="no journal"):
        inspect(tmp_path / "nothing.db", in_use=False)
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(JournalError, match="newer agent"):
        inspect(journal, in_use=False)
