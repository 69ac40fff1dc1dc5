"""What a loop last did: which of its reports is a sign of life, and which takes a problem away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.failures import Cause
from relay_agent.diagnostics.loop_status import LoopStatus

CAUSE = Cause("sqs", "the queue is gone", "look for it")


class World:
    """A loop's status, 10 s after its construction."""

    def __init__(self) -> None:
        self.time = 100.0
        self.status = LoopStatus(Clock(monotonic=lambda: self.time))
        self.time += 10.0


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_loop_is_starting_and_counts_from_its_construction(world: World) -> None:
    status = world.status
    assert (status.activity, status.last_success, status.problem) == ("starting", None, None)
    assert (status.seconds_since_iteration(), status.unhealthy_seconds()) == (10.0, 10.0)


def test_an_iteration_that_begins_is_not_silent_but_proves_no_life(world: World) -> None:
    world.status.begin("receiving")
    world.time += 1.0
    assert (world.status.activity, world.status.seconds_since_iteration(), world.status.unhealthy_seconds()) == ("receiving", 1.0, 11.0)


def test_an_idle_iteration_is_a_sign_of_life_but_no_success(world: World) -> None:
    world.status.idle("waiting")
    assert (world.status.activity, world.status.unhealthy_seconds(), world.status.last_success) == ("waiting", 0.0, None)


def test_a_success_is_a_sign_of_life_and_keeps_the_activity(world: World) -> None:
    world.status.begin("sending")
    world.time += 2.0
    world.status.success()
    assert (world.status.activity, world.status.last_success, world.status.unhealthy_seconds()) == ("sending", 112.0, 0.0)
    assert world.status.seconds_since_iteration() == 0.0


def test_a_failure_is_not_silent_but_no_sign_of_life(world: World) -> None:
    world.status.failure("no answer", CAUSE)
    assert (world.status.problem, world.status.cause) == ("no answer", CAUSE)
    assert (world.status.seconds_since_iteration(), world.status.unhealthy_seconds(), world.status.last_success) == (0.0, 10.0, None)


@pytest.mark.parametrize("heal", [LoopStatus.success, lambda status: status.idle("waiting")], ids=["success", "idle"])
def test_a_problem_ends_with_a_success_or_an_idle_iteration(world: World, heal: Callable[[LoopStatus], None]) -> None:
    world.status.failure("no answer", CAUSE)
    heal(world.status)
    assert (world.status.problem, world.status.cause) == (None, None)


def test_a_problem_lasts_while_the_next_iteration_only_begins(world: World) -> None:
    world.status.failure("no answer", CAUSE)
    world.status.begin("receiving")
    assert (world.status.problem, world.status.cause) == ("no answer", CAUSE)


def test_a_failure_without_a_cause_does_not_keep_that_of_the_one_before(world: World) -> None:
    world.status.failure("no answer", CAUSE)
    world.status.failure("something else")
    assert (world.status.problem, world.status.cause) == ("something else", None)
