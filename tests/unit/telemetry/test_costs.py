"""Logging foreign text takes time in proportion to its length, whatever it is, and searches a bounded part of it.

The tests measure the thread's CPU time, which other processes hardly change, and compare a text with one four times as long: that
takes four times as long if the work is linear, sixteen times if it is quadratic.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay_agent.telemetry.log_rendering import frames, render
from relay_agent.telemetry.redaction import Redactor, describe
from relay_agent.telemetry.secret_patterns import MAX_CHARACTERS, SENSITIVE_FIELD, harmless, mask_patterns, redact_text, shown_target
from tests.examples import examples

LINEAR = 8.0
TRIES = 20
SHORT = 4_000
SECRETS = ("correct horse battery staple", "A" * 40 + "=", "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl", bytes(range(32)))

# What each pattern begins with, may repeat, or waits for.
FRAGMENTS = [
    *("a", "A", "1", "/", "+", "_", "-", ".", "=", ":", ";", ",", "@", "?", "#", "&", "%", '"', "'", "\\", "(", ")", "[", "]", "{", "<"),
    *(" ", "\t", "\n", "\r\n", "\0", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{GRINNING FACE}", "\ud800", "[redacted]"),
    *("a-", "a.", "a@", "A1b", "a b ", "Ab1" * 13 + "A-", "Ab1" * 33 + "=", '\\"', "\\\\", '\\\\"', '\\\\\\"', "\\'", "b'"),
    *(
        "://",
        "a://",
        "http://",
        "https:\\/\\/",
        "http://a:b@",
        "//a:b@",
        "/a?",
        "?sig=",
        "?a",
        "x-amz-",
        "X-Amz-Signature=",
        "signature=%3D",
    ),
    *(
        "cookie",
        "cookie ",
        "cookie:",
        "cookie: b",
        'cookie:"',
        "cookie:'",
        'cookie:\\"',
        '"cookie" ',
        '"cookie":',
        "cookie\n",
        "set-cookie2:\n",
    ),
    *("x-amz-server-side-encryption-customer-key", "authorization", "proxy-authorization = ", "proxy-"),
    *(
        "token",
        "token ",
        "token=",
        "token= ",
        "token%3D",
        '"token"',
        '"token": ',
        "token=[redacted]",
        "password=\\\\\\'",
        "api_key :",
        "sig=",
    ),
    *(
        "basic",
        "basic ",
        "basic+",
        "basic%20",
        "basic+a-",
        "bearer ",
        "bearer+a",
        "negotiate ",
        "digest ",
        "digest a",
        "digest\n",
        "digest a=",
    ),
    *("eyJ", "eyJeyJ", "eyJaaaaaa.", "AKIA", "AKIAAAAAAAAAAAAAAA", "ASIA-"),
    *("-----", "-----BEGIN ", "-----BEGIN A", "-----BEGIN PRIVATE KEY-----", "-----END ", "-----END A PRIVATE KEY", "PRIVATE KEY-----"),
]


def cpu_seconds(run: Callable[[], object]) -> float:
    started = time.thread_time()
    run()
    return time.thread_time() - started


def growth(run: Callable[[str], object], unit: str, head: str = "") -> float:
    """The factor by which a text four times as long takes longer: the least of several tries, as disturbances only add time."""
    short, long = ((head + unit * (length // len(unit) + 1))[:length] for length in (SHORT, 4 * SHORT))
    found = []
    for _ in range(TRIES):
        found.append(cpu_seconds(lambda: run(long)) / max(min(cpu_seconds(lambda: run(short)) for _ in range(2)), 1e-5))
        if found[-1] < LINEAR:
            break
    return min(found)


@pytest.mark.parametrize("unit", FRAGMENTS, ids=ascii)
def test_masking_patterns_takes_time_in_proportion_to_the_text(unit: str) -> None:
    assert growth(mask_patterns, unit) < LINEAR
    assert growth(harmless, unit) < LINEAR


@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(FRAGMENTS), min_size=2, max_size=5).map("".join), st.lists(st.sampled_from(FRAGMENTS), max_size=3).map("".join)
)
def test_masking_patterns_in_any_mixture_takes_time_in_proportion_to_the_text(unit: str, head: str) -> None:
    assert growth(mask_patterns, unit, head) < LINEAR


def _line(text: str) -> object:
    redactor = Redactor(SECRETS)
    return render(redactor(None, "info", {"event": "x", "id": text, "fields": {text: [text] * 3}, "error": ValueError(text)}))


def _command(text: str) -> object:
    return render({"event": "command", "id": text, "action": text, "method": text, "host": text, "warnings": [text]})


def _sensitive(text: str) -> object:
    return [SENSITIVE_FIELD.fullmatch(text), SENSITIVE_FIELD.fullmatch(f"cookie{text}")]


LOOKS: dict[str, Callable[[str], object]] = {
    "redact_text": redact_text,
    "shown_target": shown_target,
    "shown_target of a query": lambda text: shown_target(f"/?{text}"),
    "harmless": harmless,
    "a field's name": _sensitive,
    "describe": lambda text: describe(ValueError(text), Redactor(SECRETS).text),
    "frames": lambda text: frames(ValueError(text), redact_text),
    "Redactor.text": lambda text: Redactor(SECRETS).text(text),
    "Redactor.known": lambda text: Redactor(SECRETS).known(text),
    "Redactor.value": lambda text: Redactor(SECRETS).value({text: [text] * 100_000}),
    "Redactor.value of many": lambda text: Redactor(SECRETS).value(list(text)),
    "a log line": _line,
    "a command's line": _command,
}
MEGABYTE = 1_000_000
SECOND = 1.0
# One of each kind: what opens something that nothing closes, what begins a run again and again, what is all escapes in JSON.
HOSTILE = [
    "a",
    " ",
    "a-",
    "basic+",
    'cookie:\\"',
    "token= ",
    "http://",
    '"',
    "\\",
    "\n",
    "eyJ",
    "-----BEGIN ",
    "\ud800",
    "\N{GRINNING FACE}",
]


@pytest.mark.parametrize("unit", HOSTILE, ids=ascii)
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
def test_a_megabyte_takes_less_than_a_second(look: Callable[[str], object], unit: str) -> None:
    text = (unit * (MEGABYTE // len(unit) + 1))[:MEGABYTE]
    assert any(cpu_seconds(lambda: look(text)) < SECOND for _ in range(TRIES))


def test_patterns_are_applied_to_a_bounded_part_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def counted(text: str) -> str:
        looked_at.append(len(text))
        return text

    monkeypatch.setattr("relay_agent.telemetry.secret_patterns.mask_patterns", counted)
    monkeypatch.setattr("relay_agent.telemetry.redaction.mask_patterns", counted)
    redactor = Redactor(SECRETS)
    for look in (
        redact_text,
        redactor.text,
        redactor.value,
        lambda text: redactor.value([text] * 1000),
        lambda text: describe(ValueError(text)),
    ):
        looked_at.clear()
        look("a = b " * 100_000)
        assert looked_at and max(looked_at) <= MAX_CHARACTERS and sum(looked_at) <= 5 * MAX_CHARACTERS
