"""How many requests may run at the same time at the targets of one `[[target]]` table (`max_concurrency`; docs/policy.md)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from relay_agent.core.clock import RECHECK_SECONDS, Deadline
from relay_agent.core.failures import Code
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.target_settings import TargetSettings


class ConcurrencyLimit:
    """Counts the requests under way by table. Shared by all workers; keeps its counts when the policy file is read again."""

    # The fair queue starts no more commands than their table allows, so that few workers wait here. This limit also holds for requests
    # that were redirected, and while the policy changes.

    def __init__(self, most_waiting: int | None = None) -> None:
        """`most_waiting` is how many requests may wait for their turn; None for any number.

        Each one holds a worker, so that a target that redirects everything to a busy one could hold them all.
        """
        self._most_waiting = most_waiting
        self._waiting = 0
        self._running: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def place(self, target: TargetSettings, deadline: Deadline, check_stop: Callable[[], None]) -> Iterator[None]:
        """Wait until another request may run at the target, and count it during the block.

        Raises:
            TransportFault: ETIMEDOUT, the deadline passed, or enough others wait already.
            Interrupted: raised by `check_stop`, which is called while it waits and when the wait is over; whatever it raises comes through.
        """
        if target.max_concurrency is None:
            yield
            return
        with self._changed:
            if self._running[target.group] >= target.max_concurrency:
                self._wait(target.group, target.max_concurrency, deadline, check_stop)
            self._running[target.group] += 1
        try:
            yield
        finally:
            with self._changed:
                self._running[target.group] -= 1
                if not self._running[target.group]:
                    del self._running[target.group]
                self._changed.notify_all()

    def _wait(self, group: str, limit: int, deadline: Deadline, check_stop: Callable[[], None]) -> None:
        if self._most_waiting is not None and self._waiting >= self._most_waiting:
            raise TransportFault(Code.ETIMEDOUT, f"the target is busy (max_concurrency = {limit}), and others wait for it already")
        self._waiting += 1
        try:
            while self._running[group] >= limit:
                check_stop()
                if deadline.passed:
                    raise TransportFault(Code.ETIMEDOUT, f"the time limit passed while the target was busy (max_concurrency = {limit})")
                self._changed.wait(min(RECHECK_SECONDS, deadline.remaining()))
            check_stop()
        finally:
            self._waiting -= 1
