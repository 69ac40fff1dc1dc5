"""Everything that looks like a secret, or is known to be one, is masked."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.telemetry.redaction import Redactor, describe
from relay_agent.telemetry.secret_patterns import MASK, MAX_CHARACTERS, redact_text, shown_target

CANARY = "c4n4rY-Tr0ub4dor"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJjYW5hcnkiLCJleHAiOjF9.dGhpcyBpcyB0aGUgc2lnbmF0dXJl"
JWE = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..bm9uY2Vub25jZQ.Y2lwaGVydGV4dA.dGFnIHRhZw"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SESSION = "FwoGZXIvYXdzEB" + "Ab3/x+Q9" * 20 + "=="

BY_SHAPE = {
    "URL user info": f"proxy http://user:{CANARY}@proxy.lab:3128 refused",
    "user info with an at sign": f"http://user:p@{CANARY}@proxy.lab:3128/",
    "user info with a slash": f"http://user:x/{CANARY}@proxy.lab:3128/",
    "socks user info": f"socks5h://{CANARY}@proxy.lab:1080",
    "user info in escaped JSON": rf'"https:\/\/user:{CANARY}@host\/x"',
    "query string": f"GET https://host/path?token={CANARY}&b=2",
    "query without a value": f"GET https://host/path?{CANARY}",
    "fragment": f"https://host/cb#access_token={CANARY}",
    "query of a bare path": f"Max retries exceeded with url: /path/x?k={CANARY} (Caused by X)",
    "query after host and port": f"host:443/path?k={CANARY}",
    "path of a presigned URL": f"PUT https://bucket.s3.amazonaws.com/{CANARY}/key?X-Amz-Algorithm=AWS4&X-Amz-Signature=abc",
    "bare path of a presigned URL": f"with url: /bucket/{CANARY}?X-Amz-Signature=abc",
    "presigned URL of the older kind": f"https://b.s3.amazonaws.com/{CANARY}?AWSAccessKeyId=x&Signature=y",
    "percent-encoded presigned URL": f"https%3A%2F%2Fb%2Fk%3FX-Amz-Signature%3D{CANARY}",
    "Authorization line": f"Authorization: Custom {CANARY} more\r\n",
    "Authorization in a dict": f"{{'Authorization': 'Custom {CANARY}', 'Host': 'x'}}",
    "Authorization in bytes": f"{{b'authorization': b'Custom {CANARY}'}}",
    "Authorization in a pair": f"[('Authorization', 'Custom {CANARY}')]",
    "Authorization in JSON in JSON": rf"{{\"Authorization\":\"Custom {CANARY}\"}}",
    "escaped quote in the value": rf'{{"Cookie": "a=\"b\"; c={CANARY}"}}',
    "unclosed value": f'{{"password": "{CANARY}',
    "Cookie": f"Cookie: a=1; session={CANARY}",
    "Set-Cookie": f"set-cookie: id={CANARY}; Path=/",
    "Set-Cookie list": f'{{"set-cookie": ["a=1", "b={CANARY}"]}}',
    "Proxy-Authorization": f"Proxy-Authorization = {CANARY}",
    "ts-auth-token": f"ts-auth-token: {CANARY}",
    "X-Api-Key": f"X-Api-Key: {CANARY}",
    "X-Amz-Security-Token": f"'X-Amz-Security-Token': '{CANARY}'",
    "bearer token": f"sent bearer {CANARY}",
    "basic token": f"Basic {base64.b64encode(f'user:{CANARY}'.encode()).decode()}",
    "password assignment": f"password={CANARY}",
    "password statement": f"proxy_password: {CANARY}",
    "secret in JSON": f'{{"clientSecret": "{CANARY}"}}',
    "JWT variable": f"JWT={CANARY}",
    "private key": f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
    "the key of a mail program": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{CANARY}\n-----END PGP PRIVATE KEY BLOCK-----",
    "user info of a URL in a path": f"GET http://gateway.lab/http://user:{CANARY}@host/x",
    "user info without a scheme that is one": f"\N{LATIN SMALL LETTER E WITH ACUTE}://user:{CANARY}@host/x",
    "user info behind a long prefix": f"{'x' * 40}https://user:{CANARY}@host/x",
    "unclosed value over lines": f'{{"password": "one\ntwo {CANARY}',
    "unclosed value in JSON in JSON": rf"{{\"password\":\"one two {CANARY}",
    "JSON in JSON in JSON": rf"{{\\\"password\\\":\\\"one two {CANARY}\\\"}}",
    "Authorization in JSON in JSON in JSON": rf"{{\\\"Authorization\\\":\\\"one two {CANARY}\\\"}}",
    "basic and a long run of lower case": f"basic {'a' * 200}+{CANARY}",
    "private key cut off": f"-----BEGIN PRIVATE KEY-----\n{CANARY}",
}


@pytest.mark.parametrize("text", BY_SHAPE.values(), ids=BY_SHAPE.keys())
def test_a_secret_is_recognised_by_its_context(text: str) -> None:
    masked = redact_text(text)
    assert MASK in masked
    assert CANARY not in masked
    assert base64.b64encode(f"user:{CANARY}".encode()).decode() not in masked


@pytest.mark.parametrize("secret", [JWT, JWT[:60], JWE, "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE", AWS_SECRET, SESSION])
def test_a_secret_is_recognised_by_its_own_form(secret: str) -> None:
    for text in (secret, f"({secret})", f"value {secret}, and more", f"'{secret}'", f"x={secret}"):
        masked = redact_text(text)
        assert secret not in masked
        assert secret[:24] not in masked


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


def test_host_and_path_stay_readable_beside_the_mask() -> None:
    assert redact_text("GET https://u:p@host:9005/a%2Fb?x=1 -> 200") == "GET https://[redacted]@host:9005/a%2Fb?[redacted] -> 200"


def test_redacting_twice_is_the_same_as_once() -> None:
    for text in BY_SHAPE.values():
        once = redact_text(text)
        assert redact_text(once) == once


@given(st.text(min_size=4, max_size=40))
def test_a_known_secret_is_masked_in_any_encoding(secret: str) -> None:
    secret = secret.strip()
    if len(secret.encode("utf-8", "surrogatepass")) < 4:
        return
    raw = secret.encode("utf-8", "surrogatepass")
    redactor = Redactor([secret])
    written = [secret, raw.hex(), quote(raw, safe=""), quote(raw), quote_plus(raw), repr(raw)[2:-1], json.dumps(secret)[1:-1]]
    for form in written:
        assert form not in redactor.text(f"({form})"), form


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


def _over_the_edge(text: str, secret: str) -> Iterator[str]:
    """Long texts in which the bound is within the secret: after its first character, at some others, before its last."""
    start = text.index(secret)
    for inside in {*range(1, len(secret), len(secret) // 6 + 1), len(secret) - 1}:
        padding = "a " * MAX_CHARACTERS
        yield padding[-(MAX_CHARACTERS - start - inside) :] + text + " and more" * 10


@pytest.mark.parametrize("text", BY_SHAPE.values(), ids=BY_SHAPE.keys())
def test_a_cut_text_shows_no_part_of_a_secret_recognised_by_context(text: str) -> None:
    secret = CANARY if CANARY in text else base64.b64encode(f"user:{CANARY}".encode()).decode()
    for long in _over_the_edge(text, secret):
        assert secret[:4] not in redact_text(long)


@pytest.mark.parametrize("secret", [JWT, JWE, "AKIAIOSFODNN7EXAMPLE", AWS_SECRET, SESSION])
def test_a_cut_text_shows_no_part_of_a_secret_recognised_by_form(secret: str) -> None:
    for text in (f"({secret})", f"value {secret}, and more", f'{{"x":"{secret}"}}'):
        for long in _over_the_edge(text, secret):
            assert secret[:6] not in redact_text(long)


@pytest.mark.parametrize("written", [PASSPHRASE, repr(PASSPHRASE)[1:-1], quote(PASSPHRASE), PASSPHRASE.encode().hex()])
def test_a_cut_text_shows_no_part_of_a_known_secret(written: str) -> None:
    redactor = Redactor([PASSPHRASE])
    for long in _over_the_edge(f"it is {written}, they say", written):
        assert written[:4] not in redactor.text(long)


def test_a_known_secret_that_every_cut_would_split_is_not_shown() -> None:
    redactor = Redactor(["a a a a"])
    assert redactor.text("a " * MAX_CHARACTERS) == f"{MASK}..."


def test_a_long_text_that_cannot_be_cut_is_masked_completely() -> None:
    for text in ("a" * 1_000_000, "ab/" * 400_000, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 1_000_000):
        assert redact_text(text) == Redactor().text(text) == f"{MASK}..."


def test_the_beginning_of_a_long_text_is_shown() -> None:
    shown = redact_text("some words " * 100_000)
    assert shown.startswith("some words some words ") and shown.endswith(" words some...")
    assert len(shown) <= MAX_CHARACTERS + 3


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


def test_a_path_that_is_too_long_to_be_searched_is_masked() -> None:
    assert shown_target("/a" * 20_000) == f"/{MASK}"
    assert shown_target("/a/b?" + "x" * 20_000 + "&X-Amz-Signature=y") == f"/{MASK}?{MASK}"
    assert shown_target("/a/b?c") == f"/a/b?{MASK}"
