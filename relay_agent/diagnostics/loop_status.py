"""Signs of life: what each loop last did, for heartbeats, health and the watchdog.

This room owns the facts only. It must not judge them: that is `heartbeat`'s.
"""

from __future__ import annotations

from relay_agent.core.clock import Clock
from relay_agent.core.failures import Cause


class LoopStatus:
    """Written by one loop, read by any thread; each value is replaced whole."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.activity = "starting"
        self.turned = clock.monotonic()
        """When the loop last came round, whatever came of it."""
        self.worked: float | None = None
        """When it last did what it is for."""
        self.alive = clock.monotonic()
        """When it last did that, or had a good reason not to."""
        self.problem: str | None = None
        self.cause: Cause | None = None
        """What lies behind the problem, and what cures it."""

    def turn(self, activity: str) -> None:
        """The loop came round."""
        self.activity = activity
        self.turned = self._clock.monotonic()

    def pause(self, activity: str) -> None:
        """The loop came round, and has a good reason not to do what it is for."""
        self.turn(activity)
        self.alive = self.turned
        self.problem = self.cause = None

    def success(self) -> None:
        """What the loop is for was done."""
        self.turned = self.worked = self.alive = self._clock.monotonic()
        self.problem = self.cause = None

    def failure(self, problem: str, cause: Cause | None = None) -> None:
        """It was tried, and failed."""
        self.turned = self._clock.monotonic()
        self.problem, self.cause = problem, cause

    def silent_seconds(self) -> float:
        """Seconds since the loop came round."""
        return self._clock.monotonic() - self.turned

    def dead_seconds(self) -> float:
        """Seconds since it did what it is for, or had a good reason not to."""
        return self._clock.monotonic() - self.alive
