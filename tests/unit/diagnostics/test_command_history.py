"""Recent commands as people may see them: read from a journal in use and from one of a killed agent, without any secret."""

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
    """A journal, its reader, and a clock that the test advances."""

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


def test_an_unfinished_command_is_described_from_its_message(world: World) -> None:
    world.admit("plain")
    world.admit("secure", action=ACTION_SECURE)
    world.journal.admit([("odd", "no JSON", "r")])
    odd, secure, plain = command_history.recent(world.reader, 10)
    assert (plain.method, plain.host, plain.port, plain.status, plain.target_ms) == ("POST", "lims.lab.example", 8443, None, None)
    assert (secure.action, secure.method, secure.host) == (ACTION_SECURE, None, None)
    assert (odd.action, odd.method, odd.state) == (None, None, "admitted")


def test_the_newest_come_first_and_can_be_filtered_by_state_host_and_outcome(world: World) -> None:
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


def test_no_possible_secret_of_a_sender_is_listed(world: World) -> None:
    world.admit("open")
    world.admit("done")
    world.finish("done")
    text = json.dumps(command_history.as_json(command_history.recent(world.reader, 10))) + repr(command_history.recent(world.reader, 10))
    assert CANARY not in text
    with world.reader.rows() as rows:
        assert CANARY not in repr(list(rows))


def test_a_command_is_found_by_its_id_or_a_unique_prefix_of_it(world: World) -> None:
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


def test_the_journal_of_a_killed_agent_is_read_with_its_log_and_not_changed(world: World, tmp_path: Path) -> None:
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


def test_a_reader_does_not_wait_for_a_commit_that_hangs(world: World) -> None:
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


def test_control_characters_are_not_listed(world: World) -> None:
    world.admit("a\x1b[2J", action="\x1b]0;owned\x07")
    world.finish("a\x1b[2J", about=About("\x1b[2J", "GET\x07", "host\x1b", 1))
    text = repr(command_history.as_json(command_history.recent(world.reader, 1)))
    assert "x1b" not in text
    assert "x07" not in text


def test_long_names_in_an_unfinished_command_are_cut(world: World) -> None:
    message = {"commandId": "a", "action": ACTION, "body": {"method": "M" * 30, "url": "http://h/"}}
    world.journal.admit([("a", json.dumps(message), "r")])
    (one,) = command_history.recent(world.reader, 1)
    assert one.method == "M" * 20


def test_a_reader_blocks_no_commit_and_delays_a_checkpoint_only_for_a_while(world: World) -> None:
    for number in range(5):
        world.admit(f"before-{number}")
    with world.reader.rows() as rows:
        next(rows)
        world.admit("meanwhile")
        assert not world.journal.retention.checkpoint()
        world.admit("and then")
    assert world.journal.retention.checkpoint()
