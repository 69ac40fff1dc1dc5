"""Recent commands as people may see them: from a journal in use, from one that a killed agent left, and nothing secret in either."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.core.models import ACTION_SECURE, Status
from relay_agent.diagnostics import command_history
from relay_agent.storage.journal import About
from tests.unit.storage.history import ACTION, CANARY, History


@pytest.fixture
def world(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "journal.db")
    yield made
    made.journal.close()


def test_a_command_is_listed_with_the_time_of_each_stage(world: History) -> None:
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


def test_an_unfinished_command_is_described_from_its_message(world: History) -> None:
    world.admit("plain")
    world.admit("secure", action=ACTION_SECURE)
    world.journal.admit([("odd", "no JSON", "r")])
    odd, secure, plain = command_history.recent(world.reader, 10)
    assert (plain.method, plain.host, plain.port, plain.status, plain.target_ms) == ("POST", "lims.lab.example", 8443, None, None)
    assert (secure.action, secure.method, secure.host) == (ACTION_SECURE, None, None)
    assert (odd.action, odd.method, odd.state) == (None, None, "admitted")


def test_the_newest_come_first_and_can_be_filtered_by_state_host_and_outcome(world: History) -> None:
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


def test_no_possible_secret_of_a_sender_is_listed(world: History) -> None:
    world.admit("open")
    world.admit("done")
    world.finish("done")
    text = json.dumps(command_history.as_json(command_history.recent(world.reader, 10))) + repr(command_history.recent(world.reader, 10))
    assert CANARY not in text
    with world.reader.rows() as rows:
        assert CANARY not in repr(list(rows))


def test_a_command_is_found_by_its_id_or_a_unique_prefix_of_it(world: History) -> None:
    for command_id in ("abc-1", "abc-2", "xyz", "a%c"):
        world.admit(command_id)
    found = {text: row and row.id for text in ("abc-1", "abc", "x", "a%", "nothing") for row in [world.reader.one(text)]}
    assert found == {"abc-1": "abc-1", "abc": None, "x": "xyz", "a%": "a%c", "nothing": None}


def test_a_clock_that_was_set_back_gives_no_negative_time(world: History) -> None:
    world.admit("a")
    world.later(-3600)
    world.journal.start("a", True)
    (one,) = command_history.recent(world.reader, 1)
    assert one.queued_ms == 0


def test_control_characters_are_not_listed(world: History) -> None:
    world.admit("a\x1b[2J", action="\x1b]0;owned\x07")
    world.finish("a\x1b[2J", about=About("\x1b[2J", "GET\x07", "host\x1b", 1))
    text = repr(command_history.as_json(command_history.recent(world.reader, 1)))
    assert "x1b" not in text
    assert "x07" not in text


def test_long_names_in_an_unfinished_command_are_cut(world: History) -> None:
    message = {"commandId": "a", "action": ACTION, "body": {"method": "M" * 30, "url": "http://h/"}}
    world.journal.admit([("a", json.dumps(message), "r")])
    (one,) = command_history.recent(world.reader, 1)
    assert one.method == "M" * 20
