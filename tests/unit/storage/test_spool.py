"""Bytes too large for memory: a buffer that can be read again, and answers as gzip files."""

from __future__ import annotations

import gzip
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.storage.buffer import IN_MEMORY, Buffer, Filed
from relay_agent.storage.spool import Spool, Spooled
from tests.unit.storage.scenes import pieces_of, unnamed_file


@given(st.lists(st.text(max_size=10), max_size=10))
def test_a_text_within_the_limit_is_returned_whole(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    whole = "".join(pieces)
    spool = Spool(tmp_path_factory.getbasetemp() / "fits")
    assert spool.store(pieces, len(whole.encode()), "x") == whole
    assert list(spool.directory.iterdir()) == []


def test_one_byte_beyond_the_limit_goes_to_a_gzip_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    stored = spool.store(iter(["\xe9" * 5, "abc"]), 12, "answer.json.gz")
    path = spool.path("answer.json.gz")
    assert stored == Spooled("answer.json.gz", path.stat().st_size)
    assert gzip.decompress(path.read_bytes()).decode() == "\xe9" * 5 + "abc"


def test_the_limit_counts_bytes_and_not_characters(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.store(["\u20ac\u20ac"], 6, "x") == "\u20ac\u20ac"
    assert isinstance(spool.store(["\u20ac\u20ac"], 5, "x"), Spooled)


def test_the_directory_and_the_files_are_the_owners_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.store(["abc"], 0, "a")
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(spool.path("a").stat().st_mode) == 0o600


def test_the_same_answer_gives_the_same_bytes(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for name in "ab":
        spool.store(["abc" * 100], 0, name)
    assert spool.path("a").read_bytes() == spool.path("b").read_bytes()


def test_removing_is_idempotent(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store(["abc"], 0, "a")
    spool.remove("a")
    spool.remove("a")
    assert list(tmp_path.iterdir()) == []


def test_only_files_that_no_answer_names_are_orphans(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for name in "abc":
        spool.store(["abc"], 0, name)
    assert spool.remove_orphans({"b", "elsewhere"}) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_file_that_could_not_be_written_whole_is_removed(tmp_path: Path) -> None:
    def pieces() -> Iterator[str]:
        yield "a" * 100
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Spool(tmp_path).store(pieces(), 10, "a")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Replace the disk by one that takes only so many bytes of a file: the last write is short, and the next fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [10**9, 3 * IN_MEMORY - 1, 70_001, 0])
def test_a_request_body_is_held_whole_even_on_a_full_disk(tmp_path: Path, room: int) -> None:
    data = bytes(range(251)) * (3 * IN_MEMORY // 251)
    with room_for(room):
        held = Spool(tmp_path).hold(pieces_of(data))
    assert isinstance(held, Buffer)
    assert (held.size, list(tmp_path.iterdir())) == (len(data), [])
    for _ in range(2):
        pieces = list(held.chunks())
        assert (b"".join(pieces), max(map(len, pieces)) <= 65536) == (data, True)
    held.close()


def test_a_small_body_is_held_as_bytes(tmp_path: Path) -> None:
    assert Spool(tmp_path).hold([b"ab", b"", b"c"]) == b"abc"
    assert Spool(tmp_path).hold([]) == b""


def test_a_body_that_cannot_be_encoded_leaves_no_open_file(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a" * (IN_MEMORY + 1)
        raise ValueError("no base64")

    with pytest.raises(ValueError, match="no base64"):
        Spool(tmp_path).hold(pieces())


def test_a_held_file_that_was_truncated_is_an_error(tmp_path: Path) -> None:
    held = Spool(tmp_path).hold([b"a" * 60_000, b"b" * 60_000])
    assert isinstance(held, Buffer)
    with unnamed_file(tmp_path).open("r+b") as file:
        file.truncate(50_000)
    with pytest.raises(OSError, match="Input/output"):
        list(held.chunks())
    held.close()


def test_a_fetched_body_is_kept_as_bytes_or_in_a_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.keep([b"ab", b"cd"], 4, "x.body") == b"abcd"
    assert list(tmp_path.iterdir()) == []
    assert spool.keep([b"ab", b"\xc3", b"\xa9\r\n"], 4, "x.body") is None
    assert spool.text("x.body") == "ab\xe9\r\n"
    assert stat.S_IMODE(spool.path("x.body").stat().st_mode) == 0o600
    content = Filed(spool.path("x.body"))
    assert (content.size, list(content.chunks())) == (6, [b"ab\xc3\xa9\r\n"])


def test_a_body_that_cannot_be_kept_whole_leaves_no_file(tmp_path: Path) -> None:
    with room_for(100), pytest.raises(OSError, match="too large"):
        Spool(tmp_path).keep([b"a" * 101], 4, "x.body")
    assert list(tmp_path.iterdir()) == []
