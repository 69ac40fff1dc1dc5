"""A damaged journal is detected, set aside and salvaged, and never sends a request twice.

Owns the proof against files that were cut, flipped, exchanged or written by another version. It must not start threads or open sockets.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_agent.core.clock import Clock, iso
from relay_agent.core.errors import JournalError
from relay_agent.core.models import Status, Update
from relay_agent.protocol import messages
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.intake import Intake
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.payload_reader import PayloadReader
from relay_agent.relay.updates import UpdateBuilder
from relay_agent.storage import commit_counter, integrity, schema
from relay_agent.storage.integrity import seal
from relay_agent.storage.journal import Admission, Journal
from relay_agent.storage.salvage import Damage
from relay_agent.storage.schema import SCHEMA_VERSION
from relay_agent.storage.spool import Spool
from relay_agent.tdp.s3_payloads import Payloads
from tests.examples import examples

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AGENT = "agent-1"
EACH = 6
PAGE = 4096
WAITING, POSTED, GOT, ANSWERED, TOLD = (
    [f"{kind}-{number}" for number in range(EACH)] for kind in ("waiting", "posted", "got", "answered", "told")
)
IDS = [*WAITING, *POSTED, *GOT, *ANSWERED, *TOLD]
BEGUN_POSTS = {*POSTED, *ANSWERED, *TOLD}
"""Requests that were sent and may not be sent again."""


ASIDE = re.compile(r"journal\.db\.damaged-20260301T120000Z(-\d+)?")

Files = dict[str, bytes]


def raw_of(command_id: str) -> str:
    payload = {
        "method": "GET" if command_id in GOT else "POST",
        "url": f"http://instrument.example/{command_id}",
        "headers": {"x": "y" * 700},
    }
    return json.dumps(
        {
            "commandId": command_id,
            "targetId": AGENT,
            "action": "TetraScience.Connector.gdc.HttpRequest",
            "createdAt": iso(NOW),
            "expiresAt": iso(NOW + timedelta(days=2)),
            "body": payload,
        }
    )


def answer_of(command_id: str) -> str:
    return messages.update_message(command_id, AGENT, Status.SUCCESS, NOW, json.dumps({"statusCode": 200, "body": "z" * 500}))


def clock() -> Clock:
    return Clock(now=lambda: NOW)


def write(path: Path, *, in_log: bool) -> None:
    """Leave a journal with rows in every state, as `kill -9` does; `in_log`: all after the admission is only in the log."""
    journal = Journal(path, clock())
    for start in range(0, len(IDS), 10):
        journal.admit([(command_id, raw_of(command_id), f"receipt of {command_id}") for command_id in IDS[start : start + 10]])
    if in_log:
        journal.retention.checkpoint()
    for command_id in [*POSTED, *GOT, *ANSWERED, *TOLD]:
        journal.start(command_id, repeatable=command_id in GOT)
    for command_id in [*ANSWERED, *TOLD]:
        journal.finish(Update(command_id, Status.SUCCESS, answer_of(command_id)))
    journal.deliver(TOLD)
    journal.flush()
    if not in_log:
        journal.retention.checkpoint()
    left = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    journal.close()
    for file in path.parent.iterdir():
        file.unlink()
    put(path.parent, left)


def put(directory: Path, files: Files) -> None:
    for name, data in files.items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o600)


class Layout:
    """A journal's files as `kill -9` left them."""

    def __init__(self, db: bytes, wal: bytes) -> None:
        self.db = db
        self.wal = wal

    def put(self, directory: Path) -> Path:
        put(directory, {"journal.db": self.db, "journal.db-wal": self.wal})
        return directory / "journal.db"


def layout(directory: Path, *, in_log: bool) -> Layout:
    write(directory / "journal.db", in_log=in_log)
    return Layout((directory / "journal.db").read_bytes(), (directory / "journal.db-wal").read_bytes())


