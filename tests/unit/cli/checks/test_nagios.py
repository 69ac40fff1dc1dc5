"""`check --nagios`: the state that follows from the checks and the running agent, and a line that a plugin may print."""

from __future__ import annotations

import re
from typing import Any

import pytest

from relay_agent.cli.checks.nagios import MAX_CHARACTERS, RunningAgent, State, plugin_output, unknown
from relay_agent.cli.checks.result import Check, Status, error, ok, warning
from relay_agent.diagnostics import local_causes, platform_causes
from tests.unit.cli.checks.scenes import BAD, GOOD, NOW

STATUS: dict[str, Any] = {
    "state": "ready",
    "sentence": "Ready: waiting for commands.",
    "queue": {"waiting": 3, "capacity": 1000},
    "workers": {"busy": 2, "total": 16},
    "untold": 4,
    "journal": {"bytes": 4096},
    "lastReceive": "2026-11-23T03:12:50Z",
    "lastHeartbeat": "2026-11-23T03:12:40Z",
    "tokenEnds": "2026-12-03T03:13:00Z",
}
READY = RunningAgent(STATUS)
NOT_READY = RunningAgent({**STATUS, "state": "not ready", "sentence": "Not ready: the queue was not read."})
ABSENT = RunningAgent(None, "no agent runs on /var/lib/relay-agent", absent=True)
OTHERS = RunningAgent(None, "/s/admin.sock belongs to another user")
WARNED = warning(platform_causes.SLOW.about(seconds="3"), "answers late")
INVALID = error(local_causes.CONFIGURATION.about(problems="JWT: is not set\nORG_SLUG: is not set"), "invalid: JWT, ORG_SLUG")
SKIPPED = Check("sqs", Status.SKIPPED, "waits for platform")
# https://www.monitoring-plugins.org/doc/guidelines.html: 'label'=value[UOM];[warn];[crit];[min];[max]
PERFORMANCE = re.compile(r"[a-z_]+=-?[0-9.]+(s|B|%|c)?(;[0-9.:~@-]*){0,4}")


def output(checks: list[Check], agent: RunningAgent = READY) -> tuple[State, str]:
    return plugin_output(checks, agent, NOW, 1.234)


@pytest.mark.parametrize(
    "checks, agent, state, words",
    [
        ([GOOD, SKIPPED], READY, State.OK, "the agent is ready, 1 checks passed"),
        ([GOOD, WARNED], READY, State.WARNING, "platform: answers late"),
        ([GOOD, WARNED, BAD], READY, State.CRITICAL, f"{BAD.id}: the platform answered 401; platform: answers late; cure: "),
        ([GOOD], NOT_READY, State.CRITICAL, "Not ready: the queue was not read"),
        ([GOOD], ABSENT, State.CRITICAL, "no agent runs on /var/lib/relay-agent"),
        ([INVALID], ABSENT, State.CRITICAL, "no agent runs"),
        ([INVALID], READY, State.UNKNOWN, "configuration: invalid: JWT, ORG_SLUG"),
        ([GOOD], OTHERS, State.UNKNOWN, "belongs to another user"),
        ([BAD], OTHERS, State.CRITICAL, "the platform answered 401"),
    ],
)
def test_the_worst_of_checks_and_agent_is_the_state(checks: list[Check], agent: RunningAgent, state: State, words: str) -> None:
    found, line = output(checks, agent)
    assert found is state
    assert line.startswith(f"RELAY AGENT {state.name} - ")
    assert words in line


def test_a_site_without_secure_commands_is_not_warned_for_ever() -> None:
    assert output([GOOD, warning(local_causes.NO_KEY, "no key for secure commands", optional=True)])[0] is State.OK
    assert output([GOOD, warning(local_causes.KEYS, "the new key is unusable")])[0] is State.WARNING


def test_the_performance_data_are_numbers_with_their_limits() -> None:
    _, line = output([GOOD, WARNED])
    data = line.partition(" | ")[2].split(" ")
    assert [one for one in data if not PERFORMANCE.fullmatch(one)] == []
    assert data == [
        "errors=0;;0;0",
        "warnings=1;0;;0",
        "time=1.23s;;;0;30",
        "waiting=3;;;0;1000",
        "busy=2;;;0;16",
        "unsent=4;;;0",
        "journal=4096B;;;0",
        "last_receive=10s;;;0",
        "last_heartbeat=20s;;;0",
        "token_days=10;30:;3:",
    ]


def test_what_a_starting_agent_does_not_know_is_left_out() -> None:
    starting = RunningAgent({"state": "starting", "sentence": "Starting", "lastReceive": None, "tokenEnds": None, "journal": {}})
    assert output([GOOD], starting)[1].partition(" | ")[2] == "errors=0;;0;0 warnings=0;0;;0 time=1.23s;;;0;30"


def test_an_expired_token_has_negative_days() -> None:
    agent = RunningAgent({**STATUS, "tokenEnds": "2026-11-21T03:13:00Z"})
    assert "token_days=-2;30:;3:" in output([GOOD], agent)[1]


def test_no_text_breaks_the_line() -> None:
    odd = Check("platform", Status.ERROR, "a|b\nc " + "x" * 5000, "cause", "cure|\n")
    _, line = output([odd])
    text, bar, data = line.partition(" | ")
    assert (line.count("|"), line.count("\n"), bar) == (1, 0, " | ")
    assert len(text) <= MAX_CHARACTERS + 40
    assert data.startswith("errors=1")


def test_what_could_not_be_checked_is_unknown_and_has_no_data() -> None:
    assert unknown("no such file | x") == (State.UNKNOWN, "RELAY AGENT UNKNOWN - no such file / x")


def test_a_check_that_passed_does_not_show() -> None:
    assert output([ok("token", "valid until 2027")])[1].startswith("RELAY AGENT OK - the agent is ready, 1 checks passed |")
