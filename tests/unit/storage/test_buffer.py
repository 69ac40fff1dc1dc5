"""A body in memory or in an unnamed file, read as often as needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_agent.storage.buffer import IN_MEMORY, Buffer


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
def test_a_buffer_can_be_read_more_than_once_in_bounded_pieces(tmp_path: Path, size: int) -> None:
    buffer = Buffer(tmp_path)
    data = bytes(range(251)) * (size // 251 + 1)
    for start in range(0, size, 50_000):
        buffer.write(data[start : min(size, start + 50_000)])
    assert buffer.size == size
    for _ in range(2):
        pieces = list(buffer.chunks())
        assert b"".join(pieces) == data[:size]
        assert all(0 < len(piece) <= 65536 for piece in pieces)
    buffer.close()


def test_a_large_buffer_leaves_no_name_in_the_directory(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path)
    buffer.write(b"x" * (IN_MEMORY + 1))
    assert list(tmp_path.iterdir()) == []
    buffer.close()
