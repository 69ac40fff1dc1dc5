"""What a loop reports with: its repeated failures are logged to its own log, by its own clock."""

from __future__ import annotations

from relay_agent.core.clock import Clock
from relay_agent.diagnostics.local_causes import STUCK
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.telemetry.hourly_summary import Tally
from tests.unit.telemetry.scenes import Written


def test_a_failure_that_repeats_is_logged_first_after_the_reminder_and_when_it_ends() -> None:
    written = Written()
    clock = Clock(monotonic=written.time)
    loop = LoopContext(LoopStatus(clock), Tally(), written.log, clock)
    failure = loop.repeated_failure("send-failed", "send-recovered", remind_seconds=60.0)
    for seconds in (0.0, 1.0, 60.0):
        written.time.seconds += seconds
        failure.failure("no answer", STUCK)
    failure.success()
    assert [line["event"] for line in written.lines] == ["send-failed", "send-failed", "send-recovered"]


def test_the_first_failures_are_all_logged_though_they_are_alike() -> None:
    written = Written()
    clock = Clock(monotonic=written.time)
    failure = LoopContext(LoopStatus(clock), Tally(), written.log, clock).repeated_failure("beat-failed", "beat-recovered", first=3)
    logged = []
    for _ in range(5):
        failure.failure("no answer", STUCK)
        logged.append(len(written.lines))
    assert logged == [1, 2, 3, 3, 3]
