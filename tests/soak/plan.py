"""What fails and when, drawn from a seed: the same seed gives the same day.

Every random choice about outages and kills is made here; `day` carries them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

INSTRUMENTS = 4
SERVICES = ("rest", "sqs", "s3", "logs", "")
SKEWS_MINUTES = (-40.0, -10.0, 10.0, 40.0)

PLATFORM = (
    "refused",
    "hanging",
    "status 503",
    "status 429",
    "html with 200",
    "html with 500",
    "dns gone",
    "credentials expired",
    "credentials refused",
    "token refused",
    "clock skewed",
    "send's answer lost",
    "delete's answer lost",
    "closed without an answer",
)
TARGET = ("target refused", "target resets", "target breaks off", "target 503", "target slow", "target silent")
DISK = "disk full"
CALM = "calm"


@dataclass(frozen=True, slots=True)
class Episode:
    """One outage: `where` is a service of the platform (empty: all) or an instrument's number; `amount` is the kind's own."""

    start: float
    seconds: float
    kind: str
    where: str = ""
    amount: float = 0.0

    @property
    def end(self) -> float:
        """When it is over."""
        return self.start + self.seconds


@dataclass(frozen=True, slots=True)
class Blow:
    """What happens to the process: `kill`, `stop` or `stop then kill`."""

    start: float
    kind: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole day, from second 0 on."""

    seconds: float
    episodes: tuple[Episode, ...]
    blows: tuple[Blow, ...]


def draw(seed: int, seconds: float) -> Plan:
    """Draw a day of so many seconds; no outage outlasts it."""
    # One random stream each, so that a longer day starts like a shorter one.
    platform, target, disk, blows = (Random(f"{seed}-{name}") for name in ("platform", "target", "disk", "blows"))
    episodes = [*_platform(platform, seconds), *_targets(target, seconds), *_disk(disk, seconds)]
    return Plan(seconds, tuple(sorted(episodes, key=lambda episode: episode.start)), tuple(_blows(blows, seconds)))


def deck(rng: Random, kinds: Sequence[str]) -> Iterator[str]:
    """Deal every kind once, shuffled, then again, so that a short day meets them all."""
    while True:
        hand = list(kinds)
        rng.shuffle(hand)
        yield from hand


def _platform(rng: Random, seconds: float) -> Iterator[Episode]:
    now = rng.uniform(1.0, 3.0)
    for kind in deck(rng, (*PLATFORM, CALM)):
        # Occasionally a long one: only then does the agent's back-off grow.
        span = rng.uniform(8.0, 25.0) if rng.random() < 0.07 else rng.uniform(1.0, 4.0)
        episode = Episode(now, min(span, seconds - now), kind, rng.choice(SERVICES), rng.choice(SKEWS_MINUTES))
        if episode.seconds < 0.5:
            return
        if kind == CALM:
            # Long enough to see the agent recover by itself.
            now += rng.uniform(6.0, 15.0)
            continue
        yield episode
        # They overlap if the next starts before this one ends.
        now += max(0.5, span + rng.uniform(-2.0, 3.0))


def _targets(rng: Random, seconds: float) -> Iterator[Episode]:
    now = rng.uniform(0.5, 2.0)
    for kind in deck(rng, TARGET):
        span = min(rng.uniform(1.0, 4.0), seconds - now)
        if span < 0.5:
            return
        yield Episode(now, span, kind, str(rng.randrange(INSTRUMENTS)), rng.uniform(0.5, 3.0))
        now += rng.uniform(1.0, 4.0)


def _disk(rng: Random, seconds: float) -> Iterator[Episode]:
    now = rng.uniform(5.0, 15.0)
    while now + 2.0 < seconds:
        span = min(rng.uniform(2.0, 5.0), seconds - now)
        yield Episode(now, span, DISK)
        now += span + rng.uniform(10.0, 25.0)


def _blows(rng: Random, seconds: float) -> Iterator[Blow]:
    now = 2.0
    while True:
        # Occasionally no kill for a while: only a long-lived agent reaches long back-offs.
        now += rng.uniform(10.0, 25.0) if rng.random() < 0.08 else rng.uniform(2.0, 6.0)
        if now >= seconds:
            return
        yield Blow(now, rng.choices(("kill", "stop", "stop then kill"), (7, 2, 1))[0])
