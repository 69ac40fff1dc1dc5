"""Alive means working: a heartbeat goes out only while the loop behind it turns.

The steps of the thread `heartbeat`. It must not mend anything; it says what stands still.
"""

from __future__ import annotations

from relay_agent.core.errors import PlatformError, RateLimited
from relay_agent.core.loop import Backoff
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.diagnostics.watchdog import Watchdog
from relay_agent.tdp.client import PlatformClient

RETRY_SECONDS = 5.0


class Heartbeat:
    """Sends heartbeats while the agent works."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        standing: PlatformStatus,
        watchdog: Watchdog,
        interval_seconds: float,
        loop: LoopContext,
    ) -> None:
        self._platform = platform
        self._standing = standing
        self._watchdog = watchdog
        self._pulse = loop.pulse
        self._tally = loop.tally
        self._clock = loop.clock
        self._interval_seconds = interval_seconds
        self._next: float | None = None
        self._retry = Backoff(first_seconds=RETRY_SECONDS)
        self._trouble = loop.repeated_failure("heartbeat-failed", "heartbeat-recovered")
        self._withheld = loop.repeated_failure("heartbeat-withheld", "heartbeat-resumed")

    def step(self) -> float:
        """Send one when it is due; seconds until the next look."""
        self._pulse.turn("waiting for the next heartbeat")
        if not self._standing.ready.is_set():
            return 0.25
        now = self._clock.monotonic()
        if self._next is None:
            # Enrolment sent the first one itself; a disabled agent was not enrolled.
            self._next = now if self._standing.disabled else now + self._interval_seconds
            if not self._standing.disabled:
                self._pulse.success()
        if self._standing.doubt.is_set() and self._pulse.problem is None:
            self._next = now  # Another call was refused: is it the token, or that call alone?
        if now < self._next:
            return min(0.5, self._next - now)
        still = self._watchdog.standstill()
        if still is not None:
            self._withheld.failure(still.reason, still.cause)
            self._next = now + RETRY_SECONDS
            return 0.5
        self._withheld.success()
        self._next = now + self._beat()
        self._standing.doubt.clear()
        return 0.0

    def _beat(self) -> float:
        """Send one; seconds until the next."""
        try:
            self._platform.rest.heartbeat()
        except PlatformError as error:
            self._tally.count("heartbeats_failed")
            cause = cause_of(error)
            self._pulse.failure(str(error), cause)
            self._trouble.failure(str(error), cause)
            return (
                min(self._interval_seconds, self._retry.next_seconds())
                if not isinstance(error, RateLimited)
                else error.retry_after or RETRY_SECONDS
            )
        self._tally.count("heartbeats")
        self._pulse.success()
        self._trouble.success()
        self._retry.reset()
        return self._interval_seconds
