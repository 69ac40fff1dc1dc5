"""Runs steps in parallel; a step may wait for others, and each step and all together have a time limit.

Owns order and time. It must not know what a step checks: it gets a function for each.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from relay_agent.cli.checks.result import Check, Status, error
from relay_agent.diagnostics.local_causes import TOO_SLOW, UNEXPECTED

Run = Callable[[], Check]


@dataclass(frozen=True)
class Step:
    """One check: it runs after those that it waits for, and is skipped if one of them fails."""

    id: str
    run: Run
    waits_for: tuple[str, ...] = ()
    bound_seconds: float = 10.0
    about: str = ""
    """Distinguishes it from another step of the same id."""


def run_steps(
    steps: Sequence[Step], whole_seconds: float, *, debug: bool = False, monotonic: Callable[[], float] = time.monotonic
) -> list[Check]:
    """Run all steps and return their checks in the steps' order; a step that exceeds its limit is abandoned and reported as an error.

    With `debug`, print the traceback of an unexpected error to stderr.
    """
    return _Run(steps, whole_seconds, debug, monotonic).checks()


class _Run:
    """One run of a plan. Only the caller's thread changes it; the steps' threads pass their checks to it through a queue."""

    def __init__(self, steps: Sequence[Step], whole_seconds: float, debug: bool, monotonic: Callable[[], float]) -> None:
        self._steps = steps
        self._debug = debug
        self._monotonic = monotonic
        self._ends_at = monotonic() + whole_seconds
        self._found: dict[int, Check] = {}
        self._running: dict[int, tuple[float, float]] = {}
        self._roots: dict[str, str] = {}
        self._done: queue.SimpleQueue[tuple[int, Check]] = queue.SimpleQueue()

    def checks(self) -> list[Check]:
        """Run until every step has its check."""
        while len(self._found) < len(self._steps):
            self._start_what_may()
            if self._running:
                self._wait()
        return [self._found[place] for place in range(len(self._steps))]

    def _start_what_may(self) -> None:
        started = True
        while started:  # A skipped step may cause others to be skipped.
            started = False
            for place, step in enumerate(self._steps):
                if place not in self._found and place not in self._running and self._settled(step):
                    self._start(place, step)
                    started = True

    def _settled(self, step: Step) -> bool:
        return all(place in self._found for place, other in enumerate(self._steps) if other.id in step.waits_for)

    def _start(self, place: int, step: Step) -> None:
        blocked = next((other for other in step.waits_for if self._bad(other)), None)
        if blocked is not None:
            self._found[place] = Check(step.id, Status.SKIPPED, self._waiting(step, blocked))
            return
        now = self._monotonic()
        self._running[place] = (now, min(now + step.bound_seconds, self._ends_at))
        # A daemon, since a check that nothing can interrupt, such as one of a disk that hangs, must not block the exit.
        threading.Thread(target=self._take, args=(place, step), name=f"check-{step.id}", daemon=True).start()

    def _take(self, place: int, step: Step) -> None:
        try:
            found = step.run()
        except Exception as problem:  # noqa: BLE001 - the top of a step: a fault of one check must not hide the others
            if self._debug:
                traceback.print_exc()
            found = error(UNEXPECTED.about(kind=type(problem).__name__), f"{step.about}: the check failed".removeprefix(": "), step.id)
        self._done.put((place, found))

    def _wait(self) -> None:
        """Take one result, or give up the steps beyond their limit."""
        next_end = min(end for _, end in self._running.values())
        try:
            place, found = self._done.get(timeout=max(0.0, next_end - self._monotonic()))
        except queue.Empty:
            self._give_up()
            return
        if place in self._running:  # Otherwise it was given up already.
            began, _ = self._running.pop(place)
            self._found[place] = replace(found, seconds=self._monotonic() - began)

    def _give_up(self) -> None:
        now = self._monotonic()
        for place, (began, end) in list(self._running.items()):
            if now >= end:
                del self._running[place]
                step = self._steps[place]
                cause = TOO_SLOW.about(seconds=f"{end - began:.3g}")
                late = error(cause, f"{step.about or step.id}: no result within its time limit", step.id)
                self._found[place] = replace(late, seconds=now - began)

    def _bad(self, check_id: str) -> bool:
        return any(check.id == check_id and check.status in (Status.ERROR, Status.SKIPPED) for check in self._found.values())

    def _waiting(self, step: Step, blocked: str) -> str:
        """Name the check that it waits for, and the one that failed first."""
        self._roots[step.id] = root = self._roots.get(blocked, blocked)
        text = f"waits for {blocked}" + ("" if root == blocked else f", which waits for {root}")
        return f"{step.about}: {text}" if step.about else text
