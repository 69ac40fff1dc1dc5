"""Redaction: whatever looks like a secret, or is known to be one, comes out masked."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay_agent.telemetry.redaction import Redactor, describe
from relay_agent.telemetry.secret_patterns import MASK, MAX_CHARACTERS, redact_text
from tests.unit.telemetry.scenes import CANARY, JWT, over_the_edge


@pytest.mark.parametrize(
    "text",
    [
        "",
        "connect ECONNREFUSED 10.1.2.3:443",
        "token: expires within 30 days",
        "TetraScience.Connector.gdc.HttpRequest",
        "9b9f275c-a60d-454f-8c6c-1ea094e3fd38",
        "https://lims.lab.example:9005/api/v1/samples",
        "http://[::1]:8080/x",
        "the proxy http://proxy.lab.example:3128, not the platform, is at fault (or http://[::1]:3128)",
        "enable the agent's queue on the Agents page",
        "/var/lib/relay-agent/journal.db",
        "wait, really?",
        "b0d1c1ba4f6f9bbd2f0e9df7ca2e0c7d4d6f9b00",
        "arn:aws:logs:us-east-2:123456789012:log-group:agent",
    ],
)
def test_text_without_secrets_is_not_changed(text: str) -> None:
    assert redact_text(text) == text
    assert Redactor([JWT]).text(text) == text


@given(st.text(st.characters(exclude_categories=()), min_size=4, max_size=40))
def test_a_known_secret_is_masked_in_any_encoding(secret: str) -> None:
    secret = secret.strip()
    if len(secret.encode("utf-8", "surrogatepass")) < 4:
        return
    raw = secret.encode("utf-8", "surrogatepass")
    redactor = Redactor([secret])
    written = [secret, raw.hex(), quote(raw, safe=""), quote(raw), quote_plus(raw), repr(raw)[2:-1], json.dumps(secret)[1:-1]]
    for form in written:
        assert form not in redactor.text(f"({form})"), form


@example(bytes(30) + b"\xf8" + bytes(8) + b"\xf2", b"", b"")
@given(st.binary(min_size=9, max_size=40), st.binary(max_size=5), st.binary(max_size=5))
def test_a_known_secret_is_masked_at_any_position_in_base64(secret: bytes, before: bytes, after: bytes) -> None:
    redactor = Redactor([secret])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        masked = redactor.text(encode(before + secret + after).decode())
        assert MASK in masked
        assert len(masked.replace(MASK, "")) <= 4 * ((len(before) + len(after)) // 3 + 3)


def test_a_key_is_masked_in_every_form_that_settings_accept() -> None:
    key = bytes(range(32, 64))
    for written in (base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode().rstrip("="), key.hex()):
        redactor = Redactor([written])
        inside = base64.b64encode(b"user:" + key + b"!").decode()[8:48]
        for shown in (base64.b64encode(key).decode(), key.hex(), key.hex().upper(), repr(key)[2:-1], inside):
            masked = redactor.text(f"x {shown} y")
            assert MASK in masked
            assert shown[:12] not in masked


def test_a_rotated_secret_is_masked_until_the_next_rotation() -> None:
    redactor = Redactor()
    redactor.rotate("aws", "first-one")
    redactor.rotate("aws", "second-one")
    redactor.rotate("aws", "second-one")
    assert redactor.text("first-one second-one") == f"{MASK} {MASK}"
    redactor.rotate("aws", "third-one")
    assert redactor.text("first-one second-one third-one") == f"first-one {MASK} {MASK}"


def test_fields_are_redacted_by_name_and_by_value_at_any_depth() -> None:
    redactor = Redactor([CANARY])
    event = redactor(
        None,
        "info",
        {
            "event": "x",
            "headers": {"a": "b"},
            "password": "p4ss",
            "error": ValueError(f"bad {CANARY}"),
            "body": b"12345",
            "raw": b"12345",
            "nested": [{"Authorization": "zzz"}, ("Cookie", "yyy"), {"name": "X-Api-Key", "value": "www"}, [[[[[[["deep"]]]]]]]],
            "ratio": float("nan"),
            "count": 3,
            "flag": True,
            "none": None,
        },
    )
    assert event["headers"] == event["password"] == event["body"] == MASK
    assert (event["error"], event["raw"], event["ratio"]) == (f"ValueError: bad {MASK}", "<5 bytes>", "nan")
    assert (event["count"], event["flag"], event["none"]) == (3, True, None)
    text = json.dumps(event)
    assert not any(secret in text for secret in (CANARY, "zzz", "yyy", "www", "p4ss"))


def test_strings_of_fewer_than_four_characters_are_not_masked() -> None:
    assert Redactor(["a", "", "abc"]).text("a abc alphabet") == "a abc alphabet"


def test_the_redactors_repr_shows_no_secret() -> None:
    assert CANARY not in repr(Redactor([CANARY]))


# What is too long
PASSPHRASE = "correct horse 'battery' staple"


@pytest.mark.parametrize("written", [PASSPHRASE, repr(PASSPHRASE)[1:-1], quote(PASSPHRASE), PASSPHRASE.encode().hex()])
def test_a_cut_text_shows_no_part_of_a_known_secret(written: str) -> None:
    redactor = Redactor([PASSPHRASE])
    for long in over_the_edge(f"it is {written}, they say", written):
        assert written[:4] not in redactor.text(long)


def test_a_known_secret_that_every_cut_would_split_is_not_shown() -> None:
    redactor = Redactor(["a a a a"])
    assert redactor.text("a " * MAX_CHARACTERS) == f"{MASK}..."


def test_a_long_text_that_cannot_be_cut_is_masked_completely() -> None:
    for text in ("a" * 1_000_000, "ab/" * 400_000, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 1_000_000):
        assert redact_text(text) == Redactor().text(text) == f"{MASK}..."


def test_known_secrets_are_masked_in_a_whole_text_of_any_length() -> None:
    text = f"a line with {CANARY} in it\n" * 20_000
    assert Redactor([CANARY]).known(text) == text.replace(CANARY, MASK)


def test_the_first_of_many_values_are_shown() -> None:
    redactor = Redactor([CANARY])
    for many in (["warning"] * 100_000, dict.fromkeys(range(100_000), "warning"), [["warning"] * 500] * 500, {"a": [("a", "b")] * 100_000}):
        shown = json.dumps(redactor.value(many))
        assert len(shown) < 50_000
        assert r"\u2026" in shown
    assert redactor.value(["x"] * 3) == ["x"] * 3


def test_the_first_of_many_long_texts_are_shown() -> None:
    redactor = Redactor([CANARY])
    for many in (
        ["a b " * 100_000] * 900,
        {f"{'key ' * 10_000}{n}": "a b " * 100_000 for n in range(100)},
        [ValueError("a b " * 100_000)] * 900,
    ):
        assert len(json.dumps(redactor.value(many))) < 8 * MAX_CHARACTERS


def test_a_secret_is_masked_in_each_of_many_texts() -> None:
    shown = json.dumps(Redactor([CANARY]).value([f"{'a ' * n} {CANARY} {JWT}" for n in range(900)]))
    assert CANARY not in shown and JWT[:20] not in shown


def test_a_number_of_too_many_digits_for_json_is_left_out() -> None:
    assert Redactor().value([1 << 63, 10**5000]) == [1 << 63, "…"]


def test_the_text_of_an_exception_is_bounded() -> None:
    text = describe(ValueError("a word and " * 100_000 + CANARY), Redactor([CANARY]).text)
    assert text.startswith("ValueError: a word and a word") and len(text) == 300
