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
        self.last_iteration = clock.monotonic()
        """When the loop last ran an iteration, successful or not."""
        self.last_success: float | None = None
        """When an iteration last succeeded."""
        self.last_healthy = clock.monotonic()
        """When an iteration last succeeded or was idle."""
        self.problem: str | None = None
        self.cause: Cause | None = None
        """The cause and cure of the problem."""

    def begin(self, activity: str) -> None:
        """Record that an iteration begins."""
        self.activity = activity
        self.last_iteration = self._clock.monotonic()

    def idle(self, activity: str) -> None:
        """Record an idle iteration (healthy, nothing to do)."""
        self.begin(activity)
        self.last_healthy = self.last_iteration
        self.problem = self.cause = None

    def success(self) -> None:
        """Record a successful iteration."""
        self.last_iteration = self.last_success = self.last_healthy = self._clock.monotonic()
        self.problem = self.cause = None

    def failure(self, problem: str, cause: Cause | None = None) -> None:
        """Record a failed iteration."""
        self.last_iteration = self._clock.monotonic()
        self.problem, self.cause = problem, cause

    def seconds_since_iteration(self) -> float:
        """Return the seconds since the last iteration."""
        return self._clock.monotonic() - self.last_iteration

    def unhealthy_seconds(self) -> float:
        """Return the seconds since an iteration succeeded or was idle."""
        return self._clock.monotonic() - self.last_healthy
