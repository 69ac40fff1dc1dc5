"""Content codings undone (RFC 9110 §8.4): however the bytes are cut, whole or refused, and never in large pieces."""

from __future__ import annotations

import contextlib
import gzip
import random
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.codings import MAX_CODINGS, PIECE, BadCoding, decodable, decode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "x-gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}
NAMES = sorted(ENCODERS)
SAMPLE = b"The quick brown fox; " * 9 + bytes(range(64))
BYTES = st.binary(max_size=400) | st.builds(lambda piece, times: piece * times, st.binary(max_size=20), st.integers(1, 300))


def undo(data: bytes, *codings: str, cuts: list[int] | None = None) -> bytes:
    places = sorted({min(cut, len(data)) for cut in cuts or []})
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    return b"".join(decode(pieces, list(codings)))


@given(data=BYTES, coding=st.sampled_from(NAMES), cuts=st.lists(st.integers(0, 500), max_size=8))
def test_every_coding_is_undone_wherever_the_bytes_are_cut(data: bytes, coding: str, cuts: list[int]) -> None:
    assert undo(ENCODERS[coding](data), coding, cuts=cuts) == data


@given(data=BYTES, cuts=st.lists(st.integers(0, 500), max_size=8))
def test_bare_deflate_as_some_servers_send_it_is_undone(data: bytes, cuts: list[int]) -> None:
    assert undo(bare_deflate(data), "deflate", cuts=cuts) == data


@given(data=BYTES, chain=st.lists(st.sampled_from(NAMES), min_size=1, max_size=MAX_CODINGS), cuts=st.lists(st.integers(0, 500), max_size=5))
def test_a_chain_of_codings_is_undone_from_its_last(data: bytes, chain: list[str], cuts: list[int]) -> None:
    packed = data
    for coding in chain:
        packed = ENCODERS[coding](packed)
    assert undo(packed, *chain, cuts=cuts) == data


@pytest.mark.parametrize("coding", NAMES)
def test_a_body_that_ends_at_any_earlier_byte_is_refused(coding: str) -> None:
    packed = ENCODERS[coding](SAMPLE)
    for end in range(1, len(packed)):
        with pytest.raises(BadCoding):
            undo(packed[:end], coding)


def test_bare_deflate_that_ends_at_any_earlier_byte_is_refused() -> None:
    packed = bare_deflate(SAMPLE)
    for end in range(1, len(packed)):
        with pytest.raises(BadCoding):
            undo(packed[:end], "deflate")


@pytest.mark.parametrize("coding", NAMES)
def test_no_bytes_at_all_are_an_empty_body(coding: str) -> None:
    assert undo(b"", coding) == b""
    assert list(decode([], [coding])) == []


@pytest.mark.parametrize("coding", NAMES)
def test_bytes_that_are_something_else_are_refused(coding: str) -> None:
    with pytest.raises(BadCoding):
        undo(b"<html>not what the name says</html>", coding)


@given(data=st.binary(min_size=1, max_size=200), coding=st.sampled_from(NAMES))
def test_arbitrary_bytes_are_decoded_or_refused_and_nothing_else(data: bytes, coding: str) -> None:
    with contextlib.suppress(BadCoding):
        undo(data, coding, cuts=[len(data) // 2])


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_several_members_are_one_body_wherever_they_are_cut(coding: str) -> None:
    packed = ENCODERS[coding](b"one ") + ENCODERS[coding](b"") + ENCODERS[coding](b"two")
    for cut in range(len(packed)):
        assert undo(packed, coding, cuts=[cut]) == b"one two"


def test_padding_after_gzips_last_member_is_no_fault() -> None:
    packed = gzip.compress(b"all") + b"\0" * 50
    for cut in range(len(packed)):
        assert undo(packed, "gzip", cuts=[cut]) == b"all"


def test_a_second_gzip_member_that_ends_early_is_refused() -> None:
    with pytest.raises(BadCoding):
        undo(gzip.compress(b"one") + gzip.compress(b"two")[:-3], "gzip")


def test_a_gzip_whose_checksum_is_wrong_is_refused() -> None:
    packed = bytearray(gzip.compress(SAMPLE))
    packed[-5] ^= 1
    with pytest.raises(BadCoding):
        undo(bytes(packed), "gzip")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("size", [100_000, 20_000_000])
def test_what_expands_a_thousandfold_comes_out_whole(coding: str, size: int) -> None:
    assert sum(len(piece) for piece in decode([ENCODERS[coding](b"\0" * size)], [coding])) == size


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_what_does_not_compress_comes_out_whole(coding: str) -> None:
    data = random.Random(1).randbytes(300_000)
    assert undo(ENCODERS[coding](data), coding) == data


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_pieces_are_bounded_however_much_the_coding_expands(coding: str) -> None:
    pieces = decode([ENCODERS[coding](b"\0" * 1_000_000)], [coding])
    assert max(len(next(pieces)) for _ in range(5)) <= PIECE


def test_bare_deflate_of_any_length_about_a_pieces_end_is_whole() -> None:
    lost = []
    for size in range(PIECE - 5, PIECE + 300):
        try:
            assert undo(bare_deflate(b"\0" * size), "deflate") == b"\0" * size
        except BadCoding:
            lost.append(size)
    assert lost == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_every_length_about_a_pieces_end_is_whole(coding: str) -> None:
    for size in range(PIECE - 5, PIECE + 300):
        assert len(undo(ENCODERS[coding](b"\0" * size), coding)) == size


def test_a_bomb_within_a_bomb_can_be_left_at_the_first_pieces() -> None:
    packed = gzip.compress(gzip.compress(b"\0" * 30_000_000))
    pieces = decode([packed], ["gzip", "gzip"])
    assert len(packed) < 5_000
    assert len(next(pieces)) <= PIECE


def test_zstd_may_ask_for_no_more_memory_than_8_mib() -> None:
    packed = zstd.compress(SAMPLE * 40_000, options={zstd.CompressionParameter.window_log: 24})
    with pytest.raises(BadCoding):
        undo(packed, "zstd")


def test_only_known_codings_and_few_of_them_are_decodable() -> None:
    assert all(decodable([coding]) for coding in NAMES)
    assert decodable(["gzip"] * MAX_CODINGS)
    assert not decodable([])
    assert not decodable(["gzip"] * (MAX_CODINGS + 1))
    assert not decodable(["gzip", "compress"])
