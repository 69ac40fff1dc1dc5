"""How one command runs: whether it may start, how long it may take, and what its outcome counts as.

`worker` decides when and on which thread, `executor` calls the target, `outcomes` records the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from relay_agent.core.clock import DAY_SECONDS, Clock, Deadline
from relay_agent.core.errors import Interrupted
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code
from relay_agent.core.models import Command, Failure, HttpRequest, HttpResponse, Status, Update, may_repeat
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.outcomes import Outcomes, Result
from relay_agent.relay.payload_reader import PayloadReader
from relay_agent.relay.target.executor import Executor
from relay_agent.relay.task import INTERRUPTED, Task
from relay_agent.storage.journal import Journal
from relay_agent.storage.spool import Spool

RECORD_SECONDS = 2.0
"""The least time for encoding an answer whose last byte arrived in time."""
MOST_SECONDS = DAY_SECONDS
"""The longest time limit of one command (PROTOCOL §3)."""
_SENT_BEFORE = "(on the repeat after a restart of the agent; an earlier try may have reached the target)"
_NOT_STARTED = "the command expired before it could start"
_TOO_LATE = f"{_NOT_STARTED}: its own not_after, or a secure command's exp, has passed"


@dataclass(slots=True)
class _Start:
    """Whether the journal has recorded that a command's request may have been sent."""

    recorded: bool


class Processor:
    """Runs commands. Shared by all workers; immutable."""

    def __init__(
        self,
        *,
        journal: Journal,
        spool: Spool,
        reader: PayloadReader,
        outcomes: Outcomes,
        keyring: Callable[[], Keyring],
        clock: Clock,
        default_seconds: float,
    ) -> None:
        """`default_seconds` is the time limit of a command that has neither an expiry nor a timeout."""
        self._journal = journal
        self._spool = spool
        self._reader = reader
        self._outcomes = outcomes
        self._keyring = keyring
        self._clock = clock
        self._default_seconds = default_seconds

    # --- a worker's thread ---

    def process(self, task: Task, executor: Executor) -> Update:
        """Run a command and return its answer, recorded or about to be recorded in the journal (`Journal.finish`).

        Raises:
            Interrupted: the agent's stop ended it; the next start runs it again.
            JournalError: the outcome could not be recorded; the command stays unfinished in the journal.
        """
        begun = self._clock.monotonic()
        try:
            result = self._run(task, executor)
        finally:
            if task.body is not None:
                self._spool.remove(task.body)
        return self._outcomes.record(task, result, begun)

    # --- details ---

    def _run(self, task: Task, executor: Executor) -> Result:
        if task.expired(self._clock.now()):
            if task.started:
                return _interrupted()
            if not _unknown(task):
                return Result(Status.REJECTED, Failure(Code.EEXPIRED, _NOT_STARTED))
        request = task.request if task.request is not None else self._reader.read(task, self._spool.hold)
        try:
            return self._check_and_send(task, request, executor)
        finally:
            _free(request)

    def _check_and_send(self, task: Task, request: HttpRequest | Failure, executor: Executor) -> Result:
        if task.started and (isinstance(request, Failure) or self._lacks_key(request)):
            # The last run may have sent it, even if it cannot be decoded now.
            return _interrupted()
        if isinstance(request, Failure):
            return Result(Status.REJECTED if request.code == Code.UNKNOWN_COMMAND else Status.FAILURE, request)
        if self._lacks_key(request):
            # Before anything is sent: an answer that cannot be encrypted must not be requested.
            return Result(Status.FAILURE, Failure(Code.ENOKEY, "encrypt_response needs a key, and this agent has no SECURE_COMMAND_KEY"))
        if request.not_after is not None and request.not_after <= self._clock.now():
            if task.started:
                return _interrupted(request)
            return Result(Status.REJECTED, Failure(Code.EEXPIRED, _TOO_LATE), request)
        return self._send(task, request, executor)

    def _send(self, task: Task, request: HttpRequest, executor: Executor) -> Result:
        repeatable = may_repeat(request.method, request.headers)
        deadline = Deadline(self._seconds(task.command, request), self._clock.monotonic)
        begun = _Start(task.started)

        def start() -> None:
            self._journal.start(task.command.id, repeatable, wait=not request.harmless)
            begun.recorded = True
            reach(Point.STARTED)

        try:
            outcome = executor.execute(request, deadline, start)
        except Interrupted:
            if not begun.recorded or repeatable:
                raise
            # It must not run again, so it is answered now and not at the next start.
            failure = Failure(Code.EINTERRUPTED, INTERRUPTED, str(request.url), int(deadline.elapsed() * 1000))
            return Result(Status.FAILURE, failure, request)
        reach(Point.ANSWERED)
        if task.started and isinstance(outcome, Failure):
            outcome = replace(outcome, message=f"{outcome.message} {_SENT_BEFORE}")
        succeeded = isinstance(outcome, HttpResponse) and outcome.status_code < 400
        # An answer that arrived in time gets at least RECORD_SECONDS more. Encoding is limited too: its duration depends on the content.
        grace = Deadline(max(deadline.remaining(), RECORD_SECONDS), self._clock.monotonic)
        return Result(Status.SUCCESS if succeeded else Status.FAILURE, outcome, request, grace)

    def _lacks_key(self, request: HttpRequest) -> bool:
        return request.encrypt_response and not self._keyring()

    def _seconds(self, command: Command, request: HttpRequest) -> float:
        """Return the command's time limit: its own, at most the time left until it expires, at most a day (PROTOCOL §3)."""
        left = (command.expires_at - self._clock.now()).total_seconds() if command.expires_at is not None else None
        wanted = request.timeout if request.timeout is not None else left
        seconds = min(self._default_seconds if wanted is None else wanted, MOST_SECONDS)
        return max(0.001, seconds if left is None else min(seconds, left))


def _interrupted(request: HttpRequest | None = None) -> Result:
    return Result(Status.FAILURE, Failure(Code.EINTERRUPTED, INTERRUPTED), request)


def _unknown(task: Task) -> bool:
    """Return whether the action is unknown: that is the reason for the rejection even if the command has expired."""
    return isinstance(task.request, Failure) and task.request.code == Code.UNKNOWN_COMMAND


def _free(request: HttpRequest | Failure) -> None:
    if isinstance(request, HttpRequest) and request.body is not None and not isinstance(request.body, bytes):
        request.body.close()
