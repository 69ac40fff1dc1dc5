"""What is planned and what was found: plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.bench.contenders import Contender
from tests.bench.works import WORKS, Work

IDLE_SECONDS = 5.0
MINUTES = 9.0
EMULATED = {"alone": 30, "burst": 500}
"""What the agent on the sandbox's emulator is given."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Found:
    """One contender's work in one round. Latencies are from handed out to answered."""

    contender: str
    work: str
    round: int
    commands: int
    seconds: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    log_bytes: float
    sqs_calls: float
    calls: dict[str, int]
    connections: float | None = None
    """New ones at the target, for each command."""
    fsyncs: float | None = None
    """For each command; counted in a run of its own."""

    @property
    def rate(self) -> float:
        """Commands in a second."""
        return self.commands / self.seconds


@dataclass(slots=True)
class Process:
    """One contender's process in one round."""

    contender: str
    round: int
    first_poll_seconds: float
    start_bytes: int
    idle_cpu_percent: float
    threads: int
    after_bytes: int | None = None
    """The memory after the burst."""
    peak_bytes: int | None = None
    """The most that it ever had; only where it had answers of 50 MB."""


@dataclass(slots=True)
class Results:
    """All rounds."""

    works: list[Found] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    contenders: Sequence[Contender]
    works: Sequence[Work] = WORKS
    rounds: int = 3
    commands: int | None = None
    """How many commands a burst has, if not as many as by default."""
    idle_seconds: float = IDLE_SECONDS
    minutes: float = MINUTES
    """When this is over, a new round has only the works that every round has."""

    def count(self, contender: Contender, work: Work) -> int:
        """How many commands a contender is given."""
        if contender.emulated:
            return EMULATED.get(work.name, 0)
        if contender.slow:
            return work.fewer
        if work.whole_job and not contender.promises:
            return 0
        return self.commands if self.commands and work.name == "burst" else work.commands


def shown(found: Found) -> str:
    """One line about one measurement."""
    return (
        f"  round {found.round}, {found.contender:>8} {found.work:>10}: {found.rate:7.1f}/s, {found.cpu_ms:6.2f} ms CPU,"
        f" p50 {found.p50_ms:.1f}, p99 {found.p99_ms:.1f} ms"
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest rank of an ordered sample."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
