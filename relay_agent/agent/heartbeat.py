"""When heartbeats are sent: only while the agent works. The loop of the thread `heartbeat`.

It repairs nothing; it asks `watchdog` and logs what is stuck.
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
STEP_SECONDS = 2.0


class Heartbeat:
    """Sends heartbeats, unless the watchdog reports a stall."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        platform_status: PlatformStatus,
        watchdog: Watchdog,
        interval_seconds: float,
        loop: LoopContext,
    ) -> None:
        self._platform = platform
        self._platform_status = platform_status
        self._watchdog = watchdog
        self._status = loop.status
        self._tally = loop.tally
        self._clock = loop.clock
        self._interval_seconds = interval_seconds
        self._next: float | None = None
        self._retry = Backoff(first_seconds=RETRY_SECONDS)
        self._send_failure = loop.repeated_failure("heartbeat-failed", "heartbeat-recovered")
        self._withheld = loop.repeated_failure("heartbeat-withheld", "heartbeat-resumed")

    def step(self) -> float:
        """Send a heartbeat if one is due; return the seconds to wait before the next step."""
        self._status.begin("waiting for the next heartbeat")
        if not self._platform_status.ready.is_set():
            return 0.25
        now = self._clock.monotonic()
        if self._next is None:
            # `Registration` sent the first heartbeat; a disabled agent was not registered.
            self._next = now if self._platform_status.disabled else now + self._interval_seconds
            if not self._platform_status.disabled:
                self._status.success()
        if self._platform_status.heartbeat_requested.is_set() and self._status.problem is None:
            self._next = now  # Another call was refused: find out at once whether the token is refused in general.
        if now < self._next:
            return min(STEP_SECONDS, self._next - now)
        stall = self._watchdog.stall()
        if stall is not None:
            self._withheld.failure(stall.reason, stall.cause)
            self._next = now + RETRY_SECONDS
            return STEP_SECONDS
        self._withheld.success()
        self._next = now + self._send()
        self._platform_status.heartbeat_requested.clear()
        return 0.0

    def _send(self) -> float:
        """Send one heartbeat; return the seconds until the next."""
        try:
            self._platform.rest.heartbeat()
        except PlatformError as error:
            self._tally.count("heartbeats_failed")
            cause = cause_of(error)
            self._status.failure(str(error), cause)
            self._send_failure.failure(str(error), cause)
            return (
                min(self._interval_seconds, self._retry.next_seconds())
                if not isinstance(error, RateLimited)
                else error.retry_after or RETRY_SECONDS
            )
        self._tally.count("heartbeats")
        self._status.success()
        self._send_failure.success()
        self._retry.reset()
        return self._interval_seconds
