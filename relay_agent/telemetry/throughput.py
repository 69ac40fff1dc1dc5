"""Commands per minute over the last hour, for the status page."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MINUTES = 60


@dataclass(slots=True)
class Minute:
    """The commands that finished in one minute."""

    number: int
    done: int = 0
    failed: int = 0


class Throughput:
    """Counts finished commands by minute, on the monotonic clock. Any thread may call."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)

    def count(self, *, failed: bool) -> None:
        """Count a finished command."""
        number = int(self._monotonic() // 60)
        with self._lock:
            if not self._minutes or self._minutes[-1].number != number:
                self._minutes.append(Minute(number))
            self._minutes[-1].done += 1
            self._minutes[-1].failed += failed

    def resume(self, earlier: Mapping[int, tuple[int, int]]) -> None:
        """Take up (finished, failed) of an earlier run, by how many minutes ago; before the first `count`."""
        now = int(self._monotonic() // 60)
        with self._lock:
            for ago, (done, failed) in sorted(earlier.items(), reverse=True):
                self._minutes.append(Minute(now - ago, done, failed))

    def last_hour(self) -> list[tuple[int, int]]:
        """Return (finished, failed) for each of the last sixty minutes, the current one last."""
        now = int(self._monotonic() // 60)
        with self._lock:
            known = {minute.number: (minute.done, minute.failed) for minute in self._minutes}
        return [known.get(number, (0, 0)) for number in range(now - MINUTES + 1, now + 1)]
