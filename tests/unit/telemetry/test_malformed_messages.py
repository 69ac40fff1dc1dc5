"""The last malformed messages are kept for the support bundle: their beginnings, redacted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from relay_agent.telemetry.malformed_messages import KEPT, MAX_CHARACTERS, MalformedMessages
from relay_agent.telemetry.redaction import Redactor

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def kept(messages: MalformedMessages) -> list[dict[str, Any]]:
    return [json.loads(line) for line in messages.text().splitlines()]


def test_a_message_is_kept_with_its_reason_its_time_and_its_length() -> None:
    messages = MalformedMessages(lambda text: text, lambda: NOW)
    messages.keep("{", "it is not JSON")
    assert kept(messages) == [{"time": "2026-03-01T12:00:00.000Z", "reason": "it is not JSON", "characters": 1, "begins": "{"}]


def test_only_the_beginning_of_a_long_message_is_kept_and_only_the_last_messages() -> None:
    messages = MalformedMessages(lambda text: text, lambda: NOW)
    for number in range(KEPT + 5):
        messages.keep(f"{number} " + "x" * 5000, "too odd")
    found = kept(messages)
    assert [entry["begins"].split()[0] for entry in found] == [str(number) for number in range(5, KEPT + 5)]
    assert {len(entry["begins"]) for entry in found} == {MAX_CHARACTERS}


def test_no_secret_is_kept() -> None:
    messages = MalformedMessages(Redactor(["canary-known-secret"]).text, lambda: NOW)
    messages.keep('{"headers": {"Authorization": "Bearer canary-shaped-secret-1234567890"}, "x": "canary-known-secret"', "cut")
    assert "canary" not in messages.text()
