"""The hourly summary of what the agent did, as one log line (docs/logs.md).

An idle agent logs nothing else, so that a log without summaries is that of a dead agent.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

from relay_agent.core.clock import HOUR_SECONDS
from relay_agent.core.errors import JournalError
from relay_agent.telemetry.logger import Logger

Counted = Literal[
    "polls",
    "polls_failed",
    "commands",
    "malformed",
    "ceded",
    "answers",
    "heartbeats",
    "heartbeats_failed",
    "config_refreshes",
    "credential_refreshes",
]
_ORDER: tuple[Counted, ...] = Counted.__args__  # type: ignore[attr-defined]


class Tally:
    """Counts what loops and workers do. Any thread may call; a count costs less than a microsecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()

    def count(self, name: Counted, number: int = 1) -> None:
        """Add `number` to a counter."""
        with self._lock:
            self._counts[name] += number

    def finished(self, status: str) -> None:
        """Count a finished command by its status."""
        with self._lock:
            self._finished[status] += 1

    def take(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return all counters, and the finished commands by status; set them to zero."""
        with self._lock:
            taken, self._counts, self._finished = (self._counts, self._finished), Counter(), Counter()
        return taken


class Summary:
    """Logs the tally once an hour, even if everything is zero.

    One thread calls `log_if_due`; after that thread has ended, the main thread calls `log_rest`.
    """

    def __init__(
        self,
        tally: Tally,
        log: Logger,
        monotonic: Callable[[], float],
        *,
        dropped: Callable[[], int],
        queued: Callable[[], int],
        running: Callable[[], int],
        journal: Callable[[], Mapping[str, int]],
        every_seconds: float = HOUR_SECONDS,
    ) -> None:
        """Take where the other numbers come from.

        `dropped` returns the log lines lost since the start, `queued` and `running` the current commands, `journal` the commands in
        each state.
        """
        self._tally = tally
        self._log = log
        self._monotonic = monotonic
        self._dropped = dropped
        self._queued = queued
        self._running = running
        self._journal = journal
        self._every_seconds = every_seconds
        self._started = self._logged = monotonic()
        self._dropped_before = 0

    def log_if_due(self) -> None:
        """Log the line if an hour has passed since the last."""
        if self._monotonic() - self._logged >= self._every_seconds:
            self._log_line(*self._tally.take())

    def log_rest(self) -> None:
        """Log what happened since the last line, if anything; for the agent's stop."""
        counts, finished = self._tally.take()
        if counts or finished:
            self._log_line(counts, finished)

    def _log_line(self, counts: Mapping[str, int], finished: Mapping[str, int]) -> None:
        now, dropped = self._monotonic(), self._dropped()
        self._log.info(
            "summary",
            seconds=round(now - self._logged),
            uptime_seconds=round(now - self._started),
            **{name: counts.get(name, 0) for name in _ORDER},
            finished=dict(finished),
            lines_dropped=dropped - self._dropped_before,
            queued=self._queued(),
            running=self._running(),
            journal=self._states(),
        )
        # The next hour begins when this one ended, not when this late call was made: 24 lines a day.
        on_time = self._logged + self._every_seconds
        self._logged = on_time if on_time <= now < on_time + self._every_seconds else now
        self._dropped_before = dropped

    def _states(self) -> dict[str, int]:
        try:
            return dict(self._journal())
        except JournalError:
            return {}  # Others report the journal's error; the summary is logged without its numbers.
