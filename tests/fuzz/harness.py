"""What a harness is, and how its bytes become several inputs.

A harness finds nothing itself: whatever exception leaves it is the finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PLANTED = "planted-Secret-4711"
"""Stands where a secret is: no message may contain it."""


@dataclass(frozen=True, slots=True)
class Harness:
    """One place that reads foreign text. `run` returns if all is well; `longest` is the most bytes that are tried."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    longest: int = 2048


def parts(data: bytes, count: int) -> list[bytes]:
    """Split at NUL bytes into exactly so many parts; those that are missing are empty."""
    found = data.split(b"\0", count - 1)
    return found + [b""] * (count - len(found))


def joined(*values: str | bytes) -> bytes:
    """What `parts` splits."""
    return b"\0".join(value.encode() if isinstance(value, str) else value for value in values)


def text(data: bytes) -> str:
    """Any text, also one with halves of surrogate pairs, which JSON can hold."""
    return data.decode("utf-8", "surrogateescape")


def storable(value: str) -> bool:
    """Whether a text can be written as UTF-8: to the journal, a log or a terminal."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def check_refusal(error: Exception, most: int = 300) -> None:
    """Check the message of a refusal: short, printable, and without a planted secret."""
    message = str(error)
    assert len(message) <= most, f"a message of {len(message)} characters"
    assert storable(message), "a message that cannot be printed"
    assert PLANTED not in message, "a message that repeats what it refuses"
