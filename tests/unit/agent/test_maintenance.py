"""The thread `upkeep`: what it logs about a backlog and a failing journal, once and not every second, and when it does what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.agent.maintenance import IDLE_SECONDS, PRUNE_SECONDS, Maintenance
from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalDamaged, JournalError
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal
from relay_agent.storage.retention import Retention
from relay_agent.telemetry.hourly_summary import Tally
from relay_agent.telemetry.logger import Logger


class World:
    """A `Maintenance` whose disk and journal the test controls."""

    def __init__(self) -> None:
        self.time = 0.0
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.looks = 0
        self.summaries = 0
        self.error: JournalError | None = None
        self.disk = SimpleNamespace(backlog=False, backlog_bytes=4_000_000_000, obstacle=None, look=lambda: None)
        self.pruned: list[float] = []
        self.truncated: list[float] = []
        self.released: list[float] = []
        self.journal = SimpleNamespace(unwritable=None, commits=0, flush=self._flush)
        retention = SimpleNamespace(prune=lambda: self.pruned.append(self.time), checkpoint=self._checkpoint)
        clock = Clock(monotonic=lambda: self.time)
        whatever = cast("Any", self)
        self.maintenance = Maintenance(
            journal=cast("Journal", self.journal),
            retention=cast("Retention", retention),
            disk=cast("Disk", self.disk),
            interrupt=lambda: None,
            summarise=self._summarise,
            release_memory=lambda: self.released.append(self.time),
            loop=LoopContext(LoopStatus(clock), Tally(), cast("Logger", whatever), clock),
        )

    def _flush(self) -> None:
        if self.error is not None:
            raise self.error

    def _checkpoint(self) -> bool:
        self.truncated.append(self.time)
        return True

    def _summarise(self) -> None:
        self.summaries += 1

    def warning(self, event: str, **fields: Any) -> None:
        self.log.append((event, fields))

    info = warning

    def run(self, seconds: float) -> None:
        end = self.time + seconds
        while self.time < end:
            self.time += self.maintenance.step()

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.log]


@pytest.fixture
def world() -> World:
    return World()


def test_a_backlog_that_stops_the_intake_is_logged_with_cause_and_cure_and_so_is_its_end(world: World) -> None:
    world.run(5)
    world.disk.backlog = True
    world.run(60)
    world.disk.backlog = False
    world.run(60)
    assert world.events == ["backlog-full", "backlog-drained"]
    fields = world.log[0][1]
    assert fields["reason"] == "more than 4 GB wait to be sent to the platform"
    assert "send-failed" in fields["cure"] and "by itself" in fields["cure"]


def test_a_failing_journal_is_logged_once_and_not_every_second(world: World) -> None:
    world.error = JournalError("the journal cannot be read")
    world.run(PRUNE_SECONDS * 3)
    world.error = None
    world.run(PRUNE_SECONDS)
    assert world.events == ["journal-upkeep-failed", "journal-upkeep-recovered"]


def test_a_damaged_journal_ends_the_thread(world: World) -> None:
    world.error = JournalDamaged("damaged")
    with pytest.raises(JournalDamaged):
        world.maintenance.step()


def test_the_hourly_summary_is_logged_even_if_the_journal_fails(world: World) -> None:
    world.error = JournalError("the journal cannot be read")
    world.run(10)
    assert world.summaries >= 10 / IDLE_SECONDS


def test_free_memory_is_given_back_after_the_start_and_once_the_commands_have_ended(world: World) -> None:
    world.run(30)
    for _ in range(30):
        world.journal.commits += 1
        world.run(1)
    ended = world.time
    world.run(30)
    first, second = world.released
    assert (first, ended <= second <= ended + 2 * IDLE_SECONDS) == (1.0, True)


def test_old_rows_are_deleted_every_minute(world: World) -> None:
    world.run(185)
    assert [moment // PRUNE_SECONDS for moment in world.pruned] == [1, 2, 3]


def test_the_log_is_truncated_within_5_s_of_each_commit_and_not_without_one(world: World) -> None:
    world.run(60)
    assert len(world.truncated) <= 1
    for commit in range(1, 20):
        committed, world.journal.commits = world.time, commit
        world.truncated.clear()
        world.run(5)
        assert [at - committed <= 5.0 for at in world.truncated] == [True]
        world.run(commit % 4)
