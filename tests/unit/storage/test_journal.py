"""The journal: states and their order, who is known, what a restart finds, and that nothing wiped lingers."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalError
from relay_agent.core.models import Status, Update
from relay_agent.storage.journal import Admission, Incoming, Journal, Open
from relay_agent.storage.retention import KEEP_IDS_SECONDS
from tests.unit.storage.scenes import NOW, Time, admitted, forget, outcome, states

CANARY = "canary-1f0c9a"


def undelivered(journal: Journal) -> list[Update]:
    return [update for _, update in journal.undelivered() if isinstance(update, Update)]


def wait_for(holds: Callable[[], bool]) -> None:
    limit = threading.Event()
    for _ in range(1000):
        if holds():
            return
        limit.wait(0.01)
    raise AssertionError("the condition did not hold within 10 s")


def bytes_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


# --- states ---


def test_a_command_goes_from_admitted_to_delivered(journal: Journal) -> None:
    admitted(journal, "a")
    assert states(journal) == {"admitted": 1}
    journal.start("a", repeatable=False)
    assert states(journal) == {"started": 1}
    journal.finish(outcome("a"))
    assert states(journal) == {"finished": 1}
    journal.deliver(["a"])
    assert states(journal) == {"delivered": 1}


def test_every_state_is_counted_even_at_zero(journal: Journal) -> None:
    assert journal.counts() == {"admitted": 0, "started": 0, "finished": 0, "delivered": 0}


def test_no_command_returns_to_an_earlier_state(journal: Journal) -> None:
    admitted(journal, "a")
    journal.finish(outcome("a", "first"))
    journal.start("a", repeatable=True)
    journal.finish(outcome("a", "second"))
    assert [update.message for update in undelivered(journal)] == ["first"]
    journal.deliver(["a"])
    journal.finish(outcome("a", "third"))
    journal.settle(outcome("a", "fourth"))
    assert (states(journal), undelivered(journal)) == ({"delivered": 1}, [])


def test_a_command_may_finish_without_having_started(journal: Journal) -> None:
    admitted(journal, "a")
    journal.finish(outcome("a"))
    assert (list(journal.unfinished()), len(undelivered(journal))) == ([], 1)


def test_settling_replaces_the_update_and_forgets_the_upload(journal: Journal) -> None:
    admitted(journal, "a")
    journal.finish(outcome("a", "referenced", spool="a.gz", upload_url="https://s3/", fallback="too large"))
    assert undelivered(journal) == [Update("a", Status.SUCCESS, "referenced", "a.gz", "https://s3/", "too large")]
    assert journal.spooled() == {"a.gz"}
    journal.settle(Update("a", Status.FAILURE, "too large"))
    assert undelivered(journal) == [Update("a", Status.FAILURE, "too large")]
    assert journal.spooled() == set()


# --- admission ---


def test_a_duplicate_message_is_known(journal: Journal) -> None:
    message = ("a", "raw", "receipt")
    assert journal.admit([message, message]) == [Admission.NEW, Admission.KNOWN]
    assert journal.admit([("a", "raw", "another receipt"), ("b", "raw", "r")]) == [Admission.KNOWN, Admission.NEW]


def test_a_known_id_with_another_body_is_detected_and_changes_nothing(journal: Journal) -> None:
    admitted(journal, "a")
    assert journal.admit([("a", "something else", "r")]) == [Admission.CHANGED]
    assert journal.raw("a") == "raw of a"


@pytest.mark.parametrize("last", ["admitted", "started", "finished", "delivered"])
def test_a_message_is_known_in_every_state_and_after_a_restart(opened: Callable[[], Journal], last: str) -> None:
    journal = opened()
    admitted(journal, "a")
    steps: list[Callable[[], None]] = [
        lambda: journal.start("a", True),
        lambda: journal.finish(outcome("a")),
        lambda: journal.deliver(["a"]),
    ]
    for step in steps[: ["admitted", "started", "finished", "delivered"].index(last)]:
        step()
    assert opened().admit([("a", "raw of a", "r")]) == [Admission.KNOWN]


def test_a_delivered_id_is_remembered_for_a_day(journal: Journal, time: Time) -> None:
    admitted(journal, "a")
    journal.acked(["a"])
    journal.finish(outcome("a"))
    journal.deliver(["a"])
    time.now += timedelta(seconds=KEEP_IDS_SECONDS - 1)
    journal.retention.prune()
    assert states(journal) == {"delivered": 1}
    time.now += timedelta(seconds=2)
    journal.retention.prune()
    assert states(journal) == {}


def test_what_is_not_delivered_is_never_forgotten(journal: Journal, time: Time) -> None:
    admitted(journal, "a", "b", "c")
    journal.start("b", True)
    journal.finish(outcome("c"))
    time.now += timedelta(days=30)
    journal.retention.prune()
    assert states(journal) == {"admitted": 1, "started": 1, "finished": 1}


def test_any_characters_of_a_message_come_back(journal: Journal) -> None:
    journal.admit([("a", 'x\x00"\u20ac\U0001f600', "r")])
    assert journal.raw("a") == 'x\x00"\u20ac\U0001f600'


def test_there_is_no_message_of_an_unknown_or_finished_command(journal: Journal) -> None:
    admitted(journal, "a")
    journal.finish(outcome("a"))
    for command_id in ("a", "unknown"):
        with pytest.raises(JournalError):
            journal.raw(command_id)


# --- after a restart ---


def test_a_restart_finds_unfinished_commands_in_the_order_of_admission(opened: Callable[[], Journal]) -> None:
    journal = opened()
    admitted(journal, "z", "m", "a", "k", "done")
    journal.start("m", repeatable=False)
    journal.start("a", repeatable=True)
    journal.finish(outcome("k", "k told"))
    journal.finish(outcome("done"))
    journal.deliver(["done"])
    journal = opened()
    assert list(journal.unfinished()) == [
        Open("z", "raw of z", started=False, repeatable=None),
        Open("m", "raw of m", started=True, repeatable=False),
        Open("a", "raw of a", started=True, repeatable=True),
    ]
    assert undelivered(journal) == [outcome("k", "k told")]
    admitted(journal, "b")
    assert [left.id for left in journal.unfinished()] == ["z", "m", "a", "b"]


def test_receipts_are_kept_until_the_ack_is_recorded(opened: Callable[[], Journal]) -> None:
    journal = opened()
    admitted(journal, "b", "a")
    journal.acked(["b"])
    journal = opened()
    assert journal.unacked() == [("a", "receipt of a")]
    journal.acked(["a"])
    assert opened().unacked() == []


def test_recording_an_ack_takes_no_commit_of_its_own(journal: Journal) -> None:
    admitted(journal, "a")
    before = journal.commits
    journal.acked(["a"])
    assert journal.commits == before
    journal.start("a", True)
    assert (journal.commits, journal.unacked()) == (before + 1, [])


# --- how long an id is kept ---


@pytest.mark.parametrize(("expires_days", "kept_days"), [(0, 1), (0.5, 1), (3, 3), (14, 14), (400, 14)])
def test_an_id_is_kept_until_its_command_expires_a_day_at_least_and_fourteen_at_most(
    journal: Journal, time: Time, expires_days: float, kept_days: float
) -> None:
    expires = (NOW + timedelta(days=expires_days)).timestamp()
    journal.admit([Incoming("a", "raw of a", "r", expires)])
    forget(journal, time, days=kept_days, seconds=-1)
    assert states(journal) == {"delivered": 1}
    time.now += timedelta(seconds=2)
    journal.retention.prune()
    assert states(journal) == {}


def test_a_secure_command_s_id_is_kept_until_its_exp(journal: Journal, time: Time) -> None:
    journal.admit([Incoming("a", "raw of a", "r", (NOW + timedelta(hours=1)).timestamp())])
    journal.remember_token("jti", "a", (NOW + timedelta(days=7)).timestamp())
    forget(journal, time, days=7, seconds=-1)
    assert states(journal) == {"delivered": 1}
    assert journal.admit([Incoming("a", "raw of a", "r")]) == [Admission.KNOWN]
    journal.acked(["a"])
    time.now += timedelta(seconds=2)
    journal.retention.prune()
    assert states(journal) == {}


# --- commits ---


def test_many_threads_share_commits(journal: Journal) -> None:
    """A writer that holds the file delays the first commit, so that the others queue behind it."""
    threads_count, ids = 12, [f"c{place}" for place in range(12)]
    admitted(journal, *ids)
    before = journal.commits
    ready = threading.Barrier(threads_count)

    def work(command_id: str) -> None:
        ready.wait(10)
        for step in range(20):
            journal.remember_token(f"{command_id}-{step}", command_id, 0.0)
        journal.start(command_id, True)

    threads = [threading.Thread(target=work, args=(command_id,)) for command_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert states(journal) == {"started": threads_count}
    assert 0 < journal.commits - before < threads_count * 21


def test_threads_that_wait_for_a_busy_writer_share_its_next_commit(journal: Journal) -> None:
    ids = [f"c{place}" for place in range(8)]
    admitted(journal, *ids)
    before = journal.commits
    threads = [threading.Thread(target=journal.start, args=(command_id, True)) for command_id in ids]
    first = threading.Thread(target=journal.start, args=("first", True))
    with journal.writer.using:
        first.start()  # It leads, and waits for the connection.
        wait_for(lambda: journal.stuck_seconds() > 0 and not journal.writer._waiting)
        for thread in threads:
            thread.start()
        wait_for(lambda: len(journal.writer._waiting) == len(ids))
    first.join(10)
    for thread in threads:
        thread.join(10)
    assert states(journal) == {"started": len(ids)}
    assert journal.commits - before == 2


def test_a_change_is_durable_when_its_method_returns(path: Path, journal: Journal) -> None:
    admitted(journal, "a")
    journal.start("a", False)
    other = sqlite3.connect(path)
    try:
        assert other.execute("SELECT id, state FROM commands").fetchall() == [("a", "started")]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        other.close()
    assert journal.writer._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_change_that_cannot_be_written_raises_and_the_next_one_succeeds(path: Path, journal: Journal) -> None:
    journal.writer._connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError):
            admitted(journal, "a")
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert states(journal) == {}
    admitted(journal, "a")
    assert states(journal) == {"admitted": 1}


def test_a_value_that_sqlite_does_not_take_is_a_journal_error(path: Path, time: Time) -> None:
    journal = Journal(path, time.clock())
    try:
        with pytest.raises(JournalError):
            journal.remember_token("\ud800", "a", 0.0)
    finally:
        journal.writer._connection.close()


def test_a_value_that_sqlite_does_not_take_leaves_the_next_change_alone(path: Path, time: Time) -> None:
    journal = Journal(path, time.clock())
    try:
        with pytest.raises((JournalError, UnicodeError)):
            journal.admit([("a", "\ud800", "r")])
        admitted(journal, "b")
    finally:
        journal.writer._connection.close()


def test_a_change_after_the_close_is_a_journal_error(path: Path, time: Time) -> None:
    journal = Journal(path, time.clock())
    journal.close()
    with pytest.raises(JournalError):
        admitted(journal, "a")


# --- files ---


def test_the_file_is_the_owners_alone(path: Path, journal: Journal) -> None:
    admitted(journal, "a")
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_file_that_others_could_read_is_made_private(path: Path) -> None:
    Journal(path, Clock()).close()
    path.chmod(0o644)
    Journal(path, Clock()).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [1, 20_000])
def test_a_request_is_in_no_file_once_its_outcome_is_final(path: Path, journal: Journal, size: int) -> None:
    journal.admit([("a", f"{CANARY}-request " * size, f"{CANARY}-receipt")])
    assert CANARY.encode() in bytes_of(path)
    journal.acked(["a"])
    journal.start("a", True)
    journal.finish(outcome("a"))
    journal.retention.checkpoint()
    assert CANARY.encode() not in bytes_of(path)


@pytest.mark.parametrize("size", [1, 20_000])
def test_an_outcome_is_in_no_file_once_it_is_delivered(path: Path, journal: Journal, size: int) -> None:
    admitted(journal, "a", "b")
    secret = f"{CANARY}-outcome " * size
    journal.finish(outcome("a", secret, spool=CANARY, upload_url=f"https://s3/{CANARY}", fallback=secret))
    assert CANARY.encode() in bytes_of(path)
    journal.deliver(["a"])
    journal.flush()
    journal.retention.checkpoint()
    assert CANARY.encode() not in bytes_of(path)


def test_an_upload_url_is_in_no_file_once_its_answer_is_settled(path: Path, journal: Journal) -> None:
    admitted(journal, "a")
    journal.finish(outcome("a", "m", spool="s", upload_url=f"https://s3/{CANARY}", fallback=CANARY))
    journal.settle(outcome("a", "m"))
    journal.retention.checkpoint()
    assert CANARY.encode() not in bytes_of(path)


def test_pruning_empties_the_write_ahead_log(path: Path, journal: Journal) -> None:
    admitted(journal, "a")
    journal.retention.prune()
    assert path.with_name("journal.db-wal").stat().st_size == 0


def test_a_path_that_cannot_be_written_is_named_in_the_error(tmp_path: Path, time: Time) -> None:
    with pytest.raises(JournalError, match="missing"):
        Journal(tmp_path / "missing" / "journal.db", time.clock())


def test_under_load_an_outcome_is_announced_only_once_it_is_durable(path: Path) -> None:
    said: list[str] = []
    journal = Journal(path, Clock(), others=lambda: 4)
    for number in range(10):
        journal.admit([(f"c{number}", "raw", "receipt")])
    for number in range(3):
        journal.finish(outcome(f"c{number}"), then=lambda number=number: said.append(f"c{number}"))  # type: ignore[misc]
    assert (said, journal.recorded(["c0", "c1", "c2"])) == ([], set())
    journal.flush()
    assert (said, journal.recorded(["c0", "c2", "c9"])) == (["c0", "c1", "c2"], {"c0", "c2"})
    journal.close()
