"""Stopping is not cancelling: the order in which the agent ends, all against one deadline (ARCHITECTURE; docs/durability.md).

On the main thread. This room owns the order and how long each step may take. It must not decide that the agent stops, nor close what
its threads used: the agent does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import wait
from typing import TypeVar

from relay_agent.agent.signals import Signals
from relay_agent.agent.threads import Phase, Threads
from relay_agent.agent.wiring import Flow, Platform
from relay_agent.core.clock import RECHECK_SECONDS, Clock, Deadline
from relay_agent.core.errors import JournalError, PlatformError
from relay_agent.core.loop import Loop, aside
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.telemetry.logger import Logger

T = TypeVar("T")

INTERRUPT_SECONDS = 1.0
FAREWELL_SECONDS = 3.0
"""Of the drain's time, what is kept for telling answers, STOPPED and the last log lines."""
FAREWELL_PART = 5
"""But no more than this part of it."""
REPORT_SECONDS = 2.0
"""Of that, for STOPPED and the log."""
EXIT_SECONDS = 0.5
"""And of that, for the exit itself."""
ENDING_SECONDS = 0.5
"""How long a call to the platform may take that is under way when its thread is told to end."""
SHARE = 2
LEAST_SECONDS = 0.05
"""A step of the stop takes at most this part of what is left of the drain, and this much when nothing is: where everything
hangs, the steps together are not much longer than the drain, however short."""


class Shutdown:
    """One stop, from the first signal to the last log line."""

    def __init__(self, *, threads: Threads, flow: Flow, platform: Platform, signals: Signals, log: Logger, clock: Clock) -> None:
        self._threads = threads
        self._flow = flow
        self._platform = platform
        self._signals = signals
        self._log = log
        self._clock = clock

    def run(self, seconds: float, code: int, *, report: bool) -> None:
        """Stop in order: intake, workers, answers, STOPPED where it is to be reported, logs."""
        threads, stops, status = self._threads, self._threads.stops, self._platform.status
        drain = Deadline(seconds, self._clock.monotonic)
        over = self._bound(drain)
        stops.intake.set()
        for thread in [*threads.of(Phase.FETCH), *threads.of(Phase.WORK)]:
            thread.end()
        self._join(threads.loops(Phase.WORK), drain, keep=min(FAREWELL_SECONDS, drain.seconds / FAREWELL_PART))
        cut_off = self._break_off_work(drain)
        self._break_off_intake(drain)
        self._join(threads.loops(Phase.FETCH), drain, at_most=share(1.0, drain))
        self._tell_the_rest(drain)
        stops.housekeeping.set()
        self._end(threads.loops(Phase.HOUSEKEEPING), drain)
        if report and status.enrolled:
            self._report_stopped()
        within(share(ENDING_SECONDS, drain), self._flow.summary.log_rest)
        counts = within(share(ENDING_SECONDS, drain), self._counts) or {}
        self._log.info("agent-stopped", code=code, running=cut_off, **counts)
        shipping = threads.loops(Phase.LOGS)
        self._end(shipping, drain)
        if status.enrolled and not any(loop.is_alive() for loop in shipping):
            self._flush_logs(min(REPORT_SECONDS, max(0.2, drain.remaining() - EXIT_SECONDS)))
        over.set()

    def _flush_logs(self, seconds: float) -> None:
        """Ship what waits; a CloudWatch that hangs holds up the exit no longer than that, however much is left of the drain."""
        over = self._bound(Deadline(seconds, self._clock.monotonic))
        self._platform.log_shipper.flush(seconds)
        over.set()

    def _bound(self, drain: Deadline) -> threading.Event:
        """Break off this thread's own calls shortly before the drain is over, and after a second signal: no platform holds up the exit.

        Set what is returned at the end.
        """
        over, name = threading.Event(), threading.current_thread().name
        keep = min(EXIT_SECONDS, drain.seconds / 4)

        def watch() -> None:
            while not over.wait(RECHECK_SECONDS):
                if drain.remaining() <= keep or self._signals.count >= 2:
                    self._platform.client.break_off(name)

        threading.Thread(target=watch, name="drain", daemon=True).start()
        return over

    def _break_off_work(self, drain: Deadline) -> int:
        """End what outlasts the drain: a request that may not run again is answered EINTERRUPTED, another left to the next start.

        How many they were.
        """
        cut_off = self._flow.tasks.running()
        self._flow.journal.give_up()
        for thread in self._threads.of(Phase.WORK):
            thread.break_off()
        self._join(self._threads.loops(Phase.WORK), drain, at_most=share(INTERRUPT_SECONDS, drain))
        return cut_off

    def _break_off_intake(self, drain: Deadline) -> None:
        """Break off the open receive; what was received already is still taken in and acknowledged."""
        limit = Deadline(share(1.0, drain), self._clock.monotonic)
        for thread in self._threads.of(Phase.INTAKE):
            while thread.loop.is_alive() and not limit.passed:
                thread.break_off()
                thread.loop.join(RECHECK_SECONDS / 2)

    def _tell_the_rest(self, drain: Deadline) -> None:
        loops, outbox = self._threads.loops(Phase.ANSWERS), self._flow.outbox
        for thread in self._threads.of(Phase.ANSWERS):
            thread.end()
        outbox.drain()
        keep = min(REPORT_SECONDS, drain.seconds / 3)
        sender = self._threads.named("sender").loop
        while self._platform.status.enrolled and outbox.pending() and sender.is_alive():
            if drain.remaining() <= keep or self._signals.count >= 2:
                break
            self._threads.stops.housekeeping.wait(0.02)
        self._threads.stops.answers.set()
        self._end(loops, drain)

    def _report_stopped(self) -> None:
        try:
            self._platform.client.rest.report("STOPPED")
        except PlatformError as error:
            cause = cause_of(error)
            self._log.warning("stop-not-reported", reason=str(error), cause=cause.cause, cure=cause.cure)

    def _counts(self) -> dict[str, int]:
        try:
            counts = self._flow.journal.counts()
        except JournalError:
            return {}
        return {"left": counts["admitted"] + counts["started"], "untold": counts["finished"]}

    def _join(self, loops: list[Loop], drain: Deadline, *, keep: float = 0.0, at_most: float | None = None) -> None:
        """Wait for threads until the drain's end less `keep`, and no longer than `at_most`; a second signal ends the wait."""
        limit = Deadline(max(0.0, drain.remaining() - keep) if at_most is None else at_most, self._clock.monotonic)
        for loop in loops:
            while loop.is_alive() and not limit.passed and self._signals.count < 2:
                loop.join(min(RECHECK_SECONDS, limit.remaining()))

    def _end(self, loops: list[Loop], drain: Deadline) -> None:
        """Wait for threads that were told to end; one that hangs in a call to the platform is broken off."""
        self._join(loops, drain, at_most=min(drain.seconds / 10, share(ENDING_SECONDS, drain)))
        for loop in loops:
            if loop.is_alive():
                self._platform.client.break_off(loop.name)
        self._join(loops, drain, at_most=share(ENDING_SECONDS, drain))


def share(most: float, drain: Deadline) -> float:
    """How many seconds a step may take that usually takes none."""
    return min(most, max(LEAST_SECONDS, drain.remaining() / SHARE))


def within(seconds: float, act: Callable[[], T]) -> T | None:
    """What it gives, None where it takes longer: it goes on by itself then, and ends with the process.

    For what asks the journal at the end. A commit or a disk that hangs cannot be broken off, and must not hold up the exit.
    """
    look = aside(act, "last-look")
    wait([look], seconds)
    return look.result() if look.done() and look.exception() is None else None
