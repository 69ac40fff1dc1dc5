"""The fields of a fault: each mistake is named, and what would do nothing is refused.

The routes themselves are tested over HTTP (`tests/integration/test_sandbox_control.py`).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.forms import ApiError
from relay_agent.sandbox.rest.fault_routes import read_fault


def problems(**body: Any) -> list[str]:
    with pytest.raises(ApiError) as caught:
        read_fault(body)
    assert caught.value.status == 400
    return caught.value.validation


def test_every_field_of_a_fault_can_be_set() -> None:
    body: dict[str, Any] = {
        "service": "rest",
        "operation": "agent/config",
        "contains": "agent-1",
        "count": None,
        "skip": 2,
        "hang_seconds": 1,
        "close": False,
        "status": 503,
        "body": "busy",
        "headers": {"Retry-After": "5"},
        "code": None,
        "message": "m",
    }
    assert set(body) == {field.name for field in fields(Fault)}
    assert read_fault(body) == Fault(**{**body, "hang_seconds": 1.0})


def test_a_hang_may_last_forever() -> None:
    assert read_fault({"hang_seconds": "forever"}).hang_seconds == FOREVER


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("service", "ec2"),
        ("operation", 5),
        ("contains", "\ud800"),
        ("count", 0),
        ("count", True),
        ("skip", -1),
        ("skip", 1.5),
        ("hang_seconds", -1),
        ("hang_seconds", 86_401),
        ("hang_seconds", True),
        ("hang_seconds", "long"),
        ("close", 1),
        ("status", 199),
        ("status", 600),
        ("body", {}),
        ("headers", []),
        ("headers", {"Content-Length": "1"}),
        ("headers", {"a b": "1"}),
        ("headers", {"X": "a\nb"}),
        ("headers", {"X": 1}),
        ("code", "a b"),
        ("message", None),
    ],
)
def test_a_value_that_its_field_does_not_take_is_named(field: str, value: Any) -> None:
    (found,) = problems(**{"status": 500, field: value})
    assert found.startswith(f"{field} must be ")


def test_an_unknown_field_is_answered_with_those_there_are() -> None:
    (found,) = problems(status=500, statuses=1)
    assert found.startswith("statuses is not a field of a fault: they are service, operation, ")


def test_every_mistake_is_named_at_once() -> None:
    assert len(problems(a=1, status=1, skip=-1)) == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "one of hang_seconds, close, status and code is required"),
        ({"hang_seconds": 0, "close": False}, "one of hang_seconds, close, status and code is required"),
        ({"code": "SlowDown"}, "service must be one of sqs, s3, logs"),
        ({"code": "SlowDown", "service": "rest"}, "service must be one of sqs, s3, logs"),
        ({"close": True, "body": "x"}, "body and headers need a status, and no code"),
        ({"code": "SlowDown", "service": "s3", "status": 503, "headers": {"X": "1"}}, "body and headers need a status, and no code"),
        ({"status": 204, "body": "x"}, "body must be empty with status 204"),
        ({"status": 304, "body": "x"}, "body must be empty with status 304"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(body: dict[str, Any], words: str) -> None:
    assert any(words in found for found in problems(**body))
