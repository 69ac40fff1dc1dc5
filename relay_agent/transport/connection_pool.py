"""Idle connections that are kept for the next exchange, shared by all workers.

Shared, because many instruments serve one connection at a time: the idle connection of one worker would block the others. So no
connection is kept while a new one to the same target waits for its answer, unless that target has served two at the same time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any

MAX_IDLE = 64
MAX_AGE_SECONDS = 30.0
"""Idle time after which a connection is closed. A firewall may have dropped an older one, and the next command would time out on it."""
SEVERAL_SECONDS = 600.0
"""How long it is remembered that a target has served two connections at the same time."""
PATIENCE_SECONDS = 1.0
"""How long a new connection to such a target may wait for an answer before kept ones are closed all the same."""
MAX_SEVERAL = 1000
"""Targets of which this is remembered."""


class ConnectionPool:
    """Idle sockets by key, the most recently used first. Any thread may call."""

    def __init__(self, max_idle: int = MAX_IDLE, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_idle = max_idle
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[Hashable, Any, float]] = OrderedDict()
        """By number: key, socket and the time until which it may be used."""
        self._unanswered: dict[Hashable, list[float]] = {}
        """When each new connection was begun on which no answer has begun."""
        self._answering: Counter[Hashable] = Counter()
        """Connections on which an answer has begun and not ended."""
        self._several: OrderedDict[Hashable, float] = OrderedDict()
        """Targets that serve several connections at the same time, and until when this is believed."""
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

    @contextlib.contextmanager
    def opening(self, key: Hashable) -> Iterator[None]:
        """Count a new connection until the block ends: an answer has begun, or it failed."""
        began = self._monotonic()
        with self._lock:
            self._unanswered.setdefault(key, []).append(began)
        try:
            yield
        finally:
            with self._lock:
                others = self._unanswered[key]
                others.remove(began)
                if not others:
                    del self._unanswered[key]

    def answering(self, key: Hashable, *, new: bool) -> None:
        """Count an answer that has begun on a connection that stays open; if it is new, beside another, the target serves several.

        An answer that ends its connection must not be counted: while it is still read here, the target may have closed it.
        """
        with self._lock:
            if new and self._answering[key] > 0:
                self._several[key] = self._monotonic() + SEVERAL_SECONDS
                self._several.move_to_end(key)
                if len(self._several) > MAX_SEVERAL:
                    self._several.popitem(last=False)
            self._answering[key] += 1

    def answered(self, key: Hashable) -> None:
        """Stop counting an answer: it was read, or given up."""
        with self._lock:
            self._answering[key] -= 1
            if self._answering[key] <= 0:
                del self._answering[key]

    def keep(self, key: Hashable, sock: Any, seconds: float = MAX_AGE_SECONDS) -> None:
        """Keep a socket for the next exchange, for at most `seconds`, or close it while a new connection has no answer yet."""
        with self._lock:
            # The target may serve one connection at a time: then the new one is answered only after this one is closed.
            if self._must_make_room(key):
                surplus = [sock, *self._remove(lambda its, _until: its == key)]
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

    def _must_make_room(self, key: Hashable) -> bool:
        """Return whether a connection must be closed because a new one waits for its answer."""
        if key not in self._unanswered:
            return False
        now = self._monotonic()
        if self._several.get(key, float("-inf")) >= now and now - min(self._unanswered[key]) <= PATIENCE_SECONDS:
            return False
        self._several.pop(key, None)  # However it was before: now one waits.
        return True

    def _remove(self, matches: Callable[[Hashable, float], bool]) -> list[Any]:
        numbers = [number for number, (key, _, until) in self._idle.items() if matches(key, until)]
        return [self._idle.pop(number)[1] for number in numbers]


def _close(sockets: list[Any]) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):  # An error on one must not leave the others open.
            sock.close()
