"""Secrets that their place or their looks give away are masked, and nothing else."""

from __future__ import annotations

import base64

import pytest

from relay_agent.telemetry.secret_patterns import MASK, MAX_CHARACTERS, redact_text, shown_target
from tests.unit.telemetry.scenes import CANARY, JWT, over_the_edge

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
    "secret in JSON below a name without a value": f'token=\n"client_secret": "{CANARY}"',
    "X-Api-Key in JSON below a name without a value": f'Cookie:\n"X-Api-Key": "{CANARY}"',
    "cookies of which one is named as a secret": f"Cookie: token=x; session={CANARY}",
    "a header that begins with a name": f"Authorization: secret=x {CANARY}",
    "a quoted value that begins with a name": f'password="token=x {CANARY}"',
    "a value that begins with a name and a colon": f"password=token:{CANARY}",
    "a name as the value of another": f'token=password="{CANARY}"',
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


def test_host_and_path_stay_readable_beside_the_mask() -> None:
    assert redact_text("GET https://u:p@host:9005/a%2Fb?x=1 -> 200") == "GET https://[redacted]@host:9005/a%2Fb?[redacted] -> 200"


def test_redacting_twice_is_the_same_as_once() -> None:
    for text in BY_SHAPE.values():
        once = redact_text(text)
        assert redact_text(once) == once


@pytest.mark.parametrize("text", BY_SHAPE.values(), ids=BY_SHAPE.keys())
def test_a_cut_text_shows_no_part_of_a_secret_recognised_by_context(text: str) -> None:
    secret = CANARY if CANARY in text else base64.b64encode(f"user:{CANARY}".encode()).decode()
    for long in over_the_edge(text, secret):
        assert secret[:4] not in redact_text(long)


@pytest.mark.parametrize("secret", [JWT, JWE, "AKIAIOSFODNN7EXAMPLE", AWS_SECRET, SESSION])
def test_a_cut_text_shows_no_part_of_a_secret_recognised_by_form(secret: str) -> None:
    for text in (f"({secret})", f"value {secret}, and more", f'{{"x":"{secret}"}}'):
        for long in over_the_edge(text, secret):
            assert secret[:6] not in redact_text(long)


def test_the_beginning_of_a_long_text_is_shown() -> None:
    shown = redact_text("some words " * 100_000)
    assert shown.startswith("some words some words ") and shown.endswith(" words some...")
    assert len(shown) <= MAX_CHARACTERS + 3


def test_a_path_that_is_too_long_to_be_searched_is_masked() -> None:
    assert shown_target("/a" * 20_000) == f"/{MASK}"
    assert shown_target("/a/b?" + "x" * 20_000 + "&X-Amz-Signature=y") == f"/{MASK}?{MASK}"
    assert shown_target("/a/b?c") == f"/a/b?{MASK}"
