"""The last log lines, kept for who asks for support.

This room owns a few hundred lines in memory. They are redacted already when they come here.
"""

from __future__ import annotations

import threading
from collections import deque

from relay_agent.telemetry.logger import LineSink

MOST_LINES = 1000
MOST_BYTES = 256 * 1024


class RecentLines:
    """A sink before the sink. Any thread may call."""

    def __init__(self, behind: LineSink) -> None:
        self._behind = behind
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()
        self._bytes = 0

    def accept(self, timestamp_ms: int, line: str) -> None:
        """Keep a line, and hand it on."""
        with self._lock:
            self._lines.append(line)
            self._bytes += len(line)
            while len(self._lines) > MOST_LINES or self._bytes > MOST_BYTES:
                self._bytes -= len(self._lines.popleft())
        self._behind.accept(timestamp_ms, line)

    def text(self) -> str:
        """The lines, the oldest first."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines)
