"""First, second, third signal (SIGTERM or SIGINT).

First: stop taking commands, finish what runs. Second: skip the waits. Third: end at once. The handler only
counts: an event set from a handler may deadlock with the thread that waits on it.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Counts the signals that ask for a stop. Made and read on the main thread."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        """Count from now on. A process that is PID 1 gets no default handlers, so this is what makes it stop."""
        for number in STOP:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count >= 3:
            os._exit(128 + number)
