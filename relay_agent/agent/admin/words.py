"""Facts and numbers of `status.json` in words, for the status page and `status`.

Owns the wording. It must not determine anything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any


def queue_words(queue: dict[str, Any]) -> str:
    """Return whether the queue is enabled, and whether other agents receive from it too."""
    words = {True: "enabled", False: "disabled", None: "not known yet"}[queue["enabled"]]
    return f"{words}; shared queue: other agents of this id receive from it too" if queue["shared"] else words


def described_policy(policy: dict[str, Any]) -> str:
    """Return the policy in force of `status.json` in words."""
    number = policy["rules"]
    return f"mode {policy['mode']}, {number} rule{'' if number == 1 else 's'}, default {policy['default']}, {policy['file']}"


def _seconds(moment: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(moment)).total_seconds()


def ago(moment: str | None, now: str) -> str:
    """Return how long before `now` it was; both are ISO 8601."""
    return "never" if moment is None else f"{span(max(0.0, _seconds(moment, now)))} ago"


def until(moment: str | None, now: str) -> str:
    """Return how far ahead of `now` something expires, or how long ago it did; `-` if it is not known."""
    if moment is None:
        return "-"
    left = -_seconds(moment, now)
    return f"in {span(left)}" if left >= 0 else f"expired {span(-left)} ago"


def span(seconds: float) -> str:
    """Return a duration in the unit that a person would use."""
    for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def duration(milliseconds: int | None) -> str:
    """Return milliseconds as such, or from 10 s up in a larger unit; `-` if they are not known."""
    if milliseconds is None:
        return "-"
    return f"{milliseconds} ms" if milliseconds < 10_000 else span(milliseconds / 1000)


def byte_size(count: int) -> str:
    """Return a number of bytes with a decimal unit."""
    for size, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count} bytes"


def dropped(count: int) -> str:
    """Return an addition to the number of waiting log lines if some were dropped."""
    return f", {count} dropped" if count else ""
