"""Log lines that wait to be shipped: what is kept, and what is dropped if there are too many.

It must not make the logging thread wait.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

# Limits of PutLogEvents (AWS). Since 2025 an event may have 1 MB; the older limit is accepted everywhere.
BATCH_BYTES = 1_048_576
BATCH_EVENTS = 10_000
EVENT_OVERHEAD = 26
EVENT_BYTES = 262_144 - EVENT_OVERHEAD
MEMORY_BYTES = 8 * 1024 * 1024
"""Bytes of all waiting lines: those in the buffer, and the one batch that the shipper has taken from it."""


class Line(NamedTuple):
    """One log event: milliseconds since 1970 (UTC), its text, and its size as PutLogEvents counts it."""

    timestamp_ms: int
    text: str
    size: int


class LogBuffer:
    """A bounded buffer of lines: the oldest are dropped and counted. Any thread may call; no call blocks."""

    def __init__(self, max_bytes: int = MEMORY_BYTES - BATCH_BYTES, max_lines: int = 20_000) -> None:
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._lock = threading.Lock()
        self._lines: deque[Line] = deque()
        self._bytes = 0
        self._dropped = 0
        self._unreported = 0

    @property
    def waiting(self) -> int:
        """How many lines it holds."""
        return len(self._lines)

    @property
    def dropped_total(self) -> int:
        """How many lines have been dropped since the start."""
        return self._dropped

    def accept(self, timestamp_ms: int, line: str) -> None:
        """Add a line; one that is longer than PutLogEvents accepts is cut between two characters."""
        text, length = _fit(line)
        if not text:
            return
        entry = Line(timestamp_ms, text, length + EVENT_OVERHEAD)
        with self._lock:
            self._lines.append(entry)
            self._bytes += entry.size
            while self._bytes > self._max_bytes or len(self._lines) > self._max_lines:
                self._bytes -= self._lines.popleft().size
                self._dropped += 1
                self._unreported += 1

    def take(self, max_bytes: int = BATCH_BYTES, max_lines: int = BATCH_EVENTS) -> list[Line]:
        """Remove and return the oldest lines, as many as fit into both limits."""
        taken: list[Line] = []
        with self._lock:
            while self._lines and len(taken) < max_lines and self._lines[0].size <= max_bytes:
                entry = self._lines.popleft()
                max_bytes -= entry.size
                self._bytes -= entry.size
                taken.append(entry)
        return taken

    def count_dropped(self, lines: int) -> None:
        """Count lines that were taken but could not be delivered as dropped."""
        with self._lock:
            self._dropped += lines
            self._unreported += lines

    def take_unreported(self) -> int:
        """Return how many lines were dropped since the last call."""
        with self._lock:
            count, self._unreported = self._unreported, 0
        return count


def _fit(line: str) -> tuple[str, int]:
    if line.isascii():
        return line[:EVENT_BYTES], min(len(line), EVENT_BYTES)
    encoded = line.encode("utf-8", "replace")
    text = encoded[:EVENT_BYTES].decode("utf-8", "ignore")
    return text, len(text.encode())