@pytest.fixture(scope="module")
def in_file(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Everything in the database, nothing in the log."""
    return layout(tmp_path_factory.mktemp("file"), in_log=False)


@pytest.fixture(scope="module")
def in_log(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The admissions in the database, everything since then in the log."""
    return layout(tmp_path_factory.mktemp("log"), in_log=True)


@dataclass
class Found:
    """What an agent does when it starts on a journal."""

    damage: Damage | None
    spoiled: int
    runs: dict[str, str]
    """The messages of the requests that will be sent to a target, by id."""
    answers: dict[str, str]
    known: dict[str, Admission]

    def interrupted(self) -> set[str]:
        return {command_id for command_id, text in self.answers.items() if "EINTERRUPTED" in text}


def start(path: Path) -> Found:
    """Do what an agent's start does, and then admit every message again."""
    with closing(Journal(path, clock())) as journal:
        spool, time = Spool(path.parent / "spool"), clock()

        def keyring() -> Keyring:
            return Keyring([])

        reader = PayloadReader(agent_id=AGENT, journal=journal, spool=spool, payloads=cast("Payloads", None), keyring=keyring, clock=time)
        outcomes = Outcomes(
            journal=journal, updates=UpdateBuilder(spool, keyring, time), monotonic=time.monotonic, report=lambda _report: None
        )
        intake = Intake(agent_id=AGENT, journal=journal, reader=reader, outcomes=outcomes, monotonic=time.monotonic)
        updates: list[Update] = []
        tasks = intake.recover(updates.append, lambda command_id, error: pytest.fail(f"{command_id}: {error}"))
        runs = {task.command.id: journal.raw(task.command.id) for task in tasks}
        known = dict(zip(IDS, journal.admit([(command_id, raw_of(command_id), "new receipt") for command_id in IDS]), strict=True))
        return Found(journal.damage, journal.spoiled, runs, {update.command_id: update.message for update in updates}, known)


def check(found: Found) -> None:
    """Compare what was found with what was written."""
    for command_id, raw in found.runs.items():
        assert raw == raw_of(command_id)
        assert command_id in IDS
    assert not BEGUN_POSTS & found.runs.keys()
    for command_id, text in found.answers.items():
        # A delivered answer may be sent again, unchanged.
        assert command_id in found.interrupted() or (command_id in {*ANSWERED, *TOLD} and text == answer_of(command_id))
    assert not found.runs.keys() & found.answers.keys()


def check_all_there(found: Found) -> None:
    """Check that every command is executed or answered, as without damage."""
    check(found)
    assert found.runs.keys() == {*WAITING, *GOT}
    assert found.interrupted() == set(POSTED)
    assert found.answers.keys() == {*POSTED, *ANSWERED}


def asides(directory: Path) -> list[Path]:
    return sorted(file for file in directory.iterdir() if ".damaged-" in file.name and not file.name.endswith(("-wal", "-shm")))


def check_aside(directory: Path, found: Found) -> Path:
    """Check that the damaged file has a dated name and is private, and the new journal is sound; return its path."""
    assert found.damage is not None
    (aside,) = asides(directory)
    assert aside.name == found.damage.aside
    assert ASIDE.fullmatch(aside.name)
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir() if file.is_file()} == {0o600}
    with closing(sqlite3.connect(directory / "journal.db")) as fresh:
        assert fresh.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert start(directory / "journal.db").damage is None
    return aside


def flipped(data: bytes, place: int, bits: int = 0xFF, length: int = 1) -> bytes:
    return data[:place] + bytes(byte ^ bits for byte in data[place : place + length]) + data[place + length :]


