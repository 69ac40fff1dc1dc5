"""When commands are received: how many are requested, when they are acknowledged, and what a failure leads to."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.errors import Call, CredentialsExpired, JournalDamaged, JournalError, JournalUnwritable, PlatformError, RateLimited
from relay_agent.core.failures import Obstacle
from relay_agent.core.models import Command
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.relay.intake import Admitted, Oddity
from relay_agent.relay.ownership import Ownership, Work, id_of
from relay_agent.relay.poller import DISABLED_SECONDS, NO_DISK_SECONDS, QUEUE_FULL_SECONDS, SHORT_WAIT_SECONDS, Inbound, Poller
from relay_agent.relay.task import Refusal, Task
from relay_agent.tdp.client import QueueDisabled
from relay_agent.tdp.sqs import BATCH, WAIT_SECONDS, Deleted, Lease, Received
from relay_agent.telemetry.hourly_summary import Tally
from relay_agent.telemetry.repeated_failure import RepeatedFailure

DOWN = PlatformError(Call.SQS_RECEIVE, "ECONNREFUSED: connect refused")


class World:
    """A poller whose queue, intake and gate are scripted; `done` holds its actions, in order."""

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self.done: list[tuple[str, Any]] = []
        self.messages: list[str] = []
        self.refused_receipts: list[str] = []
        self.may_abort: list[bool] = []
        self.faults: dict[str, Exception] = {}
        self.free, self.obstacle, self.stopping = 10, cast("Obstacle | None", None), False
        self.unacked: list[tuple[str, str]] = []
        self.log = SimpleNamespace(warning=self._say, info=self._say, error=self._say)
        self.boottime = 0.0
        clock = Clock(monotonic=lambda: 0.0, boottime=lambda: self.boottime)
        self.status, self.platform_status = LoopStatus(clock), PlatformStatus(registered=True)
        loop = LoopContext(self.status, Tally(), cast("Any", self.log), clock)
        queue = SimpleNamespace(receive=self._receive, delete=self._delete, give_back=lambda given: self.done.append(("give back", given)))
        journal = cast(
            "Any",
            SimpleNamespace(
                unacked=lambda: self.unacked,
                acked=self._acked,
                claims=list,
                own=self._own,
                cede=self._cede,
            ),
        )
        lease = Lease(60, clock.boottime)
        self.inbound = Inbound(
            cast("Any", SimpleNamespace(admit=self._admit)),
            cast("Any", SimpleNamespace(free=lambda: self.free, obstacle=lambda: self.obstacle)),
            lease,
            Ownership(
                shared=shared,
                lease=lease,
                journal=journal,
                clock=clock,
                release=self._release,
                count_ceded=lambda _number: None,
                loop=loop,
            ),
        )
        self.poller = Poller(
            platform=cast("Any", SimpleNamespace(inbound=lambda: self._call("inbound") or queue, replaced=lambda _queue: False)),
            platform_status=self.platform_status,
            inbound=self.inbound,
            journal=journal,
            keep_malformed=lambda message, reason: self.done.append(("kept", (message, reason))),
            disk_full=RepeatedFailure(cast("Any", self.log), "disk-full", "disk-freed", clock.monotonic),
            stopping=lambda: self.stopping,
            loop=loop,
        )

    def steps(self) -> list[str]:
        """The names of what was done."""
        return [name for name, _ in self.done]

    def _say(self, event: str, **_fields: Any) -> None:
        self.done.append(("log", event))

    def _call(self, name: str) -> None:
        if name in self.faults:
            raise self.faults[name]

    def _receive(self, most: int, seconds: float, lease: Lease) -> list[Received]:
        self.done.append(("receive", (most, seconds)))
        self.may_abort.append(self.poller.receiving)
        self._call("receive")
        taken, self.messages = self.messages, []
        return [Received(f"message {body}", body, f"receipt of {body}", lease.end()) for body in taken]

    def _admit(self, messages: list[tuple[str, str]], lease_until: float | None) -> Admitted:
        assert (lease_until is None) is not self.shared, "an agent that is alone owns a command at once"
        self.done.append(("admit", [text for text, _ in messages]))
        self.may_abort.append(self.poller.receiving)
        self._call("admit")
        tasks = [Task(Command(text, "agent", "action"), 0.0) for text, _ in messages if text not in ("bad", "odd")]
        refused = [Refusal(Command(text, "agent", ""), "malformed") for text, _ in messages if text == "bad"]
        odd = [Oddity("no command", text) for text, _ in messages if text == "odd"]
        ids = {receipt: text for text, receipt in messages}
        return Admitted(tasks, refused, ids, odd, (lambda: self._call("durable")) if "durable" in self.faults else None)

    def _release(self, work: Work) -> None:
        self.done.append(("enqueue", work.command.id) if isinstance(work, Task) else ("answer", id_of(work)))

    def _delete(self, receipts: list[str], _still: object) -> Deleted:
        self.done.append(("delete", receipts))
        self._call("delete")
        refused = frozenset(place for place, receipt in enumerate(receipts) if receipt in self.refused_receipts)
        return Deleted(frozenset(range(len(receipts))) - refused, refused)

    def _acked(self, ids: Iterable[str]) -> None:
        self.done.append(("acked", list(ids)))

    def _own(self, ids: Iterable[str]) -> None:
        self.done.append(("own", list(ids)))

    def _cede(self, ids: Iterable[str]) -> None:
        self.done.append(("cede", list(ids)))


@pytest.fixture
def world() -> World:
    return World()


def test_a_call_may_be_aborted_while_it_receives_and_not_while_it_admits(world: World) -> None:
    world.messages = ["a"]
    world.poller.step()
    assert world.may_abort == [True, False]
    assert not world.poller.receiving


@pytest.mark.parametrize(("free", "asked"), [(3, 3), (BATCH + 5, BATCH)])
def test_it_requests_as_many_commands_as_fit(world: World, free: int, asked: int) -> None:
    world.free = free
    assert world.poller.step() == 0.0
    assert world.done == [("receive", (asked, WAIT_SECONDS))]


@pytest.mark.parametrize("free", [0, -2])
def test_with_a_full_queue_it_requests_nothing_and_reports_no_problem(world: World, free: int) -> None:
    world.free = free
    assert world.poller.step() == QUEUE_FULL_SECONDS
    assert (world.done, world.status.problem) == ([], None)


def test_commands_are_admitted_then_queued_and_only_then_acknowledged(world: World) -> None:
    world.messages = ["a", "bad"]
    world.poller.step()
    assert world.done[1:] == [
        ("admit", ["a", "bad"]),
        ("enqueue", "a"),
        ("answer", "bad"),
        ("delete", ["receipt of a", "receipt of bad"]),
        ("acked", ["a", "bad"]),
    ]


def test_an_obstacle_is_logged_once_and_nothing_is_received(world: World) -> None:
    world.obstacle = Obstacle("the disk is full")
    assert [world.poller.step(), world.poller.step()] == [NO_DISK_SECONDS] * 2
    assert (world.done, world.status.problem) == ([("log", "disk-full")], "the disk is full")
    world.obstacle = None
    world.poller.step()
    assert (world.done[1:], world.status.problem) == ([("log", "disk-freed"), ("receive", (10, WAIT_SECONDS))], None)


def test_messages_that_the_journal_cannot_write_are_held_and_admitted_before_the_next_receive(world: World) -> None:
    world.messages, world.faults["admit"] = ["a"], JournalUnwritable("the disk is full")
    world.poller.step()
    del world.faults["admit"]
    world.done.clear()
    world.poller.step()
    assert world.steps() == ["admit", "enqueue", "delete", "acked", "log"]


def test_a_message_whose_commit_waits_for_the_disk_is_admitted_again_before_it_is_deleted(world: World) -> None:
    world.messages, world.faults["durable"] = ["a"], JournalUnwritable("the disk is full")
    world.poller.step()
    assert world.steps()[:3] == ["receive", "admit", "enqueue"] and "delete" not in world.steps()
    del world.faults["durable"]
    world.done.clear()
    world.poller.step()
    assert world.steps() == ["admit", "enqueue", "delete", "acked", "log"]  # The real journal knows it by now, so it is not queued twice.


def test_a_message_whose_commit_waits_for_the_disk_is_given_back_at_a_stop(world: World) -> None:
    world.messages, world.faults["durable"] = ["a"], JournalUnwritable("the disk is full")
    world.poller.step()
    world.poller.give_back()
    assert world.done[-1] == ("give back", ["receipt of a"])


def test_a_lone_message_that_cannot_be_admitted_is_left_to_the_queue(world: World) -> None:
    world.messages, world.faults["durable"] = ["a"], JournalError("refused")
    assert world.poller.step() > 0
    world.poller.give_back()
    assert not {"give back", "delete"} & set(world.steps())
    del world.faults["durable"]
    world.done.clear()
    world.poller.step()
    assert world.steps() == ["receive", "log"]


def test_messages_that_the_journal_refuses_are_left_to_the_queue(world: World) -> None:
    world.messages, world.faults["admit"] = ["a"], JournalError("refused")
    assert world.poller.step() > 0
    assert "delete" not in world.steps()
    del world.faults["admit"]
    world.done.clear()
    world.poller.step()
    assert world.done == [("receive", (10, SHORT_WAIT_SECONDS)), ("log", "poll-recovered")]


def test_a_damaged_journal_ends_the_loop(world: World) -> None:
    world.messages, world.faults["admit"] = ["a"], JournalDamaged("damaged")
    with pytest.raises(JournalDamaged):
        world.poller.step()


def test_an_acknowledgement_that_failed_is_made_before_the_next_receive(world: World) -> None:
    world.messages, world.faults["delete"] = ["a"], DOWN
    assert world.poller.step() == 0.0
    assert world.done[-1] == ("log", "ack-failed")
    del world.faults["delete"]
    world.unacked = [("a", "receipt of a")]
    world.done.clear()
    world.poller.step()
    assert world.steps() == ["delete", "log", "acked", "receive"]


def test_what_an_earlier_run_did_not_acknowledge_is_acknowledged_first_and_once(world: World) -> None:
    world.unacked = [(str(place), f"receipt-{place}") for place in range(BATCH + 1)]
    world.poller.step()
    assert world.steps() == ["delete", "acked", "delete", "acked", "receive"]
    world.done.clear()
    world.poller.step()
    assert world.steps() == ["receive"]


def test_a_refused_receipt_is_not_recorded_as_acknowledged(world: World) -> None:
    world.messages, world.refused_receipts = ["a", "b"], ["receipt of a"]
    world.poller.step()
    assert world.done[-2:] == [("log", "ack-refused"), ("acked", ["b"])]


def test_a_failed_receive_is_logged_and_retried_later(world: World) -> None:
    world.faults["receive"] = DOWN
    assert world.poller.step() > 0
    assert world.done[-1] == ("log", "poll-failed")
    assert world.status.problem == str(DOWN)


def test_a_receive_that_the_stop_broke_off_is_no_failure(world: World) -> None:
    world.faults["receive"], world.stopping = DOWN, True
    assert world.poller.step() == 0.0
    assert (world.steps(), world.status.problem) == (["receive"], None)


@pytest.mark.parametrize("shared", [False, True])
def test_what_a_receive_returns_after_the_stop_began_is_given_back_at_once_and_once(shared: bool) -> None:
    """In this agent's journal it would wait for the next start, though another agent could run it."""
    world = World(shared=shared)
    world.messages, world.stopping = ["a"], True
    assert world.poller.step() == 0.0
    assert world.done[1:] == [("give back", ["receipt of a"])]
    world.poller.give_back()
    assert world.steps() == ["receive", "give back"]


