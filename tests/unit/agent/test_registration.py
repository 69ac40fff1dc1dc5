"""Registration with the platform: at start, giving up, disabled and enabled again, and the renewal of configuration and credentials."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.agent.registration import MIN_REFRESH_INTERVAL_SECONDS, QUIET_SECONDS, TICK_SECONDS, Registration
from relay_agent.core.clock import Clock
from relay_agent.core.errors import Call, PlatformError, PlatformRefused, RateLimited, UnknownAgent
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.tdp.client import AgentDisabled, PlatformClient
from relay_agent.tdp.rest import AgentConfig, AgentState
from relay_agent.telemetry.hourly_summary import Tally
from relay_agent.telemetry.logger import Logger

REFRESH = 300.0
METRICS = 300.0
LOOK = 30.0
CONFIG = AgentConfig("agent", "eu-west-1", "group", "https://sqs/in", "https://sqs/out")
QUEUE_OFF = AgentConfig("agent", "eu-west-1", "group", None, "https://sqs/out")
DOWN = PlatformError(Call.CONFIG, "ECONNREFUSED: connect refused")
REFUSED = PlatformRefused(Call.CONFIG, "answered 401", 401)
UNKNOWN = UnknownAgent(Call.CONFIG, "answered 404", 404)
DISABLED = AgentDisabled(Call.CONFIG, "the agent is disabled")


class Lines:
    """A stub logger that keeps its lines."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.text = ""

    def debug(self, event: str, **fields: Any) -> None:
        self.events.append(event)
        self.text += f"{event} {fields}\n"

    info = warning = error = debug


class Platform:
    """A platform in memory: `calls` holds (time, name), `faults` what a call raises, by name."""

    def __init__(self, now: Clock) -> None:
        self._clock = now
        self.answer = CONFIG
        self.config: AgentConfig | None = None
        self.faults: dict[str, PlatformError] = {}
        self.calls: list[tuple[float, str]] = []
        self.renewals_due = float("inf")
        self.record = AgentState(None, None)
        self.rest = SimpleNamespace(
            report=self._report, heartbeat=lambda: self._call("heartbeat"), system_metrics=lambda _: self._call("metrics")
        )
        self.credentials = SimpleNamespace(
            renew=self._renew, due_seconds=lambda: max(0.0, self.renewals_due - now.monotonic()), access_key_in_use="AKIA1"
        )

    def replaced(self, _queue: object) -> bool:
        return False

    def state(self) -> AgentState:
        self._call("look")
        return self.record

    def refresh_config(self) -> bool:
        self._call("config")
        changed, self.config = self.config != self.answer, self.answer
        return changed

    def names(self) -> list[str]:
        return [name for _, name in self.calls]

    def moments(self, name: str) -> list[float]:
        return [moment for moment, called in self.calls if called == name]

    def _report(self, setting: str) -> None:
        self._call(setting)

    def _renew(self, _refused: str | None) -> None:
        self._call("credentials")
        self.renewals_due = self._clock.monotonic() + 3000

    def _call(self, name: str) -> None:
        self.calls.append((self._clock.monotonic(), name))
        if name in self.faults:
            raise self.faults[name]


class World:
    def __init__(self) -> None:
        self.time = 0.0
        clock = Clock(now=lambda: datetime(2026, 3, 1, tzinfo=UTC), monotonic=lambda: self.time)
        self.platform = Platform(clock)
        self.platform_status = PlatformStatus()
        self.status = LoopStatus(clock)
        self.log = Lines()
        self.given_up: list[tuple[float, int, str]] = []
        self.registration = Registration(
            platform=cast("PlatformClient", self.platform),
            platform_status=self.platform_status,
            refresh_seconds=REFRESH,
            look_seconds=LOOK,
            metrics_seconds=METRICS,
            metrics=lambda: b"{}\n",
            give_up=lambda code, reason: self.given_up.append((self.time, code, reason)),
            loop=LoopContext(self.status, Tally(), cast("Logger", self.log), clock),
        )

    def run(self, seconds: float) -> None:
        """Run the loop for `seconds` of simulated time."""
        end = self.time + seconds
        while self.time < end and not self.given_up:
            self.time += self.registration.step()


@pytest.fixture
def world() -> World:
    return World()


# --- at start ---


def test_the_agent_registers_in_one_step(world: World) -> None:
    world.registration.step()
    assert world.platform.names()[:4] == ["config", "credentials", "STARTED", "heartbeat"]
    assert (world.platform_status.registered, world.platform_status.ready.is_set(), world.platform_status.may_poll) == (True, True, True)
    assert world.log.events == ["agent-ready"]


