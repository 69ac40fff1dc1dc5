"""How many commands may be admitted, and where an admitted one goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.core.models import Command
from relay_agent.relay.admission_gate import AdmissionGate
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.relay.task import Task


class World:
    """A gate before a queue of ten places; the test sets the state of the other parts."""

    def __init__(self, *, shared: bool = False) -> None:
        self.tasks: FairQueue[Task] = FairQueue(10, 2)
        self.downloads: list[Task] = []
        self.outbox_free, self.unsent = 1000, 0
        self.journal = SimpleNamespace(unwritable=None)
        self.disk = SimpleNamespace(obstacle=None, backlog=False)
        self.gate = AdmissionGate(
            shared=shared,
            tasks=self.tasks,
            downloader=cast("Any", SimpleNamespace(put=self.downloads.append, waiting=lambda: len(self.downloads))),
            outbox=cast("Any", SimpleNamespace(free=lambda: self.outbox_free, pending=lambda: self.unsent)),
            journal=cast("Any", self.journal),
            disk=cast("Any", self.disk),
        )


def task(body_url: str | None = None) -> Task:
    return Task(Command("c-1", "agent", "action", body_url=body_url), 0.0, "h:80")


def test_a_task_takes_a_place_in_the_queue_and_so_does_one_whose_body_is_being_downloaded() -> None:
    world = World()
    assert world.gate.free() == 10
    world.gate.enqueue(task())
    world.gate.enqueue(task("https://s3.example/get"))
    assert (world.tasks.get(), len(world.downloads)) == (("h:80", task()), 1)
    world.tasks.done("h:80")
    assert world.gate.free() == 9


def test_no_more_commands_are_admitted_than_the_outbox_can_hold_answers() -> None:
    world = World()
    world.outbox_free = 3
    assert world.gate.free() == 3


@pytest.mark.parametrize(("shared", "free"), [(True, 2), (False, 9)])
def test_on_a_shared_queue_unsent_answers_take_places_too_because_a_lost_machine_takes_them_with_it(shared: bool, free: int) -> None:
    world = World(shared=shared)
    world.unsent = 7
    world.gate.enqueue(task())
    assert world.gate.free() == free


def test_nothing_is_admitted_while_too_much_waits_for_the_platform() -> None:
    world = World()
    world.disk.backlog = True
    assert (world.gate.free(), world.gate.obstacle()) == (0, None)


@pytest.mark.parametrize(("journal", "disk", "obstacle"), [(None, None, None), ("hangs", None, "hangs"), (None, "full", "full")])
def test_a_disk_that_is_not_writable_is_an_obstacle(journal: str | None, disk: str | None, obstacle: str | None) -> None:
    world = World()
    world.journal.unwritable, world.disk.obstacle = journal, disk
    assert world.gate.obstacle() == obstacle