def test_it_waits_as_long_as_the_platform_asks(world: World) -> None:
    world.faults["receive"] = RateLimited(Call.SQS_RECEIVE, 40.0)
    assert world.poller.step() >= 40.0


def test_credentials_that_aws_refuses_cause_a_refresh_of_the_configuration(world: World) -> None:
    world.faults["receive"] = CredentialsExpired(Call.SQS_RECEIVE, "ExpiredToken")
    world.poller.step()
    assert world.platform_status.refresh_requested.is_set()


def test_a_disabled_agent_and_a_disabled_queue_are_not_polled_and_are_no_failure(world: World) -> None:
    world.platform_status.disabled = True
    assert world.poller.step() == DISABLED_SECONDS
    world.platform_status.disabled = False
    world.faults["inbound"] = QueueDisabled("agent/config", "the queue is disabled")
    assert world.poller.step() == DISABLED_SECONDS
    assert (world.done, world.status.problem) == ([], None)


def test_it_waits_until_the_agent_is_registered(world: World) -> None:
    world.platform_status.registered, world.platform_status.ready = False, threading.Event()
    world.platform_status.ready.set()
    assert world.poller.step() == 0.0
    assert (world.done, world.status.activity) == ([], "starting")


def test_what_was_received_and_not_admitted_is_given_back_after_the_end(world: World) -> None:
    world.messages, world.faults["admit"] = ["a"], JournalUnwritable(Obstacle("the disk is full"))
    world.poller.step()
    world.done.clear()
    world.poller.give_back()
    assert world.done == [("give back", ["receipt of a"])]


