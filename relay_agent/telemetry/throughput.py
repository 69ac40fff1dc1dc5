"""Commands a minute over the last hour, for the status page.

This room owns sixty numbers. It must not know what a command is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

MINUTES = 60


@dataclass(slots=True)
class Minute:
    """What ended within one minute."""

    number: int
    done: int = 0
    failed: int = 0


class Throughput:
    """Counts by the monotonic clock. Any thread may call."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)

    def count(self, *, failed: bool) -> None:
        """A command has ended."""
        number = int(self._monotonic() // 60)
        with self._lock:
            if not self._minutes or self._minutes[-1].number != number:
                self._minutes.append(Minute(number))
            self._minutes[-1].done += 1
            self._minutes[-1].failed += failed

    def last_hour(self) -> list[tuple[int, int]]:
        """(commands, how many of them failed) for each of the last sixty minutes, the present one last."""
        now = int(self._monotonic() // 60)
        with self._lock:
            known = {minute.number: (minute.done, minute.failed) for minute in self._minutes}
        return [known.get(number, (0, 0)) for number in range(now - MINUTES + 1, now + 1)]
