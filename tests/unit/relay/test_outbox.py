"""Updates awaiting delivery: PROCESSING and final status, batches within SQS's limits, and when a batch waits for more."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.clock import Clock
from relay_agent.core.models import Command, Status, Update
from relay_agent.protocol.messages import MESSAGE_LIMIT
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.relay.outbox import LINGER_SECONDS, PROCESSING_AFTER_SECONDS, Entry, Outbox
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.processing import Processor
from relay_agent.relay.target.executor import Executor
from relay_agent.relay.task import KEPT_IN_MEMORY, Task
from relay_agent.relay.worker import Worker
from relay_agent.telemetry.log_buffer import LogBuffer
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class World:
    """An outbox whose monotonic time stands still unless a test moves it."""

    def __init__(self, capacity: int = 1000) -> None:
        self.time = 1000.0
        self.in_flight = 0
        self.outbox = Outbox(Clock(now=lambda: NOW, monotonic=lambda: self.time), lambda: self.in_flight, capacity)

    def begin(self, command_id: str) -> None:
        self.outbox.command_started(Command(command_id, "agent", "action"))

    def finish(self, command_id: str, text: str = "final") -> None:
        self.outbox.put(Update(command_id, Status.SUCCESS, text))

    def take(self) -> list[Entry]:
        return self.outbox.take(0.0)


@pytest.fixture
def world() -> World:
    return World()


def reported(entries: list[Entry]) -> list[tuple[str, bool]]:
    return [(entry.command_id, entry.final) for entry in entries]


# --- PROCESSING ---


def test_a_command_still_running_after_250_ms_gets_one_processing(world: World) -> None:
    world.begin("a")
    world.time += PROCESSING_AFTER_SECONDS - 0.001
    assert world.take() == []
    world.time += 0.001
    (entry,) = world.take()
    assert PROCESSING_AFTER_SECONDS == 0.25
    assert json.loads(entry.message or "") == {
        "commandId": "a",
        "targetId": "agent",
        "status": "PROCESSING",
        "body": {},
        "responseBodyDelivery": "embedded",
        "createdAt": "2026-03-01T12:00:00.000Z",
    }
    world.time += 3600
    assert world.take() == []


def test_a_command_that_ends_earlier_gets_no_processing(world: World) -> None:
    world.begin("a")
    world.time += 0.249
    world.finish("a")
    assert reported(world.take()) == [("a", True)]
    world.time += 10
    assert world.take() == []


def test_a_processing_that_is_not_sent_yet_is_dropped_when_the_final_status_comes(world: World) -> None:
    for command_id in ("a", "b"):
        world.begin(command_id)
    world.time += 1
    world.finish("x")
    world.outbox._promote()
    world.finish("a")
    assert reported(world.take()) == [("x", True), ("b", False), ("a", True)]


def test_a_command_counts_as_processing_until_its_spooled_answer_is_uploaded(world: World) -> None:
    world.begin("a")
    update = Update("a", Status.SUCCESS, "referenced", "a.gz", "https://s3/", "fallback")
    world.outbox.put(update)
    world.time += 10
    assert reported(world.take()) == [("a", False)]
    assert world.outbox.pending() == 1
    job = world.outbox.uploads.get_nowait()
    assert job is not None and job.update == update
    world.outbox.uploaded(Update("a", Status.SUCCESS, "referenced"))
    assert reported(world.take()) == [("a", True)]


@given(st.lists(st.tuples(st.sampled_from(["begin", "finish", "wait", "take", "fail"]), st.sampled_from("abc")), max_size=40))
def test_no_processing_is_handed_out_after_its_final_status(steps: list[tuple[str, str]]) -> None:
    world, begun, ended = World(), set(), set()
    for step, command_id in steps:
        if step == "begin" and command_id not in begun:
            begun.add(command_id)
            world.begin(command_id)
        elif step == "finish" and command_id in begun - ended:
            ended.add(command_id)
            world.finish(command_id)
        elif step == "wait":
            world.time += 0.2
        elif step in ("take", "fail"):
            entries = world.take()
            assert all(entry.final == (entry.command_id in ended) for entry in entries)
            if step == "fail":
                world.outbox.put_back(entries)


# --- batches ---


def test_a_batch_has_at_most_ten_messages_in_the_order_they_came(world: World) -> None:
    for place in range(23):
        world.finish(str(place))
    batches = [reported(world.take()) for _ in range(4)]
    assert [len(batch) for batch in batches] == [10, 10, 3, 0]
    assert [command_id for batch in batches for command_id, _ in batch] == [str(place) for place in range(23)]


def test_a_batch_has_at_most_262144_bytes_of_utf_8(world: World) -> None:
    half = "\u20ac" * (MESSAGE_LIMIT // 6)
    rest = "x" * (MESSAGE_LIMIT - 2 * len(half.encode()))
    for command_id, text in (("a", half), ("b", half), ("c", rest), ("d", "x")):
        world.finish(command_id, text)
    assert [reported(world.take()) for _ in range(2)] == [[("a", True), ("b", True), ("c", True)], [("d", True)]]


@given(st.lists(st.integers(1, MESSAGE_LIMIT), max_size=30))
def test_every_batch_keeps_the_limits_and_nothing_is_lost(sizes: list[int]) -> None:
    world = World()
    for place, size in enumerate(sizes):
        world.finish(str(place), "x" * size)
    found: list[str] = []
    for batch in batches(world):
        assert len(batch) <= 10
        assert sum(entry.size for entry in batch) <= MESSAGE_LIMIT
        found += [entry.command_id for entry in batch]
    assert found == [str(place) for place in range(len(sizes))]


def test_a_large_message_waits_in_the_journal_and_a_small_one_in_memory(world: World) -> None:
    small, large = "x" * KEPT_IN_MEMORY, "\u20ac" * (KEPT_IN_MEMORY // 3 + 1)
    world.finish("a", small)
    world.finish("b", large)
    assert [(entry.message, entry.size) for entry in world.take()] == [(small, KEPT_IN_MEMORY), (None, len(large.encode()))]


def batches(world: World) -> Iterator[list[Entry]]:
    while batch := world.take():
        yield batch


def test_entries_that_were_not_sent_come_first_again_in_their_order(world: World) -> None:
    for command_id in "abc":
        world.finish(command_id)
    taken = world.take()
    world.finish("d")
    world.outbox.put_back(taken)
    assert [entry.command_id for entry in world.take()] == ["a", "b", "c", "d"]


def test_a_processing_that_could_not_be_sent_is_not_sent_after_the_final_status(world: World) -> None:
    world.begin("a")
    world.time += 1
    taken = world.take()
    world.finish("a")
    world.outbox.put_back(taken)
    assert reported(world.take()) == [("a", True)]


def test_a_processing_that_could_not_be_sent_is_sent_again_while_its_command_is_under_way(world: World) -> None:
    world.begin("a")
    world.time += 1
    world.outbox.put_back(world.take())
    assert reported(world.take()) == [("a", False)]


# --- how many ---


def test_an_answer_is_pending_until_it_is_delivered(world: World) -> None:
    world.begin("p")
    world.time += 1
    for command_id in "ab":
        world.finish(command_id)
    taken = world.take()
    assert reported(taken) == [("a", True), ("b", True), ("p", False)]
    assert world.outbox.pending() == 2
    world.outbox.put_back(taken[:1])
    assert world.outbox.pending() == 2
    world.outbox.delivered(taken[1:])
    assert world.outbox.pending() == 1


def test_free_is_0_once_the_outbox_is_full() -> None:
    world = World(capacity=2)
    assert world.outbox.free() == 2
    for command_id in "abc":
        world.finish(command_id)
    assert world.outbox.free() == 0
    world.outbox.delivered(world.take())
    assert world.outbox.free() == 2


def test_a_message_stays_out_of_an_entrys_repr(world: World) -> None:
    world.finish("a", "canary")
    assert "canary" not in repr(world.take())


# --- waiting ---


def timed(outbox: Outbox, timeout: float) -> tuple[list[Entry], float]:
    clock = Clock()
    begun = clock.monotonic()
    return outbox.take(timeout), clock.monotonic() - begun


def test_a_single_answer_is_returned_at_once() -> None:
    outbox = Outbox(Clock(), lambda: 0)
    outbox.put(Update("a", Status.SUCCESS, "x"))
    entries, seconds = timed(outbox, 5)
    assert reported(entries) == [("a", True)]
    assert seconds < LINGER_SECONDS


def test_a_batch_waits_briefly_while_commands_are_in_flight() -> None:
    outbox = Outbox(Clock(), lambda: 1)
    outbox.put(Update("a", Status.SUCCESS, "x"))
    entries, seconds = timed(outbox, 5)
    assert reported(entries) == [("a", True)]
    assert LINGER_SECONDS <= seconds < 5


def test_a_full_batch_does_not_wait_for_others() -> None:
    outbox = Outbox(Clock(), lambda: 99)
    for place in range(10):
        outbox.put(Update(str(place), Status.SUCCESS, "x"))
    entries, seconds = timed(outbox, 5)
    assert len(entries) == 10
    assert seconds < LINGER_SECONDS


class Waiting:
    """A sender that takes from an outbox on a thread of its own, while others are in flight; it waits when `start` returns."""

    def __init__(self) -> None:
        self.taken: list[Entry] = []
        self.outbox = Outbox(Clock(monotonic=self._monotonic), lambda: 5)
        self._looks = 0
        self._waits = threading.Event()
        self._thread = threading.Thread(target=lambda: self.taken.extend(self.outbox.take(20)), daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._waits.wait(10)

    def sent(self) -> list[tuple[str, bool]]:
        self._thread.join(10)
        return reported(self.taken)

    def _monotonic(self) -> float:
        self._looks += threading.current_thread() is self._thread
        if self._looks == 2:  # It holds the lock from here until it waits.
            self._waits.set()
        return time.monotonic()


def test_an_answer_wakes_the_sender_that_has_sent_a_batch_while_others_are_in_flight() -> None:
    sender = Waiting()
    sender.outbox.put(Update("a", Status.SUCCESS, "x"))
    assert len(sender.outbox.take(5)) == 1
    sender.start()
    sender.outbox.put(Update("b", Status.SUCCESS, "x"))
    assert sender.sent() == [("b", True)]


@pytest.mark.parametrize("before", [lambda outbox: outbox.take(20), lambda outbox: outbox.forget("a")], ids=["said", "forgotten"])
def test_a_command_that_starts_later_wakes_the_sender_in_time(before: Callable[[Outbox], object]) -> None:
    """An earlier command's PROCESSING was sent, or cancelled."""
    sender = Waiting()
    sender.outbox.command_started(Command("a", "agent", "action"))
    before(sender.outbox)
    sender.start()
    sender.outbox.command_started(Command("b", "agent", "action"))
    assert sender.sent() == [("b", False)]


