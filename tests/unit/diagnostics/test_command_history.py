"""Recent commands as people may see them: from a journal in use, from one that a killed agent left, and nothing secret in either."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalError
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTION_SECURE, Status, Update
from relay_agent.diagnostics import command_history
from relay_agent.storage.journal import About, Journal
from relay_agent.storage.journal_reader import Reader

ACTION = "TetraScience.Connector.gdc.HttpRequest"
CANARY = "canary-81b2"


class World:
    """A journal, its reader, and a clock that the test moves on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.journal = Journal(path, Clock(now=lambda: self.now))
        self.reader = Reader(path, in_use=True)

    def admit(self, command_id: str, host: str = "lims.lab.example", action: str = ACTION) -> None:
        body = {"method": "POST", "url": f"https://{host}:8443/{CANARY}?{CANARY}", "headers": {"Authorization": CANARY}, "body": CANARY}
        raw = json.dumps(
            {
                "id": command_id,
                "commandId": command_id,
                "targetId": "a",
                "action": action,
                "createdAt": "2026-03-01T12:00:00Z",
                "body": body,
            }
        )
        self.journal.admit([(command_id, raw, "receipt")])

    def finish(self, command_id: str, status: Status = Status.SUCCESS, code: str | None = None, about: About | None = None) -> None:
        self.journal.finish(
            Update(command_id, status, CANARY, code=code and Code(code)), about or About(ACTION, "POST", "lims.lab.example", 8443, 200)
        )

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "journal.db")
    yield made
    made.journal.close()


def test_a_command_is_listed_with_the_time_of_each_stage(world: World) -> None:
    world.admit("a")
    world.later(1)
    world.journal.start("a", False)
    world.later(2)
    world.finish("a")
    world.later(0.5)
    world.journal.deliver(["a"])
    world.journal.flush()
    (one,) = command_history.recent(world.reader, 10)
    assert (one.when, one.state, one.status, one.code) == ("2026-03-01T12:00:00.000Z", "delivered", "SUCCESS", "200")
    assert (one.action, one.method, one.host, one.port) == (ACTION, "POST", "lims.lab.example", 8443)
    assert (one.queued_ms, one.target_ms, one.delivered_ms) == (1000, 2000, 500)


def test_of_one_that_is_not_finished_its_message_tells_what_it_is(world: World) -> None:
    world.admit("plain")
    world.admit("secure", action=ACTION_SECURE)
    world.journal.admit([("odd", "no JSON", "r")])
    odd, secure, plain = command_history.recent(world.reader, 10)
    assert (plain.method, plain.host, plain.port, plain.status, plain.target_ms) == ("POST", "lims.lab.example", 8443, None, None)
    assert (secure.action, secure.method, secure.host) == (ACTION_SECURE, None, None)
    assert (odd.action, odd.method, odd.state) == (None, None, "admitted")


def test_the_newest_come_first_and_can_be_chosen_by_state_host_and_outcome(world: World) -> None:
    for number in range(20):
        world.admit(f"c{number}")
    world.admit("elsewhere", host="other.lab.example")
    world.finish("c3", Status.FAILURE, "ECONNREFUSED")
    world.finish("c7")
    world.finish("c9", Status.REJECTED, "EEXPIRED", About(ACTION))

    def ids(**options: object) -> list[str]:
        return [one.id for one in command_history.recent(world.reader, 5, **options)]  # type: ignore[arg-type]

    assert ids() == ["elsewhere", "c19", "c18", "c17", "c16"]
    assert ids(state="finished") == ["c9", "c7", "c3"]
    assert ids(failed=True) == ["c9", "c3"]
    assert ids(host="OTHER.lab.example") == ["elsewhere"]
    assert ids(host="other.lab.example:8443") == ["elsewhere"]
    assert ids(host="nowhere.example") == []
    assert [one.code for one in command_history.recent(world.reader, 5, failed=True)] == ["EEXPIRED", "ECONNREFUSED"]


def test_nothing_that_a_sender_may_have_meant_to_be_secret_is_listed(world: World) -> None:
    world.admit("open")
    world.admit("done")
    world.finish("done")
    text = json.dumps(command_history.as_json(command_history.recent(world.reader, 10))) + repr(command_history.recent(world.reader, 10))
    assert CANARY not in text
    with world.reader.rows() as rows:
        assert CANARY not in repr(list(rows))


def test_a_command_is_found_by_its_id_or_by_what_only_its_id_begins_with(world: World) -> None:
    for command_id in ("abc-1", "abc-2", "xyz", "a%c"):
        world.admit(command_id)
    found = {text: row and row.id for text in ("abc-1", "abc", "x", "a%", "nothing") for row in [world.reader.one(text)]}
    assert found == {"abc-1": "abc-1", "abc": None, "x": "xyz", "a%": "a%c", "nothing": None}


def test_a_clock_that_was_set_back_gives_no_negative_time(world: World) -> None:
    world.admit("a")
    world.later(-3600)
    world.journal.start("a", True)
    (one,) = command_history.recent(world.reader, 1)
    assert one.queued_ms == 0


def test_the_journal_of_a_killed_agent_is_read_with_its_log_and_left_as_it_is(world: World, tmp_path: Path) -> None:
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


def test_a_look_does_not_wait_for_a_commit_that_does_not_end(world: World) -> None:
    world.admit("a")
    with world.journal.writer.using:
        assert world.reader.counts()["admitted"] == 1
        assert len(command_history.recent(world.reader, 10)) == 1


@pytest.mark.parametrize("content", [None, b"", b"no database" * 500])
def test_what_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JournalError):
        Reader(path, in_use=False).counts()


def test_what_a_terminal_would_act_on_is_not_listed(world: World) -> None:
    world.admit("a\x1b[2J", action="\x1b]0;owned\x07")
    world.finish("a\x1b[2J", about=About("\x1b[2J", "GET\x07", "host\x1b", 1))
    text = repr(command_history.as_json(command_history.recent(world.reader, 1)))
    assert "x1b" not in text
    assert "x07" not in text


def test_of_what_a_command_that_is_not_finished_names_at_length_the_beginning_is_listed(world: World) -> None:
    message = {"commandId": "a", "action": ACTION, "body": {"method": "M" * 30, "url": "http://h/"}}
    world.journal.admit([("a", json.dumps(message), "r")])
    (one,) = command_history.recent(world.reader, 1)
    assert one.method == "M" * 20


def test_a_reader_at_work_holds_up_neither_commits_nor_for_ever_the_checkpoint(world: World) -> None:
    for number in range(5):
        world.admit(f"before-{number}")
    with world.reader.rows() as rows:
        next(rows)
        world.admit("meanwhile")
        assert not world.journal.retention.checkpoint()
        world.admit("and then")
    assert world.journal.retention.checkpoint()
