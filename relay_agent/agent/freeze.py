"""The last safeguard: if C code holds the interpreter's lock for too long, the process ends with every thread's stack on stderr.

This module owns that timer. As long as threads can run, `watchdog` decides which of them are stuck.
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
"""How often the timer is reset at most: each reset starts a thread."""


class Freeze:
    """A timer on a thread that runs no Python; it ends the process with exit code 1 unless it is reset in time.

    It prints files, functions and lines, but no values (faulthandler). There is one per process, so only the main thread sets it: an
    agent that a test runs on another thread has none. Time during which the process is stopped (SIGSTOP) counts.
    """

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._next = float("-inf")
        self._armed = False

    def keep_alive(self) -> None:
        """Reset the timer: the main thread runs. Cheap, so it may be called often."""
        if self._monotonic() >= self._next:
            self.allow(0.0)

    def allow(self, seconds: float) -> None:
        """Reset the timer and extend its limit by `seconds`, for a step during which the main thread does not reset it."""
        if threading.current_thread() is not threading.main_thread():
            return
        with contextlib.suppress(
            RuntimeError
        ):  # The system refuses a thread: the agent works without the timer until a later reset succeeds.
            faulthandler.dump_traceback_later(self._seconds + seconds, exit=True, file=_stderr())
        self._next = self._monotonic() + min(REARM_SECONDS, self._seconds / 4)
        self._armed = True

    def disarm(self) -> None:
        """Cancel the timer if this object set it."""
        if self._armed:
            faulthandler.cancel_dump_traceback_later()
            self._armed, self._next = False, float("-inf")


@functools.cache
def _stderr() -> int:
    """Return the descriptor of the process's stderr, or of /dev/null if it was started without: 2 may be another file by now."""
    return os.open(os.devnull, os.O_WRONLY) if sys.__stderr__ is None else sys.__stderr__.fileno()
