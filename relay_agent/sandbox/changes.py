"""Waiting for a change in the sandbox without polling.

This module owns the one condition that every part notifies after a change. It must not know what changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from relay_agent.core.clock import Deadline


class Changes:
    """Counts changes, and wakes the threads that wait for the next one. Any thread may call it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    def touch(self) -> None:
        """Count a change, and wake every waiting thread."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, predicate: Callable[[], bool], timeout_seconds: float) -> bool:
        """Wait until `predicate` holds, and return whether it does; it is evaluated after every change.

        It runs on the caller's thread without a lock, so it may call anything in the sandbox.
        """
        deadline = Deadline(timeout_seconds)
        while True:
            with self._condition:
                seen = self._count
            if predicate():
                return True
            with self._condition:
                changed = self._condition.wait_for(lambda seen=seen: self._count != seen, deadline.remaining())  # type: ignore[misc]
            if not changed:
                return predicate()
