"""Whether a journal holds what was written to it: whole ones are left alone, altered bytes and rows found."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalError
from relay_agent.storage import commit_counter, integrity
from relay_agent.storage.journal import Admission, Journal
from tests.unit.storage.damaged import (
    IDS,
    PAGE,
    POSTED,
    TOLD,
    Layout,
    asides,
    check,
    check_all_there,
    check_aside,
    clock,
    flipped,
    frame,
    layout,
    leaves,
    raw_of,
    start,
)

# --- whole ---


@pytest.mark.parametrize("kept", ["in_file", "in_log"])
def test_a_journal_after_kill_9_is_whole(request: pytest.FixtureRequest, tmp_path: Path, kept: str) -> None:
    found = start(request.getfixturevalue(kept).put(tmp_path))
    assert (found.damage, found.spoiled) == (None, 0)
    check_all_there(found)
    assert set(found.known.values()) == {Admission.KNOWN}


def test_an_unfinished_commit_behind_a_whole_one_is_not_damage(tmp_path: Path) -> None:
    """Its frames stay in the log until others overwrite them, including the last, which marks the end of a commit."""
    source = tmp_path / "source"
    source.mkdir()
    whole = layout(source, in_log=True)
    wal = whole.wal + flipped(whole.wal[frame(whole.wal, -1) :], 24 + 2000)
    commits = commit_counter.recorded_commits(source / "journal.db")
    for reported in (commits, commits - 1):  # Killed before the last one was recorded.
        place = tmp_path / str(reported)
        place.mkdir()
        path = Layout(whole.db, wal).put(place)
        commit_counter.counter_path(path).write_bytes(reported.to_bytes(8, "big"))
        found = start(path)
        assert (found.damage, found.spoiled) == (None, 0)
        check_all_there(found)


@pytest.mark.parametrize("length", [24, 25, 2000, 24 + PAGE - 1])
def test_a_commit_without_its_last_frame_is_not_damage(in_log: Layout, tmp_path: Path, length: int) -> None:
    last = in_log.wal[frame(in_log.wal, -1) :]
    found = start(Layout(in_log.db, in_log.wal + last[:length]).put(tmp_path))
    assert (found.damage, found.spoiled) == (None, 0)
    check_all_there(found)


# --- flipped: the database ---


@pytest.mark.parametrize(
    "place",
    [
        *(place for place in range(0, 100, 3) if place not in (18, *range(44, 48))),
        18,
        *(place for place in (47,)),
    ],
)
def test_a_flipped_byte_of_the_header_is_harmless_or_found(in_file: Layout, tmp_path: Path, place: int) -> None:
    path = Layout(flipped(in_file.db, place), b"").put(tmp_path)
    try:
        found = start(path)
    except JournalError as error:
        assert "newer agent" in str(error)
        assert asides(tmp_path) == []
        return
    check(found)
    if found.damage is None:
        check_all_there(found)
    else:
        check_aside(tmp_path, found)


@pytest.mark.parametrize("name", ["commands", "commands_open", "commands_old", "commands_unacked", "sqlite_schema"])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.5, 0.95])
def test_a_flipped_stretch_of_a_page_is_harmless_or_found(in_file: Layout, tmp_path: Path, name: str, share: float) -> None:
    pages = [1] if name == "sqlite_schema" else leaves(in_file.db, name)
    for page in pages:
        directory = tmp_path / str(page)
        directory.mkdir()
        place = (page - 1) * PAGE + max(int(PAGE * share), 100 if page == 1 else 0)
        found = start(Layout(flipped(in_file.db, place, length=64), b"").put(directory))
        check(found)
        if found.damage is None and not found.spoiled:
            check_all_there(found)


def test_an_index_whose_entry_names_another_state_is_found(in_file: Layout, tmp_path: Path) -> None:
    """A started command that the index does not list as open would be neither executed nor answered."""
    (page,) = leaves(in_file.db, "commands_open")
    place = in_file.db.index(b"started", (page - 1) * PAGE)
    found = start(Layout(flipped(in_file.db, place, 0x01), b"").put(tmp_path))
    check(found)
    assert found.damage is not None or found.runs.keys() | found.answers.keys() | set(TOLD) == set(IDS)


def test_the_ids_of_an_unreadable_page_are_reported_and_answered(in_file: Layout, tmp_path: Path) -> None:
    page = leaves(in_file.db, "commands")[2]
    found = start(Layout(in_file.db[: (page - 1) * PAGE] + bytes(PAGE) + in_file.db[page * PAGE :], b"").put(tmp_path))
    check(found)
    check_aside(tmp_path, found)
    assert found.damage is not None
    assert not found.damage.complete
    assert found.damage.unreadable
    lost = set(found.damage.unreadable)
    assert lost <= set(IDS)
    assert lost - set(TOLD) <= found.interrupted() and not found.interrupted() & set(TOLD), "what was told is not told again"
    assert found.runs.keys() | found.answers.keys() | set(TOLD) == set(IDS)
    assert {found.known[command_id] for command_id in found.damage.unreadable} == {Admission.KNOWN}


def alter(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(statement, values).rowcount == 1


# --- flipped: rows that SQLite believes ---


def test_a_message_altered_inside_the_file_is_not_run(in_file: Layout, tmp_path: Path) -> None:
    path = in_file.put(tmp_path)
    for command_id in ("waiting-1", "got-1"):
        alter(path, "UPDATE commands SET raw = replace(raw, 'instrument', 'instrumens') WHERE id = ?", command_id)
    found = start(path)
    assert (found.damage, found.spoiled) == (None, 2)
    check(found)
    assert found.interrupted() == {*POSTED, "waiting-1", "got-1"}


@pytest.mark.parametrize("column", ["message", "spool", "upload_url", "fallback", "status"])
def test_an_answer_altered_inside_the_file_is_not_sent(in_file: Layout, tmp_path: Path, column: str) -> None:
    path = in_file.put(tmp_path)
    alter(path, f"UPDATE commands SET {column} = 'FAILURE' WHERE id = ?", "answered-1")
    found = start(path)
    assert (found.damage, found.spoiled) == (None, 1)
    check(found)
    assert found.interrupted() == {*POSTED, "answered-1"}


@pytest.mark.parametrize(
    ("change", "command_id"),
    [
        ("state = 'stasted'", "posted-1"),
        ("state = 'stasted'", "waiting-1"),
        ("repeatable = 1", "posted-1"),
        ("raw = NULL", "waiting-1"),
        ("raw = NULL", "posted-1"),
        ("state = 'admitted'", "posted-1"),
        ("state = 'delivered'", "posted-1"),
        ("state = 'delivered'", "answered-1"),
        ("state = 'finished'", "posted-1"),
    ],
)
def test_a_row_whose_state_was_altered_is_answered_and_not_run(in_file: Layout, tmp_path: Path, change: str, command_id: str) -> None:
    path = in_file.put(tmp_path)
    alter(path, f"UPDATE commands SET {change} WHERE id = ?", command_id)
    found = start(path)
    check(found)
    assert command_id in found.interrupted()


def test_a_row_whose_id_was_altered_is_not_run_and_answered_by_the_id_of_its_message(in_file: Layout, tmp_path: Path) -> None:
    path = in_file.put(tmp_path)
    alter(path, "UPDATE commands SET id = 'waiting-x' WHERE id = ?", "waiting-1")
    found = start(path)
    check(found)
    assert not {"waiting-1", "waiting-x"} & found.runs.keys()
    assert found.interrupted() == {*POSTED, "waiting-1"}
    assert found.known["waiting-1"] is Admission.KNOWN


def test_a_row_under_another_id_is_removed_if_its_command_is_there_too(in_file: Layout, tmp_path: Path) -> None:
    """Its message arrived again after its id was altered, and was admitted under its own."""
    path = in_file.put(tmp_path)
    alter(path, "UPDATE commands SET id = 'waiting-x' WHERE id = ?", "waiting-1")
    with closing(Journal(path, clock())) as journal:
        assert journal.admit([("waiting-1", raw_of("waiting-1"), "receipt")]) == [Admission.NEW]
    found = start(path)
    check_all_there(found)
    assert start(path).answers.keys() == found.answers.keys()


def test_an_altered_count_of_commits_makes_no_waiting_command_a_started_one(in_log: Layout, tmp_path: Path) -> None:
    for place, change in enumerate(("UPDATE progress SET commits = 'x'", "UPDATE progress SET commits = 9223372036854775807")):
        directory = tmp_path / str(place)
        directory.mkdir()
        path = in_log.put(directory)
        commit_counter.counter_path(path).write_bytes((5).to_bytes(8, "big"))
        alter(path, change)
        for _ in range(2):  # The second start finds the count that the first has put right.
            found = start(path)
            assert found.damage is None
            check_all_there(found)


def test_a_started_command_whose_message_can_no_longer_be_read_is_einterrupted(tmp_path: Path) -> None:
    """As with a secure command whose key was removed meanwhile: its request may have been executed."""
    path = tmp_path / "journal.db"
    with closing(Journal(path, clock())) as journal:
        journal.admit([("posted-0", json.dumps(json.loads(raw_of("posted-0")) | {"body": None}), "receipt")])
        journal.start("posted-0", repeatable=False)
    found = start(path)
    assert found.interrupted() == {"posted-0"}


HOLD = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


# --- another program's lock ---


def test_checking_a_journal_keeps_another_programs_lock(tmp_path: Path) -> None:
    """SQLite's locks are in the index beside the journal: if that were removed, two programs could write at once."""
    path = tmp_path / "journal.db"
    journal = Journal(path, Clock())
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        integrity.check_copy(path)
        with closing(sqlite3.connect(path, timeout=0.0)) as connection, pytest.raises(sqlite3.OperationalError, match="locked"):
            connection.execute("BEGIN IMMEDIATE")
        other.communicate()
    journal.close()
