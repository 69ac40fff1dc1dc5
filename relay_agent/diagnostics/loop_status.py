"""Signs of life: what each loop last did, for heartbeats, health and the watchdog.

Owns the facts only. It must not judge them; `watchdog` does.
"""

from __future__ import annotations

from relay_agent.core.clock import Clock
from relay_agent.core.failures import Cause


class LoopStatus:
    """One loop's status. The loop writes it, any thread reads it; each value is replaced as a whole."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.activity = "starting"
        self.turned = clock.monotonic()
        """When the loop last ran an iteration, successful or not."""
        self.worked: float | None = None
        """When an iteration last succeeded."""
        self.alive = clock.monotonic()
        """When an iteration last succeeded or was idle."""
        self.problem: str | None = None
        self.cause: Cause | None = None
        """The cause and cure of the problem."""

    def turn(self, activity: str) -> None:
        """Record that an iteration begins."""
        self.activity = activity
        self.turned = self._clock.monotonic()

    def pause(self, activity: str) -> None:
        """Record an idle iteration (healthy, nothing to do)."""
        self.turn(activity)
        self.alive = self.turned
        self.problem = self.cause = None

    def success(self) -> None:
        """Record a successful iteration."""
        self.turned = self.worked = self.alive = self._clock.monotonic()
        self.problem = self.cause = None

    def failure(self, problem: str, cause: Cause | None = None) -> None:
        """Record a failed iteration."""
        self.turned = self._clock.monotonic()
        self.problem, self.cause = problem, cause

    def silent_seconds(self) -> float:
        """Return the seconds since the last iteration."""
        return self._clock.monotonic() - self.turned

    def dead_seconds(self) -> float:
        """Return the seconds since an iteration succeeded or was idle."""
        return self._clock.monotonic() - self.alive
