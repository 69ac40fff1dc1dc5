"""The bounded queue between poller and workers, with a lane for each target host.

This module owns the order in which commands start: one slow instrument never delays the others. It knows
lanes and items, not commands.
"""

from __future__ import annotations

import queue
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


Limit = tuple[Hashable, int]


class Closed(Exception):
    """Raised by `get` once the queue is closed."""


class FairQueue(queue.Queue[tuple[str, T]], Generic[T]):
    """A `queue.Queue` of (lane, item) pairs that returns an item only if its lane uses less than its share of the workers.

    The share keeps a worker free for a lane that has none yet, as long as there are more workers than lanes: a single lane may
    use all workers but a quarter, two lanes a third each, and so on. `put` never blocks; the poller asks for free capacity first.
    """

    def __init__(self, capacity: int, workers: int, limit: Callable[[str], Limit | None] = lambda _lane: None) -> None:
        """`limit` returns the group of a lane, and how many items of the group may run at the same time; it must be quick."""
        self._workers = workers
        self._limit = limit
        self._closed = False
        self.capacity = capacity
        super().__init__(0)

    # --- called by queue.Queue with its lock held ---

    def _init(self, maxsize: int) -> None:
        self._lanes: OrderedDict[str, deque[T]] = OrderedDict()
        self._running: Counter[str] = Counter()
        self._waiting = 0
        self._next: str | None = None
        """The lane that `_qsize` has found for the `_get` that follows under the same lock."""
        self._waking = False
        """Whether a worker was woken that has not taken an item yet: it wakes the next one, so that `put` need not wake one for each."""

    def _put(self, item: tuple[str, T]) -> None:
        lane, work = item
        self._lanes.setdefault(lane, deque()).append(work)
        self._waiting += 1

    def _qsize(self) -> int:
        """Return 1 if an item can be returned now; `get` waits while this is 0."""
        self._next = None if self._closed else self._next_lane()
        if self._closed or self._next is not None:
            return 1
        self._waking = False  # Whoever was woken finds nothing to take, and waits again.
        return 0

    def _get(self) -> tuple[str, T]:
        lane = self._next
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
        self._waking = self._next_lane() is not None
        if self._waking:
            self.not_empty.notify()  # One `done` may have freed a worker for more than one lane.
        return lane, work

    def _next_lane(self) -> str | None:
        # Only lanes with a running item can be at their share, so this looks at no more lanes than there are workers, however many wait.
        # It looks at more only while groups are at their limit: a worker that took an item of theirs would be lost to other lanes.
        share, groups = self._share(), _Groups(self._running, self._limit)
        return next((lane for lane in self._lanes if self._running[lane] < share and groups.have_place(lane)), None)

    def _share(self) -> int:
        busy = len(self._lanes) + sum(lane not in self._lanes for lane in self._running)
        if busy <= 1:
            return max(1, self._workers - max(1, self._workers // 4))
        return max(1, min(-(-self._workers // (busy + 1)), (self._workers - 1) // busy))

    # --- called by anyone ---

    def put(self, item: tuple[str, T], block: bool = True, timeout: float | None = None) -> None:
        """Add an item; wake a worker if an item can be returned now and none is on its way."""
        with self.mutex:
            self._put(item)
            if not self._waking and self._next_lane() is not None:
                self._waking = True
                self.not_empty.notify()

    def done(self, lane: str) -> None:
        """Record that one item of this lane is finished. The caller must then call `get`: it takes what may run now, or wakes who can."""
        # No other worker is woken: it would take from the caller the item that the caller is about to take (a switch for nothing).
        with self.mutex:
            self._running[lane] -= 1
            if self._running[lane] <= 0:
                del self._running[lane]

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


class _Groups:
    """How many items of each group run; counted when it is first asked about a lane that is in one."""

    def __init__(self, running: Counter[str], limit: Callable[[str], Limit | None]) -> None:
        self._lanes = running
        self._limit = limit
        self._running: Counter[Hashable] | None = None

    def have_place(self, lane: str) -> bool:
        limit = self._limit(lane)
        if limit is None:
            return True
        if self._running is None:
            self._running = Counter()
            for other, count in self._lanes.items():
                its = self._limit(other)
                if its is not None:
                    self._running[its[0]] += count
        group, most = limit
        return self._running[group] < most
