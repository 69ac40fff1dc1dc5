"""Keeping out of `run` what libraries would only load because it is installed.

This room owns which packages those are. It must not decide what a command imports.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

UNWANTED = ("rich", "better_exceptions", "charset_normalizer", "chardet")
"""structlog looks for the first two, to paint tracebacks; the agent's log paints none. rich costs 30 ms and 5 MB.
requests looks for the others, to guess the charset of a text; the agent never asks it for text. That costs 3 MB."""
_MISSED = "Unable to find acceptable character detection dependency"


@contextmanager
def without_extras() -> Iterator[None]:
    """Let imports in the block find none of these packages; one that is loaded already stays."""
    hidden = [name for name in UNWANTED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # What the import system takes for "not there".
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _MISSED)
            yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
