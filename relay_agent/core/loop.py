"""Loops: a step again and again until the stop, and how long to wait after a failure.

This room owns waiting. It must not know what the steps do. Every wait here ends at once when the stop event is set.
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


def once(name: str, run: Callable[[], None]) -> Loop:
    """A thread whose one step is its whole life."""
    done = threading.Event()

    def step() -> float:
        try:
            run()
        finally:
            done.set()
        return 0.0

    return Loop(name, step, done)


def aside(act: Callable[[], T], name: str) -> Future[T]:
    """Do something on a thread of its own, which ends with the process: what may hang for ever, and must hold up nobody."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(act())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done
