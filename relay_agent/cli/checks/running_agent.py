"""What an agent that is at work here says of itself: it meets what no check tries, such as receiving, uploading and telling answers.

This room owns that question, and how the word is put beside what the checks found.
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
"""Checks that have no error (OPERATIONS §2)."""


@dataclass(frozen=True, slots=True)
class Word:
    """One thing that the agent says is wrong."""

    check: str
    status: Status
    reason: str
    cause: str
    cure: str


def word_of(state_dir: Path) -> list[Word]:
    """What the agent of this state directory says is wrong just now; nothing where none runs, or its pages do not answer."""
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
    """The checks, those that found nothing wrong in place of which the agent says what is."""
    first: dict[str, Word] = {}
    for word in words:
        first.setdefault(word.check, word)
    return [_heard(check, first.get(check.id)) for check in checks]


def _heard(check: Check, word: Word | None) -> Check:
    if word is None or check.status is not Status.OK:
        return check
    status = Status.WARNING if check.id in _MOST_WARNING else word.status
    summary = f"{check.summary}; but the agent at work here says: {word.reason}"
    return replace(check, status=status, summary=summary, cause=word.cause, cure=word.cure)
