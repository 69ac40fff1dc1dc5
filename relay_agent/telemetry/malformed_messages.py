"""The beginnings of the last malformed messages, kept in memory for the support bundle (docs/threat-model.md)."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime

from relay_agent.core.clock import iso

KEPT = 20
MAX_CHARACTERS = 1024
"""Characters of a message that are kept."""


class MalformedMessages:
    """Keeps the last malformed messages, redacted. Any thread may call."""

    def __init__(self, redact: Callable[[str], str], now: Callable[[], datetime]) -> None:
        """`redact` masks the secrets in a text."""
        self._redact = redact
        self._now = now
        self._lock = threading.Lock()
        self._kept: deque[str] = deque(maxlen=KEPT)

    def keep(self, message: str, reason: str) -> None:
        """Keep the beginning of a message, and what is wrong with it."""
        entry = {"time": iso(self._now()), "reason": reason, "characters": len(message), "begins": self._redact(message[:MAX_CHARACTERS])}
        line = json.dumps(entry)
        with self._lock:
            self._kept.append(line)

    def text(self) -> str:
        """Return them as lines of JSON, the oldest first."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._kept)
