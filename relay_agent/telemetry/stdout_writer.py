"""Where lines are written: a thread of its own for a pipe, a file or a terminal, since whoever reads them may stop reading.

This room owns how a line gets onto the stream, and how many wait for one that takes none. It must not make whoever logs wait,
nor say anything itself.
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

MOST_BYTES = 1024 * 1024
"""What may wait for the reader: a few thousand lines, the newest."""
PIECE_BYTES = select.PIPE_BUF
"""What a pipe takes whole or not at all (pipe(7)): no line that fits is ever cut in two by the end."""
LINGER_SECONDS = 0.05
"""Between two writes: under load one carries the lines of many commands, a lone line waits for none."""
BLOCKED_SECONDS = 5.0
"""How long a write may take before it is worth a word."""
PARTING_SECONDS = 0.5
"""How long the end of the process waits for a reader that reads nothing ..."""
LONGEST_SECONDS = 3.0
"""... and for one that is slow."""


class Output(Protocol):
    """Takes whole lines, without their newline. Any thread may call; a stream that is gone or full loses lines, never the caller."""

    dropped: int
    """Lines that nobody read in time."""

    def write(self, line: str) -> None:
        """Take a line."""

    def blocked_seconds(self) -> float:
        """For how long the stream has taken nothing, 0 where it does."""

    def close(self) -> None:
        """Write what waits, as far as somebody reads it."""


def output(stream: TextIO | None, monotonic: Callable[[], float]) -> Output:
    """How to write to a stream: by its descriptor where it has one, directly where it is memory. None: a closed one, as Python has it."""
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
        """Write the line at once."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    def blocked_seconds(self) -> float:
        """Never."""
        return 0.0

    def close(self) -> None:
        """Nothing waits."""


class Piped:
    """A descriptor, written by a thread of its own past Python's buffer: a buffer that cannot be emptied would hold up the exit."""

    def __init__(self, descriptor: int, encoding: str, monotonic: Callable[[], float], most_bytes: int = MOST_BYTES) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._monotonic = monotonic
        self._most_bytes = most_bytes
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
        """Leave the line to the thread; where too many wait, the oldest is dropped and counted."""
        data = f"{line}\n".encode(self._encoding, "backslashreplace")
        with self._more:
            self._lines.append(data)
            self._bytes += len(data)
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._lines.popleft())
                self.dropped += 1
            if self._waiting:
                self._waiting = False
                self._more.notify()

    def blocked_seconds(self) -> float:
        """How long the write under way has taken, 0 where there is none."""
        since = self._writing_since
        return 0.0 if since is None else self._monotonic() - since

    def close(self, seconds: float = PARTING_SECONDS) -> None:
        """Write what waits, and end the thread; what nobody reads for so many seconds is lost."""
        atexit.unregister(self.close)
        with self._more:
            self._closing = True
            self._more.notify()
        self._over.set()
        end = time.monotonic() + LONGEST_SECONDS
        while self._thread.is_alive() and time.monotonic() < end:
            written = self._pieces
            self._thread.join(seconds)
            if written == self._pieces:
                return

    # --- its own thread ---

    def _run(self) -> None:
        while data := self._next():
            self._writing_since = self._monotonic()
            with contextlib.suppress(OSError):  # The stream is gone, or its disk full.
                self._put(data)
            self._writing_since = None
            self._pieces += 1
            if not self._lines:  # Else there is a piece to write already.
                self._over.wait(LINGER_SECONDS)

    def _next(self) -> bytes:
        """Whole lines to write next; none at the end."""
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
            except BlockingIOError:  # Somebody who shares it made it so.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
