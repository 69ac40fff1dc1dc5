"""A log whose lines can be read: the scenes of the tests of `telemetry`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from relay_agent.core.clock import Clock
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor
from relay_agent.telemetry.secret_patterns import MAX_CHARACTERS

NOW = datetime(2026, 11, 23, 3, 13, 0, 123_456, tzinfo=UTC)
CANARY = "c4n4rY-Tr0ub4dor"


class Sink:
    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def accept(self, timestamp_ms: int, line: str) -> None:
        self.lines.append((timestamp_ms, line))


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Written:
    """A log on a stream in memory."""

    def __init__(self, level: str = "info", console: bool = False) -> None:
        self.stream = io.StringIO()
        self.sink = Sink()
        self.time = Time()
        clock = Clock(now=lambda: NOW, monotonic=self.time)
        self.logs = Logs(level, Redactor([CANARY]), self.sink, self.stream, clock, console)
        self.log = self.logs.logger

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def fail(message: str) -> None:
    local_secret = f"{message} {CANARY}"
    raise ConnectionError(f"bad Authorization: {local_secret}")


JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJjYW5hcnkiLCJleHAiOjF9.dGhpcyBpcyB0aGUgc2lnbmF0dXJl"


def over_the_edge(text: str, secret: str) -> Iterator[str]:
    """Long texts in which the bound is within the secret: after its first character, at some others, before its last."""
    start = text.index(secret)
    for inside in {*range(1, len(secret), len(secret) // 3 + 1), len(secret) - 1}:
        padding = "a " * MAX_CHARACTERS
        yield padding[-(MAX_CHARACTERS - start - inside) :] + text + " and more" * 10
