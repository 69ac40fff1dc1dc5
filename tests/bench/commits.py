"""Group commit: fsyncs per command by the number of workers, and the cost of lingering for a single one. Starts no agent."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from unittest import mock

from relay_agent.core.clock import Clock
from relay_agent.core.models import Status, Update
from relay_agent.storage import group_commit
from relay_agent.storage.journal import Journal
from tests.bench.crew import Cost, Crew

WORKERS = (1, 4, 8, 16)
LONE = 40
APART_SECONDS = group_commit.LOAD_SECONDS * 1.2

T = TypeVar("T")


def loaded(place: Path, workers: int, commands: int, target_seconds: float) -> Cost:
    """What so many commands take with a fresh journal, whose queue is never empty, and a target that takes so long."""
    with (
        tempfile.TemporaryDirectory(dir=place) as directory,
        Crew(Path(directory) / "journal.db", workers, target_seconds).working() as crew,
    ):
        return crew.run(commands)


def without_linger(measure: Callable[[], T]) -> T:
    """Measure with a writer that does not linger."""
    with mock.patch.object(group_commit, "LINGER_SECONDS", 0.0):
        return measure()


def lone(place: Path, slow: int, apart_seconds: float) -> tuple[float, float]:
    """The median seconds that the journal adds to one command, alternately with and without the linger.

    `slow` other commands are with a worker all the while and commit nothing; `apart_seconds` lie between one and the next.
    """
    with_linger: list[float] = []
    without: list[float] = []
    busy = 0
    with tempfile.TemporaryDirectory(dir=place) as directory:
        journal = Journal(Path(directory) / "journal.db", Clock(), others=lambda: busy)
        try:
            for number in range(LONE):
                for kind, times in (("with", with_linger), ("without", without)):

                    def one(command_id: str = f"{kind}-{number}") -> float:
                        nonlocal busy
                        busy = slow
                        began = time.perf_counter()
                        journal.admit([(command_id, "raw", "receipt")])
                        busy = slow + 1
                        journal.start(command_id, True)
                        journal.finish(Update(command_id, Status.SUCCESS, "told"))
                        busy = slow
                        journal.deliver([command_id])
                        journal.flush()
                        return time.perf_counter() - began

                    times.append(one() if kind == "with" else without_linger(one))
                    threading.Event().wait(apart_seconds)
        finally:
            journal.close()
    return statistics.median(with_linger), statistics.median(without)