def test_nothing_is_given_back_while_the_queue_is_disabled(world: World) -> None:
    world.faults["inbound"] = QueueDisabled(Call.SQS_RECEIVE, "the agent's queue is disabled")
    world.poller.give_back()
    assert world.done == []


# --- several agents on one queue ---


@pytest.mark.parametrize(("seconds", "end"), [(1.0, "own"), (60.0, "cede")])
def test_claims_that_fill_the_queue_are_settled_all_the_same(seconds: float, end: str) -> None:
    """They wait for their deletes and not for a free place: with one place only, nothing else would ever free it."""
    world = World(shared=True)
    world.free, world.messages, world.faults["delete"] = 1, ["a"], PlatformError(Call.SQS_DELETE, "ECONNREFUSED: connect refused")
    world.poller.step()
    assert world.steps() == ["receive", "admit", "delete", "log"]
    assert world.poller.step() == SHORT_WAIT_SECONDS, "no more often than with a free place"
    world.done.clear()
    del world.faults["delete"]
    world.boottime = seconds
    assert world.poller.step() == 0.0
    assert (end, ["a"]) in world.done
    assert world.steps()[-1] == "receive"


def test_a_message_that_is_no_command_costs_one_line_without_its_text_and_is_kept(world: World) -> None:
    world.messages = ["odd"]
    world.poller.step()
    assert world.done[2:4] == [("log", "odd-message"), ("kept", ("odd", "no command"))]
    assert "acked" in world.steps() or "delete" in world.steps()


def test_while_an_empty_receive_is_waited_for_each_is_short() -> None:
    """Only an empty one shows that a message is gone, and a long one is never empty with a command every few seconds."""
    world = World(shared=True)
    world.unacked = [("old", "receipt of old")]
    world.refused_receipts = ["receipt of old"]
    world.inbound.ownership.inherit()
    world.poller.step()
    assert world.done[-1] == ("receive", (BATCH, SHORT_WAIT_SECONDS))
    world.boottime += 60 + WAIT_SECONDS
    world.poller.step()  # Empty, so the message is gone.
    world.poller.step()
    assert world.done[-1] == ("receive", (BATCH, WAIT_SECONDS))
