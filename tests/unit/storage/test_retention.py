"""How long a journal keeps what is delivered, how its file stays small, and that commands do not wait for either.

Owns the proof with bounds made small. It must not start an agent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.models import Status, Update
from relay_agent.storage import retention
from relay_agent.storage.journal import Admission, Journal
from relay_agent.storage.retention import KEEP_IDS_SECONDS

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BATCH = 10


class Kept:
    """A journal and its wall clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOW
        self.journal = Journal(path, Clock(now=lambda: self.now))

    def again(self) -> None:
        """Close and reopen it, as a restart does."""
        self.journal.close()
        self.journal = Journal(self.path, Clock(now=lambda: self.now))

    def deliver(self, *ids: str, acked: bool = True, size: int = 10) -> None:
        """Take commands from admitted to delivered."""
        self.journal.admit([(command_id, "x" * size, "receipt") for command_id in ids])
        if acked:
            self.journal.acked(ids)
        for command_id in ids:
            self.journal.finish(Update(command_id, Status.SUCCESS, "y" * size))
        self.journal.deliver(ids)
        self.journal.flush()

    def known(self, *ids: str) -> list[str]:
        """Return those of the ids that the journal knows."""
        other = Journal(self._copy(), Clock(now=lambda: self.now))
        try:
            return [
                command_id
                for command_id, admission in zip(ids, other.admit([(name, "x" * 10, "r") for name in ids]), strict=True)
                if admission is not Admission.NEW
            ]
        finally:
            other.close()

    def _copy(self) -> Path:
        self.journal.retention.checkpoint()
        copy = self.path.with_name("copy.db")
        copy.write_bytes(self.path.read_bytes())
        return copy


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path / "journal.db")
    yield made
    made.journal.close()


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number:04}" for number in range(count)]


# --- bounds ---


def test_ids_are_kept_up_to_the_bound_the_newest_first(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "KEEP_IDS", 20)
    ids = names("c", 50)
    for start in range(0, 50, BATCH):
        kept.now += timedelta(seconds=1)
        kept.deliver(*ids[start : start + BATCH])
    kept.journal.retention.prune()
    assert kept.journal.counts()["delivered"] == 20
    assert kept.known(*ids) == ids[30:]


def test_the_bound_on_ids_removes_no_undelivered_command(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "KEEP_IDS", 0)
    kept.journal.admit([(command_id, "x", "r") for command_id in names("open", 30)])
    kept.journal.acked(names("open", 30))
    kept.journal.start("open-0001", False)
    kept.journal.finish(Update("open-0002", Status.SUCCESS, "y"))
    kept.deliver(*names("done", BATCH))
    kept.journal.retention.prune()
    assert kept.journal.counts() == {"admitted": 28, "started": 1, "finished": 1, "delivered": 0}


def test_ids_older_than_a_day_are_forgotten_and_younger_ones_kept(kept: Kept) -> None:
    kept.deliver("old")
    kept.now += timedelta(seconds=KEEP_IDS_SECONDS - 10)
    kept.deliver("young")
    kept.now += timedelta(seconds=11)
    kept.journal.retention.prune()
    assert kept.known("old", "young") == ["young"]


def test_unacknowledged_ids_are_kept_beyond_the_bounds(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "KEEP_IDS", 5)
    unacked = names("unacked", BATCH)
    kept.deliver(*unacked, acked=False)
    kept.now += timedelta(days=13)
    kept.deliver(*names("acked", BATCH))
    kept.journal.retention.prune()
    assert kept.known(*unacked) == unacked
    kept.now += timedelta(days=2)
    kept.journal.retention.prune()
    assert kept.known(*unacked) == []


# --- a clock that jumps ---


@pytest.mark.parametrize("restart", [False, True])
def test_a_clock_set_back_a_day_forgets_nothing_early(kept: Kept, restart: bool) -> None:
    kept.deliver("before")
    kept.journal.admit([("waiting", "x" * 10, "r")])
    kept.now -= timedelta(days=1)
    if restart:
        kept.again()
    kept.deliver("behind")
    kept.journal.retention.prune()
    assert kept.known("before", "behind", "waiting") == ["before", "behind", "waiting"]
    assert [left.id for left in kept.journal.unfinished()] == ["waiting"]
    kept.now += timedelta(days=1)
    kept.journal.retention.prune()
    assert kept.known("before", "waiting") == ["before", "waiting"]


