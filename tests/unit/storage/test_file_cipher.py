"""What stands in unnamed files is encrypted."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_agent.storage.buffer import Buffer
from relay_agent.storage.spool import Spool
from tests.unit.storage.scenes import pieces_of, unnamed_file


@pytest.mark.parametrize("of", ["a request", "a response"])
def test_nothing_of_a_body_is_on_the_disk_in_the_clear(tmp_path: Path, of: str) -> None:
    text = b"canary-7b1f " * 60_000
    spool = Spool(tmp_path)
    if of == "a request":
        buffer = spool.hold(pieces_of(text))
        assert isinstance(buffer, Buffer)
    else:
        buffer = Buffer(tmp_path)
        for piece in pieces_of(text):
            buffer.write(piece)
    stored = unnamed_file(tmp_path).read_bytes()
    assert len(stored) > len(text) / 2
    assert b"canary" not in stored
    assert b"".join(buffer.chunks()) == text
    buffer.close()
