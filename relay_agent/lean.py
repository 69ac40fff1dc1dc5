"""Keeping out of `run` what libraries would only load because it is installed.

This room owns which packages those are. It must not decide what a command imports.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNWANTED = ("rich", "better_exceptions")
"""structlog looks for both, to paint tracebacks; the agent's log paints none. rich costs 30 ms and 5 MB."""


@contextmanager
def without_extras() -> Iterator[None]:
    """Let imports in the block find none of these packages; one that is loaded already stays."""
    hidden = [name for name in UNWANTED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # What the import system takes for "not there".
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
