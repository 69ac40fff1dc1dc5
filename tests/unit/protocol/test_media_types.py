"""Parameters of media types (RFC 9110 §5.6.6) are parsed as browsers do, whatever a peer sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.protocol.media_types import MAX_CHARACTERS, parameter


@pytest.mark.parametrize(
    ("content_type", "value"),
    [
        ("text/plain; charset=utf-8", "utf-8"),
        ("text/plain;charset=utf-8", "utf-8"),
        ("text/plain ; charset=utf-8 ; x=y", "utf-8"),
        ("text/plain; CharSet=UTF-8", "UTF-8"),
        ("text/plain; x=y; charset=utf-8", "utf-8"),
        ("text/plain;;;; ;charset=utf-8", "utf-8"),
        ("text/plain; charset = utf-8", "utf-8"),
        ('text/plain; charset="utf-8"', "utf-8"),
        ('text/plain; charset= "utf-8" junk; x=y', "utf-8"),
        (r'text/plain; charset="a \" \\ ;b\x"', r'a " \ ;bx'),
        ('text/plain; x="; charset=no"; charset=yes', "yes"),
        ('text/plain; x="never closed; charset=no', None),
        ('text/plain; charset="never closed', "never closed"),
        ('text/plain; charset="ends in a backslash\\', "ends in a backslash\\"),
        ("text/plain; charset=first; charset=second", "first"),
        ("text/plain; charset=; charset=second", "second"),
        ('text/plain; charset=""; charset=second', ""),
        ("text/plain; charset", None),
        ("text/plain; charset*=utf-8''x", None),
        ("text/plain; xcharset=no", None),
        ("text/plain; =no", None),
        ("charset=no", None),
        ("; charset=utf-8", "utf-8"),
        ("text/plain; charset=a b", "a b"),
        ("text/plain; charset=a=b", "a=b"),
        ("text/plain", None),
        ("", None),
        (";", None),
    ],
)
def test_the_first_parameter_of_the_name_is_the_value(content_type: str, value: str | None) -> None:
    assert parameter(content_type, "charset") == value


@given(st.text(st.sampled_from('"\\;= \tcx\xff'), max_size=60))
def test_any_text_gives_a_value_or_no_value(content_type: str) -> None:
    found = parameter(content_type, "c")
    assert found is None or len(found) <= len(content_type)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_a_quoted_value_may_contain_any_character(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parameter(f'a/b; x="; v=no"; v="{quoted}"; v=later', "v") == value


def test_a_content_type_above_the_bound_is_not_parsed() -> None:
    padded = "text/plain; x=" + "y" * (MAX_CHARACTERS - 30) + "; charset=utf-8"
    assert parameter(padded, "charset") == "utf-8"
    assert parameter(padded + " " * 30, "charset") is None
