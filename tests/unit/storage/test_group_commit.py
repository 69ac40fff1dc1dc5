"""Group commit: which thread waits for which, and what happens to changes on a disk that takes none."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.errors import JournalDamaged, JournalError, JournalUnwritable
from relay_agent.storage import group_commit
from relay_agent.storage.group_commit import Writer

CANARY = "canary-77"


class Disk:
    """A database of one table, and a reserve; `fails` makes the next transactions fail as SQLite would."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute("CREATE TABLE seen (value INTEGER UNIQUE)")
        self.others = 1
        self.time = 100.0
        self.reserve = 0
        self.fails: list[int] = []
        self.writer = Writer(self.connection, others=lambda: self.others, monotonic=lambda: self.time, make_room=self._make_room)

    def _make_room(self) -> bool:
        self.reserve -= 1
        return self.reserve >= 0

    def add(self, value: int) -> Any:
        """A change that adds a row."""

        def change(connection: sqlite3.Connection) -> int:
            if self.fails:
                error = sqlite3.OperationalError("as told")
                error.sqlite_errorcode = self.fails.pop(0)
                raise error
            connection.execute("INSERT INTO seen VALUES (?)", (value,))
            return value

        return change

    def rows(self) -> list[int]:
        return [row[0] for row in self.writer.read("SELECT value FROM seen ORDER BY value")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "a.db")
    yield made
    made.writer.close(1.0)


def test_the_changes_of_a_lone_command_are_written_at_once(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: float) -> bool:
        raise AssertionError("it lingered")

    monkeypatch.setattr(disk.writer._more, "wait", wait)
    for value in range(50):  # The highest load, but of one command only.
        disk.writer.commit(disk.add(value))
    disk.others, disk.time = 5, disk.time + 10
    for value in range(50, 100):  # Several commands, but no load.
        disk.time += group_commit.LOAD_SECONDS
        disk.writer.commit(disk.add(value))
    assert disk.writer.commits == 100


def test_under_load_the_leader_waits_briefly_for_other_threads(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "LINGER_SECONDS", 60.0)  # The third change ends it, not the time.
    for value in range(group_commit.LOAD_CHANGES):
        disk.writer.commit(disk.add(value))
    before, disk.others = disk.writer.commits, 3
    threads = [threading.Thread(target=disk.writer.commit, args=(disk.add(100 + value),)) for value in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert disk.writer.commits == before + 1
    assert disk.rows()[-3:] == [100, 101, 102]


def test_the_leader_stops_waiting_after_the_linger(disk: Disk) -> None:
    disk.writer._monotonic = time.monotonic
    disk.others = 1000
    for value in range(group_commit.LOAD_CHANGES + 3):
        disk.writer.commit(disk.add(value))
    assert len(disk.rows()) == group_commit.LOAD_CHANGES + 3


def test_a_failing_change_does_not_affect_others_in_its_batch(disk: Disk) -> None:
    disk.writer.commit(disk.add(1))
    disk.writer.later(disk.add(2))
    with pytest.raises(JournalError):
        disk.writer.commit(disk.add(1))
    assert disk.rows() == [1, 2]


def test_a_full_disk_s_reserve_is_used_at_once(disk: Disk) -> None:
    disk.reserve, disk.fails = 1, [sqlite3.SQLITE_FULL]
    assert disk.writer.commit(disk.add(1)) == 1
    assert (disk.writer.unwritable, disk.reserve) == (None, 0)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_READONLY])
def test_an_unwritable_disk_is_reported_until_a_commit_succeeds(disk: Disk, code: int) -> None:
    disk.fails = [code]
    with pytest.raises(JournalUnwritable, match="as told"):
        disk.writer.commit(disk.add(1))
    assert disk.writer.unwritable is not None and "as told" in disk.writer.unwritable.reason
    disk.writer.commit(disk.add(2))
    assert (disk.writer.unwritable, disk.rows()) == (None, [2])


def test_a_later_change_is_written_once_the_disk_is_writable_again(disk: Disk) -> None:
    disk.writer.later(disk.add(1))
    disk.fails = [sqlite3.SQLITE_FULL]
    with pytest.raises(JournalUnwritable):
        disk.writer.commit(disk.add(2))
    disk.writer.commit(disk.add(3))
    assert disk.rows() == [1, 3]


def test_a_flush_makes_later_changes_durable_and_costs_nothing_if_they_are(disk: Disk) -> None:
    reported: list[int] = []
    disk.writer.later(disk.add(1), then=lambda: reported.append(disk.connection.execute("SELECT MAX(value) FROM seen").fetchone()[0]))
    assert (disk.writer.commits, reported) == (0, [])
    disk.writer.flush()
    disk.writer.flush()
    assert (disk.writer.commits, reported) == (1, [1])


def test_under_load_a_flush_uses_another_threads_commit(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "FOLLOWER_WAIT_SECONDS", 60.0)  # The other thread's commit ends it, not the time.
    monkeypatch.setattr(group_commit, "LINGER_SECONDS", 0.0)
    disk.others = 2
    for value in range(group_commit.LOAD_CHANGES):
        disk.writer.later(disk.add(value))
    flush = threading.Thread(target=disk.writer.flush)
    flush.start()
    while not any(work.change is None for work in disk.writer._waiting):
        time.sleep(0)
    disk.writer.commit(disk.add(100))
    flush.join(10)
    assert not flush.is_alive()
    assert (disk.writer.commits, len(disk.rows())) == (1, group_commit.LOAD_CHANGES + 1)