@pytest.mark.parametrize(("answers", "left"), [(1, 0), (9, 5)])
def test_the_last_answer_that_is_expected_or_fits_ends_the_wait_for_others(
    monkeypatch: pytest.MonkeyPatch, answers: int, left: int
) -> None:
    """`left` commands are in flight when the last answer comes."""
    monkeypatch.setattr("relay_agent.relay.outbox.LINGER_SECONDS", 60.0)
    in_flight, taken = 1, list[Entry]()
    outbox = Outbox(Clock(), lambda: in_flight)
    outbox.put(Update("a", Status.SUCCESS, "x"))
    sender = threading.Thread(target=lambda: taken.extend(outbox.take(20)), daemon=True)
    sender.start()
    for place in range(answers):
        in_flight = left if place == answers - 1 else 9
        outbox.put(Update(str(place), Status.SUCCESS, "x"))
    sender.join(10)
    assert len(taken) == 1 + answers


def test_an_answer_wakes_the_sender_that_waits() -> None:
    outbox = Outbox(Clock(), lambda: 0)
    taken: list[Entry] = []
    sender = threading.Thread(target=lambda: taken.extend(outbox.take(20)))
    sender.start()
    outbox.put(Update("a", Status.SUCCESS, "x"))
    sender.join(10)
    assert reported(taken) == [("a", True)]


