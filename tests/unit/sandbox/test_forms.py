"""What every call of the platform's API shares: the form of errors, times and ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from relay_agent.sandbox.forms import ApiError, is_uuid, parse_time


def test_an_error_has_its_status_in_words_and_one_line_for_each_invalid_field() -> None:
    assert ApiError(404, "no such agent").to_json() == {"statusCode": 404, "error": "Not Found", "message": "no such agent"}
    found = ApiError(400, "invalid", ["a is missing", "b is not a number"]).to_json()
    assert found["validation"] == [{"message": "a is missing"}, {"message": "b is not a number"}]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))),
        ("soon", None),
        ("", None),
        (5, None),
        (None, None),
    ],
)
def test_a_time_is_iso_8601_and_in_utc_without_an_offset(text: object, moment: datetime | None) -> None:
    assert parse_time(text) == moment


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("6f0c2a4e-6f1b-4c57-9f0e-4f6f5f0b8f0a", True),
        ("6F0C2A4E-6F1B-4C57-9F0E-4F6F5F0B8F0A", True),
        ("6f0c2a4e6f1b4c579f0e4f6f5f0b8f0a", False),
        ("{6f0c2a4e-6f1b-4c57-9f0e-4f6f5f0b8f0a}", False),
        ("x", False),
        (5, False),
    ],
)
def test_an_id_is_a_uuid_in_its_usual_form(text: object, is_one: bool) -> None:
    assert is_uuid(text) == is_one
