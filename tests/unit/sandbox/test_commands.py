"""The platform's records of commands: which status follows which, when one expires, and how they are searched."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from relay_agent.sandbox import commands as module
from relay_agent.sandbox.changes import Changes
from relay_agent.sandbox.commands import STATUSES, Command, Commands, Search
from tests.unit.sandbox.scenes import NOW, Time


class World:
    def __init__(self) -> None:
        self.time = Time()
        self.commands = Commands(self.time, Changes())

    def add(self, command_id: str = "a", seconds: float = 60.0, **more: Any) -> Command:
        given: dict[str, Any] = {"org_slug": "acme", "target_id": "agent-1", "action": "A", "payload": {"url": "u"}, **more}
        expires = self.time.now + timedelta(seconds=seconds)
        made = Command(id=command_id, created_at=self.time.now, expires_at=expires, updated_at=self.time.now, **given)
        self.commands.add(made)
        return made

    def report(self, command: Command, status: str, body: object = "body") -> None:
        self.commands.report(command, status, body, json.dumps(status))


@pytest.fixture
def world() -> World:
    return World()


# --- the status ---


@pytest.mark.parametrize("status", STATUSES)
def test_a_final_status_can_no_longer_change(world: World, status: str) -> None:
    command = world.add()
    command.status = status
    is_open = status in ("CREATED", "PENDING", "PROCESSING")
    assert (command.final, world.commands.move(command, "ERROR", "x")) == (not is_open, is_open)
    assert command.status == ("ERROR" if is_open else status)


@pytest.mark.parametrize(("status", "body"), [("PROCESSING", None), ("SUCCESS", "body"), ("FAILURE", "body"), ("REJECTED", "body")])
def test_an_agent_s_report_sets_the_status_and_a_final_one_the_body(world: World, status: str, body: object) -> None:
    command = world.add()
    world.report(command, status)
    assert (command.status, command.response_body, command.updates) == (status, body, [json.dumps(status)])


def test_a_report_after_the_final_one_changes_nothing_but_is_in_the_history(world: World) -> None:
    command = world.add()
    world.report(command, "SUCCESS", "first")
    world.time.passes(5)
    world.report(command, "FAILURE", "second")
    assert (command.status, command.response_body, command.updated_at) == ("SUCCESS", "first", NOW)
    assert (len(command.updates), command.history[-1].reason) == (2, "Status FAILURE ignored: the command is SUCCESS")


def test_a_status_that_no_agent_may_set_is_ignored(world: World) -> None:
    command = world.add()
    world.report(command, "EXPIRED")
    assert (command.status, command.history[-1].reason) == ("CREATED", "Status EXPIRED ignored: no target may set it")


# --- expiry and purge ---


def test_open_commands_expire_in_time_and_the_next_expiry_is_returned(world: World) -> None:
    early, late, done = world.add("a", 10), world.add("b", 20), world.add("c", 15)
    world.report(done, "SUCCESS")
    assert world.commands.expire() == early.expires_at
    world.time.passes(10)
    assert world.commands.expire() == late.expires_at
    assert (early.status, late.status, done.status) == ("EXPIRED", "CREATED", "SUCCESS")
    world.time.passes(10)
    assert (world.commands.expire(), late.status, done.status) == (None, "EXPIRED", "SUCCESS")


def test_a_purge_ends_only_what_waits_for_that_agent(world: World) -> None:
    waiting, sent, running, other = world.add("a"), world.add("b"), world.add("c"), world.add("d", target_id="agent-2")
    world.commands.move(sent, "PENDING", "x")
    world.report(running, "PROCESSING")
    assert world.commands.purge("agent-1") == [waiting, sent]
    assert [command.status for command in (waiting, sent, running, other)] == ["PURGED", "PURGED", "PROCESSING", "CREATED"]


def test_beyond_the_bound_the_oldest_command_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    _, second, third = world.add("a", 1), world.add("b"), world.add("c")
    assert world.commands.all() == [second, third]
    assert (world.commands.get("a"), world.commands.get(["b"]), world.commands.get("b")) == (None, None, second)
    world.time.passes(1)
    assert world.commands.expire() == second.expires_at


# --- what is shown ---


def test_a_command_is_shown_with_its_message_and_its_history(world: World) -> None:
    command = world.add(metadata={"run": "7"})
    world.report(command, "SUCCESS")
    found = command.to_json()
    assert (found["status"], found["responseBody"], found["metadata"], found["requestPayloadDelivery"]) == (
        "SUCCESS",
        "body",
        {"run": "7"},
        "embedded",
    )
    assert found["requestBody"] == command.request_json()
    assert (command.request_json()["commandId"], command.request_json()["expiresAt"]) == ("a", "2026-03-01T12:01:00.000Z")
    history = command.history_json()["history"]
    assert [(one["reason"], one["updatedBy"]) for one in history] == [
        ("Command created", "platform"),
        ("Command status changed to SUCCESS", "target"),
    ]


# --- search ---


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (Search(), ["c", "b", "a"]),
        (Search(descending=False), ["a", "b", "c"]),
        (Search(targets=frozenset({"agent-1"})), ["b", "a"]),
        (Search(actions=frozenset({"B"})), ["b"]),
        (Search(statuses=frozenset({"PENDING"})), ["c"]),
        (Search(metadata=(("run", "7"), ("site", "x"))), ["a"]),
        (Search(metadata=(("run", "7"),)), ["b", "a"]),
        (Search(after=(("created_at", NOW + timedelta(seconds=1)),)), ["c", "b"]),
        (Search(before=(("created_at", NOW + timedelta(seconds=1)),)), ["b", "a"]),
        (Search(sort_by="expires_at"), ["a", "c", "b"]),
    ],
)
def test_a_search_finds_what_passes_every_filter_in_order(world: World, search: Search, found: list[str]) -> None:
    world.add("a", 90, metadata={"run": "7", "site": "x"})
    world.time.passes(1)
    world.add("b", 10, action="B", metadata={"run": "7"})
    world.time.passes(1)
    world.commands.move(world.add("c", 20, target_id="agent-2"), "PENDING", "x")
    assert [command.id for command in search.run(world.commands.all())] == found
