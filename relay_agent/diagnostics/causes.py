"""What the tables of causes and cures share. The tables are `local_causes`, `network_causes` and `platform_causes`.

Every place that names a cause (the log, `check`, `explain`, `status`, the pages) takes it from there. The tables must not detect anything:
they are given an error, or the facts of a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from relay_agent.core.clock import HOUR_SECONDS
from relay_agent.core.failures import Cause

SOON_DAYS = 30
"""How long before its expiry the token, or a certificate in use, is a warning (docs/operations.md, "Certificates and token")."""
SHOWN_SECONDS = HOUR_SECONDS
"""How long after its last failure a host, an upload or a download is shown as failing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong now: what was observed, with its cause and cure."""

    reason: str
    cause: Cause
    count: int = 1
    """How many problems it stands for: more than one if it says only that there are further ones."""


def days_left(moment: datetime, now: datetime) -> str:
    """Return the time until `moment` in words."""
    days = max(0, (moment - now).days)
    return "less than a day" if days == 0 else f"{days} day{'' if days == 1 else 's'}"


def ends_soon(moment: datetime, now: datetime) -> bool:
    """Return whether `moment` is less than SOON_DAYS ahead, or has passed."""
    return (moment - now).days < SOON_DAYS


def when_ends(moment: datetime, now: datetime) -> str:
    """Return a validity's end in words that continue with what follows from it."""
    if moment <= now:
        return f"expired on {moment:%Y-%m-%d}; since then"
    return f"expires on {moment:%Y-%m-%d}, in {days_left(moment, now)}; after that"