@pytest.mark.parametrize(("fault", "words"), [(REFUSED, "ORG_SLUG and JWT do not match"), (UNKNOWN, "no agent with the id AGENT_ID")])
def test_a_refusal_at_start_gets_three_tries_within_15_s_and_then_exit_3_with_its_cause(
    world: World, fault: PlatformError, words: str
) -> None:
    world.platform.faults["config"] = fault
    world.run(60)
    ((moment, code, reason),) = world.given_up
    assert code == 3
    assert moment <= 15
    assert words in reason
    assert world.platform.names() == ["config"] * 3
    assert not world.platform_status.ready.is_set()


@pytest.mark.parametrize("call", ["credentials", "STARTED", "heartbeat"])
def test_a_refusal_of_a_later_call_of_the_registration_counts_too(world: World, call: str) -> None:
    world.platform.faults[call] = PlatformRefused(call, "answered 403", 403)
    world.run(60)
    assert [code for _, code, _ in world.given_up] == [3]
    assert not world.platform_status.registered


def test_an_unreachable_platform_is_retried_with_capped_backoff_and_logged_once_a_minute_after_the_first_three(world: World) -> None:
    world.platform.faults["config"] = DOWN
    world.run(1800)
    tries = world.platform.moments("config")
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert world.given_up == []
    assert waits[0] <= 1.5
    assert all(25 <= wait <= 61 for wait in waits[10:])
    assert world.log.events[:3] == ["platform-failed"] * 3
    assert 3 <= len(world.log.events) <= 3 + 31
    world.platform.faults.clear()
    world.run(62)
    assert world.platform_status.registered
    assert world.log.events[-2:] == ["platform-recovered", "agent-ready"]


def test_retry_after_is_respected(world: World) -> None:
    world.platform.faults["config"] = RateLimited(Call.CONFIG, 120.0)
    world.run(119)
    assert world.platform.names() == ["config"]
    world.run(3)
    assert world.platform.names() == ["config"] * 2


def test_an_agent_disabled_at_start_logs_that_once_and_starts_within_one_refresh_of_being_enabled(world: World) -> None:
    world.platform.faults["config"] = DISABLED
    world.run(2 * REFRESH)
    assert world.log.events == ["agent-disabled"]
    assert "enable the agent's connection" in world.log.text
    assert (world.platform_status.ready.is_set(), world.platform_status.may_poll, world.given_up) == (True, False, [])
    world.platform.faults.clear()
    world.run(REFRESH + 1)
    assert world.platform.names().count("STARTED") == 1
    assert (world.platform_status.may_poll, world.platform_status.disabled) == (True, False)
    assert world.log.events == ["agent-disabled", "agent-enabled", "agent-ready"]


def test_a_disabled_queue_is_logged_once_and_the_agent_is_ready(world: World) -> None:
    world.platform.answer = QUEUE_OFF
    world.run(3 * REFRESH)
    assert world.log.events == ["queue-disabled", "agent-ready"]
    assert "enable the agent's queue" in world.log.text
    assert world.platform_status.may_poll
    assert world.platform_status.queue_disabled
    world.platform.answer = CONFIG
    world.run(REFRESH + 1)
    assert not world.platform_status.queue_disabled
    assert world.log.events[-1] == "config-changed"


# --- enabled and disabled in service ---

ON, OFF, NO_QUEUE, UNKNOWN_STATE = AgentState(True, True), AgentState(False, True), AgentState(True, False), AgentState(None, None)


def test_an_agent_or_a_queue_that_is_disabled_is_noticed_within_a_heartbeat_and_enabled_again_too(world: World) -> None:
    world.platform.record = ON
    world.run(2 * LOOK)
    world.platform.record, world.platform.faults["config"] = OFF, DISABLED
    world.run(LOOK + 1)
    assert world.platform_status.disabled
    world.platform.record = ON
    world.platform.faults.clear()
    world.run(LOOK + 1)
    assert not world.platform_status.disabled
    world.platform.record, world.platform.answer = NO_QUEUE, QUEUE_OFF
    world.run(LOOK + 1)
    assert world.platform_status.queue_disabled
    world.platform.record, world.platform.answer = ON, CONFIG
    world.run(LOOK + 1)
    assert not world.platform_status.queue_disabled
    assert world.log.events[:4] == ["agent-ready", "agent-disabled", "agent-enabled", "queue-disabled"]


@pytest.mark.parametrize("record", [ON, UNKNOWN_STATE])
def test_as_long_as_nothing_is_switched_the_configuration_is_not_read_more_often(world: World, record: AgentState) -> None:
    world.platform.record = record
    world.run(REFRESH - 1)
    assert len(world.platform.moments("config")) == 1
    assert len(world.platform.moments("look")) == REFRESH / LOOK - 1


def test_a_record_that_contradicts_the_configuration_is_followed_up_once(world: World) -> None:
    world.platform.record = NO_QUEUE
    world.run(REFRESH - 1)
    assert len(world.platform.moments("config")) == 2


