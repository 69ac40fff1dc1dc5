"""Waiting for something to happen in the sandbox, without polling.

This room owns the one condition that every part touches after a change. It must not know what changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from relay_agent.core.clock import Deadline


class Changes:
    """A count of changes, and those who wait for the next one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    def touch(self) -> None:
        """Say that something has changed. Any thread."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, predicate: Callable[[], bool], timeout_seconds: float) -> bool:
        """Wait until `predicate` holds, looked at after every change; whether it does.

        The predicate runs on the caller's thread with nothing locked, so that it may ask the sandbox anything.
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
