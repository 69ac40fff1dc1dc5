"""Idle connections that are kept for the next exchange, shared by all workers.

Shared, because many instruments serve one connection at a time: the idle connection of one worker would block the others.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

MAX_IDLE = 64
MAX_AGE_SECONDS = 30.0
"""Idle time after which a connection is closed. A firewall may have dropped an older one, and the next command would time out on it."""


class ConnectionPool:
    """Idle sockets by key, the most recently used first. Any thread may call."""

    def __init__(self, max_idle: int = MAX_IDLE, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_idle = max_idle
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[Hashable, Any, float]] = OrderedDict()
        """By number: key, socket and the time until which it may be used."""
        self._unanswered: Counter[Hashable] = Counter()
        """New connections on which no answer has begun."""
        self._next = 0

    def take(self, key: Hashable) -> Any:
        """Remove and return the idle socket that was used last; returns None if there is none."""
        now = self._monotonic()
        with self._lock:
            expired = self._remove(lambda _key, until: now > until)
            number = next((number for number, (its, _, _) in reversed(self._idle.items()) if its == key), None)
            found = None if number is None else self._idle.pop(number)
        _close(expired)
        return None if found is None else found[1]

    def opening(self, key: Hashable) -> None:
        """Count a new connection that is being opened."""
        with self._lock:
            self._unanswered[key] += 1

    def opened(self, key: Hashable) -> None:
        """Stop counting a new connection: an answer has begun, or it failed."""
        with self._lock:
            self._unanswered[key] -= 1
            if self._unanswered[key] <= 0:
                del self._unanswered[key]

    def keep(self, key: Hashable, sock: Any, seconds: float = MAX_AGE_SECONDS) -> None:
        """Keep a socket for the next exchange, for at most `seconds`, or close it while a new connection has no answer yet."""
        with self._lock:
            # The target may serve one connection at a time: then the new one is answered only after this one is closed.
            if self._unanswered[key] > 0:
                surplus = [sock]
            else:
                self._idle[self._next] = (key, sock, self._monotonic() + seconds)
                self._next += 1
                surplus = [self._idle.popitem(last=False)[1][1]] if len(self._idle) > self._max_idle else []
        _close(surplus)

    def close(self) -> None:
        """Close every idle socket."""
        with self._lock:
            sockets = self._remove(lambda _key, _until: True)
        _close(sockets)

    def _remove(self, matches: Callable[[Hashable, float], bool]) -> list[Any]:
        numbers = [number for number, (key, _, until) in self._idle.items() if matches(key, until)]
        return [self._idle.pop(number)[1] for number in numbers]


def _close(sockets: list[Any]) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):  # An error on one must not leave the others open.
            sock.close()
