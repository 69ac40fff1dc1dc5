"""Content codings (RFC 9110 §8.4): decoded completely or refused, however the input is split; the output is in small pieces."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import random
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.transport import content_encoding
from relay_agent.transport.content_encoding import MAX_CODINGS, PIECE, SLICE, BadCoding, TooLarge, decodable

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


def decode(pieces: Iterable[bytes], chain: list[str], max_bytes: int = 100_000_000) -> Iterator[bytes]:
    return content_encoding.decode(pieces, chain, max_bytes, lambda: None)


def decoded(data: bytes, *codings: str, cuts: list[int] | None = None) -> bytes:
    places = sorted({min(cut, len(data)) for cut in cuts or []})
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    return b"".join(decode(pieces, list(codings)))


@given(data=BYTES, coding=st.sampled_from(NAMES), cuts=st.lists(st.integers(0, 500), max_size=8))
def test_every_coding_is_decoded_whatever_the_pieces(data: bytes, coding: str, cuts: list[int]) -> None:
    assert decoded(ENCODERS[coding](data), coding, cuts=cuts) == data


@given(data=BYTES, cuts=st.lists(st.integers(0, 500), max_size=8))
def test_bare_deflate_as_some_servers_send_it_is_decoded(data: bytes, cuts: list[int]) -> None:
    assert decoded(bare_deflate(data), "deflate", cuts=cuts) == data


@given(data=BYTES, chain=st.lists(st.sampled_from(NAMES), min_size=1, max_size=MAX_CODINGS), cuts=st.lists(st.integers(0, 500), max_size=5))
def test_a_chain_of_codings_is_decoded_from_its_last(data: bytes, chain: list[str], cuts: list[int]) -> None:
    packed = data
    for coding in chain:
        packed = ENCODERS[coding](packed)
    assert decoded(packed, *chain, cuts=cuts) == data


@pytest.mark.parametrize("coding", NAMES)
def test_a_body_that_ends_at_any_earlier_byte_is_refused(coding: str) -> None:
    packed = ENCODERS[coding](SAMPLE)
    for end in range(1, len(packed)):
        with pytest.raises(BadCoding):
            decoded(packed[:end], coding)


def test_bare_deflate_that_ends_at_any_earlier_byte_is_refused() -> None:
    packed = bare_deflate(SAMPLE)
    for end in range(1, len(packed)):
        with pytest.raises(BadCoding):
            decoded(packed[:end], "deflate")


@pytest.mark.parametrize("coding", NAMES)
def test_no_bytes_at_all_are_an_empty_body(coding: str) -> None:
    assert decoded(b"", coding) == b""
    assert list(decode([], [coding])) == []


@pytest.mark.parametrize("coding", NAMES)
def test_bytes_that_are_not_in_the_coding_are_refused(coding: str) -> None:
    with pytest.raises(BadCoding):
        decoded(b"<html>not what the name says</html>", coding)


@given(data=st.binary(min_size=1, max_size=200), coding=st.sampled_from(NAMES))
def test_arbitrary_bytes_are_decoded_or_refused_and_nothing_else(data: bytes, coding: str) -> None:
    with contextlib.suppress(BadCoding):
        decoded(data, coding, cuts=[len(data) // 2])


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_several_members_are_one_body_whatever_the_pieces(coding: str) -> None:
    packed = ENCODERS[coding](b"one ") + ENCODERS[coding](b"") + ENCODERS[coding](b"two")
    for cut in range(len(packed)):
        assert decoded(packed, coding, cuts=[cut]) == b"one two"


def test_padding_after_gzips_last_member_is_ignored() -> None:
    packed = gzip.compress(b"all") + b"\0" * 50
    for cut in range(len(packed)):
        assert decoded(packed, "gzip", cuts=[cut]) == b"all"


@pytest.mark.parametrize("padding", [b"\x1f", b"\x1f+padding"])
def test_padding_that_begins_as_a_gzip_member_does_is_ignored_wherever_it_is_cut(padding: bytes) -> None:
    packed = gzip.compress(b"all") + padding
    for cut in range(len(packed)):
        assert decoded(packed, "gzip", cuts=[cut]) == b"all"


def test_a_second_gzip_member_that_ends_early_is_refused() -> None:
    with pytest.raises(BadCoding):
        decoded(gzip.compress(b"one") + gzip.compress(b"two")[:-3], "gzip")


def test_a_gzip_whose_checksum_is_wrong_is_refused() -> None:
    packed = bytearray(gzip.compress(SAMPLE))
    packed[-5] ^= 1
    with pytest.raises(BadCoding):
        decoded(bytes(packed), "gzip")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("size", [100_000, 5_000_000])
def test_a_body_that_expands_a_thousandfold_is_decoded_completely(coding: str, size: int) -> None:
    assert sum(len(piece) for piece in decode([ENCODERS[coding](b"\0" * size)], [coding])) == size


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_does_not_compress_is_decoded_completely(coding: str) -> None:
    data = random.Random(1).randbytes(300_000)
    assert decoded(ENCODERS[coding](data), coding) == data


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_pieces_are_bounded_however_much_the_coding_expands(coding: str) -> None:
    pieces = decode([ENCODERS[coding](b"\0" * 1_000_000)], [coding])
    assert max(len(next(pieces)) for _ in range(5)) <= PIECE


def test_bare_deflate_of_any_length_near_the_size_of_a_piece_is_complete() -> None:
    lost = []
    for size in range(PIECE - 5, PIECE + 300):
        try:
            assert decoded(bare_deflate(b"\0" * size), "deflate") == b"\0" * size
        except BadCoding:
            lost.append(size)
    assert lost == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_body_of_any_length_near_the_size_of_a_piece_is_complete(coding: str) -> None:
    for size in range(PIECE - 5, PIECE + 300):
        assert len(decoded(ENCODERS[coding](b"\0" * size), coding)) == size


def test_decoding_a_bomb_within_a_bomb_can_be_stopped_at_the_first_pieces() -> None:
    packed = gzip.compress(gzip.compress(b"\0" * 30_000_000))
    pieces = decode([packed], ["gzip", "gzip"])
    assert len(packed) < 5_000
    assert len(next(pieces)) <= PIECE


def test_a_zstd_window_of_more_than_8_mib_is_refused() -> None:
    packed = zstd.compress(SAMPLE * 40_000, options={zstd.CompressionParameter.window_log: 24})
    with pytest.raises(BadCoding):
        decoded(packed, "zstd")


EMPTY = {
    "gzip": gzip.compress(b"", mtime=0) * 50_000,
    "zstd": zstd.compress(b"") * 20_000,
    "deflate": b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * 200_000 + b"\x03\x00\x00\x00\x00\x01",
    # Metadata blocks of no bytes (RFC 7932 §9.2), after the window's size.
    "br": b"\x0c" + b"\x06" * 500_000,
}


@pytest.mark.parametrize("coding", EMPTY)
def test_the_deadline_is_checked_even_if_decoding_gives_no_output(coding: str) -> None:
    """Once for each slice of input, so that the work between two checks is bounded."""
    looks: list[int] = []
    with contextlib.suppress(BadCoding):
        assert list(content_encoding.decode([EMPTY[coding]], [coding], 100_000_000, lambda: looks.append(1))) == []
    assert len(looks) >= len(EMPTY[coding]) // SLICE


@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_exception_of_the_deadline_check_ends_decoding_at_any_layer(times: int) -> None:
    packed = EMPTY["gzip"]
    for _ in range(times - 1):
        packed = gzip.compress(packed, mtime=0)
    looks = iter(range(8))

    def check() -> None:
        if next(looks, None) is None:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        list(content_encoding.decode([packed], ["gzip"] * times, 100_000_000, check))


@pytest.mark.parametrize("coding", NAMES)
def test_the_limit_on_the_output_of_a_coding_is_exact(coding: str) -> None:
    packed = ENCODERS[coding](b"x" * 200_000)
    assert sum(len(piece) for piece in decode([packed], [coding], 200_000)) == 200_000
    with pytest.raises(TooLarge):
        list(decode([packed], [coding], 199_999))


def test_the_output_of_an_outer_coding_counts_even_if_the_inner_one_gives_none() -> None:
    """Compressed empty members: a few bytes decode to any number of bytes, which decode to nothing."""
    packed = gzip.compress(EMPTY["gzip"], mtime=0)
    with pytest.raises(TooLarge):
        list(decode([packed], ["gzip", "gzip"], len(EMPTY["gzip"]) - 1))
    assert list(decode([packed], ["gzip", "gzip"], len(EMPTY["gzip"]))) == []


@pytest.mark.parametrize("coding", EMPTY)
def test_the_input_counts_even_if_there_is_no_output(coding: str) -> None:
    """An endless body of empty members is cut off at the limit."""
    more = b"\x06" * 4096 if coding == "br" else EMPTY[coding]
    endless = itertools.chain([EMPTY[coding]], itertools.cycle([more]))
    with pytest.raises(TooLarge):
        list(decode(endless, [coding], 500_000))


@pytest.mark.parametrize("coding", NAMES)
def test_a_body_that_does_not_compress_may_be_somewhat_longer_when_encoded(coding: str) -> None:
    data = random.Random(2).randbytes(300_000)
    packed = ENCODERS[coding](data)
    assert len(packed) > len(data)
    assert b"".join(decode([packed], [coding], len(data))) == data


def test_decoding_empty_members_takes_time_in_proportion_to_their_number() -> None:
    """At the end of each member the rest of the slice is copied, never the rest of the body."""
    copied = []
    real = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._real = real(wbits)

        def decompress(self, data: bytes, limit: int) -> bytes:
            copied.append(len(data))
            return self._real.decompress(data, limit)

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zlib, "decompressobj", Counting)
        assert list(decode([EMPTY["gzip"]], ["gzip"])) == []
    assert len(copied) >= 50_000
    assert max(copied) <= SLICE


GROWING = """
import sys
from pathlib import Path
from relay_agent.transport.content_encoding import decode
packed = Path(sys.argv[2]).read_bytes()
Path("/proc/self/clear_refs").write_text("5")
before = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Vm")}
for _ in decode([packed], [sys.argv[1]], 1 << 40, lambda: None): pass
after = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Vm")}
print(after["VmHWM"] - before["VmRSS"])
"""


@pytest.mark.parametrize(("coding", "most_mb"), [("gzip", 4), ("deflate", 4), ("br", 40), ("zstd", 14)])
def test_a_decoder_needs_a_bounded_amount_of_memory(coding: str, most_mb: int, tmp_path: Path) -> None:
    """In a separate process, because tracemalloc does not see the memory of decoders in C."""
    path = tmp_path / "packed"
    if coding == "br":
        packer = brotli.Compressor(quality=5, lgwin=24)  # Its window grows step by step, the old one held beside the new.
        steps = [packer.process(b"\0" * (size << 20)) + packer.flush() for size in (1, 2, 4, 9, 20)]
        path.write_bytes(b"".join([*steps, packer.finish()]))
    elif coding == "zstd":
        path.write_bytes(zstd.compress(b"\0" * (40 << 20), options={zstd.CompressionParameter.window_log: 23}))
    else:
        path.write_bytes(ENCODERS[coding](b"\0" * (40 << 20)))
    done = subprocess.run([sys.executable, "-c", GROWING, coding, str(path)], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < most_mb * 1024


def test_only_known_codings_and_few_of_them_are_decodable() -> None:
    assert all(decodable([coding]) for coding in NAMES)
    assert decodable(["gzip"] * MAX_CODINGS)
    assert not decodable([])
    assert not decodable(["gzip"] * (MAX_CODINGS + 1))
    assert not decodable(["gzip", "compress"])


def test_only_one_coding_with_a_large_window_is_decodable() -> None:
    assert decodable(["gzip", "br", "deflate"])
    assert decodable(["zstd", "gzip"])
    assert [chain for chain in (["br", "br"], ["zstd", "zstd"], ["br", "gzip", "zstd"]) if decodable(chain)] == []
