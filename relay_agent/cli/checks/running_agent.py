"""Asks a running agent what is wrong: it sees failures that no check tries, such as receiving, uploading and sending answers.

Owns that question, and how the answer is combined with the checks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relay_agent.agent.admin.client import NoAgent, NoAnswer, ask
from relay_agent.cli.checks.result import Check, Status

ASK_SECONDS = 3.0
_MOST_WARNING = frozenset({"cloudwatch", "secure-key"})
"""Checks that are never an error (OPERATIONS §2)."""


@dataclass(frozen=True, slots=True)
class Word:
    """One problem that the running agent reports."""

    check: str
    status: Status
    reason: str
    cause: str
    cure: str


def word_of(state_dir: Path) -> list[Word]:
    """Return the problems that the agent of this state directory reports; none if no agent runs, or its pages do not answer."""
    try:
        _, body = ask(state_dir / "admin.sock", "/status.json", ASK_SECONDS)
        said = json.loads(body)
        return [
            Word(one["check"], status, one["reason"], one["cause"], one["cure"])
            for status, part in ((Status.ERROR, "problems"), (Status.WARNING, "warnings"))
            for one in said[part]
        ]
    except (NoAgent, NoAnswer, OSError, ValueError, KeyError, TypeError):
        return []


def beside(checks: Sequence[Check], words: Sequence[Word]) -> list[Check]:
    """Return the checks; one that passed is replaced by the agent's problem of the same id, if any."""
    first: dict[str, Word] = {}
    for word in words:
        first.setdefault(word.check, word)
    return [_heard(check, first.get(check.id)) for check in checks]


def _heard(check: Check, word: Word | None) -> Check:
    if word is None or check.status is not Status.OK:
        return check
    status = Status.WARNING if check.id in _MOST_WARNING else word.status
    summary = f"{check.summary}; but the running agent reports: {word.reason}"
    return replace(check, status=status, summary=summary, cause=word.cause, cure=word.cure)
