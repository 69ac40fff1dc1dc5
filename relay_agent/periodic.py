"""Loops: a step again and again until the stop, and how long to wait after a failure.

This room owns waiting. It must not know what the steps do. Every wait here ends at once when the stop event is set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import backoff

MAX_BACKOFF_SECONDS = 60.0


class Backoff:
    """Jittered waits that double up to 60 s, and start again after a success."""

    def __init__(self, first_seconds: float = 0.5, max_seconds: float = MAX_BACKOFF_SECONDS) -> None:
        self._first = first_seconds
        self._max = max_seconds
        self._waits = self._fresh()

    def next_seconds(self, at_least: float = 0.0) -> float:
        """How long to wait before the next try."""
        wait = next(self._waits)
        # Full jitter may give almost nothing; half of it is kept, so that a dead service is not hammered.
        return max(at_least, wait / 2 + backoff.full_jitter(wait / 2))

    def reset(self) -> None:
        """A try succeeded."""
        self._waits = self._fresh()

    def _fresh(self) -> Iterator[float]:
        waits = backoff.expo(base=2, factor=self._first, max_value=self._max)
        next(waits)  # backoff's generators give None first, to be started like a coroutine.
        return waits


class Loop(threading.Thread):
    """A thread that calls `step` until `stop` is set; a step gives the seconds to wait before the next, 0 for none.

    What a step raises ends the thread and is kept in `error`: a core thread that dies takes the agent down.
    """

    def __init__(self, name: str, step: Callable[[], float], stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.step = step
        self._stop_event = stop
        self.error: BaseException | None = None

    def run(self) -> None:
        """Step until the stop."""
        try:
            while not self._stop_event.is_set():
                wait = self.step()
                if wait > 0:
                    self._stop_event.wait(wait)
        except BaseException as error:  # noqa: BLE001 - kept for the supervisor, who ends the agent with it
            self.error = error
