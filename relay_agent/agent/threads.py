"""The agent's threads: when each ends, how each is watched, and what ends the agent as a whole.

Each thread is declared once, as an `AgentThread` that a function of `thread_wiring` returns. What a thread does is not known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from relay_agent.core.callbacks import nothing
from relay_agent.core.loop import Loop
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.watchdog import Watchdog


class ShutdownPhase(Enum):
    """When a stop ends a thread: one phase after the other (`shutdown`)."""

    INTAKE = "intake"
    """Receives commands. Asked to end first, aborted once the workers have ended."""
    FETCH = "fetch"
    """Downloads commands' bodies. Asked to end together with the intake."""
    WORK = "work"
    """Runs commands. Drained: running commands are finished."""
    ANSWERS = "answers"
    """Delivers answers. Ends when none is left or the time is up."""
    HOUSEKEEPING = "housekeeping"
    """Heartbeat, configuration, credentials and journal maintenance, until the answers are delivered."""
    LOGS = "logs"
    """Delivers log lines, including those of the stop."""


class Stops:
    """The events that end the threads. Phases that share an event still end one after the other, since `shutdown` joins them in order."""

    def __init__(self) -> None:
        self.intake = threading.Event()
        self.answers = threading.Event()
        self.housekeeping = threading.Event()

    def of(self, phase: ShutdownPhase) -> threading.Event:
        """Return the event that ends the threads of this phase."""
        if phase in (ShutdownPhase.INTAKE, ShutdownPhase.FETCH, ShutdownPhase.WORK):
            return self.intake
        return self.answers if phase is ShutdownPhase.ANSWERS else self.housekeeping


class Ending:
    """Why the agent ends: the first reason counts. Thread-safe."""

    def __init__(self, wake: Callable[[], None] = nothing) -> None:
        """`wake` ends the main thread's wait."""
        self._wake = wake
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
        self._wake()


@dataclass(frozen=True, slots=True)
class AgentThread:
    """One thread as `thread_wiring` declares it."""

    loop: Loop
    phase: ShutdownPhase
    activity: Callable[[], str]
    """Returns what the thread is doing, for the status page."""
    status: LoopStatus | None = None
    """What the watchdog checks; None for threads that it checks otherwise, or not at all."""
    core: bool = True
    """Whether the agent must end when this thread dies."""
    end: Callable[[], None] = nothing
    """Ends its wait when the phase is to end, if the event alone does not."""
    interrupt: Callable[[], None] = nothing
    """Aborts what it is doing, when the stop has waited long enough."""
    after: Callable[[], None] = nothing
    """Called by the stop once the thread has ended."""

    @classmethod
    def looping(
        cls,
        name: str,
        step: Callable[[], float],
        phase: ShutdownPhase,
        stops: Stops,
        status: LoopStatus,
        interrupt: Callable[[], None] = nothing,
        after: Callable[[], None] = nothing,
    ) -> AgentThread:
        """Return a thread that repeats a step until its phase's event is set, and whose activity is that of its status."""
        return cls(Loop(name, step, stops.of(phase)), phase, lambda: status.activity, status, interrupt=interrupt, after=after)

    @property
    def name(self) -> str:
        """Return its name."""
        return self.loop.name

    @property
    def alive(self) -> bool:
        """Return whether it runs or is yet to be started."""
        return self.loop.is_alive() or self.loop.ident is None


@dataclass(frozen=True, slots=True)
class Threads:
    """All threads of the agent except main and `admin`, in the order of the status page."""

    all: tuple[AgentThread, ...]
    statuses: Mapping[str, LoopStatus]
    """Loop statuses by thread name, of the threads that have one."""
    watchdog: Watchdog
    stops: Stops

    def start(self) -> None:
        """Start all threads, the first (the poller) last, so that all others run when it admits a command."""
        for thread in reversed(self.all):
            if thread.loop.ident is None:  # The one that delivers the lines of the start already runs.
                thread.loop.start()

    def of(self, phase: ShutdownPhase) -> list[AgentThread]:
        """Return the threads of this phase."""
        return [thread for thread in self.all if thread.phase is phase]

    def loops(self, phase: ShutdownPhase) -> list[Loop]:
        """Return the loops of this phase's threads, to join them."""
        return [thread.loop for thread in self.of(phase)]

    def named(self, name: str) -> AgentThread:
        """Return the thread of this name."""
        return next(thread for thread in self.all if thread.name == name)

    def dead(self) -> list[Loop]:
        """Return the core threads that have ended."""
        return [thread.loop for thread in self.all if thread.core and not thread.alive]

    def over(self) -> bool:
        """Return whether all threads have ended."""
        return not any(thread.loop.is_alive() for thread in self.all)

    def stopping(self) -> bool:
        """Return whether the stop has begun."""
        return self.stops.intake.is_set()
