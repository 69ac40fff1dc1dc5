"""The agent's threads: when each ends, how each is watched, and what makes the agent as a whole end.

A thread is declared once, as an `AgentThread` that a function of `wiring` returns. This module must not know what a thread does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from relay_agent.core.callbacks import nothing
from relay_agent.core.loop import Loop
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.watchdog import Watchdog

T = TypeVar("T")


class Phase(Enum):
    """When a stop ends a thread: one phase after the other (`stopping`)."""

    INTAKE = "intake"
    """Takes commands in. Told first, broken off once the workers have ended."""
    FETCH = "fetch"
    """Downloads commands' bodies. Told together with the intake."""
    WORK = "work"
    """Executes commands. Drained: what runs is finished."""
    ANSWERS = "answers"
    """Delivers answers. Ends when none is left, or the time for it is over."""
    HOUSEKEEPING = "housekeeping"
    """Keeps the agent alive and known to the platform until the answers are delivered."""
    LOGS = "logs"
    """Delivers log lines, the stop's own among them."""


class Stops:
    """The events that end the threads: some phases share one, and end in their order all the same."""

    def __init__(self) -> None:
        self.intake = threading.Event()
        self.answers = threading.Event()
        self.housekeeping = threading.Event()

    def of(self, phase: Phase) -> threading.Event:
        """The event that ends the threads of this phase."""
        if phase in (Phase.INTAKE, Phase.FETCH, Phase.WORK):
            return self.intake
        return self.answers if phase is Phase.ANSWERS else self.housekeeping


class Ending:
    """Why the agent ends: the first reason counts. Any thread may give one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.given = threading.Event()
        self.code = 0
        self.reason = ""

    def give(self, code: int, reason: str) -> None:
        """End the agent with this exit code."""
        with self._lock:
            if not self.given.is_set():
                self.code, self.reason = code, reason
                self.given.set()


@dataclass(frozen=True, slots=True)
class AgentThread:
    """One thread, as `wiring` declares it: everything that others need to know of it."""

    loop: Loop
    phase: Phase
    activity: Callable[[], str]
    """What it is doing, for the status page."""
    status: LoopStatus | None = None
    """What the watchdog judges. Without one, another sign of life is judged, or none."""
    core: bool = True
    """The agent must end when this thread dies."""
    end: Callable[[], None] = nothing
    """Makes it leave what it waits for, when its phase is to end and the event alone does not do that."""
    break_off: Callable[[], None] = nothing
    """Breaks off what it is doing, when the stop has waited long enough."""

    @classmethod
    def looping(
        cls,
        name: str,
        step: Callable[[], float],
        phase: Phase,
        stops: Stops,
        status: LoopStatus,
        break_off: Callable[[], None] = nothing,
    ) -> AgentThread:
        """A thread that repeats a step until its phase's event is set, and says by its status what it is doing."""
        return cls(Loop(name, step, stops.of(phase)), phase, lambda: status.activity, status, break_off=break_off)

    @property
    def name(self) -> str:
        """Its name."""
        return self.loop.name

    @property
    def alive(self) -> bool:
        """Whether it lives, or is still to be started."""
        return self.loop.is_alive() or self.loop.ident is None


@dataclass(frozen=True, slots=True)
class Threads:
    """Every thread of the agent but the main one and the pages', in the order in which the status page lists them."""

    all: tuple[AgentThread, ...]
    statuses: Mapping[str, LoopStatus]
    """Those of the threads that have one, by the thread's name."""
    watchdog: Watchdog
    stops: Stops

    def start(self) -> None:
        """Start all, the first last: whatever the poller takes in finds everybody at work."""
        for thread in reversed(self.all):
            thread.loop.start()

    def of(self, phase: Phase) -> list[AgentThread]:
        """Those that end in this phase."""
        return [thread for thread in self.all if thread.phase is phase]

    def loops(self, phase: Phase) -> list[Loop]:
        """The same, to be waited for."""
        return [thread.loop for thread in self.of(phase)]

    def named(self, name: str) -> AgentThread:
        """The thread of that name."""
        return next(thread for thread in self.all if thread.name == name)

    def dead(self) -> list[Loop]:
        """Those that have ended though the agent cannot work without them."""
        return [thread.loop for thread in self.all if thread.core and not thread.alive]

    def over(self) -> bool:
        """Whether all have ended."""
        return not any(thread.loop.is_alive() for thread in self.all)

    def stopping(self) -> bool:
        """Whether the stop has begun."""
        return self.stops.intake.is_set()
