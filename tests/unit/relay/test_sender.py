"""When answers are sent: only durable ones, each until the queue confirms it, with the same bytes; and what a failure leads to.

Journal, outbox and log are real; the queue is scripted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.errors import Call, CredentialsExpired, JournalDamaged, JournalError, PlatformError, QueueUnavailable, RateLimited
from relay_agent.core.loop import MAX_BACKOFF_SECONDS
from relay_agent.core.models import Command, Status, Update
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.relay.outbox import PROCESSING_AFTER_SECONDS, Outbox
from relay_agent.relay.sender import DISK_SECONDS, RECORD_SECONDS, STARTING_SECONDS, TAKE_SECONDS, Sender
from relay_agent.relay.task import KEPT_IN_MEMORY
from relay_agent.storage.journal import Journal
from relay_agent.tdp.sqs import SendResult
from relay_agent.telemetry.hourly_summary import Tally
from relay_agent.telemetry.metrics import Metrics
from tests.unit.storage.scenes import NOW, admitted, states
from tests.unit.telemetry.scenes import Written

DOWN = PlatformError(Call.SQS_SEND, "ECONNREFUSED: connect refused")


class World:
    """A sender with a queue that answers as the test says, and a journal whose disk the test can fill."""

    def __init__(self, directory: Path) -> None:
        self.time = 1000.0
        self.path = directory / "journal.db"
        self.sent: list[list[str]] = []
        self.answers: list[Exception | dict[int, tuple[str, bool]]] = []
        self.before_send: Callable[[], object] = lambda: None
        self.written = Written()
        clock = Clock(now=lambda: NOW, monotonic=self._ticking)
        self.journal, self.outbox = Journal(self.path, clock), Outbox(clock, lambda: 0)
        self.status, self.platform_status = LoopStatus(clock), PlatformStatus(registered=True)
        self.metrics, self.tally = Metrics("1", []), Tally()
        self.sender = Sender(
            platform=cast("Any", SimpleNamespace(outbound=lambda: SimpleNamespace(send=self._send))),
            journal=self.journal,
            outbox=self.outbox,
            platform_status=self.platform_status,
            metrics=self.metrics,
            loop=LoopContext(self.status, self.tally, self.written.log, clock),
        )

    def _ticking(self) -> float:
        """Return a time that passes by being read, so that no wait takes long."""
        self.time += 2.0
        return self.time

    def _send(self, messages: list[str]) -> SendResult:
        self.before_send()
        self.sent.append([json.loads(message)["commandId"] for message in messages])
        refused = self.answers.pop(0) if self.answers else {}
        if isinstance(refused, Exception):
            raise refused
        places = range(len(messages))
        return SendResult(tuple(place for place in places if place not in refused), tuple((place, *refused[place]) for place in refused))

    def answer(self, *ids: str, size: int = 2, wait: bool = True) -> None:
        """Record the outcomes of commands, and put their answers into the outbox; without `wait` they are not durable yet."""
        for command_id in ids:
            admitted(self.journal, command_id)
            update = Update(command_id, Status.SUCCESS, json.dumps({"commandId": command_id, "body": "x" * size}))
            self.journal.finish(update, wait=wait)
            self.outbox.put(update)

    def running(self, command_id: str) -> None:
        """Let a command run for so long that its PROCESSING is due."""
        self.outbox.command_started(Command(command_id, "agent-1", "action"))
        self.time += PROCESSING_AFTER_SECONDS

    def fill_disk(self) -> None:
        """Let the journal's file grow no more; SQLite never makes it smaller by this."""
        self.journal.writer.use(lambda connection: connection.execute("PRAGMA max_page_count = 1"))

    def free_disk(self) -> None:
        self.journal.writer.use(lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.written.lines]

    @property
    def delivered(self) -> int:
        """How many answers were counted as delivered."""
        return self.tally.take()[0].get("answers", 0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.free_disk()
    made.journal.close()


# --- what is sent ---


def test_answers_are_sent_together_and_each_is_delivered_once(world: World) -> None:
    world.answer("a", "b")
    assert world.sender.step() == 0.0
    world.sender.step()
    assert (world.sent, world.outbox.pending(), states(world.journal)) == ([["a", "b"]], 0, {"delivered": 2})
    assert world.status.last_success is not None


def test_nothing_is_sent_before_the_agent_is_registered(world: World) -> None:
    world.answer("a")
    world.platform_status.registered = False
    assert world.sender.step() == STARTING_SECONDS
    assert (world.sent, world.status.activity, world.outbox.pending()) == ([], "starting", 1)


def test_with_nothing_to_send_it_reports_an_idle_iteration(world: World) -> None:
    world.status.failure("an old problem")
    assert world.sender.step() == 0.0
    assert (world.sent, world.status.problem, world.status.unhealthy_seconds() < 10.0) == ([], None, True)


def test_an_answer_is_durable_before_it_is_sent(world: World) -> None:
    world.answer("a", wait=False)
    other = sqlite3.connect(world.path)
    seen: list[Any] = []
    world.before_send = lambda: seen.extend(other.execute("SELECT id, state FROM commands"))
    world.sender.step()
    other.close()
    assert seen == [("a", "finished")]


def test_a_delivery_is_recorded_in_the_next_step_though_there_is_nothing_to_send(world: World) -> None:
    world.answer("a")
    world.sender.step()
    commits = world.journal.commits
    world.sender.step()
    assert world.journal.commits == commits + 1
    world.sender.step()
    assert world.journal.commits == commits + 1


def test_a_delivery_that_is_not_recorded_yet_waits_only_briefly_for_other_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    take = world.outbox.take
    monkeypatch.setattr(world.outbox, "take", lambda seconds: waits.append(seconds) or take(seconds))
    world.answer("a")
    for _ in range(3):
        world.sender.step()
    assert waits == [TAKE_SECONDS, RECORD_SECONDS, TAKE_SECONDS]


def test_the_activity_says_what_the_step_is_doing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    take, flush = world.outbox.take, world.journal.flush
    monkeypatch.setattr(world.outbox, "take", lambda seconds: seen.append(world.status.activity) or take(seconds))
    monkeypatch.setattr(world.journal, "flush", lambda: seen.append(world.status.activity) or flush())
    world.before_send = lambda: seen.append(world.status.activity)
    world.answer("a")
    world.sender.step()
    assert seen == ["waiting for answers", "recording answers", "sending answers"]


def test_an_answer_that_is_not_kept_in_memory_is_read_from_the_journal(world: World) -> None:
    world.answer("large", size=KEPT_IN_MEMORY)
    world.sender.step()
    assert (world.sent, world.outbox.pending()) == ([["large"]], 0)


def test_a_processing_update_is_sent_only_after_the_journal_was_flushed(world: World) -> None:
    admitted(world.journal, "slow")
    world.journal.start("slow", True, wait=False)
    world.running("slow")
    other = sqlite3.connect(world.path)
    seen: list[Any] = []
    world.before_send = lambda: seen.extend(other.execute("SELECT id, state FROM commands"))
    world.sender.step()
    other.close()
    assert (world.sent, seen) == ([["slow"]], [("slow", "started")])


def test_a_processing_update_is_sent_but_neither_counted_nor_recorded(world: World) -> None:
    world.running("slow")
    commits = world.journal.commits
    world.sender.step()
    world.sender.step()
    assert (world.sent, world.journal.commits, world.delivered) == ([["slow"]], commits, 0)


def test_delivered_answers_are_counted_and_timed_from_their_outcome(world: World) -> None:
    world.answer("a", "b")
    world.time += 100.0
    world.sender.step()
    rendered = world.metrics.registry.get_sample_value
    assert rendered("relay_agent_command_seconds_count", {"stage": "delivered"}) == 2
    assert 200.0 <= (rendered("relay_agent_command_seconds_sum", {"stage": "delivered"}) or 0) < 300.0
    assert world.delivered == 2


# --- the queue refuses ---


def test_while_the_queue_cannot_be_reached_the_answers_are_kept_in_order_and_the_waits_grow(world: World) -> None:
    world.answer("a", "b")
    world.answers = [DOWN] * 9
    waits = [world.sender.step() for _ in range(9)]
    assert 0.0 < waits[0] <= 0.5 < waits[3] < waits[-1] <= MAX_BACKOFF_SECONDS
    assert (world.status.problem, world.status.last_success) == (str(DOWN), None)
    world.sender.step()
    assert world.sent == [["a", "b"]] * 10
    world.sender.step()
    assert (states(world.journal), world.outbox.pending()) == ({"delivered": 2}, 0)


def test_a_success_ends_the_problem_and_the_waits(world: World) -> None:
    world.answer("a")
    world.answers = [DOWN] * 7
    for _ in range(8):
        world.sender.step()
    assert (world.status.problem, world.events) == (None, ["send-failed", "send-recovered"])
    world.answer("b")
    world.answers = [DOWN]
    assert world.sender.step() <= 0.5


def test_a_rate_limit_is_waited_for(world: World) -> None:
    world.answer("a")
    world.answers = [RateLimited(Call.SQS_SEND, 90.0)]
    assert world.sender.step() == 90.0


@pytest.mark.parametrize(
    ("error", "looks"),
    [(QueueUnavailable(Call.SQS_SEND, "x"), True), (CredentialsExpired(Call.SQS_SEND, "x"), True), (DOWN, False)],
    ids=["queue", "credentials", "network"],
)
def test_only_what_a_new_configuration_may_cure_has_it_read_at_once(world: World, error: PlatformError, looks: bool) -> None:
    world.answer("a")
    world.answers = [error]
    world.sender.step()
    assert world.platform_status.refresh_requested.is_set() == looks


def test_an_answer_that_the_queue_refuses_is_kept_behind_the_others(world: World) -> None:
    world.answer("bad", "good")
    world.answers = [{0: ("InvalidMessageContents", True)}]
    assert world.sender.step() > 0.0
    world.answer("next")
    world.sender.step()
    assert (world.sent, world.outbox.pending()) == ([["bad", "good"], ["bad", "next"]], 0)


@pytest.mark.parametrize(("fault", "told"), [(True, ["answer-refused", "send-failed"]), (False, ["send-failed"])])
def test_an_answer_that_is_itself_at_fault_is_named_in_the_log(world: World, fault: bool, told: list[str]) -> None:
    world.answer("bad")
    world.answers = [{0: ("InvalidMessageContents", fault)}]
    world.sender.step()
    assert world.events == told
    assert "InvalidMessageContents" in (world.status.problem or "")
    if fault:
        assert (world.written.lines[0]["id"], world.written.lines[0]["code"]) == ("bad", "InvalidMessageContents")


def test_a_refused_processing_update_is_dropped(world: World) -> None:
    world.running("slow")
    world.answers = [{0: ("InvalidMessageContents", True)}]
    world.sender.step()
    world.sender.step()
    assert (world.sent, world.events) == ([["slow"]], ["send-failed"])


# --- the disk ---

LARGE = 100_000
"""Of an answer that needs new pages of the journal's file."""


def unreadable(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_on_a_full_disk_only_answers_that_are_durable_already_are_sent(world: World) -> None:
    world.answer("durable")
    admitted(world.journal, "slow")
    world.fill_disk()
    world.answer("pending", size=LARGE, wait=False)
    world.running("slow")
    world.running("not admitted yet")
    world.sender.step()
    assert (world.sent, world.outbox.pending()) == ([["durable", "slow"]], 1)
    world.free_disk()
    world.sender.step()
    assert (world.sent[1:], world.outbox.pending()) == ([["pending"]], 0)


def test_an_answer_that_waits_for_the_disk_is_sent_once_the_disk_has_space(world: World) -> None:
    world.fill_disk()
    world.answer("pending", size=LARGE, wait=False)
    assert world.sender.step() == DISK_SECONDS
    assert (world.sent, world.status.cause is not None) == ([], True)
    world.free_disk()
    world.sender.step()
    assert (world.sent, world.status.problem) == ([["pending"]], None)


def test_a_delivery_that_cannot_be_recorded_is_no_problem_of_its_own(world: World) -> None:
    """The poller reports the disk; here nothing is left to be sent."""
    world.answer("a")
    admitted(world.journal, "other")
    world.sender.step()
    world.fill_disk()
    world.journal.finish(Update("other", Status.SUCCESS, "x" * LARGE), wait=False)
    assert world.sender.step() == DISK_SECONDS
    assert (world.status.activity, world.status.problem) == ("waiting for the disk", None)
    world.free_disk()
    world.sender.step()
    assert states(world.journal) == {"delivered": 1, "finished": 1}


def test_a_journal_that_cannot_even_be_read_sends_nothing_that_may_not_be_durable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.answer("durable")
    world.fill_disk()
    world.answer("pending", size=LARGE, wait=False)
    monkeypatch.setattr(world.journal, "recorded", unreadable(JournalError("the journal cannot be read")))
    assert world.sender.step() == DISK_SECONDS
    assert (world.sent, world.outbox.pending()) == ([], 2)


def test_an_answer_that_cannot_be_read_from_the_journal_is_kept_for_the_next_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.answer("large", size=KEPT_IN_MEMORY)
    with monkeypatch.context() as context:
        context.setattr(world.journal, "message", unreadable(JournalError("the journal cannot be read")))
        assert world.sender.step() == DISK_SECONDS
    assert (world.sent, world.status.problem) == ([], "the journal cannot be read")
    world.sender.step()
    assert world.sent == [["large"]]


@pytest.mark.parametrize("method", ["message", "recorded"])
def test_a_damaged_journal_ends_the_loop(world: World, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    world.answer("large", size=LARGE)
    if method == "recorded":
        world.fill_disk()
        world.answer("pending", size=LARGE, wait=False)
    monkeypatch.setattr(world.journal, method, unreadable(JournalDamaged("the journal is damaged")))
    with pytest.raises(JournalDamaged):
        world.sender.step()
