"""What people are shown together: threads that do the same, and warnings about many targets. For the status page and `status`.

Owns which rows of `status.json` become one. It must not hide what is wrong: a thread that is dead or has a problem keeps its row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

TARGETS_SHOWN = 2
"""How many warnings about targets are shown before the others are folded."""
_NUMBERED = re.compile(r"(.+)-\d+")


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A thread, or several of one kind that are all well."""

    name: str
    alive: bool
    activity: str
    problem: str | None


def thread_rows(threads: Iterable[dict[str, Any]]) -> list[ThreadRow]:
    """Return a row for each kind of thread, and one for each thread that is dead or has a problem."""
    rows = []
    for kind, members in groupby(threads, lambda thread: _kind(thread["name"])):
        listed = list(members)
        well = [one for one in listed if one["alive"] and not one["problem"]]
        if len(well) > 1:
            rows.append(ThreadRow(f"{len(well)} {kind}s", True, _activities(well), None))
            listed = [one for one in listed if one not in well]
        rows += [ThreadRow(one["name"], one["alive"], one["activity"], one["problem"]) for one in listed]
    return rows


def fold_warnings(warnings: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the warnings to show, and those about further targets."""
    targets = [one for one in warnings if one.get("check") == "target"]
    folded = targets[TARGETS_SHOWN:]
    return [one for one in warnings if one not in folded], folded


def stands_for(warnings: Iterable[dict[str, Any]]) -> int:
    """Return how many problems these are; one may stand for several that the agent does not list."""
    return sum(one.get("count", 1) for one in warnings)


def _kind(name: str) -> str:
    numbered = _NUMBERED.fullmatch(name)
    return numbered[1] if numbered else name


def _activities(threads: Sequence[dict[str, Any]]) -> str:
    counts = Counter(one["activity"] for one in threads)
    if len(counts) == 1:
        return str(threads[0]["activity"])
    return ", ".join(f"{count} {activity}" for activity, count in sorted(counts.items()))
