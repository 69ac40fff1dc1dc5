"""Free memory goes back to the system."""

from __future__ import annotations

import psutil

from relay_agent.core.memory import release_free_memory

PIECES = 50_000
PIECE_BYTES = 1000


def test_memory_freed_below_memory_in_use_is_given_back() -> None:
    pieces = [bytes(PIECE_BYTES) for _ in range(PIECES)]
    del pieces[:-1]  # The C library gives back by itself only what lies above all that is in use.
    process = psutil.Process()
    before = process.memory_info().rss
    release_free_memory()
    assert before - process.memory_info().rss > PIECES * PIECE_BYTES / 2