def test_a_flush_that_follows_uses_another_threads_commit_and_waits_only_briefly_for_it(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.writer.later(disk.add(1))
    disk.writer.flush(follow=True)
    assert (disk.writer.commits, len(disk.rows())) == (1, 1)
    monkeypatch.setattr(group_commit, "FOLLOWER_WAIT_SECONDS", 60.0)  # The other thread's commit ends it, not the time.
    disk.writer.later(disk.add(2))
    flush = threading.Thread(target=disk.writer.flush, kwargs={"follow": True})
    flush.start()
    while not any(work.change is None for work in disk.writer._waiting):
        time.sleep(0)
    disk.writer.commit(disk.add(3))
    flush.join(10)
    assert (flush.is_alive(), disk.writer.commits, len(disk.rows())) == (False, 2, 3)


def test_under_load_a_flush_waits_only_briefly_for_another_thread(disk: Disk) -> None:
    disk.writer._monotonic = time.monotonic
    disk.others = 2
    for value in range(group_commit.LOAD_CHANGES):
        disk.writer.later(disk.add(value))
    disk.writer.flush()
    assert len(disk.rows()) == group_commit.LOAD_CHANGES


def test_a_flush_raises_on_an_unwritable_disk_and_the_next_one_succeeds(disk: Disk) -> None:
    disk.writer.later(disk.add(1))
    disk.fails = [sqlite3.SQLITE_FULL]
    with pytest.raises(JournalUnwritable):
        disk.writer.flush()
    disk.writer.flush()
    assert disk.rows() == [1]


def test_every_flush_raises_after_a_change_that_cannot_be_made(disk: Disk) -> None:
    """The thread that relies on the change may not be the first to flush."""
    disk.writer.commit(disk.add(1))
    disk.writer.later(disk.add(1))
    disk.writer.commit(disk.add(2))
    for _ in range(2):
        with pytest.raises(JournalError):
            disk.writer.flush()
    assert disk.rows() == [1, 2]


def test_damage_is_distinguished_from_a_full_disk(disk: Disk) -> None:
    disk.fails = [sqlite3.SQLITE_CORRUPT]
    with pytest.raises(JournalDamaged):
        disk.writer.commit(disk.add(1))


def test_an_error_never_repeats_a_value(disk: Disk) -> None:
    """SQLite's error about a text that is not UTF-8 does."""
    disk.connection.execute("CREATE TABLE text (value TEXT)")
    disk.connection.execute("INSERT INTO text VALUES (CAST(? AS TEXT))", (CANARY.encode() + b"\xff",))
    with pytest.raises(JournalError) as caught:
        disk.writer.read("SELECT value FROM text")
    assert CANARY not in str(caught.value)
    with pytest.raises(JournalError) as caught:
        disk.writer.commit(lambda connection: connection.execute("INSERT INTO text VALUES (?)", (f"{CANARY}\ud800",)))
    assert CANARY not in str(caught.value)


def test_a_reader_does_not_wait_for_ever_for_a_commit_that_does_not_end(disk: Disk) -> None:
    disk.writer.patience_seconds = 0.01
    with disk.writer.using, pytest.raises(JournalError, match="does not finish"):
        disk.rows()


def test_a_flush_that_timed_out_does_not_keep_the_leader_waiting(disk: Disk) -> None:
    held = threading.Thread(target=disk.writer.commit, args=(disk.add(1),))
    with disk.writer.using:
        held.start()
        while disk.writer.stuck_seconds() == 0 and disk.writer._leading_since is None:
            time.sleep(0)
        disk.writer.later(disk.add(2))
        with pytest.raises(JournalError, match="does not finish"):
            disk.writer.flush(0.01)
    held.join(10)
    disk.writer.flush()
    disk.writer.commit(disk.add(3))
    assert disk.rows() == [1, 2, 3]


def test_changes_that_failed_on_a_full_disk_keep_their_order(disk: Disk) -> None:
    """Also if a batch is written one by one because one of its changes fails."""
    for value in (4, 5, 6):
        disk.writer.later(disk.add(value))
    disk.fails = [sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FULL]
    with pytest.raises(JournalUnwritable):
        disk.writer.commit(disk.add(7))
    seen: list[int] = []
    disk.writer.use(lambda connection: seen.extend(work.change(connection) for work in disk.writer._waiting if work.change is not None))
    assert seen == [4, 5, 6]


def test_a_flush_does_not_succeed_if_a_change_before_it_met_a_full_disk(disk: Disk) -> None:
    """Also if another change of the batch fails, and each is written alone."""
    reported: list[int] = []
    disk.writer.commit(disk.add(1))
    disk.writer.later(disk.add(1))  # It fails: the value is not unique.
    disk.writer.later(disk.add(2), then=lambda: reported.append(2))
    disk.fails = [sqlite3.SQLITE_ERROR, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FULL]
    with pytest.raises(JournalUnwritable):
        disk.writer.flush()
    assert (disk.rows(), reported) == ([1], [])
