"""What the tables of causes and cures share. The tables are `local_causes`, `network_causes` and `platform_causes`.

Every place that names a cause (the log, `check`, `explain`, `status`, the pages) takes it from there. The tables must not detect anything:
they are given an error, or the facts of a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from relay_agent.core.failures import Cause


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong now: what was observed, with its cause and cure."""

    reason: str
    cause: Cause


def days_left(moment: datetime, now: datetime) -> str:
    """Return the time until `moment` in words."""
    days = max(0, (moment - now).days)
    return "less than a day" if days == 0 else f"{days} day{'' if days == 1 else 's'}"
