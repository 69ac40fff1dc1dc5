"""The bounded queue between poller and workers, with a lane for each target host.

This module owns the order in which commands start: one slow instrument never holds up the others. It knows
lanes and items, not commands.
"""

from __future__ import annotations

import queue
from collections import Counter, OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """Raised by `get` once the queue is closed."""


class FairQueue(queue.Queue[tuple[str, T]], Generic[T]):
    """A `queue.Queue` of (lane, item) pairs that returns an item only if its lane uses less than its share of the workers.

    The share keeps a worker free for a lane that has none yet, as long as there are more workers than lanes: a single lane may
    use all workers but a quarter, two lanes a third each, and so on. `put` never blocks; the only producer asks `free()` first.
    """

    def __init__(self, capacity: int, workers: int) -> None:
        self._workers = workers
        self._closed = False
        self.capacity = capacity
        super().__init__(0)

    # --- called by queue.Queue with its lock held ---

    def _init(self, maxsize: int) -> None:
        self._lanes: OrderedDict[str, deque[T]] = OrderedDict()
        self._running: Counter[str] = Counter()
        self._waiting = 0

    def _put(self, item: tuple[str, T]) -> None:
        lane, work = item
        self._lanes.setdefault(lane, deque()).append(work)
        self._waiting += 1

    def _qsize(self) -> int:
        """Return 1 if an item can be returned now; `get` waits while this is 0."""
        return 1 if self._closed or self._next_lane() is not None else 0

    def _get(self) -> tuple[str, T]:
        lane = None if self._closed else self._next_lane()
        if lane is None:
            self.not_empty.notify()  # Wakes the next waiting worker, which then wakes the next.
            raise Closed
        waiting = self._lanes[lane]
        work = waiting.popleft()
        self._lanes.move_to_end(lane)
        if not waiting:
            del self._lanes[lane]
        self._running[lane] += 1
        self._waiting -= 1
        if self._next_lane() is not None:
            self.not_empty.notify()  # One `done` may have freed a worker for more than one lane.
        return lane, work

    def _next_lane(self) -> str | None:
        # Only lanes with a running item can be at their share, so this looks at no more lanes than there are workers, however many wait.
        share = self._share()
        return next((lane for lane in self._lanes if self._running[lane] < share), None)

    def _share(self) -> int:
        busy = len(self._lanes) + sum(lane not in self._lanes for lane in self._running)
        if busy <= 1:
            return max(1, self._workers - max(1, self._workers // 4))
        return max(1, min(-(-self._workers // (busy + 1)), (self._workers - 1) // busy))

    # --- called by anyone ---

    def done(self, lane: str) -> None:
        """Record that one item of this lane is finished."""
        with self.mutex:
            self._running[lane] -= 1
            if self._running[lane] <= 0:
                del self._running[lane]
            self.not_empty.notify()

    def free(self) -> int:
        """Return how many more items may be put."""
        with self.mutex:
            return max(0, self.capacity - self._waiting)

    def waiting(self) -> int:
        """Return how many items wait, whether or not their lane may run."""
        with self.mutex:
            return self._waiting

    def running(self) -> int:
        """Return how many items were taken and are not done."""
        with self.mutex:
            return self._running.total()

    def close(self) -> None:
        """Return no more items: every `get` raises `Closed`, and waiting items stay."""
        with self.mutex:
            self._closed = True
            self.not_empty.notify_all()
