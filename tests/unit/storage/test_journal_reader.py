"""The journal is read while another connection writes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from relay_agent.core.errors import JournalError
from relay_agent.core.failures import Code
from relay_agent.core.models import Status
from relay_agent.diagnostics import command_history
from relay_agent.storage.journal import Journal
from relay_agent.storage.journal_reader import Reader
from tests.unit.storage.history import History
from tests.unit.storage.scenes import admitted, outcome


@pytest.fixture
def world(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "journal.db")
    yield made
    made.journal.close()


def test_an_answer_that_could_not_be_uploaded_is_listed_with_the_code_that_was_sent(path: Path, journal: Journal) -> None:
    admitted(journal, "a", "b")
    for command_id, code in (("a", Code.ERESPONSETOOLARGE), ("b", None)):
        journal.finish(outcome(command_id, "m", spool="s", upload_url="https://s3/", fallback="f"))
        journal.settle(replace(outcome(command_id, "f"), code=code))
    with Reader(path, in_use=True).rows() as rows:
        assert {row.id: row.code for row in rows} == {"a": "ERESPONSETOOLARGE", "b": None}


def test_the_journal_of_a_killed_agent_is_read_with_its_log_and_not_changed(world: History, tmp_path: Path) -> None:
    world.admit("in-file")
    world.journal.retention.checkpoint()
    world.admit("in-log")
    left = tmp_path / "left"
    left.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copyfile(tmp_path / name, left / name)
    before = {path.name: path.read_bytes() for path in left.iterdir()}
    assert [one.id for one in command_history.recent(Reader(left / "journal.db", in_use=False), 10)] == ["in-log", "in-file"]
    assert {path.name: path.read_bytes() for path in left.iterdir()} == before


def test_a_reader_does_not_wait_for_a_commit_that_hangs(world: History) -> None:
    world.admit("a")
    with world.journal.writer.using:
        assert world.reader.counts()["admitted"] == 1
        assert len(command_history.recent(world.reader, 10)) == 1


@pytest.mark.parametrize("content", [None, b"", b"no database" * 500])
def test_an_unreadable_journal_is_reported(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JournalError):
        Reader(path, in_use=False).counts()


def test_a_reader_blocks_no_commit_and_delays_a_checkpoint_only_for_a_while(world: History) -> None:
    for number in range(5):
        world.admit(f"before-{number}")
    with world.reader.rows() as rows:
        next(rows)
        world.admit("meanwhile")
        assert not world.journal.retention.checkpoint()
        world.admit("and then")
    assert world.journal.retention.checkpoint()


def test_finished_commands_are_counted_by_how_many_minutes_ago(world: History) -> None:
    for command_id, status in (("a", Status.SUCCESS), ("b", Status.FAILURE), ("c", Status.SUCCESS)):
        world.admit(command_id)
        world.journal.finish(replace(outcome(command_id, "m"), status=status))
        world.now += timedelta(minutes=2)
    world.admit("unfinished")
    now = world.now.timestamp()
    assert world.reader.finished_by_minute(now, 60) == {2: (1, 0), 4: (1, 1), 6: (1, 0)}
    assert world.reader.finished_by_minute(now, 5) == {2: (1, 0), 4: (1, 1)}
