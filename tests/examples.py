"""How many examples a property test draws: few before each commit, more with more time (`make test EXAMPLES=10`)."""

from __future__ import annotations

import os

TIMES = int(os.environ.get("EXAMPLES") or 1)
USUAL = 30


def examples(few: int) -> int:
    """As many times `few` as EXAMPLES says."""
    return few * TIMES
