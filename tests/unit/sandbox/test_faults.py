"""Faults on demand: which calls one happens to, how often, and that its release ends every hang."""

from __future__ import annotations

import asyncio
import threading

import pytest

from relay_agent.sandbox.faults import FOREVER, Fault, FaultHandle, Faults

RECEIVE = ("sqs", "ReceiveMessage")


class World:
    def __init__(self) -> None:
        self.hits = 0
        self.faults = Faults(self._hit)

    def _hit(self) -> None:
        self.hits += 1

    def find(self, service: str = "sqs", operation: str = "ReceiveMessage", text: str = "") -> FaultHandle | None:
        return self.faults.find(service, operation, lambda: text)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("fault", "service", "operation", "happens"),
    [
        (Fault(), "sqs", "ReceiveMessage", True),
        (Fault("sqs"), "s3", "GetObject", False),
        (Fault("sqs", "ReceiveMessage"), "sqs", "ReceiveMessage", True),
        (Fault("sqs", "Receive"), "sqs", "ReceiveMessage", False),
        (Fault("rest", "agent/config"), "rest", "POST /v1/data-acquisition/agent/config", True),
        (Fault("rest", "PUT /v1"), "rest", "POST /v1/commands", False),
    ],
)
def test_a_fault_happens_to_its_service_and_operation(world: World, fault: Fault, service: str, operation: str, happens: bool) -> None:
    handle = world.faults.inject(fault)
    assert (world.find(service, operation), world.hits) == ((handle, 1) if happens else (None, 0))


def test_a_fault_may_be_limited_to_requests_with_a_text(world: World) -> None:
    handle = world.faults.inject(Fault(contains="agent-7"))
    assert (world.find(text="agent-1"), world.find(text="for agent-7")) == (None, handle)


def test_a_request_s_text_is_only_made_for_a_fault_that_asks_for_it(world: World) -> None:
    def text() -> str:
        raise AssertionError("made in vain")

    world.faults.inject(Fault())
    assert world.faults.find(*RECEIVE, text) is not None


def test_the_first_calls_pass_and_the_next_meet_the_fault_as_often_as_it_says(world: World) -> None:
    handle = world.faults.inject(Fault(skip=1, count=2))
    assert [world.find() is handle for _ in range(5)] == [False, True, True, False, False]
    assert (handle.hits, handle.spent, world.faults.all()) == (2, True, [handle])


def test_a_fault_without_a_count_happens_until_it_is_released(world: World) -> None:
    handle = world.faults.inject(Fault(count=None))
    assert all(world.find() is handle for _ in range(5))
    handle.release()
    handle.release()
    assert (world.find(), world.faults.all(), handle.spent) == (None, [], False)


def test_of_several_faults_the_oldest_that_is_not_spent_happens(world: World) -> None:
    first, second = world.faults.inject(Fault()), world.faults.inject(Fault())
    assert [world.find() for _ in range(3)] == [first, second, None]


def test_all_faults_can_be_released_at_once(world: World) -> None:
    with world.faults.inject(Fault()):
        pass
    handles = [world.faults.inject(Fault()), world.faults.inject(Fault())]
    assert (world.faults.release_all(), world.faults.all()) == (handles, [])


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_a_hang_ends_by_itself(world: World, seconds: float) -> None:
    handle = world.faults.inject(Fault(hang_seconds=seconds))
    asyncio.run(asyncio.wait_for(handle.hang(), 10))


def test_a_release_ends_every_hang_from_another_thread_and_later_ones_do_not_begin(world: World) -> None:
    handle = world.faults.inject(Fault(hang_seconds=FOREVER))

    async def hang() -> None:
        waiting = [asyncio.create_task(handle.hang()) for _ in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=handle.release).start()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        await asyncio.wait_for(handle.hang(), 10)

    asyncio.run(hang())
