"""Whether a journal is as fast and as small after many commands as at the start.

The maintenance runs on a thread of its own, as in the agent.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay_agent.agent.maintenance import Maintenance
from relay_agent.core.clock import Clock
from relay_agent.core.loop import Loop
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.telemetry.hourly_summary import Tally
from tests.bench.crew import Cost, Crew

WORKERS = 16
SAMPLE = 20_000
ROUND = 5_000
ROUNDS = 5


@dataclass(frozen=True)
class Age:
    """The first and the last commands of a journal, what it weighs after each, and how it fares beside a new one."""

    first: Cost
    last: Cost
    first_bytes: int
    last_bytes: int
    rows: int
    against_new: list[float]
    """The old journal's rate over a new one's, measured alternately."""

    @property
    def ratio(self) -> float:
        """The last commands' rate over the first ones'."""
        return self.last.rate / self.first.rate

    @property
    def against_new_median(self) -> float:
        """The old journal's rate over a new one's."""
        return statistics.median(self.against_new)


def measure(place: Path, commands: int, say: Callable[[str], None]) -> Age:
    """Send so many commands through one journal, at least twice the sample."""
    with tempfile.TemporaryDirectory(dir=place) as directory, _kept(Path(directory) / "old") as old:
        first = old.run(SAMPLE)
        first_bytes = _bytes(old.path)
        left = max(commands, 2 * SAMPLE) - 2 * SAMPLE
        while left > 0:
            step = min(left, 5 * SAMPLE)
            cost = old.run(step)
            left -= step
            say(f"  {max(commands, 2 * SAMPLE) - SAMPLE - left:>9,} commands: {cost.rate:,.0f}/s, {_bytes(old.path) / 1e6:,.1f} MB")
        last = old.run(SAMPLE)
        last_bytes, rows = _bytes(old.path), sum(old.journal.counts().values())
        with _kept(Path(directory) / "new") as new:
            against_new = [_turn_about(old, new, bool(number % 2)) for number in range(ROUNDS)]
    return Age(first, last, first_bytes, last_bytes, rows, against_new)


def _turn_about(old: Crew, new: Crew, old_first: bool) -> float:
    pair = [crew.run(ROUND).rate for crew in ((old, new) if old_first else (new, old))]
    return pair[0] / pair[1] if old_first else pair[1] / pair[0]


@contextmanager
def _kept(directory: Path) -> Iterator[Crew]:
    """A crew whose journal the agent's own `Maintenance` looks after."""
    directory.mkdir()
    stop, clock = threading.Event(), Clock()
    with Crew(directory / "journal.db", WORKERS, 0.0).working() as crew:
        maintenance = Maintenance(
            journal=crew.journal,
            retention=crew.journal.retention,
            disk=crew.disk,
            interrupt=lambda: None,
            summarise=lambda: None,
            release_memory=lambda: None,
            loop=LoopContext(LoopStatus(clock), Tally(), _Loud(), clock),  # type: ignore[arg-type]
        )
        loop = Loop("upkeep", maintenance.step, stop)
        loop.start()
        try:
            yield crew
        finally:
            stop.set()
            loop.join()
        if loop.error is not None:
            raise loop.error


class _Loud:
    """A stub log that fails on any line, since `Maintenance` logs only problems."""

    def warning(self, event: str, **fields: object) -> None:
        raise AssertionError(f"{event}: {fields}")


def _bytes(path: Path) -> int:
    """What the journal's files take on the disk."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
