"""Alive means working: when a heartbeat goes out, and when it does not."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.clock import Clock
from relay_agent.errors import PlatformError, RateLimited
from relay_agent.heartbeat import RECENT_SECONDS, Heartbeat
from relay_agent.pulse import Pulse
from relay_agent.standing import Standing
from relay_agent.tdp.client import PlatformClient
from relay_agent.telemetry.logs import Logger

INTERVAL = 30.0


class Lines:
    """In the logger's place."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def debug(self, event: str, **_fields: Any) -> None:
        self.events.append(event)

    info = warning = error = debug


class World:
    """An enrolled agent at work, whose time the test moves; `sent` are the moments of its heartbeats."""

    def __init__(self) -> None:
        self.time = 1000.0
        clock = Clock(now=lambda: datetime(2026, 3, 1, tzinfo=UTC), monotonic=lambda: self.time)
        self.sent: list[float] = []
        self.tries: list[float] = []
        self.fault: PlatformError | None = None
        self.draining = False
        self.log = Lines()
        self.standing = Standing(enrolled=True)
        self.standing.ready.set()
        self.polling = Pulse(clock)
        self.pulse = Pulse(clock)
        self.heartbeat = Heartbeat(
            platform=cast("PlatformClient", SimpleNamespace(rest=SimpleNamespace(heartbeat=self._beat))),
            standing=self.standing,
            polling=self.polling,
            pulse=self.pulse,
            draining=lambda: self.draining,
            log=cast("Logger", self.log),
            clock=clock,
            interval_seconds=INTERVAL,
        )

    def _beat(self) -> None:
        self.tries.append(self.time)
        if self.fault is not None:
            raise self.fault
        self.sent.append(self.time)

    def run(self, seconds: float, *, polls: bool = True) -> None:
        """Let the loop turn for so long; the poller beside it works, or stands still."""
        end = self.time + seconds
        while self.time < end:
            if polls:
                self.polling.success()
            self.time += max(0.01, self.heartbeat.step())


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_sent_before_the_platform_knows_the_agent(world: World) -> None:
    world.standing.ready.clear()
    world.run(300)
    assert world.tries == []


def test_one_is_sent_every_interval_the_first_an_interval_after_enrolments_own(world: World) -> None:
    world.run(10 * INTERVAL + 1)
    assert len(world.sent) == 10
    assert world.sent[0] - 1000 == pytest.approx(INTERVAL, abs=0.6)
    assert world.pulse.worked is not None


def test_a_disabled_agent_is_alive_and_sends_its_first_at_once(world: World) -> None:
    world.standing.enrolled, world.standing.disabled = False, True
    world.run(INTERVAL + 1, polls=False)
    assert len(world.sent) == 2
    assert world.sent[0] == 1000.0
    world.run(10 * RECENT_SECONDS, polls=False)
    assert world.sent[-1] > world.time - INTERVAL - 1


def test_a_disabled_queue_is_a_good_reason_not_to_poll(world: World) -> None:
    for _ in range(20):
        world.polling.pause("queue disabled")
        world.run(INTERVAL, polls=False)
    assert len(world.sent) in (19, 20)


def test_none_goes_out_once_the_queue_was_not_read_for_a_minute_and_the_log_says_so_once(world: World) -> None:
    world.polling.success()
    world.run(RECENT_SECONDS + 5 * INTERVAL, polls=False)
    assert all(moment - 1000 <= RECENT_SECONDS + 0.5 for moment in world.sent)
    assert world.log.events == ["heartbeat-withheld"]
    assert "not read for a minute" in (world.heartbeat.standstill() or "")


def test_a_failing_receive_does_not_count_as_reading(world: World) -> None:
    for _ in range(300):
        world.polling.failure("sqs receive: answered 500")
        world.run(1, polls=False)
    assert len(world.sent) <= 2
    assert "answered 500" in (world.heartbeat.standstill() or "")


def test_they_go_on_soon_after_the_poller_works_again(world: World) -> None:
    world.run(200, polls=False)
    before = len(world.sent)
    world.run(6)
    assert len(world.sent) == before + 1
    assert world.log.events == ["heartbeat-withheld", "heartbeat-resumed"]


def test_an_agent_that_drains_is_alive(world: World) -> None:
    world.draining = True
    world.run(5 * INTERVAL + 1, polls=False)
    assert len(world.sent) == 5


def test_one_that_failed_is_sent_again_before_the_interval_is_over(world: World) -> None:
    world.fault = PlatformError("agent/status", "answered 500", 500)
    world.run(INTERVAL + 12)
    assert 2 <= len(world.tries) <= 4  # the retries are jittered, and at most an interval apart
    assert (world.sent, world.pulse.problem) == ([], "agent/status: answered 500")
    world.fault = None
    world.run(INTERVAL)
    assert (bool(world.sent), world.pulse.problem) == (True, None)
    assert world.log.events == ["heartbeat-failed", "heartbeat-recovered"]


def test_a_platform_that_asks_to_be_called_less_often_is_heard(world: World) -> None:
    world.fault = RateLimited("agent/status", 120.0)
    world.run(INTERVAL + 100)
    assert len(world.tries) == 1
