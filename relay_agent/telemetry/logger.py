"""The interfaces of logging: what code logs with, and what receives the lines."""

from __future__ import annotations

from typing import Any, Protocol, Self

WITHHELD = "withheld"
"""The field that names, separated by dots, the fields that only this machine's own log may show."""


class Logger(Protocol):
    """A logger. `event` is a fixed name that docs/logs.md lists."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log a detail that helps only to find a fault."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log normal operation."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log a problem that does not stop the agent's work."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log a failure. `exc_info=True` adds a short text of the exception, at level debug its stack frames too."""

    def bind(self, **fields: Any) -> Self:
        """Return a logger that adds these fields to each of its lines."""


class EventSink(Protocol):
    """A receiver of every line as this machine's own log shows it, with what it is about. Any thread calls it; it must not block."""

    def accept(self, event: str, level: str, timestamp: str, line: str) -> None:
        """Take a rendered line without its newline; `timestamp` is its own, in ISO 8601."""


class LineSink(Protocol):
    """Another receiver of every line, such as the buffer for CloudWatch. Any thread calls it; it must not block."""

    def accept(self, timestamp_ms: int, line: str) -> None:
        """Take a rendered line without its newline; `timestamp_ms` is in milliseconds since 1970."""