def test_a_processing_wakes_the_sender_that_waits() -> None:
    outbox = Outbox(Clock(), lambda: 0)
    taken: list[Entry] = []
    sender = threading.Thread(target=lambda: taken.extend(outbox.take(20)))
    sender.start()
    outbox.command_started(Command("a", "agent", "action"))
    sender.join(10)
    assert reported(taken) == [("a", False)]


def test_draining_ends_the_wait_at_once_and_later_answers_are_still_returned() -> None:
    outbox = Outbox(Clock(), lambda: 1)
    taken: list[list[Entry]] = []
    sender = threading.Thread(target=lambda: taken.append(outbox.take(20)))
    sender.start()
    outbox.drain()
    sender.join(10)
    assert taken == [[]]
    outbox.put(Update("a", Status.SUCCESS, "x"))
    assert reported(outbox.take(20)) == [("a", True)]


class InFlightAtPut(Outbox):
    """Keeps how many commands are in flight when an answer is put."""

    tasks: FairQueue[Task]
    in_flight_at_put: list[int]

    def put(self, update: Update) -> None:
        self.in_flight_at_put.append(self.tasks.running() + self.tasks.waiting())


def test_a_worker_does_not_count_as_in_flight_when_it_puts_its_answer() -> None:
    tasks: FairQueue[Task] = FairQueue(10, 2)
    outbox = InFlightAtPut(Clock(), lambda: 0)
    outbox.tasks, outbox.in_flight_at_put = tasks, []
    done = Update("a", Status.SUCCESS, "x")

    def process(_task: Task, _executor: object) -> Update:
        tasks.close()
        return done

    tasks.put(("lane", Task(Command("a", "agent", "action"), 0.0)))
    Worker(
        name="worker-0",
        tasks=tasks,
        processor=cast("Processor", SimpleNamespace(process=process)),
        outcomes=cast("Outcomes", None),
        executor=cast("Executor", SimpleNamespace(close=lambda: None)),
        outbox=outbox,
        monotonic=Clock().monotonic,
        log=Logs("info", Redactor(), LogBuffer(), io.StringIO(), Clock()).logger,
    ).run()
    assert outbox.in_flight_at_put == [0]
