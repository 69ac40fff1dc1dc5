"""What a running agent reports of itself, and how it is combined with the checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from relay_agent.agent.admin.server import Admin
from relay_agent.cli.checks.result import Check, Status, error, ok, warning
from relay_agent.cli.checks.running_agent import ReportedProblem, add_reported, reported_problems
from relay_agent.diagnostics import platform_causes
from tests.unit.agent.admin.scenes import Known, looping

PROBLEM = {"check": "sqs", "reason": "no answer", "cause": "SQS is down", "cure": "wait"}
WARNING = {"check": "cloudwatch", "reason": "no group", "cause": "it is gone", "cure": "create it"}
WHOLE = dict.fromkeys(("state", "sentence", "agent", "time", "workers", "queue", "journal", "threads", "logLines"), None)
REPORTED = ReportedProblem("sqs", Status.ERROR, "no answer", "SQS is down", "wait")


class Telling(Known):
    """An agent with this status."""

    def __init__(self, status: Any) -> None:
        self._status = status

    def status(self) -> Any:
        return self._status


def words(directory: Path, status: Any) -> list[ReportedProblem]:
    admin = Admin(Telling(status), lambda: b"", None, directory / "admin.sock", cast("Any", None), {})
    try:
        with looping(admin):
            return reported_problems(directory)
    finally:
        admin.close()


def test_a_running_agent_s_problems_are_errors_and_come_before_its_warnings(tmp_path: Path) -> None:
    found = words(tmp_path, {**WHOLE, "problems": [PROBLEM], "warnings": [WARNING]})
    assert found == [REPORTED, ReportedProblem("cloudwatch", Status.WARNING, "no group", "it is gone", "create it")]


def test_an_agent_in_which_nothing_is_wrong_says_nothing(tmp_path: Path) -> None:
    assert words(tmp_path, {**WHOLE, "problems": [], "warnings": []}) == []


@pytest.mark.parametrize(
    "status",
    [
        {},
        {**WHOLE, "problems": [], "warning": []},
        {**WHOLE, "problems": [{"check": "sqs"}], "warnings": []},
        {**WHOLE, "problems": 5, "warnings": []},
    ],
    ids=json.dumps,
)
def test_an_agent_of_another_version_says_nothing_that_can_be_used(tmp_path: Path, status: Any) -> None:
    assert words(tmp_path, status) == []


def test_where_no_agent_runs_nobody_says_anything(tmp_path: Path) -> None:
    assert reported_problems(tmp_path) == []
    (tmp_path / "admin.sock").write_text("")
    assert reported_problems(tmp_path) == []


# --- beside the checks ---


def test_a_check_that_passed_takes_over_what_the_agent_reports_of_it() -> None:
    (found,) = add_reported([ok("sqs", "the queues accept the agent")], [REPORTED])
    assert (found.status, found.cause, found.cure) == (Status.ERROR, "SQS is down", "wait")
    assert found.summary == "the queues accept the agent; but the running agent reports: no answer"


@pytest.mark.parametrize(
    "check",
    [
        error(platform_causes.SLOW, "x", "sqs"),
        Check("sqs", Status.SKIPPED, "waits for credentials"),
    ],
    ids=["error", "skipped"],
)
def test_a_check_that_found_something_itself_stays_as_it_is(check: Check) -> None:
    assert add_reported([check], [REPORTED]) == [check]


def test_an_agent_that_is_not_ready_makes_an_error_of_a_warning_and_a_warning_leaves_it() -> None:
    found = warning(platform_causes.SLOW, "it is slow", "sqs")
    (worse,) = add_reported([found], [ReportedProblem("sqs", Status.ERROR, "it refuses", "a policy", "ask")])
    assert (worse.status, worse.cause, "it is slow; but the running agent reports: it refuses" in worse.summary) == (
        Status.ERROR,
        "a policy",
        True,
    )
    assert add_reported([found], [ReportedProblem("sqs", Status.WARNING, "r", "c", "c")]) == [found]


def test_a_check_of_which_the_agent_says_nothing_stays_as_it_is() -> None:
    assert add_reported([ok("token", "valid")], [REPORTED]) == [ok("token", "valid")]


@pytest.mark.parametrize(("check", "status"), [("cloudwatch", Status.WARNING), ("secure-key", Status.WARNING), ("sqs", Status.ERROR)])
def test_what_is_never_an_error_is_none_either_if_the_agent_says_so(check: str, status: Status) -> None:
    (found,) = add_reported([ok(check, "fine")], [ReportedProblem(check, Status.ERROR, "r", "c", "c")])
    assert found.status is status


def test_of_several_problems_of_one_check_the_first_counts() -> None:
    (found,) = add_reported([ok("sqs", "fine")], [REPORTED, ReportedProblem("sqs", Status.WARNING, "later", "c", "c")])
    assert (found.status, "no answer" in found.summary) == (Status.ERROR, True)
