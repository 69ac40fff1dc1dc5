"""The last line: a freeze in C code that holds the interpreter's lock ends the process, with every thread's stack on stderr.

This room owns that one timer. It must not judge what stands still: `watchdog` does, for as long as a thread can run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import sys
import threading
import time
from collections.abc import Callable

REARM_SECONDS = 10.0
"""How often the timer is set anew, at most: each time takes a thread."""


class Freeze:
    """A timer of its own thread without Python, which ends the process with exit code 1 unless it is set anew in time.

    It prints files, functions and lines, and no value (faulthandler). There is one for the process, so only its main thread sets it: an
    agent on another thread, in a test, has none. Time in which the process was stopped (SIGSTOP) counts.
    """

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._next = float("-inf")
        self._armed = False

    def keep_alive(self) -> None:
        """Say that the main thread runs. May be called often."""
        if self._monotonic() >= self._next:
            self.allow(0.0)

    def allow(self, seconds: float) -> None:
        """Say so, and that it may not be heard of again for so many seconds beside the limit."""
        if threading.current_thread() is not threading.main_thread():
            return
        with contextlib.suppress(RuntimeError):  # The system gives no thread: the agent works on without the timer until it does.
            faulthandler.dump_traceback_later(self._seconds + seconds, exit=True, file=_stderr())
        self._next = self._monotonic() + min(REARM_SECONDS, self._seconds / 4)
        self._armed = True

    def disarm(self) -> None:
        """End the timer that this one set."""
        if self._armed:
            faulthandler.cancel_dump_traceback_later()
            self._armed, self._next = False, float("-inf")


@functools.cache
def _stderr() -> int:
    """The process's own stderr; where it was started without one, its number may be another file's by now."""
    return os.open(os.devnull, os.O_WRONLY) if sys.__stderr__ is None else sys.__stderr__.fileno()
