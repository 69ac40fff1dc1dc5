"""What the log may cost: 500 bytes a command, 30 KB an idle day, 10 MB an idle year, and a bounded day of any failure (docs/logs.md).

The bytes are those on stdout, newlines included. Time is simulated: the loops are the agent's, everything that they call is simulated
(`tests/simulated_agent.py`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from relay_agent.core.errors import (
    Call,
    CredentialsExpired,
    NotThePlatform,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    QueueUnavailable,
    RateLimited,
    UnknownAgent,
)
from relay_agent.core.failures import Code, FaultFacts, Obstacle, StorageTrouble
from relay_agent.core.models import Status
from relay_agent.relay.outbox import Entry
from relay_agent.telemetry.command_report import Report, report_command
from relay_agent.telemetry.metrics import Metrics
from tests.simulated_agent import SimulatedAgent

HOUR = 3600.0
DAY = 24 * HOUR
COMMAND_BYTES = 500
IDLE_DAY_BYTES = 30_000
IDLE_YEAR_BYTES = 10_000_000
SICK_DAY_BYTES = 1_400_000
"""Our own bound on the log of a day on which calls fail: each failure is logged again every five minutes."""


def events(agent: SimulatedAgent) -> Counter[str]:
    return Counter(json.loads(line)["event"] for line in agent.stdout.lines)


# --- commands ---


def _worst(number: int) -> Report:
    """A report as long as its sender and a target can make it, with characters of every length in JSON."""
    stuff = ("x" * 500, "é" * 500, '"\\' * 500, "\x00\n" * 500, "\U0001f600" * 500, "a b=c;" * 90)[number % 6]
    return Report(
        id=f"{number}{stuff}",
        action=f"TetraScience.Connector.{stuff}",
        status=(Status.SUCCESS, Status.FAILURE, Status.REJECTED)[number % 3],
        method=stuff,
        host=f"{stuff}.lab.example",
        port=65_535,
        code=max(Code, key=len),
        status_code=599,
        bytes_in=2**53,
        bytes_out=2**53,
        queued_ms=10**9,
        target_ms=10**9,
        total_ms=10**9,
    )


def test_the_longest_command_is_one_line_of_at_most_500_bytes() -> None:
    agent = SimulatedAgent()
    metrics = Metrics("1", [])
    for number in range(200):
        report_command(agent.logs.logger, metrics, agent.tally, _worst(number))
    assert events(agent) == {"command": 200}
    assert agent.stdout.longest <= COMMAND_BYTES
    assert agent.stdout.bytes <= 200 * COMMAND_BYTES


def test_a_thousand_commands_add_only_their_own_lines() -> None:
    agent = SimulatedAgent(stride_seconds=1)
    agent.run(60)
    before = events(agent)
    for number in range(100):
        agent.answers += [Entry(f"{number}-{place}", "{}", True, 2) for place in range(10)]
        agent.run(10)
    assert events(agent) == before
    agent.run(HOUR)
    assert sum(json.loads(line).get("answers", 0) for line in agent.stdout.lines) == 1000


# --- an idle agent ---


def test_an_idle_day_step_by_step_stays_under_30_kb() -> None:
    """Every step that the threads take in the first 24 hours."""
    agent = SimulatedAgent()
    agent.run(DAY + 60)
    assert agent.steps > 150_000
    assert events(agent) == {"agent-ready": 1, "summary": 24}
    assert agent.stdout.bytes < IDLE_DAY_BYTES
    assert agent.stdout.bytes * 365 < IDLE_YEAR_BYTES
    summaries = [json.loads(line) for line in agent.stdout.lines if '"summary"' in line][1:]
    assert {(line["heartbeats"], line["polls_failed"], line["heartbeats_failed"]) for line in summaries} <= {(119, 0, 0), (120, 0, 0)}
    assert all(178 <= line["polls"] <= 181 and 11 <= line["config_refreshes"] <= 13 for line in summaries)


def test_an_idle_year_stays_under_10_mb_and_no_day_of_it_over_30_kb() -> None:
    """A year in strides: each loop steps every half an hour at most, and then does everything that is due."""
    agent = SimulatedAgent(stride_seconds=1800, watched=False)
    days: list[int] = []
    for _ in range(365):
        before = agent.stdout.bytes
        agent.run(DAY)
        days.append(agent.stdout.bytes - before)
    assert max(days) < IDLE_DAY_BYTES
    assert agent.stdout.bytes < IDLE_YEAR_BYTES
    assert 365 * 24 - 1 <= events(agent)["summary"] <= 365 * 24
    assert agent.shipped >= 365 * 24 - 1


# --- a day on which something fails ---

KINDS: dict[str, PlatformError] = {
    "unreachable": PlatformUnreachable(
        Call.CONFIG,
        "ENOTFOUND: the name api.tetrascience.example is not known",
        FaultFacts(Code.ENOTFOUND, "api.tetrascience.example", 443),
    ),
    "proxy": PlatformUnreachable(
        Call.SQS_RECEIVE,
        "EBADRESPONSE: the proxy http://proxy.lab.example:3128 answered 502 to CONNECT",
        FaultFacts(Code.EBADRESPONSE, "sqs.example", 443, proxy="http://proxy.lab.example:3128", status=502),
    ),
    "unwell": PlatformError(Call.CONFIG, "answered 503", 503),
    "refused": PlatformRefused(Call.CONFIG, "answered 401", 401),
    "unknown": UnknownAgent(Call.CONFIG, "answered 404", 404),
    "limited": RateLimited(Call.CONFIG, 5.0),
    "web page": NotThePlatform(Call.CONFIG, "answered 200 with a web page", 200),
    "credentials": CredentialsExpired(Call.SQS_RECEIVE, "AWS says ExpiredToken", 403),
    "queue": QueueUnavailable(Call.SQS_RECEIVE, "AWS says QueueDoesNotExist", 400),
}


def sick_day(make_ill: Callable[[SimulatedAgent], None], seconds: float = DAY) -> SimulatedAgent:
    """A healthy hour, then a day of failures, with an answer that waits to be sent all the time."""
    agent = SimulatedAgent(stride_seconds=20.0)
    agent.run(HOUR)
    make_ill(agent)
    agent.answers.append(Entry("waiting", "{}", True, 2))
    agent.run(seconds)
    assert not agent.given_up
    return agent


def all_fail(error: PlatformError) -> Callable[[SimulatedAgent], None]:
    def make_ill(agent: SimulatedAgent) -> None:
        agent.fault = lambda _call, _number: error

    return make_ill


@pytest.mark.parametrize("kind", KINDS)
def test_a_day_on_which_every_call_fails_is_bounded(kind: str) -> None:
    """The first six hours, in which the log has more lines than later, may take a quarter of the day's bytes."""
    agent = sick_day(all_fail(KINDS[kind]), DAY / 4)
    assert {"poll-failed", "send-failed", "platform-failed"} <= set(events(agent))
    assert events(agent)["platform-failed"] <= DAY / 4 / 60 + 3
    assert agent.stdout.bytes < SICK_DAY_BYTES / 4


