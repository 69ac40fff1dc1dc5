"""Journals in which a command waits, runs or was answered, and the damage done to them: the scenes of the tests of damaged journals."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import struct
import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from relay_agent.core.clock import Clock, iso
from relay_agent.core.models import Status, Update
from relay_agent.protocol import messages
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.intake import Intake
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.payload_reader import PayloadReader
from relay_agent.relay.task import Refusal
from relay_agent.relay.updates import UpdateBuilder
from relay_agent.storage.journal import Admission, Journal
from relay_agent.storage.salvage import Damage
from relay_agent.storage.spool import Spool
from relay_agent.tdp.s3_payloads import Payloads

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

        def deliver(answer: Update | Refusal) -> None:
            updates.append(outcomes.refuse(answer) if isinstance(answer, Refusal) else answer)

        tasks = intake.recover(deliver, lambda command_id, error: pytest.fail(f"{command_id}: {error}"))
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


def frame(wal: bytes, number: int) -> int:
    """Return the offset of a frame in the log; negative numbers count from the end."""
    size = 24 + PAGE
    frames = (len(wal) - 32) // size
    return 32 + (number if number >= 0 else frames + number) * size


def spoiled(data: bytes, spots: list[tuple[int, bytes]]) -> bytes:
    """Return the data with some stretches overwritten."""
    for share, noise in spots:
        place = len(data) * share // 1_000_000
        data = data[:place] + noise[: len(data) - place] + data[place + len(noise) :]
    return data


def spoil(path: Path, change: str, command_id: str) -> bool:
    """Write into one row; return whether the table accepts the value."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            return connection.execute(f"UPDATE commands SET {change} WHERE id = ?", (command_id,)).rowcount == 1
        except sqlite3.IntegrityError:
            return False