def test_while_the_configuration_cannot_be_read_nobody_looks(world: World) -> None:
    world.run(1)
    world.platform.faults["config"] = DOWN
    world.run(REFRESH + 100)
    before = len(world.platform.moments("look"))
    world.run(200)
    assert len(world.platform.moments("look")) == before


def test_after_three_failures_in_a_row_an_agent_that_was_never_registered_is_offline(world: World) -> None:
    world.platform.faults["config"] = DOWN
    while len(world.platform.calls) < 3:
        assert not world.platform_status.offline
        world.time += world.registration.step()
    assert world.platform_status.offline
    world.platform.faults.clear()
    world.run(62)
    assert (world.platform_status.offline, world.platform_status.failures) == (False, 0)
    world.platform.faults["config"] = DOWN
    world.run(REFRESH + 200)
    assert not world.platform_status.offline  # It is registered: `not ready` says more.


# --- in service ---


def test_the_configuration_is_read_every_refresh_and_metrics_are_uploaded(world: World) -> None:
    world.run(3 * REFRESH + 10)
    assert len(world.platform.moments("config")) == 4
    assert len(world.platform.moments("metrics")) == 4
    assert world.platform.names().count("STARTED") == 1


def test_a_refusal_in_service_is_logged_and_ends_without_a_restart(world: World) -> None:
    world.run(1)
    world.platform.faults["config"] = REFUSED
    world.run(REFRESH + 600)
    assert world.given_up == []
    assert world.platform_status.refused is not None
    assert world.platform_status.may_poll
    world.platform.faults.clear()
    world.run(62)
    assert world.platform_status.refused is None


def test_an_agent_disabled_in_service_stops_polling_and_resumes_without_registering_again(world: World) -> None:
    world.run(1)
    world.platform.faults["config"] = DISABLED
    world.run(REFRESH + 1)
    assert (world.platform_status.may_poll, world.platform_status.registered) == (False, True)
    world.platform.faults.clear()
    world.run(REFRESH + 1)
    assert world.platform_status.may_poll
    assert world.platform.names().count("STARTED") == 1


def test_a_disabled_agent_is_no_longer_called_refused(world: World) -> None:
    world.run(1)
    world.platform.faults["config"] = REFUSED
    world.run(REFRESH + 1)
    world.platform.faults["config"] = DISABLED
    world.run(62)
    assert world.platform_status.disabled
    assert world.platform_status.refused is None


def test_a_requested_refresh_comes_soon_and_at_most_every_five_seconds(world: World) -> None:
    world.run(60)
    before = len(world.platform.moments("config"))
    while world.time < 80:
        world.platform_status.refresh_requested.set()
        world.run(TICK_SECONDS)
    asked = world.platform.moments("config")[before:]
    assert asked[0] <= 60 + QUIET_SECONDS
    assert 3 <= len(asked) <= 20 / MIN_REFRESH_INTERVAL_SECONDS + 1


def test_a_requested_refresh_does_not_shorten_retry_after(world: World) -> None:
    world.run(60)
    world.platform.faults["config"] = RateLimited(Call.CONFIG, 120.0)
    before = len(world.platform.moments("config"))
    for _ in range(100):
        world.platform_status.refresh_requested.set()
        world.run(TICK_SECONDS)
    assert len(world.platform.moments("config")) == before + 1


def test_credentials_are_renewed_when_they_are_due_and_not_before(world: World) -> None:
    world.run(2900)
    assert len(world.platform.moments("credentials")) == 1
    world.run(200)
    assert len(world.platform.moments("credentials")) == 2


def test_a_failed_renewal_of_credentials_is_retried_with_backoff(world: World) -> None:
    world.run(1)
    world.platform.renewals_due = world.time
    world.platform.faults["credentials"] = RateLimited(Call.CREDENTIALS, 60.0)
    before = len(world.platform.moments("credentials"))
    world.run(60)
    assert len(world.platform.moments("credentials")) - before <= 5


def test_a_failed_renewal_of_credentials_does_not_reset_the_backoff_of_the_configuration(world: World) -> None:
    world.run(1)
    world.platform.renewals_due = world.time
    world.platform.faults |= {"credentials": DOWN, "config": RateLimited(Call.CONFIG, 120.0)}
    before = len(world.platform.moments("config"))
    world.run(100)
    assert len(world.platform.moments("config")) - before <= 2


def test_metrics_that_cannot_be_uploaded_wait_for_the_next_interval(world: World) -> None:
    world.platform.faults["metrics"] = PlatformError(Call.METRICS, "answered 500", 500)
    world.run(METRICS - 10)
    assert len(world.platform.moments("metrics")) == 1
    assert world.platform_status.may_poll


def test_the_loop_updates_its_status_whatever_the_platform_answers(world: World) -> None:
    world.platform.faults["config"] = DOWN
    world.run(100)
    assert world.status.seconds_since_iteration() <= TICK_SECONDS
