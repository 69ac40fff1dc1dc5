"""Asks a running agent what is wrong: it sees failures that no check tries, such as receiving, uploading and sending answers.

Owns that question, and how the answer is combined with the checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relay_agent.agent.admin.client import NoAgent, NoAnswer, ask_status
from relay_agent.cli.checks.result import Check, Status

ASK_SECONDS = 3.0
_NEVER_ERRORS = frozenset({"cloudwatch", "syslog", "secure-key"})
"""Checks that are never an error (docs/operations.md, "Checks")."""


@dataclass(frozen=True, slots=True)
class ReportedProblem:
    """One problem that the running agent reports."""

    check: str
    status: Status
    reason: str
    cause: str
    cure: str


def reported_problems(state_dir: Path) -> list[ReportedProblem]:
    """Return the problems that the agent of this state directory reports; none if no agent runs, or its pages do not answer."""
    try:
        status_json = ask_status(state_dir, ASK_SECONDS)
        return [
            ReportedProblem(one["check"], status, one["reason"], one["cause"], one["cure"])
            for status, part in ((Status.ERROR, "problems"), (Status.WARNING, "warnings"))
            for one in status_json[part]
        ]
    except (NoAgent, NoAnswer, OSError, KeyError, TypeError):
        return []


def add_reported(checks: Sequence[Check], reported: Sequence[ReportedProblem]) -> list[Check]:
    """Return the checks; the agent's problem of the same id, if any, replaces one that passed or found something less serious."""
    first: dict[str, ReportedProblem] = {}
    for problem in reported:
        first.setdefault(problem.check, problem)
    return [_with_reported(check, first.get(check.id)) for check in checks]


def _with_reported(check: Check, problem: ReportedProblem | None) -> Check:
    if problem is None:
        return check
    status = Status.WARNING if check.id in _NEVER_ERRORS else problem.status
    if check.status is not Status.OK and (check.status, status) != (Status.WARNING, Status.ERROR):
        return check
    summary = f"{check.summary}; but the running agent reports: {problem.reason}"
    return replace(check, status=status, summary=summary, cause=problem.cause, cure=problem.cure)
