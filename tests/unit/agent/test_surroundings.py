"""The thread `environment`: it looks once a second, and says so to the watchdog."""

from __future__ import annotations

from typing import Any, cast

import pytest

from relay_agent.agent.surroundings import STEP_SECONDS, Surroundings
from relay_agent.core.clock import Clock
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.telemetry.hourly_summary import Tally


class World:
    """A thread's step and its status, at a time that the test sets."""

    def __init__(self) -> None:
        self.time = 100.0
        self.seen: list[str] = []
        clock = Clock(monotonic=lambda: self.time)
        self.status = LoopStatus(clock)
        self.surroundings = Surroundings(self._look, LoopContext(self.status, Tally(), cast("Any", self), clock))

    def _look(self) -> None:
        self.seen.append(self.status.activity)


def test_each_step_looks_once_and_says_what_it_is_doing() -> None:
    world = World()
    assert [world.surroundings.step(), world.surroundings.step()] == [STEP_SECONDS] * 2
    assert len(world.seen) == 2
    assert "files" in world.seen[0]


def test_an_error_reaches_the_loop_which_counts_it() -> None:
    world = World()

    def fail() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        Surroundings(fail, LoopContext(world.status, Tally(), cast("Any", world), Clock())).step()
