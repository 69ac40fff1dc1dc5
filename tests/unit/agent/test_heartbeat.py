"""When a heartbeat is sent, and when it is withheld."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.agent.heartbeat import Heartbeat
from relay_agent.core.clock import Clock
from relay_agent.core.errors import Call, PlatformError, RateLimited
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_causes import NOT_READ
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.diagnostics.watchdog import Finding, Watchdog
from relay_agent.tdp.client import PlatformClient
from relay_agent.telemetry.hourly_summary import Tally
from relay_agent.telemetry.logger import Logger

INTERVAL = 30.0


class Lines:
    """A stub logger that keeps its lines."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fields: dict[str, Any] = {}

    def debug(self, event: str, **fields: Any) -> None:
        self.events.append(event)
        self.fields = fields

    info = warning = error = debug


class World:
    """A registered agent whose time the test moves; `sent` holds the times of its heartbeats."""

    def __init__(self) -> None:
        self.time = 1000.0
        clock = Clock(now=lambda: datetime(2026, 3, 1, tzinfo=UTC), monotonic=lambda: self.time)
        self.sent: list[float] = []
        self.tries: list[float] = []
        self.fault: PlatformError | None = None
        self.still: str | None = None
        self.log = Lines()
        self.platform_status = PlatformStatus(registered=True)
        self.platform_status.ready.set()
        self.status = LoopStatus(clock)
        self.heartbeat = Heartbeat(
            platform=cast("PlatformClient", SimpleNamespace(rest=SimpleNamespace(heartbeat=self._beat))),
            platform_status=self.platform_status,
            watchdog=cast("Watchdog", SimpleNamespace(stall=lambda: self.still and Finding(self.still, 61.0, NOT_READ))),
            interval_seconds=INTERVAL,
            loop=LoopContext(self.status, Tally(), cast("Logger", self.log), clock),
        )

    def _beat(self) -> None:
        self.tries.append(self.time)
        if self.fault is not None:
            raise self.fault
        self.sent.append(self.time)

    def run(self, seconds: float) -> None:
        """Run the loop for `seconds` of simulated time."""
        end = self.time + seconds
        while self.time < end:
            self.time += max(0.01, self.heartbeat.step())


@pytest.fixture
def world() -> World:
    return World()


def test_no_heartbeat_is_sent_before_registration(world: World) -> None:
    world.platform_status.ready.clear()
    world.run(300)
    assert world.tries == []


def test_a_heartbeat_is_sent_every_interval_after_the_one_of_the_registration(world: World) -> None:
    world.run(10 * INTERVAL + 1)
    assert len(world.sent) == 10
    assert world.sent[0] - 1000 == pytest.approx(INTERVAL, abs=0.6)
    assert world.status.last_success is not None


def test_a_disabled_agent_sends_its_first_heartbeat_at_once(world: World) -> None:
    world.platform_status.registered, world.platform_status.disabled = False, True
    world.run(INTERVAL + 1)
    assert len(world.sent) == 2
    assert world.sent[0] == 1000.0


def test_heartbeats_are_withheld_during_a_standstill_and_that_is_logged_once(world: World) -> None:
    world.run(INTERVAL + 1)
    world.still = "the queue could not be read"
    world.run(9 * INTERVAL)
    assert len(world.sent) == 1
    assert world.log.events == ["heartbeat-withheld"]  # a reminder comes after five minutes
    assert (world.log.fields["cause"], world.log.fields["cure"]) == (NOT_READ.cause, NOT_READ.cure)


def test_heartbeats_resume_soon_after_a_standstill_ends(world: World) -> None:
    world.still = "the queue could not be read"
    world.run(200)
    world.still = None
    world.run(6)
    assert len(world.sent) == 1
    assert world.log.events == ["heartbeat-withheld", "heartbeat-resumed"]


def test_a_failed_heartbeat_is_retried_before_the_interval_ends(world: World) -> None:
    world.fault = PlatformError(Call.STATUS, "answered 500", 500)
    world.run(INTERVAL + 12)
    assert 2 <= len(world.tries) <= 4  # the retries are jittered, and at most an interval apart
    assert (world.sent, world.status.problem) == ([], "agent/status: answered 500")
    world.fault = None
    world.run(INTERVAL)
    assert (bool(world.sent), world.status.problem) == (True, None)
    assert world.log.events == ["heartbeat-failed", "heartbeat-recovered"]


def test_retry_after_of_the_platform_is_respected(world: World) -> None:
    world.fault = RateLimited(Call.STATUS, 120.0)
    world.run(INTERVAL + 100)
    assert len(world.tries) == 1
