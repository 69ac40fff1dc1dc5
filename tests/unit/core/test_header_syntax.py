"""Which characters a token may have, and which control characters no field's value may."""

from __future__ import annotations

import string

import pytest

from relay_agent.core.header_syntax import has_control, is_token


def test_a_token_has_the_characters_of_rfc_9110_and_at_least_one() -> None:
    allowed = {chr(number) for number in range(256) if is_token(chr(number))}
    assert allowed == set("!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters)
    assert is_token("X-Api-Key")
    assert not is_token("")


@pytest.mark.parametrize("text", ["a b", "a:", "a\n", "ä", "a,b", '"a"'])
def test_a_text_with_any_other_character_is_no_token(text: str) -> None:
    assert not is_token(text)


def test_every_control_character_but_the_tab_counts() -> None:
    assert {number for number in range(256) if has_control(f"a{chr(number)}b")} == {*range(32), 127} - {9}
