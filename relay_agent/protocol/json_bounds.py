"""Bounds on the number and the nesting of JSON values in foreign text, checked before the text is parsed.

Ten million bytes of `[],` would be parsed to three million lists, which take 365 MB.
"""

from __future__ import annotations

import re
from typing import Any

MAX_VALUES = 100_000
"""JSON values in one payload (PROTOCOL §3)."""
MAX_DEPTH = 64
"""Levels of objects and lists within each other (PROTOCOL §3)."""
_SURELY_WITHIN = 2 * MAX_DEPTH
"""Characters up to which a text that is JSON cannot exceed a bound."""

# A whole string, with the colon that makes it a name; a bracket; any other value. Possessive, so that each character is read once.
# Each match takes what separates it from the next: searching 16 MB of commas for it would hold the interpreter's lock for 0.7 s.
_GAP = r"[ \t\r\n,:]"
_SHAPE = rf'\A{_GAP}++|(?:"(?:[^"\\]++|\\.)*+("?)([ \t\r\n]*+:)?|[\[\]{{}}]|[^ \t\r\n"\[\]{{}},:]++){_GAP}*+'
_TEXT, _BYTES = re.compile(_SHAPE, re.DOTALL), re.compile(_SHAPE.encode("ascii"), re.DOTALL)
_OPENING, _CLOSING, _QUOTE, _BETWEEN = frozenset("[{"), frozenset("]}"), '"', frozenset(" \t\r\n,:")


def check_text(text: str | bytes) -> str | None:
    """Return which bound a text exceeds, None if it exceeds none.

    Text that is not JSON is not refused here: the count ends where that is found, or at the first value above the bound.
    """
    if len(text) <= _SURELY_WITHIN:
        return None
    values = names = depth = 0
    for match in _TEXT.finditer(text) if isinstance(text, str) else _BYTES.finditer(text):
        mark = text[match.start()]
        mark = chr(mark) if isinstance(mark, int) else mark
        if mark in _CLOSING:
            depth -= 1
        elif mark in _OPENING:
            depth, values = depth + 1, values + 1
        elif mark == _QUOTE and match[2]:
            names += 1
        elif mark not in _BETWEEN:
            values += 1
        if depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} deep"
        if values > MAX_VALUES or names > MAX_VALUES:
            return f"holds more than {MAX_VALUES:,} JSON values"
        if depth < 0 or (mark == _QUOTE and not match[1]):
            return None
    return None


def check_value(value: object) -> str | None:
    """Return which bound a decoded JSON value exceeds, None if it exceeds none."""
    values, depth = 1, 0
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} deep"
        below: list[Any] = []
        for container in level:
            items = container.values() if isinstance(container, dict) else container
            values += len(items)
            if values > MAX_VALUES:
                return f"holds more than {MAX_VALUES:,} JSON values"
            below += [item for item in items if isinstance(item, dict | list)]
        level = below
    return None
