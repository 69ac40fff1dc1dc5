"""The hourly summary: what it counts, when it is logged, and that nothing is counted twice."""

from __future__ import annotations

import io
import json
import threading
import time
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from relay_agent.core.clock import HOUR_SECONDS, Clock
from relay_agent.core.errors import JournalUnwritable
from relay_agent.core.models import Status
from relay_agent.telemetry.hourly_summary import Counted, Summary, Tally
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor

NAMES: tuple[Counted, ...] = get_args(Counted)


class World:
    """A summary with a clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.dropped = 0
        self.journal: dict[str, int] | None = {"admitted": 1, "started": 2, "finished": 3, "delivered": 4}
        self.stream = io.StringIO()
        clock = Clock(now=lambda: datetime(2026, 3, 1, tzinfo=UTC), monotonic=lambda: self.seconds)
        self.tally = Tally()
        self.summary = Summary(
            self.tally,
            Logs("info", Redactor(), None, self.stream, clock).logger,
            clock.monotonic,
            dropped=lambda: self.dropped,
            queued=lambda: 5,
            running=lambda: 6,
            journal=self._states,
        )

    def _states(self) -> dict[str, int]:
        if self.journal is None:
            raise JournalUnwritable("no")
        return self.journal

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def world() -> World:
    return World()


def test_the_line_has_the_counters_and_the_current_state(world: World) -> None:
    for place, name in enumerate(NAMES):
        world.tally.count(name, place + 1)
    for status in (Status.SUCCESS, Status.SUCCESS, Status.FAILURE):
        world.tally.finished(status)
    world.dropped = 9
    world.seconds += HOUR_SECONDS
    world.summary.log_if_due()
    (line,) = world.lines
    assert line == {
        "event": "summary",
        "timestamp": "2026-03-01T00:00:00.000Z",
        "level": "info",
        "seconds": 3600,
        "uptime_seconds": 3600,
        **{name: place + 1 for place, name in enumerate(NAMES)},
        "finished": {"SUCCESS": 2, "FAILURE": 1},
        "lines_dropped": 9,
        "queued": 5,
        "running": 6,
        "journal": {"admitted": 1, "started": 2, "finished": 3, "delivered": 4},
    }


def test_every_line_starts_at_zero(world: World) -> None:
    for _ in range(2):
        world.tally.count("polls", 3)
        world.tally.finished("SUCCESS")
        world.dropped += 1
        world.seconds += HOUR_SECONDS
        world.summary.log_if_due()
        world.summary.log_if_due()
    assert [(line["polls"], line["finished"], line["lines_dropped"], line["uptime_seconds"]) for line in world.lines] == [
        (3, {"SUCCESS": 1}, 1, 3600),
        (3, {"SUCCESS": 1}, 1, 7200),
    ]


def test_an_hour_without_any_events_has_a_line(world: World) -> None:
    world.seconds += HOUR_SECONDS - 0.1
    world.summary.log_if_due()
    assert world.lines == []
    world.seconds += 0.1
    world.summary.log_if_due()
    assert [line["polls"] for line in world.lines] == [0]


def test_late_calls_still_give_24_lines_a_day(world: World) -> None:
    for _ in range(86_400 // 7):
        world.seconds += 7
        world.summary.log_if_due()
    assert len(world.lines) == 23
    world.seconds += 7
    world.summary.log_if_due()
    assert len(world.lines) == 24


def test_several_hours_without_a_call_are_one_line(world: World) -> None:
    world.seconds += 5.5 * HOUR_SECONDS
    world.summary.log_if_due()
    world.seconds += HOUR_SECONDS - 1
    world.summary.log_if_due()
    assert [line["seconds"] for line in world.lines] == [19_800]


def test_the_stop_logs_the_rest_and_only_if_there_is_any(world: World) -> None:
    world.summary.log_rest()
    assert world.lines == []
    world.tally.finished("SUCCESS")
    world.seconds += 60
    world.summary.log_rest()
    world.summary.log_rest()
    assert [(line["seconds"], line["finished"]) for line in world.lines] == [(60, {"SUCCESS": 1})]


def test_an_unreadable_journal_empties_only_its_own_field(world: World) -> None:
    world.journal = None
    world.seconds += HOUR_SECONDS
    world.summary.log_if_due()
    assert world.lines[0]["journal"] == {}


def test_the_line_stays_under_550_bytes_in_the_busiest_hour_of_an_old_agent(world: World) -> None:
    for name in NAMES:
        world.tally.count(name, 999_999)
    for status in ("SUCCESS", "FAILURE", "REJECTED"):
        for _ in range(3):
            world.tally.finished(status)
    world.dropped = 999_999
    world.journal = dict.fromkeys(("admitted", "started", "finished", "delivered"), 999_999)
    world.seconds += 10 * 365 * 86_400
    world.summary.log_if_due()
    assert len(world.stream.getvalue()) <= 550


def test_no_count_of_many_threads_is_lost_or_repeated() -> None:
    tally, taken, over = Tally(), [], threading.Event()

    def count() -> None:
        for _ in range(5000):
            tally.count("polls")
            tally.finished("SUCCESS")

    def take() -> None:
        while not over.is_set():
            taken.append(tally.take())

    threads = [threading.Thread(target=count) for _ in range(4)]
    taker = threading.Thread(target=take)
    for thread in [*threads, taker]:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    taker.join()
    taken.append(tally.take())
    assert sum(counts["polls"] for counts, _ in taken) == sum(finished["SUCCESS"] for _, finished in taken) == 20_000


def test_a_count_takes_less_than_two_microseconds() -> None:
    tally, best = Tally(), float("inf")
    for _ in range(20):
        began = time.thread_time()
        for _ in range(1000):
            tally.count("polls")
        best = min(best, (time.thread_time() - began) / 1000)
    assert best < 2e-6
