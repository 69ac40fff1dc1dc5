"""Bytes in memory, or on an unnamed file."""

from __future__ import annotations

import gc
import io
import os
import tempfile
from pathlib import Path

import pytest

from relay_agent.pipelines.spool import NoPlace, Spool


def test_few_bytes_stay_in_memory_and_many_go_to_a_file(tmp_path: Path) -> None:
    for pieces, kind in (([b"ab", b"cd"], io.BytesIO), ([b"ab", b"cde", b"f"], io.FileIO)):
        spool = Spool(in_memory_bytes=4)
        for piece in pieces:
            spool.write(piece)
        file = spool.reader()
        assert isinstance(file, kind) and file.read() == b"".join(pieces) and spool.size == len(b"".join(pieces))
        spool.close()
        assert file.closed


def test_a_file_that_nobody_closes_is_closed_without_a_warning() -> None:
    spool = Spool(in_memory_bytes=0)
    spool.write(b"x")
    number = spool.reader().fileno()
    del spool
    gc.collect()
    try:
        os.fstat(number)
    except OSError:
        return
    raise AssertionError("the file is still open")


def test_where_no_file_can_be_made_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(NoPlace, match="temporary file: No such file or directory; set TMPDIR") as caught:
        Spool(in_memory_bytes=0).write(b"x")
    assert caught.value.code == "ENOENT"
