"""JSON that is read in pieces: the value is that of `json.loads`, wherever the pieces end."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.pipelines.long_json import LONG_BYTES, PIECE_BYTES, LongText, read_json

TEXTS = st.text(alphabet=st.one_of(st.characters(), st.sampled_from('\\"\x00\n\ud83d\ude00\U0001f600é')), max_size=200)


def plain(value: Any) -> Any:
    """The value with every long text as text."""
    if isinstance(value, LongText):
        return value.text()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(text=TEXTS, repeat=st.sampled_from([1, 700, 3000]), size=st.integers(1, 5000), ascii_only=st.booleans())
def test_any_text_comes_back_wherever_the_pieces_end(text: str, repeat: int, size: int, ascii_only: bool) -> None:
    value = {"statusCode": 200, "body": text * repeat, "list": [1, None, {"k": text}], "after": "\\"}
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    # Two surrogates that meet are one character in JSON, so what is expected is what json reads.
    assert plain(read_json(cut(data, size if len(data) < 20_000 else size + 1000))) == json.loads(data)


def test_only_a_long_string_is_kept_apart() -> None:
    value = read_json([json.dumps({"short": "a" * LONG_BYTES, "long": "a" * (LONG_BYTES + 1)}).encode()])
    assert isinstance(value["short"], str) and isinstance(value["long"], LongText)


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": "b', b'{"a": "b\\', b"[1,]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_json(cut(data, 3))


@pytest.mark.parametrize("raw", ["a" * 70_000 + "\\x", "a" * 70_000 + "\n", "\\ud83d" + "a" * 70_000 + "\\u12"])
def test_a_long_string_that_is_none_of_json_is_a_value_error(raw: str) -> None:
    value = read_json([f'["{raw}"]'.encode()])
    with pytest.raises(ValueError):
        value[0].text()


def test_a_text_that_looks_like_a_mark_is_only_text() -> None:
    long = "a" * (LONG_BYTES + 1)
    assert plain(read_json([json.dumps(["0" * 32 + ":0", long]).encode()])) == ["0" * 32 + ":0", long]


def test_a_body_beyond_8_mb_is_on_a_file_and_costs_no_memory() -> None:
    piece = b"a" * 65_536
    tracemalloc.start()
    value = read_json([b'{"body": "', *([piece] * 480), b'"}'])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(map(len, value["body"].pieces())) == 480 * 65_536
    assert peak < 20_000_000


def test_half_a_character_before_plain_text_is_no_text() -> None:
    long = LongText()
    for raw in (b"a" * (PIECE_BYTES - 1) + b"\xc3", b"a" * PIECE_BYTES, b"\xa9"):
        long.add(raw)
    with pytest.raises(ValueError):
        long.text()
