"""Renders a log event: as one JSON object in ASCII, of bounded length, or in columns for a terminal."""

from __future__ import annotations

import json
import traceback
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from itertools import islice
from typing import Any

import structlog

from relay_agent.telemetry.redaction import describe
from relay_agent.telemetry.secret_patterns import CUT, redact_text

COMMAND_LINE_BYTES = 500
LINE_BYTES = 8192

_FREE_FIELDS = ("id", "action", "method", "host", "wouldRefuse")
"""Fields of a `command` line that the sender chooses, and the name of a rule, which an administrator does: they may be cut."""
_NEVER_CUT = ("event", "timestamp", "level")
_MAX_FRAMES = 20
_MAX_CAUSES = 10

Event = MutableMapping[str, Any]

_encode = json.JSONEncoder(separators=(",", ":"), default=lambda value: redact_text(str(value))).encode


def render(event: Event) -> str:
    """Return the event as one line of JSON, in ASCII.

    A `command` line has at most 499 bytes, whatever a sender put into it (docs/logs.md), any other at most 8192.
    """
    event = {key: _bounded(value) for key, value in event.items()}
    line = _encode(event)
    if event["event"] == "command" and len(line) >= COMMAND_LINE_BYTES:
        return _encode(_fitted(event, COMMAND_LINE_BYTES - 1, [key for key in _FREE_FIELDS if isinstance(event.get(key), str)]))
    if len(line) > LINE_BYTES:
        flat = {key: value if isinstance(value, (str, int, float)) else _encode(value) for key, value in event.items()}
        return _encode(_fitted(flat, LINE_BYTES, [key for key, value in flat.items() if isinstance(value, str) and key not in _NEVER_CUT]))
    return line


def _bounded(value: object) -> object:
    """Cut a text to the length of a line, so that the work on it is bounded."""
    return value[:LINE_BYTES] + CUT if isinstance(value, str) and len(value) > LINE_BYTES else value


def _fitted(event: Event, limit: int, keys: list[str]) -> Event:
    """Return the event with the longest of these fields cut, so that its line has at most `limit` bytes."""
    cost = {key: len(_encode(event[key])) - 2 for key in keys}
    free = limit - (len(_encode(event)) - sum(cost.values()))
    fitted = dict(event)
    for left, key in zip(range(len(keys), 0, -1), sorted(keys, key=cost.__getitem__), strict=True):
        fitted[key] = _cut(event[key], max(0, free // left))  # The shortest first: the longer ones share what these leave.
        free -= len(_encode(fitted[key])) - 2
    return fitted


def _cut(text: str, limit: int) -> str:
    """Cut a text so that it has at most `limit` characters in JSON."""
    if len(text) <= limit and len(_encode(text)) - 2 <= limit:
        return text
    mark = CUT[:limit]
    free = limit - len(mark)
    fitting = bisect_right(range(min(len(text), free) + 1), free, key=lambda length: len(_encode(text[:length])) - 2)
    return text[: fitting - 1] + mark


def frames(error: BaseException, redact: Callable[[str], str]) -> list[str]:
    """Return the stack frames and the redacted texts of an exception and its causes, without local variables."""
    lines: list[str] = []
    for item in islice(_causes(error), _MAX_CAUSES):
        innermost = deque(traceback.walk_tb(item.__traceback__), maxlen=_MAX_FRAMES)
        lines += [f"{frame.f_code.co_filename}:{number} {frame.f_code.co_name}" for frame, number in innermost]
        lines.append(describe(item, redact))
    return lines


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def console_format() -> Callable[[Event], str]:
    """Return a renderer of lines for a terminal."""
    # Values are shown as their repr, so that no target can send escape sequences to the terminal.
    renderer = structlog.dev.ConsoleRenderer(repr_native_str=True, sort_keys=False, pad_event_to=24)
    return lambda event: str(renderer(None, "", dict(event)))
