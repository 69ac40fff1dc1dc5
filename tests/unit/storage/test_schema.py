"""Journals of other versions: older ones are opened with every row, newer ones left alone."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from relay_agent.core.errors import JournalError
from relay_agent.storage import schema
from relay_agent.storage.call_history import CalledTarget
from relay_agent.storage.integrity import seal
from relay_agent.storage.journal import Admission, Journal
from relay_agent.storage.journal_reader import Reader
from relay_agent.storage.schema import SCHEMA_VERSION
from tests.unit.storage.damaged import (
    ANSWERED,
    EACH,
    GOT,
    IDS,
    NOW,
    PAGE,
    TOLD,
    Layout,
    answer_of,
    asides,
    check,
    check_all_there,
    check_aside,
    clock,
    leaves,
    raw_of,
    start,
)
from tests.unit.storage.scenes import Time


def test_a_journal_of_a_newer_agent_is_refused_and_left_alone(path: Path, time: Time) -> None:
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    other.close()
    with pytest.raises(JournalError, match="newer agent"):
        Journal(path, time.clock())


VERSION_1 = """
CREATE TABLE commands (
    id TEXT PRIMARY KEY, seq INTEGER NOT NULL, state TEXT NOT NULL, digest BLOB NOT NULL, acked INTEGER NOT NULL DEFAULT 0,
    receipt TEXT, raw TEXT, message TEXT, spool TEXT, upload_url TEXT, fallback TEXT, tell_by REAL, status TEXT, code TEXT,
    admitted_at REAL NOT NULL, started_at REAL, repeatable INTEGER, finished_at REAL, delivered_at REAL
) WITHOUT ROWID;
CREATE INDEX commands_open ON commands (state, seq) WHERE state <> 'delivered';
CREATE INDEX commands_old ON commands (delivered_at) WHERE state = 'delivered';
CREATE INDEX commands_unacked ON commands (seq) WHERE acked = 0;
CREATE TABLE seen_tokens (jti TEXT PRIMARY KEY, command_id TEXT NOT NULL, forget_at REAL NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def version_1(path: Path) -> None:
    """A journal as the first version wrote it, with rows in every state."""
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.executescript(f"PRAGMA journal_mode=WAL; {VERSION_1}")
        for number, command_id in enumerate(IDS):
            state = {"waiting": "admitted", "posted": "started", "got": "started", "answered": "finished", "told": "delivered"}[
                command_id.partition("-")[0]
            ]
            is_open = state in ("admitted", "started")
            old.execute(
                "INSERT INTO commands (id, seq, state, digest, receipt, raw, message, status, admitted_at, repeatable, delivered_at)"
                " VALUES (?, ?, ?, ?, 'r', ?, ?, ?, ?, ?, ?)",
                (
                    command_id,
                    number,
                    state,
                    hashlib.sha256(raw_of(command_id).encode()).digest(),
                    raw_of(command_id) if is_open else None,
                    answer_of(command_id) if state == "finished" else None,
                    None if is_open else "SUCCESS",
                    NOW.timestamp(),
                    None if state == "admitted" else command_id in GOT,
                    NOW.timestamp() if state == "delivered" else None,
                ),
            )
        old.execute("INSERT INTO seen_tokens VALUES ('jti', 'got-1', ?)", (NOW.timestamp() + 1,))


def test_a_journal_of_version_1_is_opened_with_every_row(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    version_1(path)
    found = start(path)
    assert (found.damage, found.spoiled) == (None, 0)
    check_all_there(found)
    assert set(found.known.values()) == {Admission.KNOWN}
    with closing(Journal(path, clock())) as journal:
        assert not journal.remember_token("jti", "another", NOW.timestamp() + 1)
    with closing(sqlite3.connect(path)) as brought:
        assert brought.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert brought.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_a_journal_of_version_2_is_opened_with_every_row(tmp_path: Path) -> None:
    """It had seals and the count of commits, but not the columns of the list of commands."""
    path = tmp_path / "journal.db"
    version_1(path)
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            "ALTER TABLE commands ADD COLUMN seal BLOB; CREATE TABLE progress (commits INTEGER NOT NULL); INSERT INTO progress VALUES (7);"
            f" PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 2;"
        )
        old.executemany(
            "UPDATE commands SET seal = ? WHERE id = ?",
            [(seal(answer_of(command_id), None, None, None, "SUCCESS"), command_id) for command_id in ANSWERED],
        )
    found = start(path)
    assert (found.damage, found.spoiled) == (None, 0)
    check_all_there(found)
    with closing(sqlite3.connect(path)) as brought:
        assert brought.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert {"action", "method", "host"} <= {row[1] for row in brought.execute("PRAGMA table_info(commands)")}


def test_a_journal_of_version_3_is_opened_with_every_row_and_its_used_tokens_stay_used(tmp_path: Path) -> None:
    """It had the columns of the list of commands, but not `keep_until`: it forgot ids after a day, but not their tokens."""
    path = tmp_path / "journal.db"
    Journal(path, clock()).close()
    week = NOW.timestamp() + 6 * 86_400
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.executescript("ALTER TABLE commands DROP COLUMN keep_until; DROP INDEX tokens_owner; PRAGMA user_version = 3;")
        old.execute("INSERT INTO seen_tokens VALUES ('used', 'forgotten', ?), ('waits', 'open', ?)", (week, week))
        old.execute(
            "INSERT INTO commands (id, seq, state, digest, raw, admitted_at) VALUES ('open', 1, 'admitted', ?, 'raw', ?)",
            (hashlib.sha256(b"raw").digest(), NOW.timestamp()),
        )
    with closing(Journal(path, clock())) as journal:
        assert (journal.damage, [left.id for left in journal.unfinished()]) == (None, ["open"])
        assert journal.admit([("forgotten", "raw", "r"), ("open", "raw", "r")]) == [Admission.NEW, Admission.KNOWN]
        assert not journal.remember_token("used", "forgotten", week)
        assert journal.remember_token("waits", "open", week)
        assert journal.writer.read("PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_the_counts_of_version_5_are_kept_and_have_no_refusals(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(path, clock()).close()
    day = int(NOW.timestamp() // 86_400)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.executescript("ALTER TABLE daily_calls DROP COLUMN refused; PRAGMA user_version = 5;")
        old.execute("INSERT INTO daily_calls VALUES (?, 'https', 'lims', 443, 'GET', 0, 7, 6, 1.0)", (day,))
    assert Reader(path, in_use=False).calls(0.0) == [], "no agent of this version has opened it"
    with closing(Journal(path, clock())) as journal:
        assert (journal.damage, journal.writer.read("PRAGMA user_version")) == (None, [(SCHEMA_VERSION,)])
    assert Reader(path, in_use=False).calls(0.0) == [CalledTarget("https", "lims", 443, "GET", False, 7, 6, 1.0, 0)]


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_damaged_page_of_tokens_is_reported_and_loses_no_other_page(tmp_path: Path, which: int) -> None:
    path = tmp_path / "journal.db"
    jtis = [f"jti-{number:04}-{'x' * 200}" for number in range(100)]
    with closing(Journal(path, clock())) as journal:
        for jti in jtis:
            journal.remember_token(jti, "a", NOW.timestamp() + 60)
    db = path.read_bytes()
    pages = leaves(db, "seen_tokens")
    page = pages[which]
    path.write_bytes(db[: (page - 1) * PAGE] + bytes(PAGE) + db[page * PAGE :])
    with closing(Journal(path, clock())) as journal:
        assert journal.damage is not None
        assert not journal.damage.complete
        lost = [jti for jti in jtis if journal.remember_token(jti, "another", NOW.timestamp() + 60)]
    assert 0 < len(lost) <= 2 * len(jtis) / len(pages)


def test_a_damaged_journal_of_version_1_is_salvaged_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    version_1(path)
    db = path.read_bytes()
    page = leaves(db, "commands")[2]
    path.write_bytes(db[: (page - 1) * PAGE] + bytes(PAGE) + db[page * PAGE :])
    found = start(path)
    check(found)
    check_aside(tmp_path, found)
    assert found.runs.keys() | found.answers.keys() | set(TOLD) == set(IDS)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 1000])
def test_a_journal_of_a_newer_agent_is_refused_and_left_byte_for_byte(in_file: Layout, tmp_path: Path, version: int) -> None:
    path = in_file.put(tmp_path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {version}")
        newer.execute("ALTER TABLE commands ADD COLUMN of_the_future TEXT")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(JournalError, match=f"newer agent .*{version}"):
        Journal(path, clock())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_journal_that_a_newer_agent_left_when_it_was_killed_keeps_every_row(in_log: Layout, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    with closing(sqlite3.connect(in_log.put(newer), isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        killed = Layout((newer / "journal.db").read_bytes(), (newer / "journal.db-wal").read_bytes())
    path = killed.put(tmp_path)
    with pytest.raises(JournalError, match="newer agent"):
        Journal(path, clock())
    assert asides(tmp_path) == []
    with closing(sqlite3.connect(path)) as left:
        assert dict(left.execute("SELECT state, COUNT(*) FROM commands GROUP BY state")) == {
            "admitted": EACH,
            "started": 2 * EACH,
            "finished": EACH,
            "delivered": EACH,
        }
