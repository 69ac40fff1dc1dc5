"""How one command runs: whether it may start, how long it may take, and what its outcome counts as.

No threads: `worker` says when. `executor` talks to the target; `outcomes` records what came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from relay_agent.core.clock import Clock, Deadline
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
"""How long encoding an answer may take at least, if its last byte came in time."""
MOST_SECONDS = 86_400.0
"""The longest that one exchange may take (PROTOCOL §3)."""
_SENT_BEFORE = "(when it was repeated; an earlier try, before the agent was restarted, may have reached the target)"
_NOT_STARTED = "the command expired before it could start"
_TOO_LATE = f"{_NOT_STARTED}: its own not_after, or a secure command's exp, has passed"


@dataclass(slots=True)
class _Begun:
    """Whether the journal has recorded that a command's request may have gone out."""

    noted: bool


class Processor:
    """Runs commands. Shared by all workers; nothing in it changes."""

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
        """`default_seconds` is the time limit of a command that neither expires nor names one."""
        self._journal = journal
        self._spool = spool
        self._reader = reader
        self._outcomes = outcomes
        self._keyring = keyring
        self._clock = clock
        self._default_seconds = default_seconds

    # --- a worker's thread ---

    def process(self, task: Task, executor: Executor) -> Update:
        """Run the command to its outcome, and return the answer, which the journal has or is about to have (`Journal.finish`).

        Raises:
            Interrupted: the agent's stop broke it off; the command is left to the next start.
            JournalError: the outcome could not be recorded; the command is still the journal's.
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
            return self._carried_out(task, request, executor)
        finally:
            _free(request)

    def _carried_out(self, task: Task, request: HttpRequest | Failure, executor: Executor) -> Result:
        if task.started and (isinstance(request, Failure) or self._lacks_key(request)):
            # The agent's last run sent it once; that it cannot be decoded now does not undo that.
            return _interrupted()
        if isinstance(request, Failure):
            return Result(Status.REJECTED if request.code == Code.UNKNOWN_COMMAND else Status.FAILURE, request)
        if self._lacks_key(request):
            # Before anything is sent: an answer that cannot be encrypted as asked must not be fetched.
            return Result(Status.FAILURE, Failure(Code.ENOKEY, "encrypt_response needs a key, and this agent has no SECURE_COMMAND_KEY"))
        if request.not_after is not None and request.not_after <= self._clock.now():
            if task.started:
                return _interrupted(request)
            return Result(Status.REJECTED, Failure(Code.EEXPIRED, _TOO_LATE), request)
        return self._sent(task, request, executor)

    def _sent(self, task: Task, request: HttpRequest, executor: Executor) -> Result:
        repeatable = may_repeat(request.method, request.headers)
        deadline = Deadline(self._seconds(task.command, request), self._clock.monotonic)
        begun = _Begun(task.started)

        def start() -> None:
            self._journal.start(task.command.id, repeatable)
            begun.noted = True
            reach(Point.STARTED)

        try:
            outcome = executor.execute(request, deadline, start)
        except Interrupted:
            if not begun.noted or repeatable:
                raise
            # It cannot run again, so its sender need not wait for the next start to be told.
            failure = Failure(Code.EINTERRUPTED, INTERRUPTED, str(request.url), int(deadline.elapsed() * 1000))
            return Result(Status.FAILURE, failure, request)
        reach(Point.ANSWERED)
        if task.started and isinstance(outcome, Failure):
            outcome = replace(outcome, message=f"{outcome.message} {_SENT_BEFORE}")
        succeeded = isinstance(outcome, HttpResponse) and outcome.status_code < 400
        # An answer that came in time has a moment more to be encoded; one that takes long to encode is the target's doing too.
        grace = Deadline(max(deadline.remaining(), RECORD_SECONDS), self._clock.monotonic)
        return Result(Status.SUCCESS if succeeded else Status.FAILURE, outcome, request, grace)

    def _lacks_key(self, request: HttpRequest) -> bool:
        return request.encrypt_response and not self._keyring()

    def _seconds(self, command: Command, request: HttpRequest) -> float:
        """The command's own limit, bounded by the time left until it expires, and by a day (PROTOCOL §3)."""
        left = (command.expires_at - self._clock.now()).total_seconds() if command.expires_at is not None else None
        wanted = request.timeout if request.timeout is not None else left
        seconds = min(self._default_seconds if wanted is None else wanted, MOST_SECONDS)
        return max(0.001, seconds if left is None else min(seconds, left))


def _interrupted(request: HttpRequest | None = None) -> Result:
    return Result(Status.FAILURE, Failure(Code.EINTERRUPTED, INTERRUPTED), request)


def _unknown(task: Task) -> bool:
    """Whether the agent does not know the command's action: it is rejected for that even when it has expired."""
    return isinstance(task.request, Failure) and task.request.code == Code.UNKNOWN_COMMAND


def _free(request: HttpRequest | Failure) -> None:
    if isinstance(request, HttpRequest) and request.body is not None and not isinstance(request.body, bytes):
        request.body.close()
