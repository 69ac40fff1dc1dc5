"""Calls that may outlast their caller's patience, each on a daemon thread: no library bounds name resolution, headers or all of an answer.

Owns these threads. It must not know what is called.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Runs calls on threads called `name`, at most `most` at once; further ones wait. A thread ends when no call waits for it."""

    def __init__(self, name: str, most: float = math.inf) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def run(self, call: Callable[[], T]) -> Future[T]:
        """Run the call, with the caller's context variables; what it returns or raises is in the future.

        The future may be cancelled as long as the call waits. Where no thread can be started, as at the end of a program, the call is
        made at once.
        """
        future: Future[T] = Future()
        context = copy_context()

        def within() -> T:
            return context.run(call)

        with self._lock:
            if self._running >= self._most:
                self._waiting.append((future, within))
                return future
            self._running += 1
        # A daemon, so that a call that nobody waits for any more keeps no program from its end.
        thread = threading.Thread(target=self._serve, args=(future, within), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._serve(future, within)
        return future

    def cancel(self, error: Exception) -> None:
        """End the calls that wait with this error; those that run go on."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for future, _ in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _serve(self, future: Future[Any], call: Callable[[], Any]) -> None:
        while True:
            _run(future, call)
            del future, call  # Nothing that came of it is kept while this thread waits for the lock.
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                future, call = self._waiting.popleft()


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001  # It is raised where the result is wanted.
        future.set_exception(error)
        del future, call  # Otherwise error and future would keep each other, and the request with them, until the garbage collector runs.
    else:
        future.set_result(result)
