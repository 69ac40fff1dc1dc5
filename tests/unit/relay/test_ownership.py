"""Which of several agents on one queue runs a command: the one whose delete SQS confirms within the lease (docs/several-agents.md).

The journal is real; the queue refuses a receipt whose visibility has ended, as AWS's FIFO queues do.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.errors import Call, JournalUnwritable, PlatformError
from relay_agent.core.models import Command, Status, Update
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.relay.intake import Admitted
from relay_agent.relay.ownership import SETTLE_LEASES, Ownership, Work, id_of
from relay_agent.relay.task import Refusal, Task
from relay_agent.storage.journal import Admission, Incoming, Journal
from relay_agent.tdp.sqs import BATCH, WAIT_SECONDS, Deleted, Lease, Received
from relay_agent.telemetry.hourly_summary import Tally

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = 60
HIDDEN = LEASE + WAIT_SECONDS
"""For how long a receive whose answer was lost may hide a message, in seconds."""
DOWN = PlatformError(Call.SQS_DELETE, "ECONNREFUSED: connect refused")


class World:
    """One agent's ownership, on a journal that outlives it, and a queue."""

    def __init__(self, path: Path, *, shared: bool = True) -> None:
        self.path, self.shared = path, shared
        self.wall, self.boot = NOW, 1000.0
        self.released: list[str] = []
        self.deletes: list[list[str]] = []
        self.returned: list[str] = []
        self.refused: set[str] = set()
        self.fails: set[str] = set()
        """Receipts whose delete fails inside SQS."""
        self.down = False
        self.lost = False
        """Whether the answers to receives are lost."""
        self.receive_takes = 0.0
        self.earlier_lease = 0
        self.falls_asleep: str | None = None
        """Where the machine falls asleep for an hour, once."""
        self.visible_at: dict[str, float] = {}
        self.queue = cast("Any", SimpleNamespace(delete=self._delete, give_back=self._give_back, receive=self._receive))
        self.malformed: Sequence[str] = ()
        self._count = 0
        self.start()

    def start(self) -> None:
        """Start the agent on its journal."""
        clock = Clock(now=lambda: self.wall, monotonic=lambda: self.boot, boottime=lambda: self.boot)
        self.journal = Journal(self.path, clock)
        self.lease = Lease(LEASE, clock.boottime, self.earlier_lease)
        self.tally = Tally()
        log = SimpleNamespace(warning=self._quiet, info=self._quiet, error=self._quiet)
        loop = LoopContext(LoopStatus(clock), self.tally, cast("Any", log), clock)
        self.ownership = Ownership(
            shared=self.shared,
            lease=self.lease,
            journal=self.journal,
            clock=clock,
            release=self._release,
            count_ceded=lambda number: self.tally.count("ceded", number),
            loop=loop,
        )

    def restart(self, *, after: float = 0.0, clock_set: float = 0.0) -> None:
        """Kill the agent, and start it again `after` seconds; meanwhile the wall clock is set by `clock_set` seconds."""
        self.journal.close()
        self.boot += after
        self.wall += timedelta(seconds=after + clock_set)
        self.start()
        for command_id, _ in self.journal.undelivered():
            self.ownership.resume(Update(command_id, Status.FAILURE, "its answer"))
        for one in self.journal.unfinished():
            self.ownership.resume(refusal(one.id) if one.id in self.malformed else task(one.id))

    def look(self) -> None:
        """Receive, find the queue empty or lose the answer, and poll again at once."""
        with contextlib.suppress(PlatformError):
            self.ownership.receive(self.queue, BATCH, WAIT_SECONDS)
        self.pass_seconds(0)

    def receive(self, *ids: str) -> list[Received]:
        """Receive a message for each id."""
        found = []
        for command_id in ids:
            self._count += 1
            receipt = f"{command_id}-{self._count}"
            self.visible_at[receipt] = self.boot + LEASE
            found.append(Received(receipt, command_id, receipt, self.lease.end()))
        return found

    def take(self, *ids: str, malformed: Sequence[str] = ()) -> None:
        """Receive and admit commands, and take them up."""
        received = self.receive(*ids)
        self._reach("received")
        lease_until = self.ownership.wall_lease(received[0].lease_until)
        rows = [Incoming(message.body, f"body of {message.body}", message.receipt, None, lease_until) for message in received]
        new = [message.body for message, admission in zip(received, self.journal.admit(rows), strict=True) if admission is Admission.NEW]
        self.malformed = malformed
        self._reach("admitted")
        refused = [refusal(command_id) for command_id in new if command_id in malformed]
        tasks = [task(command_id) for command_id in new if command_id not in malformed]
        self.ownership.take(self.queue, received, Admitted(tasks, refused, {one.receipt: one.body for one in received}, []))

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, or the machine sleep, and poll again."""
        self.boot += seconds
        self.wall += timedelta(seconds=seconds)
        self.ownership.catch_up(self.queue)

    def rows(self) -> dict[str, bool]:
        """The commands in the journal: whether each is owned."""
        self.journal.flush()
        with closing(sqlite3.connect(self.path)) as other:
            return {row[0]: row[1] is None for row in other.execute("SELECT id, lease_until FROM commands ORDER BY seq")}

    def ceded(self) -> int:
        """How many were ceded since the last look."""
        return self.tally.take()[0].get("ceded", 0)

    def _release(self, work: Work) -> None:
        names = {Task: "", Refusal: "refusal of ", Update: "answer to "}
        self.released.append(names[type(work)] + id_of(work))

    def _delete(self, receipts: list[str], _still: Callable[[], bool]) -> Deleted:
        self.deletes.append(list(receipts))
        if self.down:
            raise DOWN
        self._reach("delete sent")
        refused = {place for place, one in enumerate(receipts) if one in self.refused or self.boot >= self.visible_at.get(one, 0.0)}
        failed = {place for place, one in enumerate(receipts) if one in self.fails} - refused
        self._reach("delete carried out")
        if self._reach("confirmation lost"):
            raise DOWN
        done = frozenset(range(len(receipts))) - refused - failed
        return Deleted(done, frozenset(refused), "InternalError" if failed else "")

    def _reach(self, place: str) -> bool:
        """Sleep for an hour if this is the place for it."""
        if place != self.falls_asleep:
            return False
        self.falls_asleep = None
        self.boot += 3600.0
        self.wall += timedelta(hours=1)
        return True

    def _receive(self, *_: Any) -> list[Received]:
        self.boot += self.receive_takes
        if self.lost:
            raise PlatformError(Call.SQS_RECEIVE, "EPIPE: the connection broke")
        return []

    def _give_back(self, receipts: list[str]) -> None:
        self.returned += receipts

    def _quiet(self, *_: Any, **__: Any) -> None:
        pass


def task(command_id: str) -> Task:
    return Task(Command(command_id, "agent", "action"), 0.0)


def refusal(command_id: str) -> Refusal:
    return Refusal(Command(command_id, "agent", ""), "malformed")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path / "journal.db")
    yield one
    one.journal.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path / "journal.db", shared=False)
    yield one
    one.journal.close()


# --- several agents ---


def test_a_command_is_released_once_its_delete_is_confirmed(world: World) -> None:
    world.take("a", "b", malformed=["b"])
    assert world.released == ["a", "refusal of b"]
    assert world.rows() == {"a": True, "b": True}
    assert world.ownership.claimed() == 0


def test_a_command_whose_delete_is_refused_is_forgotten_and_counted(world: World) -> None:
    world.refused = {"a-1"}
    world.take("a", "b")
    assert (world.released, world.rows(), world.ceded()) == (["b"], {"b": True}, 1)


def test_a_malformed_command_is_not_refused_before_it_is_owned(world: World) -> None:
    world.refused = {"a-1"}
    world.take("a", malformed=["a"])
    assert (world.released, world.rows(), world.ceded()) == ([], {}, 1)
    world.take("a", malformed=["a"])
    assert (world.released, world.rows()) == (["refusal of a"], {"a": True})


def test_a_malformed_command_that_was_only_claimed_is_not_refused_by_the_next_run_before_it_is_owned(world: World) -> None:
    world.down = True
    world.take("a", malformed=["a"])
    world.restart()
    assert (world.released, world.journal.counts()["finished"]) == ([], 0)
    world.down = False
    world.pass_seconds(0)
    assert (world.released, world.rows()) == (["refusal of a"], {"a": True})


def test_a_ceded_command_that_comes_again_is_admitted_again(world: World) -> None:
    world.refused = {"a-1"}
    world.take("a")
    world.take("a")
    assert (world.released, world.rows()) == (["a"], {"a": True})


def test_an_unconfirmed_delete_is_repeated_within_the_lease_and_nothing_runs_before(world: World) -> None:
    world.down = True
    world.take("a")
    world.pass_seconds(LEASE - 1)
    assert (world.released, world.ownership.claimed(), world.rows()) == ([], 1, {"a": False})
    world.down = False
    world.pass_seconds(0.5)
    assert (world.released, world.deletes) == (["a"], [["a-1"]] * 3)


def test_a_claim_ends_with_the_lease_and_its_delete_is_not_sent_any_more(world: World) -> None:
    world.down = True
    world.take("a")
    world.down = False
    world.pass_seconds(LEASE)
    assert (world.released, world.rows(), world.deletes, world.ceded()) == ([], {}, [["a-1"]], 1)


def test_a_machine_that_slept_through_the_lease_after_the_receive_cedes_what_it_admits(world: World) -> None:
    received = world.receive("a")
    world.boot += 3600.0
    assert world.ownership.still_leased(received) == []


@pytest.mark.parametrize(
    ("place", "owner", "deletes"),
    [
        ("received", False, 0),
        ("admitted", False, 0),
        ("delete sent", False, 1),
        ("delete carried out", True, 1),
        ("confirmation lost", False, 1),
        ("delete refused", False, 1),
        ("owned", True, 1),
    ],
)
def test_a_machine_that_sleeps_for_an_hour_cedes_what_it_had_only_claimed_and_runs_what_it_owns(
    world: World, place: str, owner: bool, deletes: int
) -> None:
    """Each command is either released once, and stays in the journal, or is forgotten and counted."""
    world.falls_asleep = place
    world.refused = {"a-1", "b-2"} if place == "delete refused" else set()
    world.take("a", "b", malformed=["b"])
    world.pass_seconds(3600.0 if world.falls_asleep else 0.0)
    assert world.released == (["a", "refusal of b"] if owner else [])
    assert world.rows() == ({"a": True, "b": True} if owner else {})
    assert (world.ceded(), world.ownership.claimed(), len(world.deletes)) == (0 if owner else 2, 0, deletes)


def test_a_message_that_is_handed_out_again_while_it_is_claimed_is_claimed_by_its_new_receipt(world: World) -> None:
    world.down = True
    world.take("a")
    world.boot += LEASE - 1
    world.take("a")
    world.down = False
    world.pass_seconds(2)
    assert (world.released, world.deletes[-1]) == (["a"], ["a-2"])


def test_of_a_command_that_came_in_two_messages_both_are_deleted_so_that_no_other_agent_gets_one(world: World) -> None:
    world.take("a", "a")
    assert (world.released, world.deletes, world.rows()) == (["a"], [["a-2"], ["a-1"]], {"a": True})


def test_a_message_of_an_owned_command_that_comes_again_is_only_deleted(world: World) -> None:
    world.take("a")
    world.take("a")
    assert (world.released, world.deletes, world.rows()) == (["a"], [["a-1"], ["a-2"]], {"a": True})


@pytest.mark.parametrize("clock_set", [0.0, 3600.0, -3600.0], ids=["right", "ahead", "behind"])
def test_a_claim_is_taken_up_by_the_next_run_and_sqs_decides(world: World, clock_set: float) -> None:
    world.down = True
    world.take("a")
    world.restart(after=10, clock_set=clock_set)
    world.down = False
    world.pass_seconds(0)
    ahead = clock_set > 0
    assert (world.released, world.rows()) == (([], {}) if ahead else (["a"], {"a": True})), "a clock ahead ends the lease"


@pytest.mark.parametrize("clock_set", [0.0, 7200.0, -7200.0], ids=["right", "ahead", "behind"])
def test_a_claim_whose_lease_ended_while_the_agent_was_away_is_ceded(world: World, clock_set: float) -> None:
    world.down = True
    world.take("a", "b", malformed=["b"])
    world.restart(after=3600, clock_set=clock_set)
    world.down = False
    world.pass_seconds(0)
    assert (world.released, world.rows()) == ([], {})


def test_what_is_owned_runs_after_a_restart_however_long_the_agent_was_away(world: World) -> None:
    world.take("a")
    world.released.clear()
    world.restart(after=100_000)
    world.pass_seconds(0)
    assert world.released == ["a"]


def test_a_clean_stop_gives_back_what_was_not_admitted_and_keeps_what_is_claimed(world: World) -> None:
    """SQS may have carried out a delete that it could not confirm: then nobody else gets the command."""
    world.down = True
    world.take("a")
    held = world.receive("b")
    world.ownership.give_back(world.queue, held)
    assert (world.returned, world.rows(), world.ceded()) == (["b-2"], {"a": False}, 0)


def test_claims_count_against_the_free_places(world: World) -> None:
    world.down = True
    world.take("a", "b")
    assert world.ownership.claimed() == 2


def test_more_claims_than_a_batch_holds_are_claimed_in_several(world: World) -> None:
    world.down = True
    for start in range(0, 12, 6):
        world.take(*(f"c{number}" for number in range(start, start + 6)))
    world.down = False
    world.deletes.clear()
    world.pass_seconds(1)
    assert [len(batch) for batch in world.deletes] == [10, 2]
    assert len(world.released) == 12


def test_a_delete_that_failed_counts_as_failing_no_longer_once_its_command_is_ceded(world: World) -> None:
    world.ownership.catch_up(world.queue)
    world.down = True
    world.take("a", "b")
    world.pass_seconds(LEASE - 1)
    assert world.ownership.failing
    world.pass_seconds(1)
    assert (world.ceded(), world.ownership.failing) == (2, False)


def test_a_delete_that_failed_counts_as_failing_while_another_message_is_not_acknowledged(world: World) -> None:
    world.take("owned")
    world.down = True
    world.take("owned", "a")
    world.pass_seconds(LEASE)
    assert (world.ceded(), world.ownership.failing) == (1, True)
    world.down = False
    world.pass_seconds(LEASE)
    world.pass_seconds(1)
    assert not world.ownership.failing


def test_a_delete_that_fails_inside_sqs_is_repeated_within_the_lease(world: World) -> None:
    world.fails = {"a-1"}
    world.take("a", "b")
    assert (world.released, world.ceded(), world.ownership.failing) == (["b"], 0, True)
    world.fails.clear()
    world.pass_seconds(1)
    assert (world.released, world.rows(), world.ownership.failing) == (["b", "a"], {"a": True, "b": True}, False)


def test_no_batch_of_deletes_is_sent_after_its_lease_however_long_the_one_before_it_took(world: World) -> None:
    world.down = True
    for start in range(0, 30, 10):
        world.take(*(f"c{number}" for number in range(start, start + 10)))
    world.down = False
    world.deletes.clear()
    world.falls_asleep = "delete carried out"
    world.pass_seconds(1)
    assert [len(batch) for batch in world.deletes] == [10]
    assert (len(world.released), world.ceded(), world.ownership.claimed()) == (10, 20, 0)


# --- alone before, shared now ---


def alone_before(alone: World, *, after: float = 3600.0) -> None:
    """An agent that was alone left a waiting, a finished and an answered command, and no delete was confirmed; now its queue is shared."""
    alone.down = True
    for name in ("waiting", "finished", "answered"):
        alone.take(name)
    for name in ("finished", "answered"):
        alone.journal.start(name, repeatable=False)
        alone.journal.finish(Update(name, Status.SUCCESS, "its answer"))
    alone.journal.deliver(["answered"])
    alone.journal.flush()
    alone.released.clear()
    alone.shared = True
    alone.restart(after=after)
    alone.down = False
    alone.pass_seconds(0)


def test_within_the_lease_an_agent_that_was_alone_deletes_what_it_left_and_owns_it(alone: World) -> None:
    alone_before(alone, after=10)
    assert sorted(alone.released) == ["answer to finished", "waiting"]
    assert (alone.ownership.inherited(), alone.journal.unacked()) == (0, [])


def test_nothing_from_the_time_alone_runs_or_is_answered_before_it_is_settled(alone: World) -> None:
    alone_before(alone)
    assert (alone.released, alone.ownership.inherited(), alone.ceded()) == ([], 3, 0)
    alone.restart()
    alone.pass_seconds(0)
    assert (alone.released, alone.ownership.inherited()) == ([], 3)


def test_a_message_from_the_time_alone_that_comes_again_is_deleted_and_its_command_owned(alone: World) -> None:
    alone_before(alone)
    alone.take("waiting", "finished", "answered")
    assert sorted(alone.released) == ["answer to finished", "waiting"]
    assert (alone.ownership.inherited(), alone.journal.unacked(), alone.ceded()) == (0, [], 0)


def test_a_message_from_the_time_alone_that_does_not_come_again_was_deleted_before(alone: World) -> None:
    alone_before(alone)
    alone.pass_seconds(HIDDEN - 1)
    alone.look()
    alone.pass_seconds(1)
    assert alone.released == [], "the queue was not asked since"
    alone.look()
    assert sorted(alone.released) == ["answer to finished", "waiting"]
    assert (alone.ownership.inherited(), alone.journal.unacked(), alone.ceded()) == (0, [], 0)


def test_a_message_from_the_time_alone_whose_delete_fails_is_not_taken_for_deleted(alone: World) -> None:
    alone_before(alone)
    alone.down = True
    alone.take("waiting")
    alone.pass_seconds(HIDDEN)
    alone.look()
    alone.pass_seconds(HIDDEN)
    assert "waiting" not in alone.released


def test_a_receive_whose_answer_was_lost_may_have_hidden_a_message_from_the_time_alone_again(alone: World) -> None:
    alone_before(alone)
    alone.pass_seconds(HIDDEN - 1)
    alone.lost = True
    alone.look()
    alone.lost = False
    for seconds in (1, HIDDEN - 2):
        alone.pass_seconds(seconds)
        alone.look()
        assert alone.released == []
    alone.pass_seconds(1)
    alone.look()
    assert sorted(alone.released) == ["answer to finished", "waiting"]


def test_an_empty_receive_proves_nothing_while_this_agent_holds_a_message_that_may_keep_its_group_back(alone: World) -> None:
    alone_before(alone)
    alone.pass_seconds(HIDDEN)
    alone.down = True
    alone.take("finished")
    alone.look()
    assert alone.released == []
    alone.down = False
    alone.pass_seconds(1)
    assert alone.released == ["answer to finished"]
    alone.down = True
    alone.take("finished")  # It is this agent's by now; only its message must go.
    alone.look()
    assert alone.released == ["answer to finished"]


def test_an_empty_receive_that_began_before_a_message_could_come_again_proves_nothing(alone: World) -> None:
    alone_before(alone)
    alone.pass_seconds(HIDDEN - 1)
    alone.receive_takes = 2.0
    alone.look()
    assert alone.released == []


def test_after_a_change_to_a_shorter_lease_the_longer_one_of_earlier_runs_is_waited_for(alone: World) -> None:
    alone.earlier_lease = 10 * LEASE
    alone_before(alone)
    alone.pass_seconds(10 * LEASE + WAIT_SECONDS - 1)
    alone.look()
    assert alone.released == []
    alone.pass_seconds(1)
    alone.look()
    assert sorted(alone.released) == ["answer to finished", "waiting"]


def test_on_a_queue_that_is_never_empty_what_is_left_from_the_time_alone_is_settled_at_last(alone: World) -> None:
    alone_before(alone)
    alone.pass_seconds(HIDDEN + LEASE * SETTLE_LEASES)
    assert sorted(alone.released) == ["answer to finished", "waiting"]


# --- an agent that is alone ---


def test_an_agent_that_is_alone_releases_a_command_before_it_is_deleted(alone: World) -> None:
    alone.down = True
    alone.take("a")
    assert (alone.released, alone.rows()) == (["a"], {"a": True})


def admitted_soon(world: World, command_id: str) -> tuple[list[Received], Admitted]:
    """A received command that shares a commit with what follows."""
    (message,) = world.receive(command_id)
    until_durable = world.journal.admit_soon(Incoming(command_id, f"body of {command_id}", message.receipt))
    assert until_durable is not None
    return [message], Admitted([task(command_id)], [], {message.receipt: command_id}, [], until_durable)


def test_what_is_not_durable_yet_is_released_at_once_and_deleted_only_when_it_is(alone: World) -> None:
    seen: list[tuple[list[str], bool]] = []
    received, admitted = admitted_soon(alone, "a")
    alone.journal.writer.later(lambda _connection: seen.append((alone.released[:], bool(alone.deletes))))
    alone.ownership.take(alone.queue, received, admitted)
    assert (seen, alone.deletes) == ([(["a"], False)], [[received[0].receipt]])


def test_what_cannot_be_made_durable_is_not_deleted(alone: World) -> None:
    received, admitted = admitted_soon(alone, "a")
    alone.journal.writer.use(lambda connection: connection.execute("PRAGMA query_only = ON"))
    with pytest.raises(JournalUnwritable):
        alone.ownership.take(alone.queue, received, admitted)
    assert (alone.released, alone.deletes) == (["a"], [])
    alone.journal.writer.use(lambda connection: connection.execute("PRAGMA query_only = OFF"))


def test_an_agent_that_is_alone_keeps_a_command_whose_delete_is_refused(alone: World) -> None:
    alone.refused = {"a-1"}
    alone.take("a")
    assert (alone.released, alone.rows(), alone.ceded()) == (["a"], {"a": True}, 0)


def test_an_agent_that_is_alone_again_cedes_what_it_had_only_claimed(world: World) -> None:
    world.down = True
    world.take("a")
    world.shared = False
    world.restart(after=3600)
    world.down = False
    world.pass_seconds(0)
    assert (world.released, world.rows()) == ([], {})


def test_what_an_agent_alone_again_had_only_claimed_runs_though_its_message_came_again_while_deletes_failed(world: World) -> None:
    world.down = True
    world.take("a")
    world.shared = False
    world.restart(after=10)
    world.take("a")
    world.pass_seconds(LEASE)
    assert (world.released, world.rows(), world.ceded()) == ([], {}, 1)
    world.down = False
    world.take("a")
    assert (world.released, world.rows()) == (["a"], {"a": True})


def test_an_agent_that_takes_nothing_more_deletes_both_messages_of_a_command_that_was_sent_twice(alone: World) -> None:
    alone_before(alone)
    received = alone.receive("waiting", "waiting")
    alone.deletes.clear()
    assert alone.ownership.recognise(alone.queue, ["waiting", "waiting"], received) == []
    assert sorted(receipt for batch in alone.deletes for receipt in batch) == sorted(one.receipt for one in received)
    assert alone.released == ["waiting"]


@pytest.mark.parametrize("failing", [[0], [1], [0, 1]], ids=["the first", "the second", "both"])
def test_a_command_that_was_sent_twice_is_not_owned_by_an_agent_that_takes_nothing_more_before_both_messages_are_deleted(
    alone: World, failing: Sequence[int]
) -> None:
    alone_before(alone)
    received = alone.receive("waiting", "waiting")
    alone.fails = {received[place].receipt for place in failing}
    alone.ownership.recognise(alone.queue, ["waiting", "waiting"], received)
    assert (alone.released, "waiting" in alone.ownership.claimed_ids(), alone.ownership.failing) == ([], True, True)
    alone.fails.clear()
    alone.deletes.clear()
    alone.pass_seconds(1)
    deleted = {receipt for batch in alone.deletes for receipt in batch}
    assert (alone.released, deleted) == (["waiting"], {received[place].receipt for place in {1, *failing}})


def test_a_message_of_an_owned_command_whose_delete_fails_is_deleted_later_by_an_agent_that_takes_nothing_more(alone: World) -> None:
    alone.take("a")
    alone.pass_seconds(0)
    alone.down = True
    alone.ownership.recognise(alone.queue, ["a"], alone.receive("a"))
    assert alone.ownership.claimed_ids() == {"a"}
    alone.down = False
    alone.pass_seconds(1)
    assert (alone.ownership.claimed_ids(), alone.deletes[-1], alone.released) == (set(), ["a-2"], ["a"])


# --- receipts that were damaged ---


def forget_receipt(world: World, command_id: str) -> None:
    """Make the receipt in the journal one that cannot be read."""
    with closing(sqlite3.connect(world.path, isolation_level=None)) as other:
        other.execute("UPDATE commands SET receipt = CAST(x'ff41' AS TEXT) WHERE id = ?", (command_id,))


@pytest.fixture
def damaged(alone: World) -> World:
    """An agent that was alone, and whose one unacknowledged message has a receipt that cannot be read."""
    alone.down = True
    alone.take("waiting")
    alone.journal.flush()
    forget_receipt(alone, "waiting")
    alone.down = False
    return alone


def test_a_message_whose_receipt_cannot_be_read_is_deleted_when_it_comes_again_and_its_command_runs_once(damaged: World) -> None:
    damaged.released.clear()
    damaged.shared = True
    damaged.restart()
    assert damaged.journal.unacked() == [("waiting", "")]
    damaged.pass_seconds(1)
    assert (damaged.released, damaged.ownership.awaited()) == ([], 1)
    damaged.take("waiting")
    assert (damaged.released, damaged.deletes[-1], damaged.journal.unacked()) == (["waiting"], ["waiting-2"], [])


def test_a_command_whose_receipt_cannot_be_read_is_owned_once_its_message_does_not_come_again(damaged: World) -> None:
    damaged.released.clear()
    damaged.shared = True
    damaged.restart()
    damaged.pass_seconds(HIDDEN - 1)
    damaged.look()
    damaged.pass_seconds(1)
    assert damaged.released == [], "a receive of the last run may hide the message"
    damaged.look()
    damaged.pass_seconds(0)
    assert (damaged.released, damaged.ownership.inherited(), damaged.journal.unacked()) == (["waiting"], 0, [])


def test_the_message_of_a_command_that_was_just_ceded_is_not_deleted_by_an_agent_that_takes_nothing_more(damaged: World) -> None:
    """Another agent must run it: this one has forgotten it."""
    damaged.shared, damaged.down = True, True
    damaged.restart()
    damaged.pass_seconds(0)
    damaged.take("a")
    damaged.down = False
    damaged.pass_seconds(LEASE)
    assert (damaged.ceded(), damaged.ownership.awaited()) == (1, 1)
    damaged.deletes.clear()
    received = damaged.receive("a")
    assert damaged.ownership.recognise(damaged.queue, ["a"], received) == received
    assert damaged.deletes == []


def test_an_agent_alone_on_its_queue_deletes_nothing_with_a_receipt_that_cannot_be_read(damaged: World) -> None:
    damaged.deletes.clear()
    damaged.restart()
    damaged.pass_seconds(1)
    assert (damaged.deletes, damaged.journal.unacked()) == ([], [("waiting", "")])
    damaged.take("waiting")
    assert (damaged.deletes, damaged.journal.unacked()) == ([["waiting-2"]], [])
