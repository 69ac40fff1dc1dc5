"""The logger that other rooms are given."""

from __future__ import annotations

from typing import Any, Protocol, Self


class Logger(Protocol):
    """What parts of the agent are given to log with. `event` is a fixed name that stands in docs/logs.md."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log what only someone who looks for a fault wants to read."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log what an administrator may want to know."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log what works, but not as it should."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log what does not work. `exc_info=True` adds the exception in a few words, at debug its frames too."""

    def bind(self, **fields: Any) -> Self:
        """A logger that adds these fields to each of its lines."""


class LineSink(Protocol):
    """Who else gets each line, such as the buffer for CloudWatch. Called by any thread; must not block."""

    def accept(self, timestamp_ms: int, line: str) -> None:
        """Take a rendered line, without its newline, and the moment it was logged."""
