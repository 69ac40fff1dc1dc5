"""Threads: one that repeats a step until the stop, one that runs a call once; and how long to wait after a failure.

Every wait of a loop ends at once when the stop event is set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import backoff

T = TypeVar("T")

MAX_BACKOFF_SECONDS = 60.0


class Backoff:
    """Jittered waits that double up to `max_seconds`, and start again after a success."""

    def __init__(self, first_seconds: float = 0.5, max_seconds: float = MAX_BACKOFF_SECONDS) -> None:
        self._first = first_seconds
        self._max = max_seconds
        self._waits = self._fresh()

    def next_seconds(self, at_least: float = 0.0) -> float:
        """Return the seconds to wait before the next try."""
        wait = next(self._waits)
        # Full jitter may give almost nothing. Half of the wait is fixed, so that a dead service is not hammered.
        return max(at_least, wait / 2 + backoff.full_jitter(wait / 2))

    def reset(self) -> None:
        """Start again at the first wait: a try has succeeded."""
        self._waits = self._fresh()

    def _fresh(self) -> Iterator[float]:
        waits = backoff.expo(base=2, factor=self._first, max_value=self._max)
        next(waits)  # The first value of backoff's generators is None.
        return waits


class Loop(threading.Thread):
    """A thread that calls `step` until `stop` is set. A step returns the seconds to wait before the next one, 0 for no wait.

    An exception of a step ends the thread and is kept in `error`; the agent's main thread then ends the agent.
    """

    def __init__(self, name: str, step: Callable[[], float], stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.step = step
        self._stop_event = stop
        self.error: BaseException | None = None

    def run(self) -> None:
        """Call `step` until the stop."""
        try:
            while not self._stop_event.is_set():
                wait = self.step()
                if wait > 0:
                    self._stop_event.wait(wait)
        except BaseException as error:  # noqa: BLE001 - kept for the main thread, which ends the agent with it
            self.error = error


def one_shot(name: str, run: Callable[[], None]) -> Loop:
    """Return a thread that calls `run` once and ends; its `error` is kept as a loop's is."""
    done = threading.Event()

    def step() -> float:
        try:
            run()
        finally:
            done.set()
        return 0.0

    return Loop(name, step, done)


def call_in_thread(act: Callable[[], T], name: str) -> Future[T]:
    """Call `act` on a new daemon thread: for calls that may never return. The future gives its result or its exception."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(act())
        except BaseException as error:  # noqa: BLE001 - raised again by the future's result()
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done
