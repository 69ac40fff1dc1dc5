"""The order in which the agent stops, and how long each step may take, within one deadline (docs/durability.md, "Stopping").

Stopping is not cancelling: running commands are finished first. Runs on the main thread. `agent` decides that the agent stops,
and closes what the threads used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from typing import TypeVar

from relay_agent.agent.signals import Signals
from relay_agent.agent.threads import ShutdownPhase, Threads
from relay_agent.agent.wiring import Flow, Platform
from relay_agent.core.clock import RECHECK_SECONDS, Clock, Deadline
from relay_agent.core.errors import JournalError, PlatformError
from relay_agent.core.loop import Loop, call_in_thread
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.tdp.client import PlatformClient
from relay_agent.telemetry.logger import Logger

T = TypeVar("T")

INTERRUPT_SECONDS = 1.0
DELIVERY_SECONDS = 3.0
"""The end of the drain time, reserved for sending answers, reporting STOPPED and shipping the last log lines."""
DELIVERY_FRACTION = 5
"""At most one fifth of the drain time is reserved for that."""
REPORT_SECONDS = 2.0
"""The part of `DELIVERY_SECONDS` reserved for STOPPED and the log."""
EXIT_SECONDS = 0.5
"""The part of `REPORT_SECONDS` reserved for the exit itself."""
ENDING_SECONDS = 0.5
"""How long a thread that was asked to end may take to finish a call to the platform."""
SHARE = 2
LEAST_SECONDS = 0.05
"""A step takes at most half of the remaining drain time, but may always take this long. So a stop in which everything
hangs is not much longer than the drain time, however short."""


class Shutdown:
    """The steps of one stop, up to the last log line."""

    def __init__(self, *, threads: Threads, flow: Flow, platform: Platform, signals: Signals, log: Logger, clock: Clock) -> None:
        self._threads = threads
        self._flow = flow
        self._platform = platform
        self._signals = signals
        self._log = log
        self._clock = clock

    def run(self, seconds: float, code: int, *, report: bool) -> None:
        """Stop intake, workers, delivery, housekeeping and logs within `seconds`; `report` decides whether STOPPED is reported."""
        drain = Deadline(seconds, self._clock.monotonic)
        with calls_aborted(self._platform.client, self._out_of(drain)):
            self._run(drain, code, report=report)

    def _run(self, drain: Deadline, code: int, *, report: bool) -> None:
        threads, stops, status = self._threads, self._threads.stops, self._platform.status
        stops.intake.set()
        for thread in [*threads.of(ShutdownPhase.FETCH), *threads.of(ShutdownPhase.WORK)]:
            thread.end()
        self._join(threads.loops(ShutdownPhase.WORK), drain, keep=min(DELIVERY_SECONDS, drain.seconds / DELIVERY_FRACTION))
        cut_off = self._abort_work(drain)
        self._abort_receive(drain)
        self._give_back(drain)
        self._join(threads.loops(ShutdownPhase.FETCH), drain, at_most=share(1.0, drain))
        self._deliver_answers(drain)
        stops.housekeeping.set()
        self._end(threads.loops(ShutdownPhase.HOUSEKEEPING), drain)
        if report and status.registered:
            self._report_stopped()
        within(share(ENDING_SECONDS, drain), self._flow.summary.log_rest)
        counts = within(share(ENDING_SECONDS, drain), self._counts) or {}
        self._log.info("agent-stopped", code=code, running=cut_off, **counts)
        shipping = threads.loops(ShutdownPhase.LOGS)
        self._end(shipping, drain)
        self._finish_shipping(drain)
        if status.registered and not any(loop.is_alive() for loop in shipping):
            self._flush_logs(min(REPORT_SECONDS, max(0.2, drain.remaining() - EXIT_SECONDS)))

    def _finish_shipping(self, drain: Deadline) -> None:
        """Deliver the last lines by syslog; abort a delivery that hangs."""
        for thread in self._threads.of(ShutdownPhase.LOGS):
            if thread.loop.is_alive():
                thread.interrupt()
                thread.loop.join(share(ENDING_SECONDS, drain))
            if not thread.loop.is_alive():
                within(share(REPORT_SECONDS, drain), thread.after)

    def _flush_logs(self, seconds: float) -> None:
        """Ship the waiting lines for at most `seconds`, even if CloudWatch hangs and more drain time is left."""
        with calls_aborted(self._platform.client, self._out_of(Deadline(seconds, self._clock.monotonic))):
            self._platform.log_shipper.flush(seconds)

    def _out_of(self, drain: Deadline) -> Callable[[], bool]:
        """Return what tells whether the time for calls to the platform is over: shortly before the drain ends, or after a second signal.

        Without that, a platform that hangs would delay the exit.
        """
        keep = min(EXIT_SECONDS, drain.seconds / 4)
        return lambda: drain.remaining() <= keep or self._signals.count >= 2

    def _abort_work(self, drain: Deadline) -> int:
        """Abort commands that outlast the drain; return how many there were.

        A command that must not run again is answered EINTERRUPTED; the next start runs the others again.
        """
        cut_off = self._flow.tasks.running()
        self._flow.journal.give_up()
        for thread in self._threads.of(ShutdownPhase.WORK):
            thread.interrupt()
        self._join(self._threads.loops(ShutdownPhase.WORK), drain, at_most=share(INTERRUPT_SECONDS, drain))
        return cut_off

    def _abort_receive(self, drain: Deadline) -> None:
        """Abort the open receive; commands that are being admitted are still acknowledged. What a receive returns later is given back.

        On a shared queue the answer to a delete is waited for, unless there is a second signal: it decides whether this agent must run the
        command. Without it the next start claims the command again.
        """
        limit = Deadline(share(1.0, drain), self._clock.monotonic)
        keep = min(DELIVERY_SECONDS, drain.seconds / DELIVERY_FRACTION)
        ownership = self._flow.inbound.ownership
        for thread in self._threads.of(ShutdownPhase.INTAKE):
            while thread.loop.is_alive():
                patient = ownership.deleting and drain.remaining() > keep and self._signals.count < 2
                if limit.passed and not patient:
                    break
                thread.interrupt()
                thread.loop.join(RECHECK_SECONDS / 2)

    def _give_back(self, drain: Deadline) -> None:
        """Make SQS deliver again what was received and not admitted; otherwise it comes back when its lease ends."""
        for thread in self._threads.of(ShutdownPhase.INTAKE):
            if not thread.loop.is_alive() and self._platform.status.registered:
                within(share(1.0, drain), thread.after)

    def _deliver_answers(self, drain: Deadline) -> None:
        """Let uploaders and sender deliver the remaining answers, then end them."""
        loops, outbox = self._threads.loops(ShutdownPhase.ANSWERS), self._flow.outbox
        for thread in self._threads.of(ShutdownPhase.ANSWERS):
            thread.end()
        outbox.drain()
        keep = min(REPORT_SECONDS, drain.seconds / 3)
        sender = self._threads.named("sender").loop
        while self._platform.status.registered and outbox.pending() and sender.is_alive():
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
        """Wait for threads: for `at_most` seconds if given, else until `keep` seconds before the drain ends, or a second signal."""
        limit = Deadline(max(0.0, drain.remaining() - keep) if at_most is None else at_most, self._clock.monotonic)
        for loop in loops:
            while loop.is_alive() and not limit.passed and self._signals.count < 2:
                loop.join(min(RECHECK_SECONDS, limit.remaining()))

    def _end(self, loops: list[Loop], drain: Deadline) -> None:
        """Wait for threads that were asked to end; abort the platform call of a thread that does not."""
        self._join(loops, drain, at_most=min(drain.seconds / 10, share(ENDING_SECONDS, drain)))
        for loop in loops:
            if loop.is_alive():
                self._platform.client.abort_call(loop.name)
        self._join(loops, drain, at_most=share(ENDING_SECONDS, drain))


@contextmanager
def calls_aborted(client: PlatformClient, due: Callable[[], bool]) -> Iterator[None]:
    """In the block, abort this thread's calls to the platform while `due`, which is asked from another thread, returns true."""
    done, name = threading.Event(), threading.current_thread().name

    def watch() -> None:
        while not done.wait(RECHECK_SECONDS):
            if due():
                client.abort_call(name)

    watcher = threading.Thread(target=watch, name="call-limit", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()  # Otherwise it could abort a call that begins after the block.


def share(most: float, drain: Deadline) -> float:
    """Return how many seconds a step that usually takes none may take, at most `most`."""
    return min(most, max(LEAST_SECONDS, drain.remaining() / SHARE))


def within(seconds: float, act: Callable[[], T]) -> T | None:
    """Call `act` on a thread of its own; returns None if it fails or takes longer than `seconds`.

    For steps that need the journal. A commit or a disk that hangs cannot be aborted, and must not delay the exit.
    """
    call = call_in_thread(act, "last-look")
    wait([call], seconds)
    return call.result() if call.done() and call.exception() is None else None
