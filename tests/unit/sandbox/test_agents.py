"""The platform's records of agents: when one is online, and what its record says."""

from __future__ import annotations

import pytest

from relay_agent.core.clock import iso
from relay_agent.sandbox.agents import ONLINE_SECONDS, Agent, Agents
from relay_agent.sandbox.changes import Changes
from tests.unit.sandbox.scenes import Time


class World:
    def __init__(self) -> None:
        self.time, self.touched = Time(), 0
        self.changes = Changes()
        self.agents = Agents(self.time, self.changes)
        self.agent = self.agents.add("lab", "agent-1")

    def online(self) -> bool:
        return self.agent.online(self.time.now)

    def beat(self) -> None:
        self.agents.heartbeat(self.agent, "v1", "10.0.0.7")


@pytest.fixture
def world() -> World:
    return World()


def test_an_agent_is_online_for_ninety_seconds_after_a_heartbeat(world: World) -> None:
    assert not world.online()
    world.beat()
    world.time.passes(ONLINE_SECONDS)
    assert world.online()
    world.time.passes(0.001)
    assert not world.online()


def test_an_agent_that_reports_stopped_is_offline_until_its_next_heartbeat(world: World) -> None:
    world.beat()
    world.agents.setting(world.agent, "STOPPED", "v1")
    assert not world.online()
    world.time.passes(1)
    world.beat()
    assert world.online()
    world.agents.setting(world.agent, "STARTED", "v1")
    assert world.online()


def test_since_is_when_the_state_of_now_began(world: World) -> None:
    assert world.agent.since(world.time.now) is None
    world.beat()
    began = world.time.now
    world.time.passes(60)
    world.beat()
    assert world.agent.since(world.time.now) == began
    beat = world.time.now
    gone = world.time.passes(ONLINE_SECONDS + 60)
    assert (world.agent.since(gone), (gone - beat).total_seconds()) == (world.time.passes(-60), ONLINE_SECONDS + 60)


def test_a_stopped_agent_is_offline_since_it_stopped(world: World) -> None:
    world.beat()
    stopped = world.time.passes(10)
    world.agents.setting(world.agent, "STOPPED", "v1")
    assert world.agent.since(world.time.passes(10)) == stopped


def test_the_record_shows_state_version_host_and_queue(world: World) -> None:
    world.beat()
    world.agent.queue_url = "https://in"
    found = world.agents.to_json(world.agent, "acme", 30)
    assert (found["id"], found["type"], found["orgSlug"], found["status"]) == ("agent-1", "user-defined", "acme", "Online")
    assert (found["isEnabled"], found["version"], found["host"]["ip"]) == (True, "v1", "10.0.0.7")
    assert found["queue"] == {"enabled": True, "name": "https://in", "visibilityTimeout": 30}


def test_a_disabled_queue_has_no_name(world: World) -> None:
    later = world.time.passes(5)
    world.agents.enable_queue(world.agent, False)
    world.agents.enable(world.agent, False)
    found = world.agents.to_json(world.agent, "acme", 30)
    assert (found["queue"], found["isEnabled"], found["updatedAt"]) == ({"enabled": False}, False, iso(later))


def test_agents_are_found_by_id_and_listed_in_the_order_of_creation(world: World) -> None:
    other = world.agents.add("other")
    assert (world.agents.get("agent-1"), world.agents.get(other.id), world.agents.get("nobody")) == (world.agent, other, None)
    assert world.agents.all() == [world.agent, other]


@pytest.mark.parametrize("change", ["heartbeat", "setting", "enable", "enable_queue"])
def test_whoever_waits_learns_of_every_change(world: World, change: str) -> None:
    agent: Agent = world.agent
    acts = {
        "heartbeat": lambda: world.beat(),
        "setting": lambda: world.agents.setting(agent, "STARTED", "v1"),
        "enable": lambda: world.agents.enable(agent, False),
        "enable_queue": lambda: world.agents.enable_queue(agent, False),
    }
    tries = 0

    def after_the_change() -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            acts[change]()
        return tries > 1

    assert world.changes.wait(after_the_change, 10)
