"""Idle connections that are kept for the next exchange, shared by all workers.

Shared, because many instruments serve one connection at a time: the idle connection of one worker would block the others. So none is
kept once a new one to the same target has waited ROOM_SECONDS for its answer; if that target has served two at the same time,
PATIENCE_SECONDS.
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
ROOM_SECONDS = 0.05
"""How long a new connection to any other target may wait. Most answer sooner: with no wait at all, a busy target would get a new connection
for nearly every request."""
MAX_SEVERAL = 1000
"""Targets of which such facts are remembered."""


class ConnectionPool:
    """Idle sockets by key, the most recently used first. Any thread may call."""

    def __init__(self, max_idle: int = MAX_IDLE, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_idle = max_idle
        self.monotonic = monotonic
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[Hashable, Any, float]] = OrderedDict()
        """By number: key, socket and the time until which it may be used."""
        self._unanswered: dict[Hashable, list[float]] = {}
        """When each new connection was begun on which no answer has begun."""
        self._answering: Counter[Hashable] = Counter()
        """Connections on which an answer has begun and not ended."""
        self._several: OrderedDict[Hashable, float] = OrderedDict()
        """Targets that serve several connections at the same time, and until when this is believed."""
        self._new_answers: OrderedDict[Hashable, float] = OrderedDict()
        """When an answer last began on a new connection, by target."""
        self._watched = False
        """Whether a thread calls `make_room`."""
        self._next = 0

    def take(self, key: Hashable) -> Any:
        """Remove and return the idle socket that was used last; returns None if there is none."""
        now = self.monotonic()
        with self._lock:
            expired = self._remove(lambda _key, until: now > until)
            number = next((number for number, (its, _, _) in reversed(self._idle.items()) if its == key), None)
            found = None if number is None else self._idle.pop(number)
        _close(expired)
        return None if found is None else found[1]

    @contextlib.contextmanager
    def opening(self, key: Hashable) -> Iterator[None]:
        """Count a new connection until the block ends: an answer has begun, or it failed."""
        began = self.monotonic()
        with self._lock:
            self._unanswered.setdefault(key, []).append(began)
            watch = self._begins_watch(key)
        try:
            if watch:
                self._watch()
            yield
        finally:
            with self._lock:
                others = self._unanswered[key]
                others.remove(began)
                if not others:
                    del self._unanswered[key]

    def answering(self, key: Hashable, *, reused_at: float | None) -> None:
        """Count an answer that has begun on a connection that stays open.

        `reused_at` is when the connection was used again, by `monotonic` and before its request was sent; None if it is new.

        The target serves several connections at the same time if a new one is answered while another answer is read, or between request
        and answer of a kept one. An answer that ends its connection must not be counted: while it is still read here, the target may have
        closed it.
        """
        with self._lock:
            now = self.monotonic()
            if reused_at is None:
                several = self._answering[key] > 0
                _remember(self._new_answers, key, now)
            else:
                several = self._new_answers.get(key, float("-inf")) > reused_at
            if several:
                _remember(self._several, key, now + SEVERAL_SECONDS)
            self._answering[key] += 1

    def answered(self, key: Hashable) -> None:
        """Stop counting an answer: it was read, or given up."""
        with self._lock:
            self._answering[key] -= 1
            if self._answering[key] <= 0:
                del self._answering[key]

    def keep(self, key: Hashable, sock: Any, seconds: float = MAX_AGE_SECONDS) -> None:
        """Keep a socket for the next exchange, for at most `seconds`, or close it if a new connection has waited too long."""
        watch = False
        with self._lock:
            # The target may serve one connection at a time: then the new one is answered only after this one is closed.
            if self._must_make_room(key):
                surplus = [sock, *self._remove(lambda its, _until: its == key)]
            else:
                self._idle[self._next] = (key, sock, self.monotonic() + seconds)
                self._next += 1
                surplus = [self._idle.popitem(last=False)[1][1]] if len(self._idle) > self._max_idle else []
                watch = self._begins_watch(key)
        _close(surplus)
        if watch:
            self._watch()

    def make_room(self) -> bool:
        """Close idle connections to targets where a new one has waited too long; return whether this must be called again soon."""
        with self._lock:
            waiting = {key for key, _, _ in self._idle.values()} & self._unanswered.keys()
            late = {key for key in waiting if self._must_make_room(key)}
            surplus = self._remove(lambda key, _until: key in late)
            self._watched = waiting != late
            again = self._watched
        _close(surplus)
        return again

    def close(self) -> None:
        """Close every idle socket."""
        with self._lock:
            sockets = self._remove(lambda _key, _until: True)
        _close(sockets)

    def _must_make_room(self, key: Hashable) -> bool:
        """Return whether a connection must be closed because a new one waits for its answer."""
        if key not in self._unanswered:
            return False
        now = self.monotonic()
        waited = now - min(self._unanswered[key])
        if waited <= (PATIENCE_SECONDS if self._several.get(key, float("-inf")) >= now else ROOM_SECONDS):
            return False
        self._several.pop(key, None)  # However it was before: now one waits.
        return True

    def _begins_watch(self, key: Hashable) -> bool:
        """Note and return whether `_watch` must be called, since a connection is kept while a new one waits."""
        if self._watched or key not in self._unanswered or all(its != key for its, _, _ in self._idle.values()):
            return False
        self._watched = True
        return True

    def _watch(self) -> None:
        """Call `make_room` on a thread of its own, as long as it must be called."""
        pause = threading.Event()

        def watch() -> None:
            pause.wait(ROOM_SECONDS)
            while self.make_room():
                pause.wait(ROOM_SECONDS)

        try:
            threading.Thread(target=watch, name="make-room", daemon=True).start()
        except RuntimeError:  # The system gives no more threads: the next `keep` makes room, and starts one.
            self._watched = False

    def _remove(self, matches: Callable[[Hashable, float], bool]) -> list[Any]:
        numbers = [number for number, (key, _, until) in self._idle.items() if matches(key, until)]
        return [self._idle.pop(number)[1] for number in numbers]


def _remember(times: OrderedDict[Hashable, float], key: Hashable, moment: float) -> None:
    times[key] = moment
    times.move_to_end(key)
    if len(times) > MAX_SEVERAL:
        times.popitem(last=False)


def _close(sockets: list[Any]) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):  # An error on one must not leave the others open.
            sock.close()
