"""How the commands of one run all reach the same fault point before the process dies there.

For each point: how often it is reached, and what holds the commands there. What is expected is in `kill_table`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from relay_agent.core.failpoints import Point
from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import wait_until
from tests.e2e.kill_lives import KINDS, LARGE, SMALL, Kind, Life

Way = Callable[[Life, ExitStack], None]


@dataclass(frozen=True, slots=True)
class Scene:
    """How to die at a point: after how many times, with how many workers, on which way; `alone`: a life for each kind."""

    way: Way
    times: int = 1
    workers: int = 2
    sizes: tuple[str, ...] = (SMALL,)
    alone: bool = False


def waiting(life: Life, _: ExitStack) -> None:
    """All commands wait on SQS when the agent starts, and come with one receive."""
    life.agent.start()


def plugged(life: Life, _: ExitStack) -> None:
    """The same, behind a command that keeps the only worker: the others stay where they are."""
    life.close_gate()
    life.agent.start()


def gated(life: Life, _: ExitStack) -> None:
    """The target answers none."""
    life.close_gate()
    life.agent.start()
    life.wait_asked(len(life.traces))


def unrecorded(life: Life, stack: ExitStack) -> None:
    """The target answers all at once, while the journal takes nothing: each outcome waits to be recorded."""
    gated(life, stack)
    stack.enter_context(life.nothing_recorded())
    life.gate.release()


def unsettled(life: Life, stack: ExitStack) -> None:
    """Every answer is recorded, none uploaded or told."""
    for fault in (life.nothing_told(), *life.nothing_uploaded()):
        stack.enter_context(fault)
    life.agent.start()


def uploading(life: Life, stack: ExitStack) -> None:
    """Uploads begin when every answer is recorded."""
    stack.enter_context(life.nothing_told())
    with ExitStack() as uploads:
        for fault in life.nothing_uploaded():
            uploads.enter_context(fault)
        life.agent.start()
        life.wait_large_recorded()


def untold(life: Life, stack: ExitStack) -> None:
    """Every answer is uploaded, none told."""
    stack.enter_context(life.nothing_told())
    life.agent.start()


def batched(life: Life, stack: ExitStack) -> None:
    """While an answer before them is on its way, all others get ready: they leave in one batch, the second."""
    plug = life.create_plug("/plug")
    hang = life.sandbox.inject(Fault("sqs", "SendMessageBatch", contains=plug.id, hang_seconds=FOREVER))
    with stack.enter_context(hang):
        life.agent.start()
        wait_until(life.sandbox, lambda: hang.hits == 1)
        for kind in KINDS:
            life.create(kind)
        life.wait_recorded()


BOTH = (SMALL, LARGE)
SCENES: dict[Point, Scene] = {
    Point.RECEIVED: Scene(waiting),
    Point.BEFORE_COMMIT: Scene(waiting),
    Point.AFTER_COMMIT: Scene(waiting),
    Point.BEFORE_ACK: Scene(plugged, workers=1),
    Point.AFTER_ACK: Scene(plugged, workers=1),
    Point.FETCHED: Scene(plugged, times=5, workers=1),
    Point.QUEUED: Scene(waiting, workers=1),
    Point.STARTED: Scene(waiting, alone=True),
    Point.SENT: Scene(gated, times=5, workers=10),
    Point.ANSWERED: Scene(unrecorded, times=10, workers=20, sizes=BOTH),
    Point.SPOOLED: Scene(unrecorded, times=10, workers=20, sizes=BOTH),
    Point.RECORDED: Scene(unsettled, times=10, workers=4, sizes=BOTH),
    Point.UPLOADED: Scene(uploading, workers=4, sizes=(LARGE,)),
    Point.SETTLED: Scene(untold, times=5, workers=4, sizes=(LARGE,)),
    Point.BEFORE_TELL: Scene(batched, times=2),
    Point.TOLD: Scene(batched, times=2),
    Point.DELIVERED: Scene(batched, times=2),
}


def live(sandbox: Sandbox, directory: Path, point: Point, kinds: tuple[Kind, ...], told: int) -> Life:
    """Live one life to the point, die there, live on to the end."""
    scene = SCENES[point]
    life = Life(sandbox, directory, f"{point}:{scene.times}", scene.workers)
    try:
        if scene.way is plugged:
            life.create_plug("/plug")
        if scene.way is not batched:
            for size in scene.sizes:
                for kind in kinds:
                    life.create(kind, size, **({"delivery": "referenced"} if point is Point.FETCHED else {}))
        with ExitStack() as stack:
            scene.way(life, stack)
            life.dies()
        life.lives_on()
        life.look(told)
        return life
    finally:
        life.close()
