"""Failures that repeat: logged when they start, change and end."""

from __future__ import annotations

from typing import Any

from relay_agent.core.failures import Cause
from relay_agent.telemetry.repeated_failure import RepeatedFailure
from tests.unit.telemetry.scenes import Written

# Failures that repeat
CAUSE = Cause("platform", "what lies behind it", "what cures it")


def repeated(written: Written, **options: Any) -> RepeatedFailure:
    return RepeatedFailure(written.log, "heartbeat-failed", "heartbeat-recovered", written.time, **options)


def test_a_repeated_failure_is_logged_when_it_starts_changes_and_ends(written: Written) -> None:
    failure = repeated(written)
    failure.success()
    for reason in ("refused", "refused", "timeout", "timeout", "refused"):
        failure.failure(reason, CAUSE, status=503)
        written.time.seconds += 10
    assert failure.failing
    failure.success()
    failure.success()
    assert not failure.failing
    assert [(line["event"], line.get("reason"), line["tries"]) for line in written.lines] == [
        ("heartbeat-failed", "refused", 1),
        ("heartbeat-failed", "timeout", 3),
        ("heartbeat-recovered", None, 5),
    ]
    assert written.lines[-1]["seconds"] == 50.0
    assert (written.lines[0]["cause"], written.lines[0]["cure"], written.lines[0]["status"]) == (CAUSE.cause, CAUSE.cure, 503)


def test_the_next_failure_is_a_new_one(written: Written) -> None:
    failure = repeated(written)
    failure.failure("refused", CAUSE)
    failure.success()
    failure.failure("refused", CAUSE)
    assert [line["event"] for line in written.lines] == ["heartbeat-failed", "heartbeat-recovered", "heartbeat-failed"]


def test_a_lasting_failure_is_logged_three_times_and_then_once_a_minute(written: Written) -> None:
    failure = repeated(written, first=3, remind_seconds=60.0)
    for _ in range(100):
        failure.failure("refused", CAUSE)
        written.time.seconds += 5
    assert [line["tries"] for line in written.lines[:5]] == [1, 2, 3, 15, 27]
    assert len(written.lines) == 3 + 8


def test_only_the_beginning_of_a_reason_is_kept(written: Written) -> None:
    failure = repeated(written)
    for number in range(100):
        failure.failure("the answer was " + "a" * 10_000 + str(number), CAUSE)
    assert [line["tries"] for line in written.lines] == [1]
    failure.failure("timeout", CAUSE)
    assert len(written.lines) == 2


def test_always_different_reasons_do_not_flood_the_log(written: Written) -> None:
    failure = repeated(written)
    for number in range(1000):
        failure.failure(f"after {number} s", CAUSE)
    assert len(written.lines) == 32
