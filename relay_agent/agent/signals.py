"""SIGTERM and SIGINT: the first starts a graceful stop, the second skips its waits, the third ends the process at once.

The handler only counts: an event set from a handler may deadlock with the thread that waits on it.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Counts stop signals. Created and read on the main thread."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        """Install the handlers. Without them a process with PID 1 would ignore the signals."""
        for number in STOP:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count >= 3:
            os._exit(128 + number)
