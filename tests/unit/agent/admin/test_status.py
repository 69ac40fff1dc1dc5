"""Whether the agent is alive and ready, the most telling reason first; what else is wrong; and the sentence for people.

Journal, disk, queue, threads and watchdog are real, and the time is the test's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from relay_agent.agent.admin.status import Logging
from relay_agent.core.errors import Call, PlatformRefused
from relay_agent.core.failures import Cause, Obstacle, StorageTrouble
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.local_causes import BACKLOG, DEAD, KEYS, STOPPING, STUCK, TOKEN_ENDS, journal_cause, token_expired
from relay_agent.diagnostics.platform_causes import (
    AGENT_DISABLED,
    NO_ANSWERS,
    NO_LOGS,
    NOT_READ,
    QUEUE_DISABLED,
    REFUSED,
    SQS_UNREACHABLE,
    STARTING,
    UNREACHABLE,
    cause_of,
)
from relay_agent.diagnostics.watchdog import RECENT_SECONDS
from tests.unit.agent.admin.statuses import NOW, World
from tests.unit.storage.scenes import admitted, outcome

REFUSAL = PlatformRefused(Call.STATUS, "answered 401", 401)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


# --- alive and ready ---


def test_an_agent_in_which_everything_works_is_alive_and_ready_without_a_warning(world: World) -> None:
    assert (world.status.live(), world.status.ready(), world.warned()) == ([], [], [])
    assert world.sentence() == ("ready", "Ready: waiting for commands.")


def test_a_dead_core_thread_makes_the_agent_neither_alive_nor_ready(world: World) -> None:
    world.dead.loop.start()
    world.dead.loop.join(10)
    assert [problem.reason for problem in world.status.live()] == ["the thread sender is dead"]
    assert world.causes() == [DEAD]


@pytest.mark.parametrize(("seconds", "causes"), [(RECENT_SECONDS, []), (RECENT_SECONDS + 1, [STUCK])])
def test_a_loop_that_is_silent_for_a_minute_is_a_problem(world: World, seconds: float, causes: list[Cause]) -> None:
    world.pass_time(seconds, "heartbeat")
    assert ([problem.cause for problem in world.status.live()], world.causes()) == (causes, causes)


@pytest.mark.parametrize(("loop", "cause"), [("poller", NOT_READ), ("sender", NO_ANSWERS)])
def test_a_queue_that_is_not_read_or_answered_makes_the_agent_not_ready_but_leaves_it_alive(world: World, loop: str, cause: Cause) -> None:
    world.pass_time(RECENT_SECONDS + 1, loop)
    world.loops[loop].begin("trying")
    assert (world.status.live(), world.causes()) == ([], [cause])


def test_an_agent_that_stops_is_alive_whatever_is_wrong_and_not_ready_for_that_reason_alone(world: World) -> None:
    world.pass_time(RECENT_SECONDS + 1, "poller")
    world.stops.intake.set()
    assert (world.status.live(), world.causes()) == ([], [STOPPING])
    assert world.sentence()[0] == "stopping"


# --- the platform's reasons, of which only the most telling counts ---


def token(world: World) -> Cause:
    world.token_ends = NOW
    return token_expired(NOW)


def refused(world: World) -> Cause:
    world.platform.refused = REFUSED
    return REFUSED


def disabled(world: World) -> Cause:
    world.platform.disabled = True
    return AGENT_DISABLED


def starting(world: World) -> Cause:
    world.platform.registered = False
    return STARTING


def offline(world: World) -> Cause:
    world.platform.failures = 3
    return starting(world)


def rejected(world: World) -> Cause:
    world.platform.rejected = REFUSAL
    return cause_of(REFUSAL)


def queue_disabled(world: World) -> Cause:
    world.platform.queue_disabled = True
    return QUEUE_DISABLED


def heartbeat_refused(world: World) -> Cause:
    world.loops["heartbeat"].failure("answered 403", REFUSED)
    return REFUSED


def never_polled(world: World) -> Cause:
    world.loops["poller"].failure("no answer", SQS_UNREACHABLE)
    return SQS_UNREACHABLE


REASONS: list[Callable[[World], Cause]] = [
    token,
    refused,
    disabled,
    starting,
    rejected,
    queue_disabled,
    heartbeat_refused,
    never_polled,
]
"""The most telling first."""


@pytest.mark.parametrize("place", range(len(REASONS)), ids=[reason.__name__ for reason in REASONS])
def test_each_reason_of_the_platform_hides_those_that_follow_from_it(world: World, place: int) -> None:
    cause = REASONS[place](world)
    assert world.causes() == [cause]
    for less_telling in REASONS[place + 1 :]:
        less_telling(world)
    assert world.causes() == [cause]


def test_if_the_agent_cannot_register_the_reason_names_the_failed_registration(world: World) -> None:
    world.platform.registered = False
    world.loops["config-refresh"].failure("connect ECONNREFUSED", UNREACHABLE)
    assert [(problem.reason, problem.cause) for problem in world.status.ready()] == [("connect ECONNREFUSED", UNREACHABLE)]


def test_other_failures_of_the_heartbeat_and_of_a_poller_that_has_worked_are_warnings(world: World) -> None:
    world.loops["poller"].success()
    world.loops["poller"].failure("no answer", SQS_UNREACHABLE)
    world.loops["heartbeat"].failure("no answer", UNREACHABLE)
    assert (world.causes(), world.warned()) == ([], [SQS_UNREACHABLE, UNREACHABLE])


# --- the disk ---


def test_a_commit_that_failed_is_a_problem_with_the_cause_of_its_disk(world: World) -> None:
    world.journal.writer.unwritable = Obstacle("the disk is full", StorageTrouble.FULL)
    assert [(problem.reason, problem.cause) for problem in world.status.ready()] == [
        ("the disk is full", journal_cause(StorageTrouble.FULL))
    ]


@pytest.mark.parametrize(("seconds", "ready"), [(10.0, True), (10.1, False)])
def test_a_commit_that_takes_longer_than_ten_seconds_is_a_problem(world: World, seconds: float, ready: bool) -> None:
    found: list[list[Problem]] = []

    def slow(_connection: object) -> None:
        world.time += seconds
        found.append(world.status.ready())

    world.journal.writer.commit(slow)
    assert [bool(problems) for problems in found] == [not ready]


# --- warnings ---


@pytest.mark.parametrize(("days", "warned"), [(31, False), (30, False), (29, True)])
def test_a_token_that_expires_within_thirty_days_is_a_warning(world: World, days: int, warned: bool) -> None:
    world.token_ends = NOW + timedelta(days=days)
    found = world.status.warnings([])
    assert [problem.cause.id for problem in found] == ([TOKEN_ENDS.id] if warned else [])
    assert not warned or f"{days} days" in found[0].cause.cause + found[0].cause.cure


def test_a_loop_s_problem_is_no_warning_if_it_is_shown_already_or_has_no_cause(world: World) -> None:
    world.loops["heartbeat"].failure("no answer", UNREACHABLE)
    world.loops["sender"].failure("something")
    assert world.status.warnings([Problem("no answer", UNREACHABLE)]) == []


def test_log_lines_that_are_not_delivered_and_other_problems_are_warnings(world: World) -> None:
    world.logs, world.others = Logging(7, 2, "no answer"), [Problem("more than 2 GB wait", BACKLOG), Problem("no key", KEYS)]
    assert world.warned() == [NO_LOGS, BACKLOG, KEYS]


# --- the page ---


def test_the_sentence_names_the_first_problem_s_cause_and_counts_the_others(world: World) -> None:
    world.journal.writer.unwritable = Obstacle("the disk is full", StorageTrouble.FULL)
    world.platform.queue_disabled = True
    assert world.sentence() == ("not ready", f"Not ready: {QUEUE_DISABLED.cause} (and 1 more).")


@pytest.mark.parametrize(
    ("break_it", "state"), [(disabled, "disabled"), (starting, "starting"), (offline, "offline"), (rejected, "not ready")]
)
def test_the_state_says_why_the_agent_is_not_ready(world: World, break_it: Callable[[World], Cause], state: str) -> None:
    cause = break_it(world)
    assert world.sentence() == (state, f"{state.capitalize()}: {cause.cause}.")


def test_the_sentence_of_a_busy_agent_says_how_busy(world: World) -> None:
    world.tasks.put(("a", "one"))
    world.tasks.get()
    assert world.sentence()[1] == "Ready: 1 of 3 workers are busy."
    world.tasks.put(("a", "two"))
    assert world.sentence()[1] == "Ready: 1 of 3 workers are busy, 1 more commands are waiting."


def test_the_page_shows_counts_times_and_threads(world: World) -> None:
    admitted(world.journal, "a", "b")
    world.loops["poller"].success()
    world.time += 5.0
    world.untold, world.logs, world.platform.refreshed = 4, Logging(7, 2, None), NOW
    world.throughput.count(failed=True)
    page = world.status.status()
    assert page["agent"] == {"id": "agent-1", "name": "the lab's", "organisation": "acme", "apiTarget": "https://api.lab.example"}
    assert (page["time"], page["started"], page["uptimeSeconds"]) == ("2026-03-01T12:00:05Z", "2026-03-01T12:00:00Z", 5)
    assert (page["lastReceive"], page["lastHeartbeat"], page["lastConfiguration"]) == ("2026-03-01T12:00:00Z", None, "2026-03-01T12:00:00Z")
    assert (page["tokenEnds"], page["credentialsEnd"]) == (None, "2026-03-01T13:00:00Z")
    assert (page["queue"], page["workers"], page["untold"]) == (
        {"enabled": True, "waiting": 0, "capacity": 100, "shared": False},
        {"busy": 0, "total": 3},
        4,
    )
    assert (page["journal"]["admitted"], page["journal"]["bytes"] > 0) == (2, True)
    assert (page["logLines"], page["lastHour"][-1]) == ({"waiting": 7, "dropped": 2}, [1, 1])
    assert page["threads"] == [{"name": "sender", "alive": True, "activity": "sending", "silentSeconds": 5.0, "problem": None}]


def test_a_journal_that_cannot_be_read_leaves_the_rest_of_the_page(world: World, tmp_path: Path) -> None:
    """The reader has a connection of its own, which opens the file for each page."""
    for path in tmp_path.glob("journal.db*"):
        path.unlink()
    page = world.status.status()
    assert ("admitted" in page["journal"], page["state"], world.status.recent()) == (False, "ready", [])


def test_recent_commands_come_from_the_journal(world: World) -> None:
    admitted(world.journal, "a")
    world.journal.finish(outcome("a"))
    assert [(one.id, one.status) for one in world.status.recent()] == [("a", "SUCCESS")]


def test_the_metrics_have_only_moments_that_have_been(world: World) -> None:
    assert world.status.moments() == {"start": NOW.timestamp(), "credentials_expiry": (NOW + timedelta(hours=1)).timestamp()}
    world.loops["heartbeat"].success()
    world.time += 5.0
    world.token_ends = NOW + timedelta(days=90)
    found = world.status.moments()
    assert (found["last_heartbeat"], found["token_expiry"]) == (NOW.timestamp(), world.token_ends.timestamp())
    assert "last_receive" not in found
