"""The callback for where nobody wants to be called."""

from __future__ import annotations


def nothing() -> None:
    """Do nothing."""
