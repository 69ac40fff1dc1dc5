"""How an event becomes a line: its length, its console form, its stacks."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.telemetry.log_rendering import frames, render
from tests.unit.telemetry.scenes import Written, fail


def test_a_line_is_never_longer_than_8_kib(written: Written) -> None:
    written.log.warning("x", text="ä" * 100_000, list=["y z" * 30_000], short="whole")
    line = written.stream.getvalue()
    assert len(line) <= 8192 + 1
    assert json.loads(line)["short"] == "whole"


def test_the_console_shows_control_characters_escaped_and_still_ships_json() -> None:
    written = Written(console=True)
    written.log.info("x", host="a\x1b[31m\x9bb\u202e")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", written.stream.getvalue())
    assert "\x1b" not in shown and "\x9b" not in shown and "\u202e" not in shown
    assert r"\x1b[31m" in shown
    assert json.loads(written.sink.lines[0][1])["host"] == "a\x1b[31m\x9bb\u202e"


@given(st.text(alphabet='\x00\x1b"\\é\U0001f600\ud800x ', max_size=60), st.integers(100, 300))
def test_a_text_is_cut_only_as_far_as_its_line_needs(text: str, copies: int) -> None:
    """A line that was cut has no space for one more character, which takes twelve bytes at most."""
    line = render({"event": "x", "text": text * copies, "list": [text * copies]})
    json.loads(line)
    assert len(line) <= 8192
    if '..."' in line:
        assert len(line) > 8192 - 2 * 12


def test_the_nearest_frames_and_causes_are_kept_of_a_deep_stack_and_a_long_chain() -> None:
    def sink(depth: int) -> None:
        if depth:
            sink(depth - 1)
        raise KeyError("deep")

    error: BaseException | None = None
    for number in range(100):
        try:
            sink(50) if not number else fail(str(number))
        except (KeyError, ConnectionError) as caught:
            caught.__cause__ = error
            error = caught
    assert error is not None
    lines = frames(error, str)
    assert len(lines) <= 10 * 3
    assert lines[0].endswith("_kept_of_a_deep_stack_and_a_long_chain")
    with pytest.raises(KeyError) as deep:
        sink(50)
    assert len(frames(deep.value, str)) == 21
