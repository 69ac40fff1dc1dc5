"""Connections that wait for their next exchange, shared by all workers.

Shared, because many an instrument serves one connection at a time: were each worker to keep its own, they would
stand in each other's way. This room owns which connection may be used again, and how old it may get. It must not
read or write on one.
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
"""Older ones are closed: a firewall may have forgotten them, which costs the next command its whole time-out."""


class ConnectionPool:
    """Idle sockets by key, the freshest first. Any thread may call."""

    def __init__(self, max_idle: int = MAX_IDLE, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_idle = max_idle
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[Hashable, Any, float]] = OrderedDict()
        """Key, socket and the moment until which it may be used."""
        self._unproven: Counter[Hashable] = Counter()
        self._next = 0

    def take(self, key: Hashable) -> Any:
        """The freshest idle socket; None where there is none."""
        now = self._monotonic()
        with self._lock:
            aged = self._remove(lambda _key, until: now > until)
            place = next((place for place, (its, _, _) in reversed(self._idle.items()) if its == key), None)
            found = None if place is None else self._idle.pop(place)
        _close(aged)
        return None if found is None else found[1]

    def opening(self, key: Hashable) -> None:
        """Note that a new connection is being opened, of which nobody knows yet whether the target serves it."""
        with self._lock:
            self._unproven[key] += 1

    def opened(self, key: Hashable) -> None:
        """Note that it was answered, or came to nothing."""
        with self._lock:
            self._unproven[key] -= 1
            if self._unproven[key] <= 0:
                del self._unproven[key]

    def keep(self, key: Hashable, sock: Any, seconds: float = MAX_AGE_SECONDS) -> None:
        """Keep a socket for the next exchange, so long; close it where another waits for the target to turn to it."""
        with self._lock:
            if self._unproven[key] > 0:
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

    def _remove(self, which: Callable[[Hashable, float], bool]) -> list[Any]:
        places = [place for place, (key, _, until) in self._idle.items() if which(key, until)]
        return [self._idle.pop(place)[1] for place in places]


def _close(sockets: list[Any]) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):  # One that the system does not close in order must not keep the others open.
            sock.close()
