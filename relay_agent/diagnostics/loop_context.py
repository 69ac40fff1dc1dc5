"""What every loop of the agent reports to: its status, the hourly tally, the log; and the clock that these use.

It must not judge or count anything itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay_agent.core.clock import Clock
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.telemetry.hourly_summary import Tally
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.repeated_failure import RepeatedFailure


@dataclass(frozen=True, slots=True)
class LoopContext:
    """One loop's own status, and what it shares with the other loops."""

    status: LoopStatus
    tally: Tally
    log: Logger
    clock: Clock

    def repeated_failure(self, failed: str, recovered: str, *, first: int = 1, remind_seconds: float = 300.0) -> RepeatedFailure:
        """Make a failure that this loop logs when it begins, changes and ends, not at every try."""
        return RepeatedFailure(self.log, failed, recovered, self.clock.monotonic, first=first, remind_seconds=remind_seconds)
