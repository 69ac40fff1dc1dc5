"""The agent: builds its parts from the settings, and starts, supervises and stops its threads. Runs on the main thread.

How the parts are connected is in `wiring`, the order of the stop in `shutdown`. Rules about commands belong to `relay`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TextIO

from relay_agent import AGENT_VERSION
from relay_agent.agent.freeze import Freeze
from relay_agent.agent.monitors import build_monitors
from relay_agent.agent.shutdown import ENDING_SECONDS, Shutdown, within
from relay_agent.agent.signals import Signals
from relay_agent.agent.startup import log_findings, open_journal, recover
from relay_agent.agent.status_pages import StatusPages
from relay_agent.agent.thread_wiring import build_threads, syslog_threads
from relay_agent.agent.threads import AgentThread, Ending, Stops
from relay_agent.agent.wiring import (
    build_flow,
    build_network,
    build_platform,
    build_secrets,
    build_storage,
    build_syslog_shipper,
    build_telemetry,
)
from relay_agent.config.secrets import check_token
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Clock, Uptime
from relay_agent.core.errors import JournalError
from relay_agent.core.exit_codes import EXIT_ERROR, EXIT_REFUSED
from relay_agent.core.models import CertificateRole
from relay_agent.diagnostics.watchdog import STUCK_SECONDS
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.relay.task import Task
from relay_agent.storage.state_directory import StateDirectory

LOOK_SECONDS = 2.0
"""How often the main thread looks at all threads."""
REFUSED_SECONDS = 5.0
"""Longest stop of an agent that the platform refused."""


class Agent:
    """One agent, from its settings to its exit code. Its parts are public attributes, for tests."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        stream: TextIO | None = None,
        signals: Signals | None = None,
        unknown: Sequence[tuple[str, str | None]] = (),
    ) -> None:
        """Build every part; nothing is sent before `run`. `unknown` lists unknown variables (`config.inspection.unknown_variables`).

        Raises:
            TokenExpired, ConfigurationError, StateDirectoryBusy, JournalError: see `core.errors`.
        """
        self._clock = clock = clock or Clock()
        uptime = Uptime(clock)
        self._settings = settings
        self._signals = signals or Signals()
        self._unknown = unknown
        check_token(settings.token.get(), clock.now)
        self._directory = StateDirectory(settings.state_dir)
        self._freeze = Freeze(STUCK_SECONDS)
        self._stops = stops = Stops()
        self.ending = Ending(self._signals.wake)
        with contextlib.ExitStack() as undo:  # In reverse order: the lines of this start come before the one that says why it failed.
            self.telemetry = build_telemetry(settings, clock, stream or sys.stdout)
            undo.callback(self.telemetry.logs.output.close)
            secrets = build_secrets(settings, self.telemetry)
            self.network = build_network(settings, self.telemetry)
            self.platform = build_platform(settings, self.telemetry, secrets, self.network)
            storage = build_storage(self._directory, self.telemetry)
            syslog = build_syslog_shipper(
                settings, self.telemetry.syslog, self.telemetry.log, clock, self.network.peer_certificates.leg(CertificateRole.SYSLOG)
            )
            started = syslog_threads(stops, syslog)
            for thread in started:
                thread.loop.start()
            undo.callback(_end_early, stops, started)
            self.pages = StatusPages(settings, uptime, self.telemetry, secrets, self.platform, storage, self.network.policy)
            undo.callback(self.pages.close)
            tasks: FairQueue[Task] = FairQueue(settings.queue_size, settings.workers, self.network.policy.lane_limit)
            journal = open_journal(storage, clock, self._signals, in_flight=tasks.running, waiting=self.pages.show_obstacle)
            self.flow = build_flow(settings, stops, self.telemetry, secrets, self.platform, storage, tasks, journal)
            monitors = build_monitors(settings, self.telemetry, secrets, self.network, self.platform)
            self.threads = build_threads(
                settings, stops, self.ending, self.telemetry, self.network, self.platform, self.flow, monitors, started
            )
            self.pages.show(self.flow, self.threads, self.network, monitors, unknown, syslog)
            undo.pop_all()

    def run(self) -> int:
        """Run until a signal or a fatal condition; return the exit code (docs/operations.md, "Exit codes")."""
        restore = self.telemetry.logs.capture_libraries()
        self._freeze.keep_alive()
        settings, log = self._settings, self.telemetry.log
        log.info("agent-starting", version=AGENT_VERSION, agent=settings.agent_id, organisation=settings.org_slug, workers=settings.workers)
        log_findings(log, self.flow.journal, self._unknown)
        self.pages.serve()
        try:
            recover(self.flow, log, self._freeze.keep_alive)
            self.threads.start()
            self._supervise()
            return self._stop()
        finally:
            restore()
            self._freeze.disarm()
            self.telemetry.logs.output.close()  # Before a line that says why `run` failed, which has its own output.

    def _supervise(self) -> None:
        while not self.ending.given.is_set() and not self._signals.wait(LOOK_SECONDS):
            self._freeze.keep_alive()
            for loop in self.threads.dead():
                self.ending.give(EXIT_ERROR, f"the thread {loop.name} ended {_error_name(loop.error)}")
                self.telemetry.log.error("thread-died", thread=loop.name, exc_info=loop.error)
            verdict = self.threads.watchdog.verdict()
            if verdict is not None:
                self.ending.give(EXIT_ERROR, f"no progress for {STUCK_SECONDS:g} s: {verdict}")

    def _stop(self) -> int:
        """Stop the threads in order, then release what none of them uses any more; return the exit code."""
        code, seconds, tasks = self.ending.code, self._settings.drain_seconds, self.flow.tasks
        refused = code == EXIT_REFUSED
        if code:
            self.telemetry.log.error("agent-giving-up", code=code, reason=self.ending.reason)
        else:
            self.telemetry.log.info("agent-stopping", running=tasks.running(), waiting=tasks.waiting(), drain_seconds=seconds)
        shutdown = Shutdown(
            threads=self.threads, flow=self.flow, platform=self.platform, signals=self._signals, log=self.telemetry.log, clock=self._clock
        )
        self._freeze.allow(seconds)
        shutdown.run(min(REFUSED_SECONDS, seconds) if refused else seconds, code, report=not refused and not self._settings.shared_queue)
        self._close()
        return code

    def _close(self) -> None:
        """Release resources; those of a thread that is stuck stay open until the process ends."""
        self.pages.close()
        if self.threads.over():
            self.platform.client.close()
            self.network.connection_pool.close()
            within(ENDING_SECONDS, self._close_journal)
        self._directory.close()

    def _close_journal(self) -> None:
        with contextlib.suppress(JournalError):  # The disk accepts no writes: the next start continues from what it holds.
            self.flow.journal.close()


def _end_early(stops: Stops, threads: Sequence[AgentThread]) -> None:
    """End the threads that deliver the log lines of a start that failed, after these lines."""
    stops.housekeeping.set()
    for thread in threads:
        thread.loop.join(ENDING_SECONDS)
        if thread.loop.is_alive():
            thread.interrupt()
            thread.loop.join(ENDING_SECONDS)
        if not thread.loop.is_alive():
            thread.after()


def _error_name(error: BaseException | None) -> str:
    return f"with an unexpected {type(error).__name__}" if error is not None else "without an error"
