"""The agent: builds every part from the settings, starts and stops the threads in order, supervises them.

This room owns what is wired to what, and the order of starting and stopping. It must not hold rules about
commands.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TextIO, cast

import psutil

from relay_agent import AGENT_VERSION, __version__, faultpoints
from relay_agent.causes import JOURNAL, JOURNAL_DAMAGED, KEYS
from relay_agent.clock import Clock, Deadline
from relay_agent.codec import ACTION_SECURE, ACTIONS_PLAIN
from relay_agent.config import Settings, check_token
from relay_agent.dialer import Dialer
from relay_agent.disk import Disk
from relay_agent.enrolment import Enrolment
from relay_agent.errors import JournalError, JournalUnwritable, PlatformError
from relay_agent.executor import Executor, Limits
from relay_agent.fair_queue import FairQueue
from relay_agent.fetcher import Fetcher
from relay_agent.heartbeat import Heartbeat
from relay_agent.idle import IdlePool
from relay_agent.journal import Journal
from relay_agent.outbox import Outbox
from relay_agent.periodic import Loop
from relay_agent.policy import Policy
from relay_agent.poller import NO_DISK_SECONDS, Poller
from relay_agent.proxies import Proxies, Trust
from relay_agent.pulse import Pulse
from relay_agent.relay import Relay, Task
from relay_agent.resolver import Resolver
from relay_agent.secrets_source import SecretSource
from relay_agent.secure import Keyring
from relay_agent.sender import Sender
from relay_agent.signals import Signals
from relay_agent.sockets import ClockedSSLSocket
from relay_agent.spool import Spool
from relay_agent.standing import Standing
from relay_agent.statedir import StateDirectory
from relay_agent.tdp.client import PlatformClient
from relay_agent.tdp.http import PlatformHttp
from relay_agent.telemetry.cloudwatch import LogShipper, stream_name
from relay_agent.telemetry.log_buffer import LogBuffer
from relay_agent.telemetry.logs import Logger, Logs
from relay_agent.telemetry.metrics import Metrics, system_metrics
from relay_agent.telemetry.redact import Redactor
from relay_agent.telemetry.repeated import RepeatedFailure
from relay_agent.telemetry.summary import Summary, Tally
from relay_agent.transport import Transport
from relay_agent.upkeep import Upkeep
from relay_agent.uploader import Uploader, UploadTrouble
from relay_agent.watchdog import STUCK_SECONDS, Watchdog
from relay_agent.worker import Worker, tell

FETCHERS = 2
UPLOADERS = 2
LOOK_SECONDS = 0.1
EXIT_REFUSED = 3
INTERRUPT_SECONDS = 1.0
FAREWELL_SECONDS = 3.0
"""Of the drain's time, what is kept for telling answers, STOPPED and the last log lines."""
REPORT_SECONDS = 2.0
"""Of that, for STOPPED and the log."""
EXIT_SECONDS = 0.5
"""And of that, for the exit itself."""
ENDING_SECONDS = 0.5
"""How long a call to the platform may take that is under way when its thread is told to end."""


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
        self._signals = signals or Signals()
        self._unknown = unknown
        check_token(settings.token.get(), self._clock.now)
        self._state = StateDirectory(settings.state_dir)
        self._ending = Ending()
        self._stop_intake = threading.Event()
        self._stop_telling = threading.Event()
        self._stop_rest = threading.Event()
        self._look_again = threading.Event()
        self._build_telemetry(stream)
        self._build_platform()
        self._build_flow()
        self._build_threads()

    # --- building ---

    def _build_telemetry(self, stream: TextIO | None) -> None:
        self._redactor = Redactor()
        self._buffer = LogBuffer()
        self._logs = Logs(self._settings.log_level, self._redactor, self._buffer, stream or sys.stdout, self._clock)
        self._log = self._logs.logger
        self._metrics = Metrics(__version__, [*ACTIONS_PLAIN, ACTION_SECURE])
        self._tally = Tally()
        settings = self._settings
        self._token = _Watched(settings.token, partial(self._redactor.rotate, "jwt"))
        self._keys = _Keys(settings.secure_key, partial(self._redactor.rotate, "keys"), self._log)
        # Now, not at the first use: a file that is gone or half written by then leaves what was read here, and no line shows either.
        self._token.get()
        self._keys.get()
        for proxy in (settings.http_proxy, settings.https_proxy, settings.all_proxy, settings.platform_proxy, settings.target_proxy):
            if proxy and "@" in proxy:
                userinfo = proxy.partition("://")[2].rpartition("@")[0]
                self._redactor.add(userinfo, userinfo.partition(":")[2])

    def _build_platform(self) -> None:
        settings = self._settings
        self._proxies = Proxies.from_settings(settings)
        self._idle = IdlePool()
        self._dialer = Dialer(Trust.from_settings(settings, sslsocket_class=ClockedSSLSocket), Resolver())
        self._platform = PlatformClient(
            PlatformHttp(lambda: Transport(self._dialer), self._proxies),
            api_target=settings.api_target,
            org_slug=settings.org_slug,
            agent_id=settings.agent_id,
            token=self._token.get,
            endpoint_url=settings.aws_endpoint_url,
            max_body_bytes=settings.max_request_bytes,
            clock=self._clock,
            seen_secrets=self._seen_credentials,
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
        )

    def _seen_credentials(self, *secrets: str) -> None:
        """Each new set of AWS credentials, whoever fetched it, before it is used."""
        self._tally.count("credential_refreshes")
        self._redactor.rotate("aws", *secrets)

    def _build_flow(self) -> None:
        settings, clock = self._settings, self._clock
        self._tasks: FairQueue[Task] = FairQueue(settings.queue_size, settings.workers)
        self._disk = Disk(self._state.path)
        self._journal = self._open_journal()
        self._disk.look()
        self._spool = Spool(self._state.spool)
        self._outbox = Outbox(clock, lambda: self._tasks.running() + self._tasks.waiting())
        self._relay = Relay(
            agent_id=settings.agent_id,
            journal=self._journal,
            spool=self._spool,
            payloads=self._platform.payloads,
            keyring=self._keys.get,
            clock=clock,
            default_seconds=settings.request_timeout_seconds,
        )

        self._fetcher = Fetcher(relay=self._relay, enqueue=lambda task: self._tasks.put((task.lane, task)), stop=self._stop_intake)

    def _open_journal(self) -> Journal:
        """Open the journal, and wait for a disk that does not let it be opened: a full one is no reason to end.

        Raises:
            JournalError: it cannot be opened for another reason, or a signal ended the wait.
        """
        log = self._log.bind(directory=str(self._state.path))
        self._full = trouble = RepeatedFailure(log, "disk-full", "disk-freed", self._clock.monotonic, remind_seconds=300.0)
        while True:
            try:
                journal = Journal(self._state.journal, self._clock, others=self._tasks.running, make_room=self._disk.make_room)
            except JournalUnwritable as error:
                trouble.failure(str(error), cause=JOURNAL.cause, cure=JOURNAL.cure)
                if self._signals.count or self._stop_rest.wait(NO_DISK_SECONDS):
                    raise
            else:
                trouble.success()
                return journal

    def _build_threads(self) -> None:
        settings, clock, log = self._settings, self._clock, self._log
        self._standing = Standing()
        self._pulses = {name: Pulse(clock) for name in ("poller", "sender", "heartbeat", "config-refresh", "upkeep")}
        self._crew = [self._worker(f"worker-{place}") for place in range(settings.workers)]
        self._watchdog = Watchdog(
            loops=self._pulses,
            polling=self._pulses["poller"],
            sending=self._pulses["sender"],
            workers=self._crew,
            journal=self._journal,
            disk=self._disk,
            standing=self._standing,
            draining=lambda: self._stop_intake.is_set() and self._ending.code == 0,
        )
        poller = Poller(
            platform=self._platform,
            relay=self._relay,
            journal=self._journal,
            room=self._room,
            obstacle=lambda: self._journal.unwritable or self._disk.obstacle,
            enqueue=self._enqueue,
            outbox=self._outbox,
            pulse=self._pulses["poller"],
            tally=self._tally,
            full=self._full,
            log=log,
            monotonic=clock.monotonic,
            standing=self._standing,
            stopping=self._stop_intake.is_set,
            look_again=self._look_again,
        )
        sender = Sender(
            platform=self._platform,
            journal=self._journal,
            outbox=self._outbox,
            pulse=self._pulses["sender"],
            tally=self._tally,
            log=log,
            monotonic=clock.monotonic,
            standing=self._standing,
            look_again=self._look_again,
        )
        enrolment = Enrolment(
            platform=self._platform,
            standing=self._standing,
            pulse=self._pulses["config-refresh"],
            tally=self._tally,
            log=log,
            clock=clock,
            refresh_seconds=settings.config_refresh_seconds,
            metrics_seconds=settings.metrics_seconds,
            metrics=partial(system_metrics, clock, psutil.Process(), self._state.path),
            give_up=self._ending.give,
            look_again=self._look_again,
        )
        heartbeat = Heartbeat(
            platform=self._platform,
            standing=self._standing,
            watchdog=self._watchdog,
            pulse=self._pulses["heartbeat"],
            tally=self._tally,
            log=log,
            clock=clock,
            interval_seconds=settings.heartbeat_seconds,
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
        upkeep = Upkeep(
            journal=self._journal,
            disk=self._disk,
            interrupt=self._interrupt_receive,
            summarise=self._summary.turn,
            pulse=self._pulses["upkeep"],
            log=log,
            monotonic=clock.monotonic,
        )
        self._polling = Loop("poller", poller.step, self._stop_intake)
        self._telling = Loop("sender", sender.step, self._stop_telling)
        steps = {"config-refresh": enrolment.step, "heartbeat": heartbeat.step, "upkeep": upkeep.step}
        self._keeping = [Loop(name, step, self._stop_rest) for name, step in steps.items()]
        self._shipping = Loop("log-shipper", self._shipper.step, self._stop_rest)
        self._workers = [_once(worker.name, worker.run) for worker in self._crew]
        self._fetchers = [_once(f"fetcher-{place}", self._fetcher.run) for place in range(FETCHERS)]
        self._upload_trouble = UploadTrouble(log, clock.monotonic)
        self._uploaders = [_once(f"uploader-{place}", self._uploader().run) for place in range(UPLOADERS)]

    def _worker(self, name: str) -> Worker:
        settings = self._settings
        executor = Executor(
            Transport(self._dialer, self._idle),
            Policy(admin=settings.admin_endpoint),
            self._proxies,
            Limits(settings.max_response_bytes, settings.connect_timeout_seconds),
            self._spool.directory,
        )
        return Worker(
            name=name,
            tasks=self._tasks,
            relay=self._relay,
            executor=executor,
            outbox=self._outbox,
            log=self._log,
            metrics=self._metrics,
            tally=self._tally,
            monotonic=self._clock.monotonic,
        )

    def _uploader(self) -> Uploader:
        return Uploader(
            platform=self._platform,
            journal=self._journal,
            spool=self._spool,
            outbox=self._outbox,
            trouble=self._upload_trouble,
            log=self._log,
            clock=self._clock,
            stop=self._stop_telling,
        )

    # --- running: the main thread ---

    def run(self) -> int:
        """Run until a signal or a reason to end; the exit code of OPERATIONS §1."""
        restore = self._logs.capture_libraries()
        settings = self._settings
        self._log.info(
            "agent-starting", version=AGENT_VERSION, agent=settings.agent_id, organisation=settings.org_slug, workers=settings.workers
        )
        self._say_what_was_found()
        try:
            self._recover()
            for loop in [*self._keeping, self._shipping, self._telling, *self._uploaders, *self._workers, *self._fetchers, self._polling]:
                loop.start()
            self._supervise()
            return self._stop()
        finally:
            restore()

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
        left = self._relay.recover()
        for update in left.updates:
            self._outbox.put(update)
        for task in left.tasks:
            self._enqueue(task)
        for report in left.answered:
            tell(self._log, self._metrics, report)
            self._tally.finished(report.status)
        if left.tasks or left.updates:
            self._log.info("recovered", commands=len(left.tasks), answers=len(left.updates))

    def _room(self) -> int:
        """How many commands may be taken in."""
        return 0 if self._disk.backlog else self._tasks.free() - self._fetcher.waiting()

    def _enqueue(self, task: Task) -> None:
        """Send a task on its way to the workers, past the fetchers where its body is elsewhere."""
        if task.elsewhere:
            self._fetcher.put(task)
        else:
            self._tasks.put((task.lane, task))

    def _supervise(self) -> None:
        core = [self._polling, self._telling, *self._keeping, *self._fetchers, *self._workers, *self._uploaders]
        while not self._ending.given.wait(LOOK_SECONDS) and self._signals.count == 0:
            for loop in core:
                if not loop.is_alive():
                    self._ending.give(1, f"the thread {loop.name} ended: {_kind(loop.error)}")
                    self._log.error("thread-died", thread=loop.name, exc_info=loop.error)
            verdict = self._watchdog.verdict()
            if verdict is not None:
                self._ending.give(1, f"no progress for {STUCK_SECONDS:g} s: {verdict}")

    # --- stopping: the main thread ---

    def _stop(self) -> int:
        """Stop in order, all against one deadline: intake, workers, answers, STOPPED, logs."""
        seconds = self._settings.drain_seconds
        drain = Deadline(min(5.0, seconds) if self._ending.code == EXIT_REFUSED else seconds, self._clock.monotonic)
        self._say_stopping(drain)
        over = self._bound(drain)
        self._stop_intake.set()
        for _ in self._fetchers:
            self._fetcher.close()
        self._tasks.close()
        self._join(self._workers, drain, keep=min(FAREWELL_SECONDS, drain.seconds / 3))
        cut_off = self._break_off()
        self._end_polling()
        self._join(self._fetchers, drain, at_most=1.0)
        self._tell_the_rest(drain)
        self._stop_rest.set()
        self._end(self._keeping, drain)
        if self._standing.enrolled and self._ending.code != EXIT_REFUSED:
            self._report_stopped()
        counts = self._counts()
        self._summary.last()
        self._log.info("agent-stopped", code=self._ending.code, running=cut_off, **counts)
        self._end([self._shipping], drain)
        if self._standing.enrolled and not self._shipping.is_alive():
            self._flush_logs(min(REPORT_SECONDS, max(0.2, drain.remaining() - EXIT_SECONDS)))
        over.set()
        self._close()
        return self._ending.code

    def _flush_logs(self, seconds: float) -> None:
        """Ship what waits; a CloudWatch that hangs holds up the exit no longer than that, however much is left of the drain."""
        over = self._bound(Deadline(seconds, self._clock.monotonic))
        self._shipper.flush(seconds)
        over.set()

    def _bound(self, drain: Deadline) -> threading.Event:
        """Break off this thread's own calls shortly before the drain is over: a platform that hangs must not hold up the exit.

        Set what is returned at the end.
        """
        over, name = threading.Event(), threading.current_thread().name
        keep = min(EXIT_SECONDS, drain.seconds / 4)

        def watch() -> None:
            while not over.wait(LOOK_SECONDS):
                if drain.remaining() < keep:
                    self._platform.break_off(name)

        threading.Thread(target=watch, name="drain", daemon=True).start()
        return over

    def _break_off(self) -> int:
        """End what outlasts the drain: a request that may not run again is answered EINTERRUPTED, another left to the next start.

        How many they were.
        """
        cut_off = self._tasks.running()
        self._journal.give_up()
        for worker in self._crew:
            worker.interrupt()
        limit = Deadline(INTERRUPT_SECONDS, self._clock.monotonic)
        self._join(self._workers, limit)
        return cut_off

    def _end_polling(self) -> None:
        """Break off the open receive; what was received already is still taken in and acknowledged."""
        limit = Deadline(1.0, self._clock.monotonic)
        while self._polling.is_alive() and not limit.passed:
            self._interrupt_receive()
            self._polling.join(LOOK_SECONDS / 2)

    def _interrupt_receive(self) -> None:
        if self._pulses["poller"].activity == "receiving":
            self._platform.break_off("poller")

    def _say_stopping(self, drain: Deadline) -> None:
        if self._ending.code:
            self._log.error("agent-giving-up", code=self._ending.code, reason=self._ending.reason)
        else:
            self._log.info("agent-stopping", running=self._tasks.running(), waiting=self._tasks.waiting(), drain_seconds=drain.seconds)

    def _tell_the_rest(self, drain: Deadline) -> None:
        for _ in self._uploaders:
            self._outbox.uploads.put(None)
        self._outbox.hurry()
        keep = min(REPORT_SECONDS, drain.seconds / 3)
        while self._standing.enrolled and self._outbox.pending() and self._telling.is_alive():
            if drain.remaining() < keep or self._signals.count >= 2:
                break
            self._stop_rest.wait(0.02)
        self._stop_telling.set()
        self._end([*self._uploaders, self._telling], drain)

    def _report_stopped(self) -> None:
        try:
            self._platform.rest.report("STOPPED")
        except PlatformError as error:
            self._log.warning("stop-not-reported", reason=str(error))

    def _counts(self) -> dict[str, int]:
        try:
            counts = self._journal.counts()
        except JournalError:
            return {}
        return {"left": counts["admitted"] + counts["started"], "untold": counts["finished"]}

    def _join(self, loops: list[Loop], drain: Deadline, *, keep: float = 0.0, at_most: float | None = None) -> None:
        """Wait for threads until the drain's end less `keep`, and no longer than `at_most`; a second signal ends the wait."""
        limit = Deadline(max(0.0, drain.remaining() - keep) if at_most is None else at_most, self._clock.monotonic)
        for loop in loops:
            while loop.is_alive() and not limit.passed and self._signals.count < 2:
                loop.join(min(LOOK_SECONDS, limit.remaining()))

    def _end(self, loops: list[Loop], drain: Deadline) -> None:
        """Wait for threads that were told to end; one that hangs in a call to the platform is broken off."""
        self._join(loops, drain, at_most=min(ENDING_SECONDS, drain.seconds / 10))
        for loop in loops:
            if loop.is_alive():
                self._platform.break_off(loop.name)
        self._join(loops, drain, at_most=ENDING_SECONDS)

    def _close(self) -> None:
        """Free what no thread uses any more; a thread that is stuck keeps its own, and ends with the process."""
        loops = [self._polling, self._telling, self._shipping, *self._keeping, *self._fetchers, *self._workers, *self._uploaders]
        if not any(loop.is_alive() for loop in loops):
            self._platform.close()
            self._idle.close()
            with contextlib.suppress(JournalError):  # A disk that takes nothing: what it has is what the next start finds.
                self._journal.close()
        self._state.close()


class _Watched:
    """A secret whose every new value is made known to the redactor before it is used."""

    def __init__(self, source: SecretSource, seen: Callable[[str], None]) -> None:
        self._source = source
        self._seen = seen
        self._last = ""

    def get(self) -> str:
        value = self._source.get()
        if value != self._last:
            self._seen(value)
            self._last = value
        return value


class _Keys:
    """The keyring, made again when the keys' file changed; one that holds no key any more leaves the old in place, and is said once."""

    def __init__(self, source: SecretSource, seen: Callable[..., None], log: Logger) -> None:
        self._source = source
        self._seen = seen
        self._log = log
        self._text: str | None = None
        self._unusable: str | None = None
        self._keyring = Keyring([])

    def get(self) -> Keyring:
        text = self._source.get() if self._source.given else ""
        if text != self._text:
            try:
                keyring = Keyring.from_text(text)
            except ValueError as error:
                if text != self._unusable:
                    self._unusable = text
                    self._log.warning("secure-key-unusable", reason=str(error), cause=KEYS.cause, cure=KEYS.cure)
                return self._keyring
            self._seen(text, *[part.strip() for part in text.split(",") if part.strip()])
            self._keyring, self._text = keyring, text
        return self._keyring


def _once(name: str, run: Callable[[], None]) -> Loop:
    """A thread whose one step is its whole life."""
    done = threading.Event()

    def step() -> float:
        try:
            run()
        finally:
            done.set()
        return 0.0

    return Loop(name, step, done)


def _kind(error: BaseException | None) -> str:
    return type(error).__name__ if error is not None else "without an error"
