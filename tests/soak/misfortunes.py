"""What happens to several agents and their queue, and when, drawn from a seed: the same seed gives the same misfortunes.

Every random choice about them is made here; `several` carries them out. They go on for as long as somebody asks for more.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.soak.machine import LEASE_SECONDS
from tests.soak.plan import deck

KILL, KILL_AWAY, STOP = "killed", "killed and away beyond the lease", "stopped"
FREEZE, LONG_FREEZE = "frozen", "frozen beyond the lease"
NO_SQS, HANGING_SQS, LOST_ANSWERS = "cut off from SQS", "SQS hangs beyond the lease", "answers to deletes lost"
NO_TARGETS, HANGING_TARGETS = "cut off from the targets", "the targets hang"
CLOCK_AHEAD, CLOCK_BEHIND = "clock an hour ahead", "clock an hour behind"
SLOW_DELETES = "slow deletes"
GONE = "machine lost for good"

HOUR_SECONDS = 3600.0
_BEYOND = (LEASE_SECONDS + 1.0, LEASE_SECONDS + 5.0)
_SECONDS = {
    KILL: (0.5, 2.0),
    KILL_AWAY: _BEYOND,
    STOP: (0.5, 2.0),
    FREEZE: (0.5, 3.0),
    LONG_FREEZE: _BEYOND,
    NO_SQS: (1.0, LEASE_SECONDS + 4.0),
    HANGING_SQS: (3.0, LEASE_SECONDS + 5.0),
    LOST_ANSWERS: (1.0, 3.0),
    NO_TARGETS: (1.0, 4.0),
    HANGING_TARGETS: (1.0, 4.0),
    CLOCK_AHEAD: (4.0, 12.0),
    CLOCK_BEHIND: (4.0, 12.0),
    SLOW_DELETES: (3.0, 9.0),
}
CLOCKS = (CLOCK_AHEAD, CLOCK_BEHIND)
KINDS = tuple(_SECONDS)
_OF_AN_AGENT = tuple(kind for kind in _SECONDS if kind not in (*CLOCKS, SLOW_DELETES))
_HANGS_SECONDS = (0.5, 2.0, 4.0, LEASE_SECONDS + 1.0)


@dataclass(frozen=True, slots=True)
class Misfortune:
    """One thing that goes wrong: `agent` is the place of an agent, None for the queue itself; `amount` is the kind's own, in seconds."""

    start: float
    seconds: float
    kind: str
    agent: int | None = None
    amount: float = 0.0

    @property
    def end(self) -> float:
        """When it is over."""
        return self.start + self.seconds


def draw(seed: int, agents: int) -> Iterator[Misfortune]:
    """Draw misfortunes without end, in the order of their start. One agent has one at a time, and its clock jumps beside that."""
    streams = [_stream(Random(f"{seed}-{kinds[0]}-{place}"), kinds, place, gap) for place in range(agents) for kinds, gap in _GAPS]
    queue = _stream(Random(f"{seed}-{SLOW_DELETES}"), (SLOW_DELETES,), None, (8.0, 20.0))
    return heapq.merge(*streams, queue, key=lambda misfortune: misfortune.start)


_GAPS = ((_OF_AN_AGENT, (1.0, 6.0)), (CLOCKS, (5.0, 20.0)))


def _stream(rng: Random, kinds: tuple[str, ...], agent: int | None, gap: tuple[float, float]) -> Iterator[Misfortune]:
    # Not all at the start: every agent is to have worked before.
    now = rng.uniform(4.0, 10.0)
    for kind in deck(rng, kinds):
        seconds = rng.uniform(*_SECONDS[kind])
        yield Misfortune(now, seconds, kind, agent, rng.choice(_HANGS_SECONDS))
        now += seconds + rng.uniform(*gap)
