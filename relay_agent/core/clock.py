"""Times and new ids: UTC on the wire, monotonic seconds for durations.

It must not wait: waits belong to stop events and queues.
"""

from __future__ import annotations

import email.utils
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

HOUR_SECONDS = 3600.0
DAY_SECONDS = 86_400
RECHECK_SECONDS = 0.1
"""Interval at which a wait that no event can end checks whether to continue."""
# datetime's own first and last day cannot be converted to UTC, stored or read back.
FAR_PAST, FAR_FUTURE = datetime(1970, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC)
"""Limits to which a time that comes from outside is clamped."""
MAX_DATE = 64
"""Length above which a date in a header is not parsed."""


def from_timestamp(seconds: float) -> datetime:
    """Convert seconds since 1970 to a time in UTC, clamped to FAR_PAST and FAR_FUTURE; NaN becomes FAR_PAST."""
    least, most = FAR_PAST.timestamp(), FAR_FUTURE.timestamp()
    return datetime.fromtimestamp(min(seconds, most) if seconds > least else least, UTC)


def clamped(moment: datetime) -> datetime:
    """Return `moment` clamped to FAR_PAST and FAR_FUTURE; without a time zone it is taken as UTC."""
    return min(max(moment if moment.tzinfo else moment.replace(tzinfo=UTC), FAR_PAST), FAR_FUTURE)


def iso(moment: datetime, timespec: Literal["seconds", "milliseconds"] = "milliseconds") -> str:
    """Return a time as ISO 8601 in UTC, ending in Z: the form of every message, log line and page."""
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def compact(moment: datetime) -> str:
    """Return a time in UTC for a name of a file or a stream: `20261123T031300Z`."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def http_date(text: str | None) -> datetime | None:
    """Return the time in a header field such as `Date` (RFC 9110 §5.6.7), clamped; returns None if it cannot be parsed."""
    if text is None or len(text) > MAX_DATE:
        return None
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return None if moment.tzinfo is None else clamped(moment)


def clock_offset(date: str | None, asked: datetime, answered: datetime) -> float | None:
    """Return how many seconds this machine's clock is ahead of the one that wrote a `Date` field; None if the text is not a date.

    `asked` and `answered` are this machine's times before and after the exchange.
    """
    there = http_date(date)
    if there is None:
        return None
    # The field was written at some moment between the two, and is rounded down to the second.
    between = asked + (answered - asked) / 2
    return (between - there).total_seconds() - 0.5


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _new_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Clock:
    """Source of time and new ids; tests pass their own."""

    now: Callable[[], datetime] = field(default=_utc_now)
    monotonic: Callable[[], float] = field(default=time.monotonic)
    boottime: Callable[[], float] = field(default=_boot_seconds)
    """Seconds on a clock that also runs while the machine sleeps (Linux's CLOCK_BOOTTIME)."""
    new_id: Callable[[], str] = field(default=_new_id)


class Uptime:
    """Start time and running time; counts from its own construction."""

    def __init__(self, clock: Clock) -> None:
        self.started = clock.now()
        self._monotonic = clock.monotonic
        self._began = clock.monotonic()

    def seconds(self) -> float:
        """Return the seconds since construction, on the monotonic clock."""
        return self._monotonic() - self._began


class Deadline:
    """Time limit on the monotonic clock, `seconds` after its construction."""

    __slots__ = ("_at", "_monotonic", "started", "seconds")

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.started = monotonic()
        self.seconds = seconds
        self._at = self.started + seconds

    def at_most(self, seconds: float | None) -> Deadline:
        """Return a deadline with the same start that passes after `seconds` from now at the latest; None changes nothing."""
        if seconds is None or self.remaining() <= seconds:
            return self
        sooner = Deadline(seconds, self._monotonic)
        sooner.started = self.started
        return sooner

    def remaining(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self._at - self._monotonic())

    @property
    def ends_at(self) -> float:
        """When it passes, in seconds of the monotonic clock."""
        return self._at

    def now(self) -> float:
        """Return the current time, in seconds of the same clock."""
        return self._monotonic()

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self._monotonic() >= self._at

    def elapsed(self) -> float:
        """Return the seconds since construction."""
        return self._monotonic() - self.started
