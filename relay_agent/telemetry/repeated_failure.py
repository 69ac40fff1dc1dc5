"""Failures that repeat: told when they start, change and end (OPERATIONS §4).

This room owns when a repetition is worth a line. It must not wait or try again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay_agent.core.failures import Cause
    from relay_agent.telemetry.logger import Logger


class RepeatedFailure:
    """Log a failure that repeats when it starts, when it changes and when it ends, not at every try.

    For one loop on one thread. `failed` and `recovered` are the two event names; the first `first`
    failures are all logged, and with `remind_seconds` one that lasts is logged again that often.
    """

    _most_reasons = 32
    _longest_reason = 200

    def __init__(
        self,
        log: Logger,
        failed: str,
        recovered: str,
        monotonic: Callable[[], float],
        first: int = 1,
        remind_seconds: float | None = None,
    ) -> None:
        self._log = log
        self._names = failed, recovered
        self._monotonic = monotonic
        self._first = first
        self._remind_seconds = remind_seconds
        self._started = self._logged = 0.0
        self._reset()

    @property
    def failing(self) -> bool:
        """Whether the last try failed."""
        return self.count > 0

    def failure(self, reason: str, cause: Cause, **fields: Any) -> None:
        """Note a failed try. `reason` is what tells one failure from another: no times or counters in it."""
        wanted = self.wants(reason)
        self.again()
        if wanted:
            self._reasons.add(reason[: self._longest_reason])  # all of this spell's: reasons that take turns are not a change each time
            self._logged = self._monotonic()
            self._log.warning(self._names[0], reason=reason, tries=self.count, cause=cause.cause, cure=cause.cure, **fields)

    def wants(self, reason: str) -> bool:
        """Whether a try that fails for this reason is worth a line, for whom the line's fields cost something."""
        due = self._remind_seconds is not None and self._monotonic() - self._logged >= self._remind_seconds
        changed = reason[: self._longest_reason] not in self._reasons and len(self._reasons) < self._most_reasons
        return changed or self.count < self._first or due

    def again(self) -> None:
        """Count a failed try of which nothing is said."""
        if not self.count:
            self._started = self._monotonic()
        self.count += 1

    def success(self, **fields: Any) -> None:
        """Note a try that worked; the first one after failures that were told is logged with their number and how long they lasted."""
        if self._reasons:
            self._log.info(self._names[1], tries=self.count, seconds=round(self._monotonic() - self._started, 1), **fields)
        if self.count:
            self._reset()

    def forget(self) -> None:
        """End the spell without a line: what failed was given up, and that was logged."""
        self._reset()

    def _reset(self) -> None:
        self.count = 0
        self._reasons: set[str] = set()