def test_with_a_clock_set_back_commands_keep_the_order_of_admission(kept: Kept) -> None:
    kept.journal.admit([("first", "x", "r")])
    kept.now -= timedelta(days=1)
    kept.again()
    kept.journal.admit([("second", "x", "r")])
    assert [left.id for left in kept.journal.unfinished()] == ["first", "second"]


@pytest.mark.parametrize("state", ["admitted", "started", "finished", "delivered"])
def test_with_a_clock_set_back_a_message_is_known_in_every_state(kept: Kept, state: str) -> None:
    kept.journal.admit([("a", "x" * 10, "r")])
    if state != "admitted":
        kept.journal.start("a", True)
    if state in ("finished", "delivered"):
        kept.journal.finish(Update("a", Status.SUCCESS, "y"))
    if state == "delivered":
        kept.journal.deliver(["a"])
    kept.now -= timedelta(days=1)
    kept.again()
    kept.journal.retention.prune()
    assert kept.journal.admit([("a", "x" * 10, "r")]) == [Admission.KNOWN]


def test_a_token_used_before_the_clock_was_set_back_is_still_used(kept: Kept) -> None:
    assert kept.journal.remember_token("jti", "a", (kept.now + timedelta(days=1)).timestamp())
    kept.now -= timedelta(days=1)
    kept.again()
    kept.journal.retention.prune()
    assert not kept.journal.remember_token("jti", "b", (kept.now + timedelta(days=1)).timestamp())


# --- space, and threads that wait ---


def test_a_large_file_shrinks_after_its_backlog_was_delivered(kept: Kept) -> None:
    ids = names("c", 200)
    for start in range(0, 200, BATCH):
        kept.journal.admit([(command_id, "x" * 60_000, "r") for command_id in ids[start : start + BATCH]])
    kept.journal.retention.checkpoint()
    full = kept.path.stat().st_size
    assert full > 200 * 60_000
    for command_id in ids:
        kept.journal.finish(Update(command_id, Status.SUCCESS, "y"))
    kept.journal.deliver(ids)
    kept.journal.retention.prune()
    assert kept.path.stat().st_size <= (retention.AT_ONCE + 100) * 4096 < full / 4


def test_pruning_goes_in_steps(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 10)
    for start in range(0, 100, BATCH):
        kept.deliver(*names(f"c{start}", BATCH))
    kept.now += timedelta(seconds=KEEP_IDS_SECONDS + 1)
    before = kept.journal.commits
    kept.journal.retention.prune()
    assert kept.journal.counts()["delivered"] == 0
    assert kept.journal.commits - before >= 10


def test_other_threads_commit_between_the_steps_of_a_long_prune(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 5)
    for start in range(0, 300, 50):
        kept.deliver(*names(f"c{start}", 50))
    kept.now += timedelta(seconds=KEEP_IDS_SECONDS + 1)
    left_when_written: list[int] = []
    turn, done = threading.Semaphore(0), threading.Semaphore(0)
    over = threading.Event()

    def command() -> None:
        number = 0
        while turn.acquire(timeout=10) and not over.is_set():
            kept.journal.admit([(f"new-{number}", "x", "r")])
            left_when_written.append(kept.journal.counts()["delivered"])
            number += 1
            done.release()

    other = threading.Thread(target=command)
    other.start()
    forget = kept.journal.retention.forget_delivered

    def noted(*arguments: object) -> int:
        turn.release()
        assert done.acquire(timeout=10), "the prune keeps other threads from committing"
        return forget(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(kept.journal.retention, "forget_delivered", noted)
    try:
        kept.journal.retention.prune()
    finally:
        over.set()
        turn.release()
        other.join(10)
    # Some commits happened while the prune was under way, and so did not wait for its end.
    assert [left for left in left_when_written if 0 < left < 300]
    assert kept.journal.counts()["delivered"] == 0
