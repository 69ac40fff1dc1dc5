"""The form of a log line: one JSON object in ASCII, of bounded length, or columns for a terminal.

This room owns how an event becomes text. It must not write or send it.
"""

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

_SENDERS_FIELDS = ("id", "action", "method", "host")
_OURS = ("event", "timestamp", "level")
_MOST_FRAMES = 20
_MOST_CAUSES = 10

Event = MutableMapping[str, Any]

_encode = json.JSONEncoder(separators=(",", ":"), default=lambda value: redact_text(str(value))).encode


def render(event: Event) -> str:
    """The event as one line of JSON, in ASCII, so that its length in characters is its length in bytes.

    A `command` line is at most 499 long, whatever a sender put into it (OPERATIONS §4); any other at most 8192.
    """
    event = {key: _fitting(value) for key, value in event.items()}
    line = _encode(event)
    if event["event"] == "command" and len(line) >= COMMAND_LINE_BYTES:
        return _encode(_fitted(event, COMMAND_LINE_BYTES - 1, [key for key in _SENDERS_FIELDS if isinstance(event.get(key), str)]))
    if len(line) > LINE_BYTES:
        flat = {key: value if isinstance(value, (str, int, float)) else _encode(value) for key, value in event.items()}
        return _encode(_fitted(flat, LINE_BYTES, [key for key, value in flat.items() if isinstance(value, str) and key not in _OURS]))
    return line


def _fitting(value: object) -> object:
    """The value; of a text that no line has room for, only what one could have: a character takes at least one."""
    return value[:LINE_BYTES] + CUT if isinstance(value, str) and len(value) > LINE_BYTES else value


def _fitted(event: Event, limit: int, keys: list[str]) -> Event:
    """The event with the longest of these fields cut, so that its line is no longer than `limit`."""
    cost = {key: len(_encode(event[key])) - 2 for key in keys}
    room = limit - (len(_encode(event)) - sum(cost.values()))
    fitted = dict(event)
    for left, key in zip(range(len(keys), 0, -1), sorted(keys, key=cost.__getitem__), strict=True):
        fitted[key] = _cut(event[key], max(0, room // left))  # the short ones first: what they leave is for the long ones
        room -= len(_encode(fitted[key])) - 2
    return fitted


def _cut(text: str, budget: int) -> str:
    """As much of the text as takes `budget` characters in JSON."""
    if len(text) <= budget and len(_encode(text)) - 2 <= budget:
        return text
    mark = CUT[:budget]
    room = budget - len(mark)
    fitting = bisect_right(range(min(len(text), room) + 1), room, key=lambda length: len(_encode(text[:length])) - 2)
    return text[: fitting - 1] + mark


def frames(error: BaseException, redact: Callable[[str], str]) -> list[str]:
    """Where the exception and its causes came from: no local variables, and their texts redacted."""
    lines: list[str] = []
    for item in islice(_causes(error), _MOST_CAUSES):
        innermost = deque(traceback.walk_tb(item.__traceback__), maxlen=_MOST_FRAMES)
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
    """Lines for a terminal. Values are shown as repr, so that no target can send escape sequences to it."""
    renderer = structlog.dev.ConsoleRenderer(repr_native_str=True, sort_keys=False, pad_event_to=24)
    return lambda event: str(renderer(None, "", dict(event)))