def test_a_day_of_always_different_reasons_is_bounded() -> None:
    kinds = list(KINDS.values())

    def make_ill(agent: SimulatedAgent) -> None:
        agent.fault = lambda call, number: PlatformError(call, f"answered 5{number % 100:02}") if number % 2 else kinds[number % len(kinds)]

    assert sick_day(make_ill).stdout.bytes < SICK_DAY_BYTES


def test_a_day_on_which_every_second_call_fails_has_at_most_two_lines_for_each_failure() -> None:
    """This failure is logged each time, because it starts and ends each time."""
    failures = 0

    def make_ill(agent: SimulatedAgent) -> None:
        def fault(_call: str, number: int) -> PlatformError | None:
            nonlocal failures
            failures += number % 2
            return KINDS["unwell"] if number % 2 else None

        agent.fault = fault

    agent = sick_day(make_ill)
    count = sum(number for event, number in events(agent).items() if event.endswith(("-failed", "-recovered")))
    assert 0 < count <= 2 * failures
    assert agent.stdout.bytes < 4 * SICK_DAY_BYTES


def test_a_day_without_cloudwatch_is_a_few_lines_on_stdout() -> None:
    def make_ill(agent: SimulatedAgent) -> None:
        agent.refuse_logs = "AccessDeniedException"

    agent = sick_day(make_ill)
    assert events(agent)["log-delivery-failed"] == 1
    assert agent.stdout.bytes < IDLE_DAY_BYTES


@pytest.mark.parametrize("where", ["disk", "journal", "backlog"])
def test_a_day_of_a_full_disk_is_bounded_and_names_the_directory(where: str) -> None:
    def make_ill(agent: SimulatedAgent) -> None:
        if where == "journal":
            agent.unwritable = Obstacle("the journal cannot be written: disk full", StorageTrouble.FULL)
        elif where == "disk":
            agent.disk.obstacle = Obstacle("the disk of the state directory is full", StorageTrouble.FULL)
        else:
            agent.disk.backlog = True

    agent = sick_day(make_ill)
    logged: dict[str, Any] = next(line for line in map(json.loads, agent.stdout.lines) if line["event"] in ("disk-full", "backlog-full"))
    assert "by itself" in logged["cure"]
    assert where == "backlog" or logged["directory"] == "/var/lib/relay-agent"
    assert agent.stdout.bytes < SICK_DAY_BYTES / 2
