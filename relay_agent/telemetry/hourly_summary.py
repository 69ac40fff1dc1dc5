"""What the agent did in the last hour, in one line: the log of an agent that has nothing else to say (OPERATIONS §4).

This room owns what is counted for the log and when it is summed up. It must not write a line for each of what it counts,
and must not start a thread: whoever has the time calls `turn`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

from relay_agent.core.errors import JournalError
from relay_agent.telemetry.logger import Logger

HOUR_SECONDS = 3600.0

Counted = Literal[
    "polls", "polls_failed", "commands", "answers", "heartbeats", "heartbeats_failed", "config_refreshes", "credential_refreshes"
]
_ORDER: tuple[Counted, ...] = Counted.__args__  # type: ignore[attr-defined]


class Tally:
    """Counts what loops and workers do. Any thread may count; a count costs under a microsecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()

    def count(self, what: Counted, number: int = 1) -> None:
        """Count so many of something."""
        with self._lock:
            self._counts[what] += number

    def finished(self, status: str) -> None:
        """Count a command that has its outcome, by its final status."""
        with self._lock:
            self._finished[status] += 1

    def take(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """What was counted since this was last asked, and the commands finished by status: nothing is given twice."""
        with self._lock:
            taken, self._counts, self._finished = (self._counts, self._finished), Counter(), Counter()
        return taken


class Summary:
    """Says the tally once an hour, however little there was: a log that falls silent is that of a dead agent.

    `turn` is one thread's; `last` is main's, once that thread has ended.
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
        """`dropped` gives the log lines lost since the start, `queued` and `running` the commands now, `journal` those in each state."""
        self._tally = tally
        self._log = log
        self._monotonic = monotonic
        self._dropped = dropped
        self._queued = queued
        self._running = running
        self._journal = journal
        self._every_seconds = every_seconds
        self._started = self._said = monotonic()
        self._dropped_before = 0

    def turn(self) -> None:
        """Say the line when an hour has passed since the last."""
        if self._monotonic() - self._said >= self._every_seconds:
            self._say(*self._tally.take())

    def last(self) -> None:
        """Say what happened since the last line, if anything did: the agent stops."""
        counts, finished = self._tally.take()
        if counts or finished:
            self._say(counts, finished)

    def _say(self, counts: Mapping[str, int], finished: Mapping[str, int]) -> None:
        now, dropped = self._monotonic(), self._dropped()
        self._log.info(
            "summary",
            seconds=round(now - self._said),
            uptime_seconds=round(now - self._started),
            **{what: counts.get(what, 0) for what in _ORDER},
            finished=dict(finished),
            lines_dropped=dropped - self._dropped_before,
            queued=self._queued(),
            running=self._running(),
            journal=self._states(),
        )
        # From one hour to the next, and not from a late look to the next: 24 lines a day.
        on_time = self._said + self._every_seconds
        self._said = on_time if on_time <= now < on_time + self._every_seconds else now
        self._dropped_before = dropped

    def _states(self) -> dict[str, int]:
        try:
            return dict(self._journal())
        except JournalError:
            return {}  # Said elsewhere; the line is needed all the more.
