"""How much JSON a foreign text may hold, counted before anything is made of it.

Ten million bytes of `[],` are three million lists, and so 365 MB. This room owns the count. It must not judge whether the text is
JSON, nor what it says.
"""

from __future__ import annotations

import re
from typing import Any

MAX_VALUES = 100_000
"""JSON values in one payload (PROTOCOL §3)."""
MAX_DEPTH = 64
"""Objects and lists within each other (PROTOCOL §3)."""
_SURELY_FEW = 2 * MAX_DEPTH
"""A text of so many characters has neither too many values nor too deep ones."""

# A string as a whole, with the colon that makes it a name; what opens and closes; any other value. Each character is looked at once.
_SHAPE = r'"(?:[^"\\]++|\\.)*+("?)([ \t\r\n]*+:)?|[\[\]{}]|[^ \t\r\n"\[\]{},:]++'
_TEXT, _BYTES = re.compile(_SHAPE, re.DOTALL), re.compile(_SHAPE.encode("ascii"), re.DOTALL)
_OPENING, _CLOSING, _QUOTE = frozenset("[{"), frozenset("]}"), '"'


def check_text(text: str | bytes) -> str | None:
    """Say what is over in a text that may be JSON, None where nothing is.

    The work ends with the first value too many, whatever the text is: what is no JSON is its reader's to refuse.
    """
    if len(text) <= _SURELY_FEW:
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
        else:
            values += 1
        if depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} deep"
        if values > MAX_VALUES or names > MAX_VALUES:
            return f"holds more than {MAX_VALUES:,} JSON values"
        if depth < 0 or (mark == _QUOTE and not match[1]):
            return None
    return None


def check_value(value: object) -> str | None:
    """The same of what was decoded already."""
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
