"""Commands per minute over the last hour, for the status page."""

from __future__ import annotations

from relay_agent.telemetry.throughput import MINUTES, Throughput
from tests.unit.telemetry.scenes import Time


def counted(time: Time, throughput: Throughput, seconds: float, *failed: bool) -> None:
    time.seconds = seconds
    for one in failed:
        throughput.count(failed=one)


def test_each_minute_has_its_finished_and_failed_commands_the_current_one_last() -> None:
    time = Time()
    throughput = Throughput(time)
    counted(time, throughput, 6000.0, False, True)
    counted(time, throughput, 6059.9, False)
    counted(time, throughput, 6060.0, True)
    assert throughput.last_hour()[-3:] == [(0, 0), (3, 1), (1, 1)]


def test_a_minute_without_commands_is_zero_and_an_hour_has_sixty() -> None:
    time = Time()
    throughput = Throughput(time)
    assert throughput.last_hour() == [(0, 0)] * MINUTES
    counted(time, throughput, 6000.0, False)
    time.seconds += 120.0
    assert throughput.last_hour()[-3:] == [(1, 0), (0, 0), (0, 0)]


def test_the_minutes_of_an_earlier_run_are_taken_up() -> None:
    time = Time()
    time.seconds = 6000.0
    throughput = Throughput(time)
    throughput.resume({0: (2, 1), 3: (5, 0)})
    counted(time, throughput, 6001.0, True)
    assert throughput.last_hour()[-4:] == [(5, 0), (0, 0), (0, 0), (3, 2)]


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    time = Time()
    throughput = Throughput(time)
    counted(time, throughput, 6000.0, False)
    time.seconds += 59 * 60.0
    assert throughput.last_hour()[0] == (1, 0)
    time.seconds += 60.0
    assert throughput.last_hour() == [(0, 0)] * MINUTES


def test_after_more_than_an_hour_of_commands_only_the_last_sixty_minutes_are_kept() -> None:
    time = Time()
    throughput = Throughput(time)
    for minute in range(MINUTES + 5):
        counted(time, throughput, 6000.0 + 60.0 * minute, *[False] * (minute + 1))
    assert throughput.last_hour() == [(minute + 1, 0) for minute in range(5, MINUTES + 5)]
