"""Redaction: a planted secret, known by value or by its shape, comes out of no text that others wrote around it."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

from relay_agent.telemetry.log_rendering import render
from relay_agent.telemetry.redaction import Redactor, describe
from relay_agent.telemetry.secret_patterns import MAX_CHARACTERS, redact_text, shown_target
from tests.bench.foreign import filled
from tests.fuzz.harness import Harness, joined, parts

SECRET = 'c0rrect/H0rse+"Battery\\St4ple='
KNOWN = Redactor([SECRET])
FORMS = [
    SECRET,
    quote(SECRET, safe=""),
    quote(SECRET),
    quote_plus(SECRET),
    json.dumps(SECRET)[1:-1],
    repr(SECRET.encode())[2:-1],
    SECRET.encode().hex(),
    *(base64.b64encode(bytes(lead) + SECRET.encode() + b"xyz").decode() for lead in range(3)),
    *(base64.urlsafe_b64encode(bytes(lead) + SECRET.encode() + b"xyz").decode() for lead in range(3)),
]
UNKNOWN = "Qz7Planted9Wx5Secret3Kd8"
# None of them has a quoted value after an equals sign: a quote that is left open before it ends there, so that the value stands outside.
SHAPES = [
    f"\nAuthorization: Bearer {UNKNOWN}\r\n",
    f"\nCookie: session={UNKNOWN}\r\n",
    f"\nX-Api-Key: {UNKNOWN}\r\n",
    f"\nCookie: token=x; session={UNKNOWN}\r\n",
    f" https://user:{UNKNOWN}@lims.lab.example/a ",
    f" https://s3.example/bucket/key?X-Amz-Expires=60&X-Amz-Signature={UNKNOWN} ",
    f" /a/b?token={UNKNOWN} ",
    f"\npassword={UNKNOWN}\n",
    f' "client_secret": "{UNKNOWN}" ',
    f" eyJhbGciOiJIUzI1NiJ9.{UNKNOWN}.{UNKNOWN} ",
]


def known(data: bytes) -> None:
    """A secret that is known by value comes out in none of its forms, of no text, value or event."""
    flags, before, after = parts(data, 3)
    form = FORMS[(flags[0] if flags else 0) % len(FORMS)]
    lead, trail = before.decode("utf-8", "replace"), after.decode("utf-8", "replace")
    if len(flags) > 1:  # At the end of what is searched, where a cut could split it.
        lead = filled(lead or "a", MAX_CHARACTERS - (flags[1] % 64))
    whole = lead + form + trail
    check_hidden(form, KNOWN.text(whole))
    check_hidden(form, KNOWN.known(whole))
    if len(flags) > 1:
        return
    check_hidden(form, describe(ValueError(whole), KNOWN.text))
    nested = {"a": whole, whole: [whole, {"name": lead, "value": whole}, (lead, whole)], "error": ValueError(whole), lead: form}
    check_hidden(form, json.dumps(KNOWN.value(nested), ensure_ascii=False))
    check_hidden(form, render(dict(KNOWN(None, "info", {"event": whole, "text": whole, lead or "x": nested}))))


def check_hidden(form: str, shown: str) -> None:
    """Check that neither the secret nor the middle of its form is shown, also escaped once more."""
    middle = form[4:-5]
    for each in (SECRET, middle, json.dumps(middle)[1:-1]):
        assert each not in shown, "a known secret is shown"


def shaped(data: bytes) -> None:
    """A secret that only its shape tells is masked, whatever stands on the lines before and after it."""
    flags, before, after = parts(data, 3)
    shape = SHAPES[(flags[0] if flags else 0) % len(SHAPES)]
    lead, trail = before.decode("utf-8", "replace"), after.decode("utf-8", "replace")
    assert UNKNOWN not in redact_text(f"{lead}\n{shape}\n{trail}"), "a secret is shown"
    assert UNKNOWN not in str(KNOWN.value({"a": f"{lead}\n{shape}\n{trail}"})), "a secret is shown"
    assert UNKNOWN not in shown_target(f"/{lead}?{trail}&X-Amz-Signature={UNKNOWN}"), "a signature is shown"


def known_seeds() -> list[bytes]:
    """Each form within ordinary texts, and at the end of long ones."""
    around = [("", ""), ("a b ", " c"), ("https://user:", "@h/"), ('{"a": "', '"}'), ("Authorization: Basic ", "\r\n"), ("\\", "\\")]
    seeds = [joined(bytes((1 + number,)), *around[number % len(around)]) for number in range(len(FORMS))]
    return seeds + [joined(bytes((1 + number, 1 + number * 7)), "a b", "c") for number in range(8)]


def shaped_seeds() -> list[bytes]:
    """Each shape within ordinary texts."""
    around = [("", ""), ("GET /a HTTP/1.1", "Host: h"), ('cookie="', '"'), ("-----BEGIN X", "http://"), ("token=", "'"), ('\\"', "basic ")]
    return [joined(bytes((1 + number,)), *each) for number in range(len(SHAPES)) for each in around]


HARNESSES = [Harness("known-secret", known, known_seeds, 512), Harness("shaped-secret", shaped, shaped_seeds, 512)]
