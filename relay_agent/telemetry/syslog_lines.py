"""Log lines in the form of syslog (RFC 5424), and those that wait to be sent.

It must not make the logging thread wait, or send anything.
"""

from __future__ import annotations

import re
import threading

from relay_agent.telemetry.log_buffer import LogBuffer

MEMORY_BYTES = 2 * 1024 * 1024
"""Bytes of the lines that wait for the receiver; the oldest are dropped."""
MAX_LINES = 8000
FACILITY = 3
"""`daemon`, a system daemon (RFC 5424 §6.2.1)."""
APP_NAME = "relay-agent"
MAX_SEQUENCE = 2_147_483_647
"""The largest `sequenceId`; the next is 1 (RFC 5424 §7.3.1)."""
_SEVERITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_MAX_HOSTNAME, _MAX_PROCESS, _MAX_MESSAGE_ID = 255, 128, 32
_NOT_PRINTABLE = re.compile(r"[^!-~]")


class SyslogLines:
    """A sink that keeps each line as a syslog message until it is sent. Any thread may call."""

    # Formatted here and not by a library: see "Libraries" in docs/design.md.

    def __init__(self, agent_id: str, hostname: str, buffer: LogBuffer | None = None) -> None:
        self.buffer = LogBuffer(MEMORY_BYTES, MAX_LINES) if buffer is None else buffer
        self._origin = f"{_field(hostname, _MAX_HOSTNAME)} {APP_NAME} {_field(agent_id, _MAX_PROCESS)}"
        self._lock = threading.Lock()
        self._sequence = 0

    def accept(self, event: str, level: str, timestamp: str, line: str) -> None:
        """Keep a line. Its event is the MSGID, the agent's id the PROCID; a gap in `sequenceId` shows that a line is missing."""
        priority = FACILITY * 8 + _SEVERITIES[level]
        with self._lock:
            self._sequence = self._sequence % MAX_SEQUENCE + 1
            # Without a byte order mark: the line is ASCII, and parsers of JSON do not expect one.
            head = f'<{priority}>1 {timestamp} {self._origin} {_field(event, _MAX_MESSAGE_ID)} [meta sequenceId="{self._sequence}"]'
            self.buffer.accept(0, f"{head} {line}")


def _field(text: str, most: int) -> str:
    """Return a text as a field of the header: printable ASCII without spaces, `-` if nothing is left."""
    return _NOT_PRINTABLE.sub("", text)[:most] or "-"
