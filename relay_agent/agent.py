"""The agent: builds every part from the settings, starts and stops the threads in order, supervises them.

This room owns what is wired to what, and the order of starting and stopping. It must not hold rules about
commands.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from datetime import datetime
from functools import partial
from typing import Any, TextIO, cast

import psutil

from relay_agent import AGENT_VERSION, __version__, faultpoints
from relay_agent.admin.facts import Facts, Identity, Logging
from relay_agent.admin.server import Admin
from relay_agent.admin.waiting import Waiting
from relay_agent.admission_gate import AdmissionGate
from relay_agent.answers import Answers
from relay_agent.causes import (
    BACKLOG,
    JOURNAL_DAMAGED,
    JOURNAL_HANGS,
    KEYS,
    NOT_TAKEN_UP,
    TOKEN_UNUSABLE,
    UNKNOWN_VARIABLES,
    Problem,
    journal_cause,
)
from relay_agent.clock import RECHECK_SECONDS, Clock
from relay_agent.config import Settings, check_token, token_expiry
from relay_agent.dialer import Dialer
from relay_agent.disk import Disk
from relay_agent.enrolment import Enrolment
from relay_agent.errors import JournalError, JournalUnwritable
from relay_agent.executor import Executor, Limits
from relay_agent.exit_codes import EXIT_ERROR, EXIT_REFUSED
from relay_agent.fair_queue import FairQueue
from relay_agent.fetcher import DownloadTrouble, Fetcher
from relay_agent.freeze import Freeze
from relay_agent.heartbeat import Heartbeat
from relay_agent.idle import IdlePool
from relay_agent.intake import Intake
from relay_agent.journal import Journal
from relay_agent.journal.reader import Reader
from relay_agent.loop_context import LoopContext
from relay_agent.models import ACTION_SECURE, ACTIONS_PLAIN, Update
from relay_agent.outbox import Outbox
from relay_agent.outcomes import Outcomes
from relay_agent.payload_reader import PayloadReader
from relay_agent.periodic import Loop
from relay_agent.policy import Policy
from relay_agent.poller import NO_DISK_SECONDS, Poller
from relay_agent.processing import Processor
from relay_agent.proxies import Proxies, Trust
from relay_agent.pulse import Pulse
from relay_agent.resolver import Resolver
from relay_agent.secrets_in_force import KeysInForce, TokenInForce
from relay_agent.sender import Sender
from relay_agent.signals import Signals
from relay_agent.spool import Spool
from relay_agent.standing import Standing
from relay_agent.statedir import StateDirectory
from relay_agent.stopping import ENDING_SECONDS, Stopping, within
from relay_agent.surroundings import Surroundings
from relay_agent.target_trouble import TargetTrouble
from relay_agent.task import Task
from relay_agent.tdp.client import PlatformClient
from relay_agent.tdp.http import PlatformHttp
from relay_agent.telemetry.cloudwatch import LogShipper, stream_name
from relay_agent.telemetry.command_report import tell
from relay_agent.telemetry.log_buffer import LogBuffer
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.metrics import Metrics, system_metrics
from relay_agent.telemetry.recent_lines import RecentLines
from relay_agent.telemetry.redact import Redactor, proxy_secrets
from relay_agent.telemetry.repeated import RepeatedFailure
from relay_agent.telemetry.summary import Summary, Tally
from relay_agent.threads import Stops, Threads, aside, once
from relay_agent.transport import Transport
from relay_agent.upkeep import Upkeep
from relay_agent.uploader import Uploader, UploadTrouble
from relay_agent.watchdog import STUCK_SECONDS, Watchdog
from relay_agent.worker import Worker

SLOW_SECONDS = 5.0
"""How long the journal may take to open before that is worth a word."""
FETCHERS = 2
UPLOADERS = 2
REFUSED_SECONDS = 5.0
"""How long the stop of an agent that the platform refused may take."""


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


class Agent:
    """One agent, from its settings to its exit code."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        stream: TextIO | None = None,
        signals: Signals | None = None,
        unknown: Sequence[tuple[str, str | None]] = (),
    ) -> None:
        """Build every part. Nothing is sent before `run`. `unknown` are variables that are no settings (`config.unknown_variables`).

        Raises:
            TokenExpired, ConfigurationError, StateDirectoryBusy, JournalError: see errors.
        """
        self._settings = settings
        self._clock = clock or Clock()
        self._began = self._clock.now(), self._clock.monotonic()
        self._signals = signals or Signals()
        self._unknown = unknown
        check_token(settings.token.get(), self._clock.now)
        self._state = StateDirectory(settings.state_dir)
        self._ending = Ending()
        self._stops = Stops()
        self._freeze = Freeze(STUCK_SECONDS)
        self._build_telemetry(stream)
        self._build_platform()
        self._build_pages()
        try:
            self._build_flow()
            self._build_threads()
            self._show_all()
        except BaseException:
            self._close_pages()
            raise

    # --- building ---

    def _build_telemetry(self, stream: TextIO | None) -> None:
        self._redactor = Redactor()
        self._buffer = LogBuffer()
        self._lines = RecentLines(self._buffer)
        self._logs = Logs(self._settings.log_level, self._redactor, self._lines, stream or sys.stdout, self._clock)
        self._log = self._logs.logger
        self._metrics = Metrics(__version__, [*ACTIONS_PLAIN, ACTION_SECURE], self._clock.monotonic)
        self._tally = Tally()
        settings = self._settings
        self._token = TokenInForce(settings.token, partial(self._redactor.rotate, "jwt"), self._log)
        self._keys = KeysInForce(settings.secure_key, partial(self._redactor.rotate, "keys"), self._log)
        # Now, not at the first use: a file that is gone or half written by then leaves what was read here, and no line shows either.
        self._token.get()
        self._keys.get()
        for proxy in (settings.http_proxy, settings.https_proxy, settings.all_proxy, settings.platform_proxy, settings.target_proxy):
            self._redactor.add(*proxy_secrets(proxy))

    def _build_platform(self) -> None:
        settings = self._settings
        self._standing = Standing()
        self._proxies = Proxies.from_settings(settings)
        self._idle = IdlePool()
        self._download_trouble = DownloadTrouble(self._log, self._clock.monotonic)
        trust = Trust.from_settings(settings)
        to_platform = Dialer(trust, Resolver())
        # A resolver of its own: names of targets that nobody answers for must not take the places of the platform's.
        self._to_targets = Dialer(trust, Resolver())
        self._platform = PlatformClient(
            PlatformHttp(lambda: Transport(to_platform), self._proxies, Policy(admin=settings.admin_endpoint)),
            api_target=settings.api_target,
            org_slug=settings.org_slug,
            agent_id=settings.agent_id,
            token=self._token.get,
            endpoint_url=settings.aws_endpoint_url,
            max_body_bytes=settings.max_request_bytes,
            clock=self._clock,
            seen_secrets=self._seen_credentials,
            count=self._metrics.platform_request,
            judged=self._standing.judge,
            downloaded=self._download_trouble.note,
        )
        self._shipper = LogShipper(
            self._buffer,
            lambda: cast("Any", self._platform.logs()),
            self._platform.log_group,
            stream_name(settings.agent_id, self._clock.now()),
            self._log,
            self._logs.local,
            self._clock,
            upload=self._platform.rest.log,
            why=self._platform.why_not_logged,
        )

    def _seen_credentials(self, *secrets: str) -> None:
        """Each new set of AWS credentials, whoever fetched it, before it is used."""
        self._tally.count("credential_refreshes")
        self._redactor.rotate("aws", *secrets)

    def _build_flow(self) -> None:
        settings, clock = self._settings, self._clock
        self._tasks: FairQueue[Task] = FairQueue(settings.queue_size, settings.workers)
        self._journal = self._open_journal()
        self._disk.look()
        self._spool = Spool(self._state.spool)
        self._outbox = Outbox(clock, lambda: self._tasks.running() + self._tasks.waiting())
        self._outcomes = Outcomes(
            journal=self._journal,
            answers=Answers(self._spool, self._keys.get, clock),
            monotonic=clock.monotonic,
            report=partial(tell, self._log, self._metrics, self._tally),
        )
        reader = PayloadReader(
            agent_id=settings.agent_id,
            journal=self._journal,
            spool=self._spool,
            payloads=self._platform.payloads,
            keyring=self._keys.get,
            clock=clock,
        )
        self._intake = Intake(
            agent_id=settings.agent_id, journal=self._journal, reader=reader, outcomes=self._outcomes, monotonic=clock.monotonic
        )
        self._processor = Processor(
            journal=self._journal,
            spool=self._spool,
            reader=reader,
            outcomes=self._outcomes,
            keyring=self._keys.get,
            clock=clock,
            default_seconds=settings.request_timeout_seconds,
        )
        self._fetcher = Fetcher(
            reader=reader, enqueue=lambda task: self._tasks.put((task.lane, task)), stop=self._stops.intake, log=self._log
        )
        self._gate = AdmissionGate(tasks=self._tasks, fetcher=self._fetcher, outbox=self._outbox, journal=self._journal, disk=self._disk)

    def _open_journal(self) -> Journal:
        """Open the journal, and wait for a disk that does not let it be opened: a full one is no reason to end.

        Raises:
            JournalError: it cannot be opened for another reason, or a signal ended the wait.
        """
        log = self._log.bind(directory=str(self._state.path))
        self._full = trouble = RepeatedFailure(log, "disk-full", "disk-freed", self._clock.monotonic, remind_seconds=300.0)

        def waiting(obstacle: str) -> None:
            cause = journal_cause(obstacle)
            trouble.failure(obstacle, cause=cause.cause, cure=cause.cure)
            self._waiting.obstacle = obstacle
            self._serve_pages()

        while True:
            try:
                journal = self._opened(waiting)
            except JournalUnwritable as error:
                waiting(str(error))
                if self._signals.count or self._stops.rest.wait(NO_DISK_SECONDS):
                    raise
            else:
                trouble.success()
                return journal

    def _opened(self, slow: Callable[[str], None]) -> Journal:
        """Open the journal on a thread of its own: a disk that hangs would keep this one from every signal. `slow` is told of one.

        Raises:
            JournalError: it cannot be opened, a signal ended the wait, or the disk hung for as long as the watchdog bears.
        """
        opening = aside(
            lambda: Journal(self._state.journal, self._clock, others=self._tasks.running, make_room=self._disk.make_room), "opening"
        )
        began, said = self._clock.monotonic(), False
        while not wait([opening], RECHECK_SECONDS).done:
            seconds = self._clock.monotonic() - began
            if self._signals.count:
                raise JournalError("stopped while the disk did not let the journal be opened")
            if seconds > STUCK_SECONDS:
                raise JournalError(f"the disk did not let the journal be opened within {STUCK_SECONDS:g} s: it hangs; {JOURNAL_HANGS.cure}")
            if seconds > SLOW_SECONDS and not said:
                slow(f"the disk hangs: opening the journal has taken {SLOW_SECONDS:g} s so far")
                said = True
        return opening.result()

    def _build_threads(self) -> None:
        settings, clock, log = self._settings, self._clock, self._log
        self._target_trouble = TargetTrouble(log, clock)
        self._pulses = {name: Pulse(clock) for name in ("poller", "sender", "heartbeat", "config-refresh", "upkeep")}
        loops = {name: LoopContext(pulse, self._tally, log, clock) for name, pulse in self._pulses.items()}
        self._crew = [self._worker(f"worker-{place}") for place in range(settings.workers)]
        self._watchdog = Watchdog(
            loops=self._pulses,
            polling=self._pulses["poller"],
            sending=self._pulses["sender"],
            workers=self._crew,
            journal=self._journal,
            disk=self._disk,
            standing=self._standing,
            draining=lambda: self._stops.intake.is_set() and self._ending.code == 0,
        )
        poller = Poller(
            platform=self._platform,
            standing=self._standing,
            intake=self._intake,
            gate=self._gate,
            journal=self._journal,
            outbox=self._outbox,
            disk_full=self._full,
            stopping=self._stops.intake.is_set,
            loop=loops["poller"],
        )
        sender = Sender(
            platform=self._platform,
            journal=self._journal,
            outbox=self._outbox,
            standing=self._standing,
            metrics=self._metrics,
            loop=loops["sender"],
        )
        enrolment = Enrolment(
            platform=self._platform,
            standing=self._standing,
            refresh_seconds=settings.config_refresh_seconds,
            metrics_seconds=settings.metrics_seconds,
            metrics=partial(system_metrics, clock, psutil.Process(), self._state.path),
            give_up=self._ending.give,
            loop=loops["config-refresh"],
        )
        heartbeat = Heartbeat(
            platform=self._platform,
            standing=self._standing,
            watchdog=self._watchdog,
            interval_seconds=settings.heartbeat_seconds,
            loop=loops["heartbeat"],
        )
        self._summary = Summary(
            self._tally,
            log,
            clock.monotonic,
            dropped=lambda: self._buffer.dropped_total,
            queued=self._tasks.waiting,
            running=self._tasks.running,
            journal=self._journal.counts,
        )
        secrets = {"JWT_FILE": settings.token, "SECURE_COMMAND_KEY_FILE": settings.secure_key}
        self._surroundings = Surroundings(
            secrets=secrets,
            read=lambda: (self._token.get(), self._keys.get()),
            clock_off=lambda: self._platform.rest.clock_off,
            stdout=self._logs.output,
            log=log,
            monotonic=clock.monotonic,
        )
        upkeep = Upkeep(
            journal=self._journal,
            disk=self._disk,
            interrupt=self._interrupt_receive,
            summarise=self._summary.turn,
            look_around=self._surroundings.look,
            loop=loops["upkeep"],
        )
        steps = {"config-refresh": enrolment.step, "heartbeat": heartbeat.step, "upkeep": upkeep.step}
        self._upload_trouble = UploadTrouble(log, clock.monotonic)
        self._threads = Threads(
            polling=Loop("poller", poller.step, self._stops.intake),
            fetchers=[once(f"fetcher-{place}", self._fetcher.run) for place in range(FETCHERS)],
            workers=[once(worker.name, worker.run) for worker in self._crew],
            uploaders=[once(f"uploader-{place}", self._uploader().run) for place in range(UPLOADERS)],
            telling=Loop("sender", sender.step, self._stops.telling),
            keeping=[Loop(name, step, self._stops.rest) for name, step in steps.items()],
            shipping=Loop("log-shipper", self._shipper.step, self._stops.rest),
        )

    def _build_pages(self) -> None:
        """The pages first: they say so where the disk keeps the journal from being opened."""
        settings, state = self._settings, self._state
        self._disk = Disk(state.path)
        self._identity = Identity(AGENT_VERSION, settings.agent_id, settings.org_slug, settings.api_target)
        self._waiting = Waiting(
            identity=self._identity,
            clock=self._clock,
            disk=self._disk,
            reader=Reader(state.journal, in_use=True),
            workers=settings.workers,
            capacity=settings.queue_size,
            token_ends=self._token_ends,
            log_lines=lambda: self._shipper.waiting,
            began=self._began,
        )
        self._metrics.watch(moments=self._waiting.moments)
        self._admin = Admin(self._waiting, self._metrics.render, settings.admin_endpoint, state.socket, self._log, self._lines.text)
        self._showing = Loop("admin", self._admin.step, self._stops.pages)

    def _serve_pages(self) -> None:
        if self._showing.ident is None:
            self._showing.start()

    def _show_all(self) -> None:
        settings, state = self._settings, self._state
        facts = Facts(
            identity=self._identity,
            clock=self._clock,
            pulses=self._pulses,
            threads=self._threads,
            others=self._activities,
            watchdog=self._watchdog,
            standing=self._standing,
            journal=self._journal,
            disk=self._disk,
            reader=Reader(state.journal, in_use=True),
            tasks=self._tasks,
            workers=settings.workers,
            untold=self._outbox.pending,
            throughput=self._metrics.throughput,
            name=lambda: self._platform.config.agent_name if self._platform.config else None,
            token_ends=self._token_ends,
            credentials_end=lambda: self._platform.credentials.expiration,
            logs=lambda: Logging(self._shipper.waiting, self._buffer.dropped_total, self._shipper.trouble, self._shipper.cause),
            stopping=self._stops.intake.is_set,
            also=self._also_wrong,
            began=self._began,
        )
        self._metrics.watch(
            queue_depth=self._tasks.waiting,
            workers_busy=self._tasks.running,
            workers=lambda: settings.workers,
            journal_bytes=self._disk.used,
            journal_commands=Reader(state.journal, in_use=True).counts,
            log_events_dropped=lambda: self._buffer.dropped_total,
            moments=facts.moments,
        )
        self._admin.show(facts)

    def _activities(self) -> dict[str, str]:
        """What the threads without a pulse are doing."""
        crew = {worker.name: "at work on a command" if worker.busy else "waiting for a command" for worker in self._crew}
        carriers = {loop.name: "fetches commands' bodies from S3" for loop in self._threads.fetchers}
        carriers |= {loop.name: "uploads large answers to S3" for loop in self._threads.uploaders}
        return crew | carriers | {self._threads.shipping.name: "ships log lines to CloudWatch"}

    def _also_wrong(self) -> list[Problem]:
        """What an administrator should know, and no loop's pulse tells."""
        found = []
        if self._journal.damage is not None:
            found.append(Problem(f"the journal was damaged, and set aside as {self._journal.damage.aside}", JOURNAL_DAMAGED))
        if self._journal.spoiled:
            found.append(Problem(f"{self._journal.spoiled} rows of the journal were damaged", JOURNAL_DAMAGED))
        if self._disk.backlog:
            found.append(Problem(f"more than {self._disk.backlog_bytes / 1e9:g} GB wait for the platform", BACKLOG))
        found += self._surroundings.problems()
        if self._token.unusable:
            found.append(Problem("the new token cannot be used", TOKEN_UNUSABLE))
        if self._keys.unusable:
            found.append(Problem("the new secure key cannot be used", KEYS))
        found += [trouble for trouble in (self._upload_trouble.problem, self._download_trouble.problem) if trouble is not None]
        found += [*self._admin.problems, *self._target_trouble.problems()]
        for name, nearest in self._unknown:
            guess = f"is it {nearest}?" if nearest else "none is like it"
            found.append(Problem(f"{name} is no variable of the agent", UNKNOWN_VARIABLES.about(names=name, nearest=guess)))
        return found

    def _token_ends(self) -> datetime | None:
        with contextlib.suppress(OSError, ValueError):
            return token_expiry(self._token.get())
        return None

    def _worker(self, name: str) -> Worker:
        settings = self._settings
        executor = Executor(
            Transport(self._to_targets, self._idle),
            Policy(admin=settings.admin_endpoint),
            self._proxies,
            Limits(settings.max_response_bytes, settings.connect_timeout_seconds),
            self._spool.directory,
            self._target_trouble,
        )
        return Worker(
            name=name,
            tasks=self._tasks,
            processor=self._processor,
            outcomes=self._outcomes,
            executor=executor,
            outbox=self._outbox,
            log=self._log,
            monotonic=self._clock.monotonic,
        )

    def _uploader(self) -> Uploader:
        return Uploader(
            platform=self._platform,
            outcomes=self._outcomes,
            spool=self._spool,
            outbox=self._outbox,
            trouble=self._upload_trouble,
            clock=self._clock,
            stop=self._stops.telling,
        )

    # --- running: the main thread ---

    def run(self) -> int:
        """Run until a signal or a reason to end; the exit code of OPERATIONS §1."""
        restore = self._logs.capture_libraries()
        self._freeze.keep_alive()
        settings = self._settings
        self._log.info(
            "agent-starting", version=AGENT_VERSION, agent=settings.agent_id, organisation=settings.org_slug, workers=settings.workers
        )
        self._say_what_was_found()
        self._serve_pages()
        try:
            self._recover()
            self._threads.start()
            self._supervise()
            return self._stop()
        finally:
            restore()
            self._freeze.disarm()

    def _say_what_was_found(self) -> None:
        """What an administrator must know of the settings and the state directory, before anything else is said."""
        for name, nearest in self._unknown:
            self._log.warning("unknown-setting", name=name, nearest=nearest)
        damage = self._journal.damage
        if damage is not None:
            self._log.error(
                "journal-damaged",
                reason=damage.reason,
                aside=damage.aside,
                salvaged=damage.salvaged,
                unreadable=list(damage.unreadable[:50]),
                complete=damage.complete,
                cause=JOURNAL_DAMAGED.cause,
                cure=JOURNAL_DAMAGED.cure,
            )
        if self._journal.spoiled:
            self._log.error("journal-rows-damaged", commands=self._journal.spoiled, cause=JOURNAL_DAMAGED.cause, cure=JOURNAL_DAMAGED.cure)
        point = faultpoints.armed()
        if point is not None:
            self._log.warning("fault-point-armed", point=point)

    def _recover(self) -> None:
        self._spool.remove_orphans(self._journal.spooled())

        def put(update: Update) -> None:
            self._freeze.keep_alive()
            self._outbox.put(update)

        tasks = self._intake.recover(put, self._say_set_aside)
        for task in tasks:
            self._gate.enqueue(task)
        if tasks or self._outbox.pending():
            self._log.info("recovered", commands=len(tasks), answers=self._outbox.pending())

    def _say_set_aside(self, command_id: str, error: Exception) -> None:
        self._log.error("command-set-aside", id=command_id, cause=NOT_TAKEN_UP.cause, cure=NOT_TAKEN_UP.cure, exc_info=error)

    def _supervise(self) -> None:
        while not self._ending.given.wait(RECHECK_SECONDS) and self._signals.count == 0:
            self._freeze.keep_alive()
            for loop in self._threads.core:
                if not loop.is_alive():
                    self._ending.give(EXIT_ERROR, f"the thread {loop.name} ended: {_kind(loop.error)}")
                    self._log.error("thread-died", thread=loop.name, exc_info=loop.error)
            verdict = self._watchdog.verdict()
            if verdict is not None:
                self._ending.give(EXIT_ERROR, f"no progress for {STUCK_SECONDS:g} s: {verdict}")

    # --- stopping: the main thread ---

    def _stop(self) -> int:
        """Stop in order, then let go of what no thread uses any more."""
        code, seconds = self._ending.code, self._settings.drain_seconds
        refused = code == EXIT_REFUSED
        if code:
            self._log.error("agent-giving-up", code=code, reason=self._ending.reason)
        else:
            self._log.info("agent-stopping", running=self._tasks.running(), waiting=self._tasks.waiting(), drain_seconds=seconds)
        stopping = Stopping(
            threads=self._threads,
            stops=self._stops,
            tasks=self._tasks,
            fetcher=self._fetcher,
            crew=self._crew,
            journal=self._journal,
            outbox=self._outbox,
            platform=self._platform,
            shipper=self._shipper,
            standing=self._standing,
            signals=self._signals,
            interrupt_receive=self._interrupt_receive,
            say_last=self._summary.last,
            log=self._log,
            clock=self._clock,
        )
        self._freeze.allow(seconds)
        stopping.run(min(REFUSED_SECONDS, seconds) if refused else seconds, code, report=not refused)
        self._close()
        return code

    def _interrupt_receive(self) -> None:
        if self._pulses["poller"].activity == "receiving":
            self._platform.break_off("poller")

    def _close(self) -> None:
        """Free what no thread uses any more; a thread that is stuck keeps its own, and ends with the process."""
        self._close_pages()
        if self._threads.over():
            self._platform.close()
            self._idle.close()
            within(ENDING_SECONDS, self._close_journal)
        self._state.close()

    def _close_pages(self) -> None:
        self._stops.pages.set()
        self._admin.wake()
        if self._showing.ident is not None:
            self._showing.join(ENDING_SECONDS)
        if not self._showing.is_alive():
            self._admin.close()

    def _close_journal(self) -> None:
        with contextlib.suppress(JournalError):  # A disk that takes nothing: what it has is what the next start finds.
            self._journal.close()


def _kind(error: BaseException | None) -> str:
    return type(error).__name__ if error is not None else "without an error"
