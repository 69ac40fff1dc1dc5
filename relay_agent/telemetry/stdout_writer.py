"""Writes log lines to a stream, on a thread of its own: the reader of a pipe or terminal may stop reading.

It must not make the logging thread wait, and must not log itself.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TextIO

MAX_BYTES = 1024 * 1024
"""Bytes of the lines that wait for the reader, a few thousand; the oldest are dropped."""
PIECE_BYTES = select.PIPE_BUF
"""Bytes of one write; a pipe takes so many completely or not at all (pipe(7)), so that the end of the process cuts no line."""
LINGER_SECONDS = 0.05
"""Pause after a write, so that under load one write has the lines of many commands; a single line is written at once."""
BLOCKED_SECONDS = 5.0
"""Duration of a write after which the stream counts as blocked."""
NO_READER_SECONDS = 0.5
"""How long the end of the process waits for a reader that reads nothing."""
SLOW_READER_SECONDS = 3.0
"""How long it waits for one that reads slowly."""


class Output(Protocol):
    """Writes complete lines. Any thread may call. If the stream is closed or full, lines are lost; no call raises."""

    dropped: int
    """Lines that were dropped because the reader was too slow."""

    def write(self, line: str) -> None:
        """Write a line, which is given without its newline."""

    def blocked_seconds(self) -> float:
        """Return how long the stream has been blocked, 0 if it is not."""

    def close(self) -> None:
        """Write the waiting lines, as long as the reader takes them."""


def output(stream: TextIO | None, monotonic: Callable[[], float]) -> Output:
    """Return the output for a stream: by its descriptor if it has one, else directly. None (Python's closed stdout) discards lines."""
    if stream is None:
        return Direct(Path(os.devnull).open("w", encoding="utf-8"))
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return Direct(stream)
    return Piped(descriptor, getattr(stream, "encoding", None) or "utf-8", monotonic)


class Direct:
    """A stream in memory, which never blocks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.dropped = 0

    def write(self, line: str) -> None:
        """Write a line at once."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    def blocked_seconds(self) -> float:
        """Return 0: it is never blocked."""
        return 0.0

    def close(self) -> None:
        """Do nothing: no lines wait."""


class Piped:
    """A descriptor, on which a thread of its own writes."""

    # Not by Python's buffered stream, whose flush at exit would wait for the reader.

    def __init__(self, descriptor: int, encoding: str, monotonic: Callable[[], float], max_bytes: int = MAX_BYTES) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._monotonic = monotonic
        self._max_bytes = max_bytes
        self._more = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._waiting = self._closing = False
        self._writing_since: float | None = None
        self._over = threading.Event()
        self._pieces = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, line: str) -> None:
        """Give a line to the thread; if too many wait, the oldest are dropped and counted."""
        data = f"{line}\n".encode(self._encoding, "backslashreplace")
        with self._more:
            self._lines.append(data)
            self._bytes += len(data)
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._lines.popleft())
                self.dropped += 1
            if self._waiting:
                self._waiting = False
                self._more.notify()

    def blocked_seconds(self) -> float:
        """Return how long the current write has taken, 0 if there is none."""
        since = self._writing_since
        return 0.0 if since is None else self._monotonic() - since

    def close(self, seconds: float = NO_READER_SECONDS) -> None:
        """Write the waiting lines, and end the thread; if the reader does not read for so many seconds, the rest is lost."""
        atexit.unregister(self.close)
        with self._more:
            self._closing = True
            self._more.notify()
        self._over.set()
        end = time.monotonic() + SLOW_READER_SECONDS
        while self._thread.is_alive() and time.monotonic() < end:
            written = self._pieces
            self._thread.join(seconds)
            if written == self._pieces:
                return

    # --- on its own thread ---

    def _run(self) -> None:
        while data := self._next():
            self._writing_since = self._monotonic()
            with contextlib.suppress(OSError):  # The stream is closed, or its disk is full.
                self._put(data)
            self._writing_since = None
            self._pieces += 1
            if not self._lines:  # Otherwise the next piece is ready.
                self._over.wait(LINGER_SECONDS)

    def _next(self) -> bytes:
        """Wait for lines, and return as many as fit into one write; returns no bytes after `close`."""
        with self._more:
            while not self._lines and not self._closing:
                self._waiting = True
                self._more.wait()
            taken: list[bytes] = []
            size = 0
            while self._lines and (not taken or size + len(self._lines[0]) <= PIECE_BYTES):
                taken.append(self._lines.popleft())
                size += len(taken[-1])
            self._bytes -= size
        return b"".join(taken)

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # Another process that shares the descriptor made it non-blocking.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
