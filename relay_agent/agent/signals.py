"""SIGTERM and SIGINT: the first starts a graceful stop, the second skips its waits, the third ends the process at once.

The handler only counts and puts into a `SimpleQueue`, whose `put` is made for handlers: an event set from a handler may deadlock with the
thread that waits on it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from queue import Empty, SimpleQueue
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Counts stop signals. Created, read and waited for on the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._received: SimpleQueue[int] = SimpleQueue()

    def install(self) -> None:
        """Install the handlers. Without them a process with PID 1 would ignore the signals."""
        for number in STOP:
            signal.signal(number, self._on_signal)

    def wait(self, seconds: float) -> bool:
        """Wait for the first signal or a `wake`, at most so many seconds; return whether a signal has come."""
        if self.count == 0:
            with contextlib.suppress(Empty):
                self._received.get(timeout=max(0.0, seconds))
        return self.count > 0

    def wake(self) -> None:
        """End the current wait, or else the next. Any thread and any handler may call."""
        self._received.put(0)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._received.put(number)
        if self.count >= 3:
            os._exit(128 + number)
