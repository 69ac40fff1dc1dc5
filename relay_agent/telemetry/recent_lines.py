"""The last log lines, kept in memory for the support bundle. They are already redacted."""

from __future__ import annotations

import threading
from collections import deque

from relay_agent.telemetry.logger import LineSink

MAX_LINES = 1000
MAX_BYTES = 256 * 1024


class RecentLines:
    """A sink that keeps the last lines, and passes each on to another sink. Any thread may call."""

    def __init__(self, sink: LineSink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()
        self._bytes = 0

    def accept(self, timestamp_ms: int, line: str) -> None:
        """Keep a line, and pass it on."""
        with self._lock:
            self._lines.append(line)
            self._bytes += len(line)
            while len(self._lines) > MAX_LINES or self._bytes > MAX_BYTES:
                self._bytes -= len(self._lines.popleft())
        self._sink.accept(timestamp_ms, line)

    def text(self) -> str:
        """Return the lines, the oldest first."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines)
