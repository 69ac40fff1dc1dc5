"""The end of an agent whose machine goes away for good: everything that its journal holds is answered, and the journal emptied.

The agent must be stopped. This module decides what each command is answered; how answers are sent is the sender's. No command runs.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from relay_agent.agent.shutdown import calls_aborted
from relay_agent.agent.signals import Signals
from relay_agent.agent.startup import log_findings, open_journal
from relay_agent.agent.thread_wiring import sender_loop, uploader_threads
from relay_agent.agent.threads import AgentThread, Stops
from relay_agent.agent.wiring import (
    Flow,
    Platform,
    Telemetry,
    build_flow,
    build_network,
    build_platform,
    build_secrets,
    build_storage,
    build_telemetry,
)
from relay_agent.config.secrets import check_token
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Clock, Deadline
from relay_agent.core.errors import JournalError, PlatformError, RateLimited
from relay_agent.core.failures import Cause, Code
from relay_agent.core.loop import Backoff
from relay_agent.core.models import HttpRequest, Update
from relay_agent.diagnostics.platform_causes import AGENT_DISABLED, QUEUE_DISABLED, cause_of
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.relay.ownership import id_of
from relay_agent.relay.task import INTERRUPTED, Refusal, Task
from relay_agent.storage.state_directory import StateDirectory
from relay_agent.tdp.client import AgentDisabled, PlatformClient, QueueDisabled
from relay_agent.tdp.sqs import BATCH, Received

ANSWER_SECONDS = 90.0
"""How long the platform may be unreachable, and the answers may take, besides the time for which messages may be hidden."""
NEVER_STARTED = "the agent was shut down for good before this command started; nothing was sent to the target, so send the command again"
NO_ANSWER = "the agent was shut down for good before this command had an answer; nothing that asks for a change was sent: send it again"
INTERRUPTED_BY_SIGNAL = "interrupted by a signal"
RECEIVE_SECONDS = 1
_STEP_SECONDS = 0.02
_ENDING_SECONDS = 1.0
"""How long a call to the platform may go on after a signal, or after the time is over."""


@dataclass(slots=True)
class Retired:
    """The number of commands in the journal, grouped by the answer that their senders get."""

    ended: int = 0
    """Finished commands: their own answer."""
    shutdown: int = 0
    """Commands that never started: ESHUTDOWN."""
    interrupted: int = 0
    """Commands whose request may have reached the target: EINTERRUPTED."""
    ceded: int = 0
    """Commands of a shared queue that are left to other agents."""
    unsent: int = 0
    """Answers that could not be sent."""
    undeleted: int = 0
    """Commands whose messages may still be in the queue, so that another agent may run them again."""
    problem: str | None = None
    """Why some answers were not sent, or some messages not deleted; None if all were."""
    cause: Cause | None = None
    damaged: bool = False
    """Whether commands of a damaged journal could not be read, and so stay unanswered; the log says what is known of them."""


class Retirement:
    """Retires the agent of one state directory. One object for one run, on the main thread."""

    def __init__(
        self, settings: Settings, *, clock: Clock | None = None, stream: TextIO | None = None, signals: Signals | None = None
    ) -> None:
        """Take the state directory and open its journal; nothing is sent before `run`. Log lines go to `stream`, stderr by default.

        Raises:
            TokenExpired, ConfigurationError, StateDirectoryBusy, JournalError: see `core.errors`.
        """
        self._clock = clock = clock or Clock()
        self._signals = signals or Signals()
        check_token(settings.token.get(), clock.now)
        self._directory = StateDirectory(settings.state_dir)
        self._settings = settings
        self._strangers: dict[str, Received] = {}
        """Received messages that this agent does not know, by their SQS ids. Held, so that the queue can be found empty."""
        self._senders: list[AgentThread] = []
        self._stops = Stops()
        self._telemetry: Telemetry = build_telemetry(settings, clock, stream or sys.stderr)
        secrets = build_secrets(settings, self._telemetry)
        network = build_network(settings, self._telemetry)
        self._platform: Platform = build_platform(settings, self._telemetry, secrets, network)
        storage = build_storage(self._directory, self._telemetry)
        tasks: FairQueue[Task] = FairQueue(settings.queue_size, settings.workers)
        journal = open_journal(storage, clock, self._signals, in_flight=tasks.running, waiting=lambda _obstacle: None)
        self._flow: Flow = build_flow(settings, self._stops, self._telemetry, secrets, self._platform, storage, tasks, journal)

    def run(self, seconds: float | None = None) -> Retired:
        """Answer everything within about `seconds`, and empty the journal of what was answered.

        By default there is time for the messages to come again, and then for the answers.

        Raises:
            JournalError: the journal cannot be read or written.
        """
        if seconds is None:
            seconds = ANSWER_SECONDS + self._flow.inbound.lease.hidden_seconds()
        damage = self._flow.journal.damage
        retired = Retired(damaged=bool(self._flow.journal.nameless) or (damage is not None and not damage.complete))
        log_findings(self._telemetry.log, self._flow.journal, ())
        deadline = Deadline(seconds, self._clock.monotonic)
        try:
            kinds = self._resume()
            before = self._flow.inbound.ownership.claimed_ids()
            try:
                with calls_aborted(self._platform.client, self._interrupted()):
                    self._connect(retired, deadline)
            finally:
                with calls_aborted(self._platform.client, self._interrupted()):
                    self._give_strangers_back()
            self._count(retired, kinds, before)
            if self._platform.status.registered:
                self._finish_sending(deadline)
            counts = self._flow.journal.counts()
            retired.unsent = counts["admitted"] + counts["started"] + counts["finished"]
            if retired.unsent and retired.problem is None:
                interrupted = self._signals.count > 0
                retired.problem = INTERRUPTED_BY_SIGNAL if interrupted else f"the platform did not take every answer within {seconds:g} s"
            if not retired.unsent and not retired.undeleted:
                self._flow.journal.retention.forget_everything()
        finally:
            self._close()
        return retired

    # --- what each command is answered ---

    def _resume(self) -> dict[str, str]:
        """Make an answer of each command that the journal holds; return the field of `Retired` that counts each.

        A command whose message may still be in the queue is answered once SQS has deleted that: another agent could run it.
        """
        ownership = self._flow.inbound.ownership
        if not self._settings.shared_queue:  # Otherwise it has them already.
            ownership.inherit()
        kinds: dict[str, str] = {}

        def put(answer: Update | Refusal) -> None:
            kinds[id_of(answer)] = {Code.EINTERRUPTED: "interrupted", Code.ESHUTDOWN: "shutdown"}.get(answer.code or Code.EPIPE, "ended")
            ownership.resume(answer)

        for task in self._flow.inbound.intake.recover(put, lambda *_: None):
            put(_refusal(task))
        self._flow.journal.flush()
        return kinds

    def _count(self, retired: Retired, kinds: dict[str, str], claimed: set[str]) -> None:
        """Count what became of each command."""
        journal, still = self._flow.journal, self._flow.inbound.ownership.claimed_ids()
        journal.flush()
        ceded = claimed - still - journal.known(claimed)
        retired.ceded = len(ceded)
        for command_id, kind in kinds.items():
            if command_id not in still | ceded:
                setattr(retired, kind, getattr(retired, kind) + 1)

    # --- the platform ---

    def _connect(self, retired: Retired, deadline: Deadline) -> None:
        """Read the configuration, let answers be sent, and delete every message of the journal's commands.

        Tries again while that cannot be done.
        """
        client, waits, connected = self._platform.client, Backoff(), False
        while True:
            wait = 0.0
            try:
                if not connected:
                    client.refresh_config()
                    client.credentials.renew(None)
                    self._platform.status.registered = connected = True
                    self._start_sending()
                retired.problem, retired.cause = None, None
                if self._all_deleted(client):
                    return
                retired.problem = "messages of its commands may still be in the queue, and another agent would run them again"
                if self._flow.inbound.ownership.failing:
                    connected, wait = False, waits.next_seconds()
            except PlatformError as error:
                connected = False
                wait = waits.next_seconds(error.retry_after if isinstance(error, RateLimited) else 0.0)
                retired.problem, retired.cause = str(error), _cause_of(error)
            over = deadline.remaining() <= wait
            if over or self._signals.wait(wait):
                if not over:
                    retired.problem, retired.cause = INTERRUPTED_BY_SIGNAL, None
                retired.undeleted = len(
                    self._flow.inbound.ownership.claimed_ids() | {command_id for command_id, _ in self._flow.journal.unacked()}
                )
                return

    def _all_deleted(self, client: PlatformClient) -> bool:
        """Delete the messages of the journal's commands; return whether none is left."""
        ownership, journal = self._flow.inbound.ownership, self._flow.journal

        def over() -> bool:
            return not ownership.claimed_ids() and not journal.unacked()

        if over():
            return True
        queue = client.inbound()
        ownership.catch_up(queue)
        if not ownership.awaited():
            return over()
        # SQS refuses a receipt whose lease is over: only a new receipt can delete the message then.
        received = ownership.receive(queue, BATCH, RECEIVE_SECONDS)
        ids = [self._flow.inbound.intake.command_id(message.body) for message in received]
        self._strangers |= {message.message_id: message for message in ownership.recognise(queue, ids, received)}
        return over()

    def _give_strangers_back(self) -> None:
        """Make SQS deliver the messages of other commands again."""
        if self._strangers:
            with contextlib.suppress(PlatformError):  # Then they come back when their leases end.
                self._flow.inbound.ownership.give_back(self._platform.client.inbound(), list(self._strangers.values()))

    def _start_sending(self) -> None:
        """Let uploaders and sender deliver the answers, also while the messages of other commands are waited for."""
        if not self._senders:
            self._senders = uploader_threads(self._stops, self._telemetry, self._platform, self._flow)
            self._senders.append(sender_loop(self._stops, self._telemetry, self._platform, self._flow))
            for thread in self._senders:
                thread.loop.start()

    def _finish_sending(self, deadline: Deadline) -> None:
        """Wait until the answers are delivered, and end the threads."""
        outbox = self._flow.outbox
        outbox.drain()
        while outbox.pending() and not deadline.passed and not self._signals.count:
            self._stops.housekeeping.wait(_STEP_SECONDS)
        self._end_sending(max(_ENDING_SECONDS, deadline.remaining()))
        self._flow.journal.flush()

    def _end_sending(self, seconds: float) -> None:
        """End the threads that deliver answers; abort their calls after `seconds`, or `_ENDING_SECONDS` after a signal."""
        self._stops.answers.set()
        for thread in self._senders:
            thread.end()
        limit = Deadline(seconds, self._clock.monotonic)
        while any(thread.loop.is_alive() for thread in self._senders) and not limit.passed:
            if self._signals.count:
                limit = limit.at_most(_ENDING_SECONDS)
            self._stops.housekeeping.wait(_STEP_SECONDS)
        alive = [thread.loop for thread in self._senders if thread.loop.is_alive()]
        for loop in alive:
            self._platform.client.abort_call(loop.name)
        for loop in alive:
            loop.join(_ENDING_SECONDS)
        self._senders = []

    def _interrupted(self) -> Callable[[], bool]:
        """Return what tells whether a signal came `_ENDING_SECONDS` ago: a call that does not hang ends by itself until then."""
        limit = Deadline(math.inf, self._clock.monotonic)

        def passed() -> bool:
            nonlocal limit
            if self._signals.count:
                limit = limit.at_most(_ENDING_SECONDS)
            return limit.passed

        return passed

    def _close(self) -> None:
        self._end_sending(_ENDING_SECONDS)
        self._platform.client.close()
        with contextlib.suppress(JournalError):  # What it holds is found by the next try.
            self._flow.journal.close()
        self._directory.close()


def _cause_of(error: PlatformError) -> Cause:
    if isinstance(error, AgentDisabled):
        return AGENT_DISABLED
    return QUEUE_DISABLED if isinstance(error, QueueDisabled) else cause_of(error)


def _refusal(task: Task) -> Refusal:
    request = task.request if isinstance(task.request, HttpRequest) else None
    if task.started:
        return Refusal(task.command, INTERRUPTED, Code.EINTERRUPTED, request)
    # The start of a harmless request is recorded with the next commit, which a crash may have prevented. One that is not known, such as
    # one whose body must be downloaded, may be harmless.
    never_started = request is not None and not request.harmless
    return Refusal(task.command, NEVER_STARTED if never_started else NO_ANSWER, Code.ESHUTDOWN, request)
