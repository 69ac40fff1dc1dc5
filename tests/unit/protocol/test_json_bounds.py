"""The bounds on JSON values are exact, in text and in decoded values, and checking any text is bounded work."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.protocol import json_bounds
from relay_agent.protocol.json_bounds import MAX_DEPTH, MAX_VALUES, check_text, check_value

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6),
    max_leaves=40,
)


def size_of(value: Any) -> tuple[int, int]:
    """The number of values, and the levels of nesting."""
    if not isinstance(value, dict | list):
        return 1, 0
    below = [size_of(item) for item in (value.values() if isinstance(value, dict) else value)]
    return 1 + sum(values for values, _ in below), 1 + max((depth for _, depth in below), default=0)


@given(value=VALUES, most=st.integers(1, 30), deep=st.integers(1, 5), ascii_only=st.booleans(), indent=st.none() | st.just(1))
def test_text_bytes_and_decoded_values_are_counted_alike(value: Any, most: int, deep: int, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    values, depth = size_of(value)
    with pytest.MonkeyPatch.context() as patch:
        for name, bound in (("MAX_VALUES", most), ("MAX_DEPTH", deep), ("_SURELY_WITHIN", 0)):
            patch.setattr(json_bounds, name, bound)
        found = [check_text(text), check_text(text.encode("utf-8", "surrogatepass")), check_value(json.loads(text))]
    over = values > most or depth > deep
    assert [one is not None for one in found] == [over] * 3


@pytest.mark.parametrize("empty", ["[]", "{}", "0", '""', '"a,b[{"', '"\\""'])
def test_the_bound_on_values_is_exact(empty: str) -> None:
    text = f"[{','.join([empty] * (MAX_VALUES - 1))}]"
    assert check_text(text) is None and check_value(json.loads(text)) is None
    more = f"{text[:-1]},1]"
    assert "more than 100,000" in (check_text(more) or "") and "more than 100,000" in (check_value(json.loads(more)) or "")


def test_the_bound_on_nesting_is_exact() -> None:
    text = "[" * MAX_DEPTH + " " * 200 + "]" * MAX_DEPTH
    assert check_text(text) is None and check_value(json.loads(text)) is None
    assert "deep" in (check_text(f"[{text}]") or "") and "deep" in (check_value(json.loads(f"[{text}]")) or "")


HOSTILE = {
    "lists": "[],",
    "one string": '"' + "x" * 99,
    "quotes": '"',
    "escaped quotes": '\\"',
    "an open string of escaped quotes": '"\\"\\"\\"\\"',
    "commas": ",",
    "colons": ":",
    "closing": "]",
    "opening": "[",
    "names": '"a":',
    "names and spaces": '"a"   ',
    "numbers": "1 ",
    "spaces": " ",
    "spaces and commas": '" ", ,, "":  :',
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_work_is_bounded_whatever_the_text_is(piece: str, as_bytes: bool) -> None:
    """With a tenth of the usual bound on values."""
    most = MAX_VALUES // 10
    text: Any = piece * (200_000 // len(piece))
    looked = 0

    class Counting:
        def __init__(self, pattern: Any) -> None:
            self.pattern = pattern

        def finditer(self, text: Any) -> Any:
            nonlocal looked
            for match in self.pattern.finditer(text):
                looked += 1
                yield match

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bounds, "MAX_VALUES", most)
        for name in ("_TEXT", "_BYTES"):
            patch.setattr(json_bounds, name, Counting(getattr(json_bounds, name)))
        tracemalloc.start()
        try:
            check_text(text.encode() if as_bytes else text)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert looked <= 4 * most + 10
    assert "".join(match[0] for match in json_bounds._TEXT.finditer(piece * 20)) == piece * 20, "nothing is searched, only matched"
    assert peak < len(text) + 200_000, "nothing is made of what is counted"
