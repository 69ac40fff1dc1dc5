"""Alive means working: what stops the heartbeats, what ends the agent, and what must do neither. The test controls the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.failures import Obstacle
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_causes import REFUSED
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.diagnostics.watchdog import RECENT_SECONDS, STUCK_SECONDS, Watchdog
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal

LOOPS = ("poller", "sender", "heartbeat", "config-refresh", "upkeep")


@dataclass
class Commits:
    """Stands in for the journal."""

    since: float | None = None
    unwritable: Obstacle | None = None


@dataclass
class BusyWorker:
    """Replaces a worker: it exceeds its limit from `due` on, if it is busy."""

    world: World
    name: str = "worker-0"
    due: float | None = None

    def overdue_seconds(self) -> float:
        return 0.0 if self.due is None else max(0.0, self.world.time - self.due)


class World:
    """A registered agent whose loops run, until the test lets one hang; `time` is in seconds."""

    def __init__(self) -> None:
        self.time = 1000.0
        clock = Clock(now=lambda: datetime(2026, 3, 1, tzinfo=UTC), monotonic=lambda: self.time)
        self.statuses = {name: LoopStatus(clock) for name in LOOPS}
        self.platform_status = PlatformStatus(registered=True)
        self.disk = SimpleNamespace(obstacle=None)
        self.commits = Commits()
        self.draining = False
        self.worker = BusyWorker(self)
        self.dead: set[str] = set()
        self.failing: dict[str, str] = {}
        self.dog = Watchdog(
            loops=self.statuses,
            workers=[self.worker],
            journal=cast("Journal", self._journal()),
            disk=cast("Disk", self.disk),
            platform_status=self.platform_status,
            draining=lambda: self.draining,
        )

    def _journal(self) -> object:
        world = self

        class Stub:
            unwritable = property(lambda _: world.commits.unwritable)

            def stuck_seconds(self) -> float:
                return 0.0 if world.commits.since is None else world.time - world.commits.since

        return Stub()

    def take(self, limit: float | None) -> None:
        """Let the worker be in a command whose request must be over at `limit`; None is outside its request."""
        self.worker.due = self.time if limit is None else limit

    def run(self, seconds: float) -> None:
        """Let time pass; all loops run, except those that are dead or failing."""
        end = self.time + seconds
        while self.time < end:
            self.time += 1.0
            for name, status in self.statuses.items():
                if name in self.failing:
                    status.failure(self.failing[name])
                elif name not in self.dead:
                    status.success()

    def ends(self) -> tuple[float, float, str]:
        """Let time pass until the verdict: seconds until the heartbeats stop, seconds until the end, and the reason."""
        began, silent = self.time, None
        while self.dog.verdict() is None:
            self.run(1)
            if silent is None and self.dog.stall() is not None:
                silent = self.time - began
            assert self.time - began < 1000, "no verdict"
        assert silent is not None
        return silent, self.time - began, self.dog.verdict() or ""


@pytest.fixture
def world() -> World:
    return World()


def test_a_working_agent_is_not_stuck(world: World) -> None:
    world.run(3600)
    assert (world.dog.stall(), world.dog.verdict()) == (None, None)


@pytest.mark.parametrize("name", LOOPS)
def test_a_stuck_loop_stops_the_heartbeats_and_then_ends_the_agent(world: World, name: str) -> None:
    world.dead.add(name)
    silent, ended, reason = world.ends()
    assert RECENT_SECONDS <= silent <= RECENT_SECONDS + 2
    assert STUCK_SECONDS <= ended <= STUCK_SECONDS + 2
    assert name in reason or name in ("poller", "sender")


@pytest.mark.parametrize(
    ("name", "problem", "reported"),
    [
        ("poller", "sqs receive: ETIMEDOUT: a proxy holds the connection", "the queue could not be read"),
        ("sender", "sqs send: AWS says AccessDenied", "no answer could be sent"),
    ],
)
def test_a_loop_that_runs_and_never_succeeds_ends_the_agent_too(world: World, name: str, problem: str, reported: str) -> None:
    world.failing[name] = problem
    silent, ended, reason = world.ends()
    assert RECENT_SECONDS <= silent <= RECENT_SECONDS + 2
    assert STUCK_SECONDS <= ended <= STUCK_SECONDS + 2
    assert reason.startswith(f"{reported}: {problem}: ")  # and what lies behind it


def test_a_commit_that_hangs_ends_the_agent(world: World) -> None:
    world.commits.since = world.time
    silent, ended, reason = world.ends()
    assert (RECENT_SECONDS < silent <= RECENT_SECONDS + 2, STUCK_SECONDS < ended <= STUCK_SECONDS + 2) == (True, True)
    assert "commit" in reason


def test_a_worker_that_exceeds_its_requests_time_limit_ends_the_agent(world: World) -> None:
    world.take(world.time + 100)
    world.run(100 + RECENT_SECONDS - 1)
    assert world.dog.stall() is None
    _, ended, reason = world.ends()
    assert ended == pytest.approx(STUCK_SECONDS - RECENT_SECONDS + 1, abs=2)
    assert "worker-0" in reason


def test_a_slow_target_is_not_a_stuck_agent(world: World) -> None:
    world.take(world.time + 900)
    world.run(899)
    assert (world.dog.stall(), world.dog.verdict()) == (None, None)


def test_a_worker_that_hangs_outside_a_request_ends_the_agent_too(world: World) -> None:
    world.take(None)
    assert "worker-0" in world.ends()[2]


def test_a_disabled_agent_is_not_stuck(world: World) -> None:
    world.platform_status.disabled = True
    world.failing["poller"] = "would be one, were it enabled"
    world.run(3600)
    assert (world.dog.stall(), world.dog.verdict()) == (None, None)


def test_an_agent_that_was_never_registered_keeps_trying(world: World) -> None:
    world.platform_status.registered = False
    world.failing |= {"poller": "starting", "sender": "starting"}
    world.run(3600)
    assert (world.dog.stall(), world.dog.verdict()) == (None, None)


def test_a_refused_token_stops_the_heartbeats_and_does_not_end_the_agent(world: World) -> None:
    """A corrected token cures it without a restart."""
    world.platform_status.refused = REFUSED
    world.failing["poller"] = "agent/credentials: answered 401"
    world.run(3600)
    still = world.dog.stall()
    assert still is not None and "answered 401" in still.reason
    assert world.dog.verdict() is None


@pytest.mark.parametrize("unwritable", [None, Obstacle("the journal cannot be written")])
def test_a_full_disk_stops_the_heartbeats_and_does_not_end_the_agent(world: World, unwritable: str | None) -> None:
    world.disk.obstacle = None if unwritable else Obstacle("the disk is full")
    world.commits.unwritable = unwritable
    world.failing["poller"] = "the disk of the state directory is full"
    world.take(None)
    world.run(3600)
    still = world.dog.stall()
    assert still is not None and ("full" in still.reason or "worker-0" in still.reason)
    assert world.dog.verdict() is None


def test_an_agent_that_drains_is_alive(world: World) -> None:
    world.draining = True
    world.dead |= set(LOOPS)
    world.run(120)
    assert world.dog.stall() is None
