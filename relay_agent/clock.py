"""Time and identity, injected: UTC for the wire, monotonic seconds for durations.

This room owns the two clocks. It must not wait: waits belong to stop events and queues.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime


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

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self._monotonic() >= self._at

    def elapsed(self) -> float:
        """Seconds since it was set."""
        return self._monotonic() - self.started