def leaves(db: bytes, name: str) -> list[int]:
    """Return the numbers of the pages of a table or index that hold rows, counted from 1."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "copy.db"
        file.write_bytes(db)
        with closing(sqlite3.connect(file)) as connection:
            (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return _leaves(db, root)


def _leaves(db: bytes, page: int) -> list[int]:
    head = db[(page - 1) * PAGE :][:PAGE]
    kind, cells = head[0], struct.unpack(">H", head[3:5])[0]
    if kind in (0x0A, 0x0D):
        return [page]
    pointers = struct.unpack(f">{cells}H", head[12 : 12 + 2 * cells])
    children = [struct.unpack(">I", head[place : place + 4])[0] for place in pointers] + [struct.unpack(">I", head[8:12])[0]]
    return [leaf for child in children for leaf in _leaves(db, child)]


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
    for told in (commits, commits - 1):  # Killed before the last one was recorded.
        place = tmp_path / str(told)
        place.mkdir()
        path = Layout(whole.db, wal).put(place)
        commit_counter.counter_path(path).write_bytes(told.to_bytes(8, "big"))
        found = start(path)
        assert (found.damage, found.spoiled) == (None, 0)
        check_all_there(found)


@pytest.mark.parametrize("length", [24, 25, 2000, 24 + PAGE - 1])
def test_a_commit_without_its_last_frame_is_not_damage(in_log: Layout, tmp_path: Path, length: int) -> None:
    last = in_log.wal[frame(in_log.wal, -1) :]
    found = start(Layout(in_log.db, in_log.wal + last[:length]).put(tmp_path))
    assert (found.damage, found.spoiled) == (None, 0)
    check_all_there(found)


# --- cut off ---


def test_an_emptied_database_is_reported(in_file: Layout, tmp_path: Path) -> None:
    path = Layout(b"", b"").put(tmp_path)
    commit_counter.counter_path(path).write_bytes((7).to_bytes(8, "big"))
    found = start(path)
    check(found)
    check_aside(tmp_path, found)


def test_an_empty_file_without_log_or_counter_is_a_first_start(tmp_path: Path) -> None:
    assert start(Layout(b"", b"").put(tmp_path)).damage is None


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_truncated_or_missing_log_is_found_by_the_commit_counter(tmp_path: Path, share: float) -> None:
    source = tmp_path / "source"
    source.mkdir()
    whole = layout(source, in_log=True)
    frame = 24 + 4096
    length = 32 + int((len(whole.wal) - 32) // frame * share) * frame if share else 0
    path = Layout(whole.db, whole.wal[:length]).put(tmp_path)
    commit_counter.counter_path(path).write_bytes(commit_counter.counter_path(source / "journal.db").read_bytes())
    found = start(path)
    check(found)
    assert found.damage is not None
    assert not found.damage.complete
    assert start(path).damage is None


@pytest.mark.parametrize("length", [1, 15, 16, 99, 100, 511, 2048])
def test_a_database_cut_within_its_first_page_is_set_aside(in_file: Layout, tmp_path: Path, length: int) -> None:
    found = start(Layout(in_file.db[:length], b"").put(tmp_path))
    check(found)
    aside = check_aside(tmp_path, found)
    assert aside.read_bytes() == in_file.db[:length]
    assert found.damage is not None
    assert (found.runs, found.answers, found.damage.complete) == ({}, {}, False)
    assert set(found.known.values()) == {Admission.NEW}


@pytest.mark.parametrize("pages", [1, 2, 3, 5, 8, -2, -1])
@pytest.mark.parametrize("more", [0, 1, 2048])
def test_a_truncated_database_is_set_aside_and_its_rest_salvaged(in_file: Layout, tmp_path: Path, pages: int, more: int) -> None:
    whole = len(in_file.db) // PAGE
    length = (pages if pages > 0 else whole + pages) * PAGE + more
    found = start(Layout(in_file.db[:length], b"").put(tmp_path))
    check(found)
    if pages == -1 and more:  # SQLite reads the missing part of the last page as zeros, and the digests show which rows it concerns.
        assert found.runs.keys() | found.answers.keys() | set(TOLD) == set(IDS)
        return
    check_aside(tmp_path, found)
    assert found.damage is not None
    assert not found.damage.complete or found.runs.keys() == {*WAITING, *GOT}


def test_an_emptied_database_beside_its_log_is_set_aside(in_log: Layout, tmp_path: Path) -> None:
    found = start(Layout(b"", in_log.wal).put(tmp_path))
    check(found)
    aside = check_aside(tmp_path, found)
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == in_log.wal


def test_a_database_cut_beside_its_log_is_set_aside_with_it(in_log: Layout, tmp_path: Path) -> None:
    found = start(Layout(in_log.db[: 3 * PAGE + 100], in_log.wal).put(tmp_path))
    check(found)
    aside = check_aside(tmp_path, found)
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == in_log.wal


@pytest.mark.parametrize("share", [0.0, 0.1, 0.33, 0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("more", [0, 10, 24, 100])
def test_a_log_that_is_cut_gives_an_earlier_state_and_never_another_text(in_log: Layout, tmp_path: Path, share: float, more: int) -> None:
    """It looks like the log of a commit that a power cut left unfinished; the commits before it are there."""
    frames = (len(in_log.wal) - 32) // (24 + PAGE)
    length = 32 + int(frames * share) * (24 + PAGE) + more
    found = start(Layout(in_log.db, in_log.wal[:length]).put(tmp_path))
    for command_id, raw in found.runs.items():
        assert raw == raw_of(command_id)
    assert found.runs.keys() | found.answers.keys() | set(TOLD) == set(IDS)
    assert set(found.known.values()) == {Admission.KNOWN}


def test_a_log_cut_within_its_header_counts_as_missing(in_log: Layout, tmp_path: Path) -> None:
    found = start(Layout(in_log.db, in_log.wal[:20]).put(tmp_path))
    assert found.runs.keys() | found.answers.keys() == set(IDS)


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
    assert set(found.damage.unreadable) <= set(IDS) - set(TOLD)
    assert set(found.damage.unreadable) <= found.interrupted()
    assert found.runs.keys() | found.answers.keys() | set(TOLD) == set(IDS)
    assert {found.known[command_id] for command_id in found.damage.unreadable} == {Admission.KNOWN}


# --- flipped: rows that SQLite believes ---


def alter(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(statement, values).rowcount == 1


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


def test_a_row_whose_id_was_altered_is_not_run(in_file: Layout, tmp_path: Path) -> None:
    path = in_file.put(tmp_path)
    alter(path, "UPDATE commands SET id = 'waiting-x' WHERE id = ?", "waiting-1")
    found = start(path)
    assert "waiting-1" not in found.runs
    assert "waiting-x" in found.interrupted()


def test_a_started_command_whose_message_can_no_longer_be_read_is_einterrupted(tmp_path: Path) -> None:
    """As with a secure command whose key was removed meanwhile: its request may have been executed."""
    path = tmp_path / "journal.db"
    with closing(Journal(path, clock())) as journal:
        journal.admit([("posted-0", json.dumps(json.loads(raw_of("posted-0")) | {"body": None}), "receipt")])
        journal.start("posted-0", repeatable=False)
    found = start(path)
    assert found.interrupted() == {"posted-0"}


# --- flipped: the log ---


def frame(wal: bytes, number: int) -> int:
    """Return the offset of a frame in the log; negative numbers count from the end."""
    size = 24 + PAGE
    frames = (len(wal) - 32) // size
    return 32 + (number if number >= 0 else frames + number) * size


@pytest.mark.parametrize("place", [0, 4, 8, 12, 16, 20, 24, 31])
def test_a_flipped_header_of_the_log_is_found_and_waiting_commands_count_as_started(in_log: Layout, tmp_path: Path, place: int) -> None:
    found = start(Layout(in_log.db, flipped(in_log.wal, place)).put(tmp_path))
    check(found)
    check_aside(tmp_path, found)
    assert found.runs.keys() <= set(GOT)
    assert found.runs.keys() | found.answers.keys() == set(IDS)
    assert found.damage is not None
    assert (sum(found.damage.salvaged.values()), found.damage.complete) == (len(IDS), False)


@pytest.mark.parametrize("place", [0, 2000])
def test_a_damaged_log_is_set_aside_as_it_was_found(in_log: Layout, tmp_path: Path, place: int) -> None:
    wal = flipped(in_log.wal, frame(in_log.wal, 5) + place)
    aside = check_aside(tmp_path, start(Layout(in_log.db, wal).put(tmp_path)))
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == wal


@pytest.mark.parametrize("within", [0, 4, 8, 16, 24, 24 + 2000, 24 + PAGE - 1])
def test_a_flipped_frame_in_the_middle_of_the_log_is_found(in_log: Layout, tmp_path: Path, within: int) -> None:
    middle = frame(in_log.wal, (len(in_log.wal) - 32) // (24 + PAGE) // 2)
    found = start(Layout(in_log.db, flipped(in_log.wal, middle + within)).put(tmp_path))
    check(found)
    check_aside(tmp_path, found)
    assert found.runs.keys() <= set(GOT)
    assert found.damage is not None
    assert "write-ahead log" in found.damage.reason


@pytest.mark.parametrize("within", [24, 24 + 2000, 24 + PAGE - 1])
def test_a_flipped_last_frame_is_found_where_it_ends_a_commit(in_log: Layout, tmp_path: Path, within: int) -> None:
    found = start(Layout(in_log.db, flipped(in_log.wal, frame(in_log.wal, -1) + within)).put(tmp_path))
    check(found)
    check_aside(tmp_path, found)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    "at",
    [
        ".marker",
        ".fresh",
    ],
)
def test_a_salvage_killed_before_a_rename_is_repeated_and_no_request_is_sent_twice(
    in_log: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = Layout(in_log.db, flipped(in_log.wal, 0)).put(tmp_path)
    whole = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.name.endswith(at):
            raise Killed
        return whole(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            start(path)
    found = start(path)
    check(found)
    assert found.damage is not None
    assert found.runs.keys() | found.answers.keys() == set(IDS)


# --- foreign ---


@pytest.mark.parametrize("text", [b"Dear diary,\n" * 1000, b"\x00" * 10_000, b"x", b"SQLite format 4\x00" + bytes(4080)])
def test_a_file_that_is_not_a_database_is_set_aside_unchanged(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(text)
    found = start(path)
    assert check_aside(tmp_path, found).read_bytes() == text
    assert found.damage is not None
    assert (found.runs, found.answers, found.damage.salvaged, found.damage.complete) == ({}, {}, {}, False)


@pytest.mark.parametrize("table", ["notes", "commands"])
def test_another_programs_database_is_set_aside_unchanged(tmp_path: Path, table: str) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, text TEXT)")
        other.execute(f"INSERT INTO {table} (text) VALUES ('a row of another program')")
        other.commit()
    found = start(path)
    aside = check_aside(tmp_path, found)
    assert (found.runs, found.answers) == ({}, {})
    with closing(sqlite3.connect(aside)) as kept:
        assert kept.execute(f"SELECT text FROM {table}").fetchall() == [("a row of another program",)]


def test_two_damages_in_one_second_are_set_aside_under_two_names(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        (tmp_path / "journal.db").write_bytes(text)
        (tmp_path / "journal.db-wal").unlink(missing_ok=True)
        Journal(tmp_path / "journal.db", clock()).close()
    assert {file.read_bytes() for file in asides(tmp_path)} == {b"one", b"two"}


# --- other versions ---

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


# --- random damage ---


@pytest.fixture(scope="module")
def layouts(in_file: Layout, in_log: Layout) -> dict[str, Layout]:
    return {"in_file": in_file, "in_log": in_log}


"""SQLite's errors about headers that the agent does not recognise as damaged yet: known bugs with tests of their own."""
PLACES = st.integers(0, 999_999)
"""In millionths of a file, so that an example means the same for files of any length."""
SPOTS = st.lists(
    st.tuples(PLACES, st.one_of(st.binary(min_size=1, max_size=8), st.binary(min_size=200, max_size=600))), min_size=1, max_size=3
)


