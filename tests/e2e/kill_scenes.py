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
    """Every answer is recorded, none uploaded or sent."""
    for fault in (life.nothing_sent(), *life.nothing_uploaded()):
        stack.enter_context(fault)
    life.agent.start()


def uploading(life: Life, stack: ExitStack) -> None:
    """Uploads begin when every answer is recorded."""
    stack.enter_context(life.nothing_sent())
    with ExitStack() as uploads:
        for fault in life.nothing_uploaded():
            uploads.enter_context(fault)
        life.agent.start()
        life.wait_large_recorded()


def unsent(life: Life, stack: ExitStack) -> None:
    """Every answer is uploaded, none sent."""
    stack.enter_context(life.nothing_sent())
    life.agent.start()


def batched(life: Life, stack: ExitStack) -> None:
    """While an answer before them is on its way, all others get ready: they leave in one batch, the second."""
    path = f"/plug-{life.agent.agent_id}"
    life.create_plug(path)
    # The path is in the plug's answer alone, not in the PROCESSING that it gets if it takes long.
    hang = life.sandbox.inject(Fault("sqs", "SendMessageBatch", contains=path, hang_seconds=FOREVER))
    with stack.enter_context(hang):
        life.agent.start()
        wait_until(life.sandbox, lambda: hang.hits == 1)
        for kind in KINDS:
            life.create(kind)
        life.wait_recorded()


def refused(life: Life, _: ExitStack) -> None:
    """The queue refuses answers until it was asked to take all of them in one batch, which is then the first that is sent."""
    with life.nothing_sent() as refusal:
        life.agent.start()
        life.wait_recorded()
        wait_until(life.sandbox, lambda: life.untold() == len(life.traces))
        seen = refusal.hits
        # The first of these two may have begun before the last answer was there.
        wait_until(life.sandbox, lambda: refusal.hits >= seen + 2)


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
    Point.SETTLED: Scene(unsent, times=5, workers=4, sizes=(LARGE,)),
    Point.BEFORE_ANSWER: Scene(batched, times=2),
    Point.ANSWER_SENT: Scene(refused),
    Point.DELIVERED: Scene(refused),
}


def live(sandbox: Sandbox, directory: Path, point: Point, kinds: tuple[Kind, ...], reported: int) -> Life:
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
        life.look(reported)
        return life
    finally:
        life.close()
