"""A callback that does nothing, for use as a default."""

from __future__ import annotations


def nothing() -> None:
    """Do nothing."""