def spoiled(data: bytes, spots: list[tuple[int, bytes]]) -> bytes:
    """Return the data with some stretches overwritten."""
    for share, noise in spots:
        place = len(data) * share // 1_000_000
        data = data[:place] + noise[: len(data) - place] + data[place + len(noise) :]
    return data


@settings(max_examples=examples(35), derandomize=True)
@given(kept=st.sampled_from(["in_file", "in_log"]), which=st.sampled_from(["db", "wal"]), spots=SPOTS)
def test_no_overwritten_bytes_send_a_request_twice_or_change_one(
    layouts: dict[str, Layout], kept: str, which: str, spots: list[tuple[int, bytes]]
) -> None:
    whole = layouts[kept]
    db, wal = (spoiled(whole.db, spots), whole.wal) if which == "db" or not whole.wal else (whole.db, spoiled(whole.wal, spots))
    with tempfile.TemporaryDirectory() as directory:
        path = Layout(db, wal).put(Path(directory))
        try:
            found = start(path)
        except JournalError as error:
            assert "newer agent" in str(error)
            return
        check(found)
        assert start(path).damage is None


@settings(max_examples=examples(15), derandomize=True)
@given(kept=st.sampled_from(["in_file", "in_log"]), share=PLACES)
def test_no_truncation_of_the_database_sends_a_request_twice_or_changes_one(layouts: dict[str, Layout], kept: str, share: int) -> None:
    whole = layouts[kept]
    length = len(whole.db) * share // 1_000_000
    with tempfile.TemporaryDirectory() as directory:
        path = Layout(whole.db[:length], whole.wal).put(Path(directory))
        found = start(path)
        check(found)
        assert start(path).damage is None


# --- another program's lock ---

HOLD = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


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
