"""Keys of secure commands: each way to write one (PROTOCOL §5)."""

from __future__ import annotations

import base64

import pytest

from relay_agent.protocol.keyring import parse_key, parse_keys
from tests.unit.config.scenes import KEY


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(KEY).decode(),
        base64.b64encode(KEY).decode().rstrip("="),
        f" {base64.urlsafe_b64encode(KEY).decode()}\n",
        KEY.hex(),
        KEY.hex().upper(),
    ],
)
def test_a_key_is_read_in_each_form(text: str) -> None:
    assert parse_key(text) == KEY


def test_base64url_and_base64_of_the_same_key_are_equal() -> None:
    key = b"\xfb\xff" * 16
    assert parse_key(base64.b64encode(key).decode()) == parse_key(base64.urlsafe_b64encode(key).decode()) == key


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "is 0 bytes long, not 32"),
        ("YQ==", "is 1 bytes long, not 32"),
        (base64.b64encode(bytes(33)).decode(), "is 33 bytes long, not 32"),
        (KEY.hex()[:-2], "is 46 bytes long, not 32"),
        ("canary!", "is not base64, base64url or 64 hex digits"),
        ("é" * 43, "is not base64, base64url or 64 hex digits"),
        ("A" * 45, "is not base64, base64url or 64 hex digits"),
    ],
)
def test_an_invalid_key_is_reported_without_repeating_it(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_key(text)
    assert str(caught.value) == reason


def test_several_keys_keep_their_order_and_an_invalid_one_is_named_by_its_position() -> None:
    assert parse_keys(f"{KEY.hex()}, {'ff' * 32},") == [KEY, b"\xff" * 32]
    with pytest.raises(ValueError, match=r"^key 2 is 1 bytes long"):
        parse_keys(f"{KEY.hex()},YQ==")
    with pytest.raises(ValueError, match=r"^contains no key$"):
        parse_keys(" , ")
