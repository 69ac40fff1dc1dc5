"""Time and identity, injected: UTC for the wire, monotonic seconds for durations.

This room owns the two clocks. It must not wait: waits belong to stop events and queues.
"""

from __future__ import annotations

import email.utils
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

RECHECK_SECONDS = 0.1
"""How often a wait that nothing can wake checks whether it is to go on."""
FAR_PAST, FAR_FUTURE = datetime(1970, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC)
"""What a moment that somebody else names is clamped to: the calendar's own ends cannot be stored, moved to UTC or read back."""


def from_timestamp(seconds: float) -> datetime:
    """The moment of a number of seconds since 1970, clamped to FAR_PAST and FAR_FUTURE."""
    least, most = FAR_PAST.timestamp(), FAR_FUTURE.timestamp()
    return datetime.fromtimestamp(min(seconds, most) if seconds > least else least, UTC)  # What is no number is not more than any.


def clamped(moment: datetime) -> datetime:
    """A moment between FAR_PAST and FAR_FUTURE; one without a time zone is in UTC."""
    return min(max(moment if moment.tzinfo else moment.replace(tzinfo=UTC), FAR_PAST), FAR_FUTURE)


def iso(moment: datetime, timespec: Literal["seconds", "milliseconds"] = "milliseconds") -> str:
    """Return a moment as ISO 8601 in UTC, with a Z: the form of every message, log line and page."""
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


MAX_DATE = 64
"""Characters of a date that are looked at."""


def http_date(text: str | None) -> datetime | None:
    """The moment that a field such as `Date` names (RFC 9110 §5.6.7), clamped as above; None where it names none."""
    if text is None or len(text) > MAX_DATE:
        return None
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return None if moment.tzinfo is None else clamped(moment)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Clock:
    """The agent's sources of time and ids; tests hand in their own."""

    now: Callable[[], datetime] = field(default=_utc_now)
    monotonic: Callable[[], float] = field(default=time.monotonic)
    new_id: Callable[[], str] = field(default=_new_id)


class Uptime:
    """Since when something runs, by both of a clock's hands: it begins when this is made."""

    def __init__(self, clock: Clock) -> None:
        self.started = clock.now()
        self._monotonic = clock.monotonic
        self._began = clock.monotonic()

    def seconds(self) -> float:
        """How long it has run."""
        return self._monotonic() - self._began


class Deadline:
    """A wall-clock limit: a moment on the monotonic clock after which nothing may still be waited for."""

    __slots__ = ("_at", "_monotonic", "started", "seconds")

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.started = monotonic()
        self.seconds = seconds
        self._at = self.started + seconds

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._at - self._monotonic())

    @property
    def ends_at(self) -> float:
        """The moment itself, on the monotonic clock."""
        return self._at

    def now(self) -> float:
        """The moment it is, on the same clock."""
        return self._monotonic()

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self._monotonic() >= self._at

    def elapsed(self) -> float:
        """Seconds since it was set."""
        return self._monotonic() - self.started
