"""What a misspelt name was meant to be: the nearest known one.

Owns how near is near enough. It must not know what the names are for.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_BARE = re.compile(r"[A-Za-z0-9_.-]*")
NEAR_ENOUGH = 0.5
"""The least similarity that is offered; difflib's ratio, from 0 to 1."""


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the most similar known name, None if none is similar."""
    import difflib  # Here, because a start without a mistake does not need it.

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=NEAR_ENOUGH)), None)


def unknown_key(key: str, known: Collection[str]) -> str:
    """Return the words for a key that is not known: the nearest one, or all that are."""
    near = nearest(key, known)
    # In quotes a key may be any text, such as a whole header field with its value.
    beginning = _BARE.match(key)
    shown = key if beginning is None or beginning[0] == key else f"{beginning[0]}…"
    return f"unknown key '{shown}'" + (f"; did you mean '{near}'?" if near else f"; known are {', '.join(known)}")
