"""What is wrong, in an administrator's words, and what to do about it: one table for every place that says so.

This room owns causes and cures. It must not find anything out: it is given an error, or what is known of a fault on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from relay_agent.core.failures import Cause


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong just now: what was seen, and the row of the table."""

    reason: str
    cause: Cause


# --- the settings, the token, the key, this machine ---


# --- what the platform says ---


# --- the agent itself ---


# --- the way there ---


def days_left(moment: datetime, now: datetime) -> str:
    """How long there is still, in words."""
    days = max(0, (moment - now).days)
    return "less than a day" if days == 0 else f"{days} day{'' if days == 1 else 's'}"
