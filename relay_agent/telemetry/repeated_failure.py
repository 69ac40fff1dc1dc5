"""Logs a failure that repeats when it starts, changes and ends, not at every try (docs/logs.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay_agent.core.failures import Cause
    from relay_agent.telemetry.logger import Logger


class RepeatedFailure:
    """Logs the failures of one loop, which is on one thread.

    `failed` and `recovered` are the two event names. The first `first` failures are all logged; with `remind_seconds`, a failure that
    lasts is logged again at that interval.
    """

    _max_reasons = 32
    _max_reason_characters = 200

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
        """Count a failed try, and log it if it is new. `reason` distinguishes failures, and must not contain times or counters."""
        log = self.would_log(reason)
        self.count_failure()
        if log:
            # All reasons since the last success are kept: if two alternate, that is not a change each time.
            self._reasons.add(reason[: self._max_reason_characters])
            self._logged = self._monotonic()
            self._log.warning(self._names[0], reason=reason, tries=self.count, cause=cause.cause, cure=cause.cure, **fields)

    def would_log(self, reason: str) -> bool:
        """Return whether `failure` would log a try with this reason."""
        due = self._remind_seconds is not None and self._monotonic() - self._logged >= self._remind_seconds
        changed = reason[: self._max_reason_characters] not in self._reasons and len(self._reasons) < self._max_reasons
        return changed or self.count < self._first or due

    def count_failure(self) -> None:
        """Count a failed try without logging it."""
        if not self.count:
            self._started = self._monotonic()
        self.count += 1

    def success(self, **fields: Any) -> None:
        """End the failure; if it was logged, log its number of tries and its duration."""
        if self._reasons:
            self._log.info(self._names[1], tries=self.count, seconds=round(self._monotonic() - self._started, 1), **fields)
        if self.count:
            self._reset()

    def forget(self) -> None:
        """End the failure without logging: the operation was given up, and that was logged."""
        self._reset()

    def _reset(self) -> None:
        self.count = 0
        self._reasons: set[str] = set()
