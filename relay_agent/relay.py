"""The life of one command: taking it in, running it, saying what came of it. No threads.

This room owns the rules. `poller`, `worker`, `uploader` and `sender` say when and on which thread; `journal`
says what is safe; `executor` talks to the target.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from relay_agent import codec
from relay_agent.answers import Answers, Late
from relay_agent.clock import Clock, Deadline, from_timestamp
from relay_agent.errors import (
    BadRequest,
    Interrupted,
    JournalDamaged,
    JournalError,
    JournalUnwritable,
    MalformedMessage,
    PayloadFault,
    PayloadRefused,
    PlatformError,
    SecureCommandError,
)
from relay_agent.executor import Executor
from relay_agent.faultpoints import Point, reach
from relay_agent.journal import About, Admission, Incoming, Journal, Open
from relay_agent.models import Code, Command, Failure, HttpRequest, HttpResponse, Status, Update, may_repeat, size_of
from relay_agent.periodic import Backoff
from relay_agent.secure import Keyring, open_command
from relay_agent.spool import Spool, file_name
from relay_agent.tdp.payloads import Payloads

RECORD_SECONDS = 2.0
"""How long an answer whose last byte came in time may take at least until it is in the form in which it is told."""
MOST_SECONDS = 86_400.0
"""The longest that one exchange may take (PROTOCOL §3)."""
KEPT_IN_MEMORY = 16 * 1024
"""Bytes of a message whose decoded request waits in memory; a larger one is read from the journal again."""
DOWNLOAD_TRY_SECONDS = 30.0
DOWNLOAD_SECONDS = 120.0
"""How long a body is asked for while S3 cannot be reached; less where the command expires before, since others wait behind it."""
_ANY_LANE = "?"
_INTERRUPTED = "the agent stopped while this request was under way; its outcome is unknown, and it was not repeated"
_SENT_BEFORE = "(when it was repeated; an earlier try, before the agent was restarted, may have reached the target)"
_UNREADABLE = "the agent cannot take up again what its journal holds of this command; its outcome is unknown, and it was not repeated"
_NOT_STARTED = "the command expired before it could start"
_TOO_LATE = f"{_NOT_STARTED}: its own not_after, or a secure command's exp, has passed"
_DAMAGED = "the agent's journal was damaged, and this command's record with it; its outcome is unknown, and it was not repeated"


@dataclass(frozen=True, slots=True)
class Report:
    """What the canonical log line and the metrics say of a finished command; nothing secret."""

    id: str
    action: str
    status: Status
    method: str | None = None
    host: str | None = None
    port: int | None = None
    code: str | None = None
    status_code: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    queued_ms: int = 0
    target_ms: int = 0
    total_ms: int = 0
    measured: bool = True
    """Whether bytes and times are known."""
    warnings: tuple[str, ...] = ()

    @property
    def secure(self) -> bool:
        """Whether what it says of the request was sealed."""
        return self.action == codec.ACTION_SECURE


@dataclass(frozen=True, slots=True)
class Task:
    """A command on its way to a worker. `request` is None where the payload is looked at only then.

    `body` names the spool file of a body that came by its presigned URL; `started` says that an earlier run of
    the agent may have sent it already.
    """

    command: Command
    admitted: float
    """When it was taken in, on the monotonic clock."""
    lane: str = _ANY_LANE
    request: HttpRequest | Failure | None = field(default=None, repr=False)
    body: str | None = None
    started: bool = False

    @property
    def secure(self) -> bool:
        """Whether what the command says of its request is sealed."""
        return self.command.action == codec.ACTION_SECURE

    @property
    def elsewhere(self) -> bool:
        """Whether the body must still be fetched."""
        return self.command.body_url is not None and self.body is None and self.request is None


@dataclass(frozen=True, slots=True)
class Intake:
    """What came in: tasks to run, answers that are final already, every command's id by receipt, and a line for each oddity."""

    tasks: list[Task]
    refused: list[Update]
    ids: dict[str, str]
    oddities: list[str]


@dataclass(slots=True)
class _Begun:
    """Whether the journal has noted that a command's request may have gone out."""

    noted: bool


@dataclass(frozen=True, slots=True)
class _Result:
    """What running a command gave, and the request it came from where there was one."""

    status: Status
    outcome: HttpResponse | Failure
    request: HttpRequest | None = None
    deadline: Deadline | None = None
    """Until when an answer must be in the form in which it is told."""


class Relay:
    """The rules, with what they need. Shared by all threads; nothing in it changes but what is to be said of answers under upload."""

    def __init__(
        self,
        *,
        agent_id: str,
        journal: Journal,
        spool: Spool,
        payloads: Payloads,
        keyring: Callable[[], Keyring],
        clock: Clock,
        default_seconds: float,
        told: Callable[[Report], None],
    ) -> None:
        """`told` is given what came of a command as soon as that is final and on the disk: nothing is said that would be denied later."""
        self._agent_id = agent_id
        self._journal = journal
        self._spool = spool
        self._payloads = payloads
        self._keyring = keyring
        self._clock = clock
        self._default_seconds = default_seconds
        self._told = told
        self._uploading: dict[str, tuple[Report, float]] = {}
        self._reading = threading.Lock()
        self._answers = Answers(spool, keyring, clock)

    # --- intake: the poller's thread ---

    def intake(self, messages: Sequence[tuple[str, str]]) -> Intake:
        """Take (message text, receipt) pairs over into the journal.

        A malformed message that names a command is answered at once; one that names none, and an id that came
        back with another body, is an oddity.

        Raises:
            JournalError: nothing was taken over, so nothing may be acknowledged.
        """
        commands: dict[str, tuple[Command, int]] = {}
        refused: dict[str, tuple[Command, str]] = {}
        rows: list[Incoming] = []
        oddities: list[str] = []
        for text, receipt in messages:
            raw = (
                text if _in_utf8(text) else text.encode("utf-8", "replace").decode("utf-8")
            )  # SQS takes no lone surrogates; the journal cannot.
            try:
                command = self._command(raw)
                if command.id not in refused:
                    commands.setdefault(command.id, (command, len(raw)))
            except MalformedMessage as error:
                if error.command_id is None:
                    oddities.append(f"malformed message acknowledged: {error}")
                    continue
                command = Command(error.command_id, error.target_id or self._agent_id, "")
                if command.id not in commands:
                    refused.setdefault(command.id, (command, str(error)))
            expires = None if command.expires_at is None else command.expires_at.timestamp()
            rows.append(Incoming(command.id, raw, receipt, expires))
        reach(Point.BEFORE_COMMIT)
        new = self._new(rows, oddities)
        reach(Point.AFTER_COMMIT)
        return Intake(
            [self._looked_at(*entry) for command_id, entry in commands.items() if command_id in new],
            [self._refusal(command, text) for command_id, (command, text) in refused.items() if command_id in new],
            {row.receipt: row.id for row in rows},
            oddities,
        )

    def recover(self, tell: Callable[[Update], None], aside: Callable[[str, Exception], None]) -> list[Task]:
        """Take up what the last run left, and give what may run again.

        `tell` is given each answer that was not told for sure, and those that are given in place of running. No single command may
        keep the agent from starting: `aside` is called with the id of one that cannot be taken up, and why, and it is answered.

        Raises:
            JournalDamaged, JournalUnwritable: the journal's own trouble, not one command's.
        """
        for command_id, update in self._journal.undelivered():
            tell(update if isinstance(update, Update) else self._set_aside(command_id, update, aside, finished=True))
        tasks: list[Task] = []
        for left in self._journal.unfinished():
            try:
                taken_up = self._taken_up(left)
            except (JournalDamaged, JournalUnwritable):
                raise
            except Exception as error:  # noqa: BLE001 - the top of a step: one row must not end the start, and each start after it
                taken_up = self._set_aside(left.id, error, aside, finished=False)
            if isinstance(taken_up, Task):
                tasks.append(taken_up)
            else:
                tell(taken_up)
        return tasks

    def _set_aside(self, command_id: str, error: Exception, aside: Callable[[str, Exception], None], *, finished: bool) -> Update:
        """The answer in place of what cannot be taken up."""
        aside(command_id, error)
        command = Command(command_id, self._agent_id, "")
        if not finished:
            return self._refusal(command, _UNREADABLE, Code.EINTERRUPTED)
        update = self._answers.failure(command, Status.FAILURE, Failure(Code.EINTERRUPTED, _UNREADABLE))
        self._journal.settle(update)
        return update

    def _taken_up(self, left: Open) -> Task | Update:
        """The task of what the last run left, or the answer that it is given instead."""
        if left.raw is None:
            return self._refusal(Command(left.id, self._agent_id, ""), _DAMAGED, Code.EINTERRUPTED)
        try:
            command = self._command(left.raw)
        except MalformedMessage as error:
            return self._refusal(Command(left.id, error.target_id or self._agent_id, ""), str(error), Code.EBADCOMMAND)
        if command.id != left.id:
            return self._refusal(Command(left.id, self._agent_id, ""), _DAMAGED, Code.EINTERRUPTED)
        task = replace(self._task(command, len(left.raw)), started=left.started)
        if left.started and not self._may_run_again(task, left.repeatable):
            known = task.request if isinstance(task.request, HttpRequest) else None
            return self._refusal(command, _INTERRUPTED, Code.EINTERRUPTED, known)
        return task

    def _may_run_again(self, task: Task, noted: bool | None) -> bool:
        """Whether a command that was started may run again: as noted, and its request must agree, but where it is out of reach."""
        if task.elsewhere or noted is False:
            return bool(noted)
        request = task.request if task.request is not None else self._look(task, codec.forget)
        return isinstance(request, Failure) or may_repeat(request.method, request.headers)

    # --- fetch: a fetcher's thread ---

    def fetch(self, task: Task, stop: threading.Event) -> Task | None:
        """Fetch a referenced body and look at it, so that the task has its lane; None when the stop came first."""
        command = task.command
        waits = Backoff()
        give_up = self._clock.monotonic() + DOWNLOAD_SECONDS
        while not self._expired(command):
            try:
                fetched = self._fetched(task, command.body_url or "")
                reach(Point.FETCHED)
                return fetched
            except PlatformError as error:
                if isinstance(error, PayloadRefused) and error.why is PayloadFault.FORBIDDEN:
                    return replace(task, request=Failure(Code.EPOLICY, f"bodyUrl: {error.reason}"))
                if isinstance(error, PayloadRefused) or self._clock.monotonic() >= give_up:
                    return replace(task, request=Failure(Code.EBADCOMMAND, f"the command's body could not be downloaded: {error.reason}"))
            if stop.wait(waits.next_seconds()):
                return None
        return task

    @staticmethod
    def unfetched(task: Task) -> Task:
        """The task of a command whose body an error of ours kept from being read."""
        return replace(task, request=Failure(Code.EBADCOMMAND, "an error inside the agent kept it from reading the body (see its log)"))

    def _fetched(self, task: Task, url: str) -> Task:
        name = file_name(self._clock.new_id(), ".body")
        try:
            data = self._payloads.download(url, DOWNLOAD_TRY_SECONDS, lambda pieces: self._spool.keep(pieces, KEPT_IN_MEMORY, name))
        except OSError:  # A full disk: then it waits in memory after all.
            data = self._payloads.download(url, DOWNLOAD_TRY_SECONDS, b"".join)
        if data is not None:
            request = self._decode_body(task.command, data.decode, b"".join)
            return replace(task, request=request, lane=_lane(request))
        try:
            request = self._look(replace(task, body=name), codec.forget)
        except BaseException:
            self._spool.remove(name)
            raise
        if isinstance(request, Failure):
            self._spool.remove(name)
            return replace(task, request=request)
        return replace(task, body=name, lane=_lane(request))

    def _kept(self, command: Command, name: str, keep: codec.Keep) -> HttpRequest | Failure:
        try:
            return self._decode_body(command, lambda: self._spool.text(name), keep)
        except OSError as error:
            raise JournalError(f"the spool cannot be read: {error.strerror}") from None

    def _decode_body(self, command: Command, read: Callable[[], str], keep: codec.Keep) -> HttpRequest | Failure:
        try:
            payload = codec.load_payload(read)
        except BadRequest as error:
            return Failure(Code.EBADCOMMAND, str(error))
        return self._decode(replace(command, payload=payload), keep)

    # --- process: a worker's thread ---

    def process(self, task: Task, executor: Executor) -> Update:
        """Run the command to its outcome, and give the answer, which the journal has or is about to have (`Journal.finish`).

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
        result, update = self._answer(task.command, result)
        report = self._report(task, result, update, begun)
        if update.spool is not None:
            self._uploading[update.command_id] = report, self._clock.monotonic()
        self._journal.finish(update, _about(report), then=lambda: None if update.spool else self._told(report))
        return update

    def settle(self, update: Update) -> None:
        """Record what will be told of a spooled answer for good, after its upload or without it, and say so.

        Raises:
            JournalUnwritable: the agent stopped waiting for the disk.
        """
        self._journal.settle(update)
        now = self._clock.monotonic()
        known = self._uploading.pop(update.command_id, None)
        report, since = (self._left(update), now) if known is None else known
        total_ms = report.total_ms + int((now - since) * 1000)
        self._told(replace(report, status=update.status, code=update.code, total_ms=total_ms))

    def _left(self, update: Update) -> Report:
        """What is known of an answer whose request an earlier run of the agent made."""
        about = self._journal.about(update.command_id) or About("?")
        return Report(
            update.command_id,
            about.action,
            update.status,
            about.method,
            about.host,
            about.port,
            status_code=about.status_code,
            measured=False,
        )

    def abandon(self, task: Task) -> Update:
        """Answer a command that an error of our own ended, so that its sender does not wait for ever."""
        return self._refusal(
            task.command, "an error inside the agent ended this command; its outcome is unknown (see the agent's log)", Code.EINTERRUPTED
        )

    # --- how one runs ---

    def _command(self, raw: str) -> Command:
        """The command of a message; one that names no target is for this agent.

        Raises:
            MalformedMessage: it is none.
        """
        try:
            command = codec.decode_message(raw)
        except _BAD_PAYLOAD:
            raise MalformedMessage("the message cannot be read", codec.readable_id(raw)) from None
        return command if command.target_id else replace(command, target_id=self._agent_id)

    def _looked_at(self, command: Command, size: int) -> Task:
        """The task of a command that the journal has; where that gives no answer now, a worker looks at it."""
        try:
            return self._task(command, size)
        except JournalDamaged:
            raise
        except Exception:  # noqa: BLE001 - the journal has it: an error of ours is the worker's to answer, and stops no other command
            return Task(replace(command, payload=None), self._clock.monotonic())

    def _task(self, command: Command, size: int) -> Task:
        admitted = self._clock.monotonic()
        if command.body_url is not None and command.action in codec.ACTIONS:
            return Task(command, admitted)
        request = self._decode(command, codec.forget if size > KEPT_IN_MEMORY else b"".join)
        if isinstance(request, Failure):
            return Task(command, admitted, request=request)
        return Task(replace(command, payload=None), admitted, _lane(request), request if size <= KEPT_IN_MEMORY else None)

    def _decode(self, command: Command, keep: codec.Keep) -> HttpRequest | Failure:
        """The request that an action asks for; a failure for one that asks for none we know. `keep` is given its body."""
        try:
            if command.action in codec.ACTIONS_PLAIN:
                return codec.decode_request(command.payload, keep=keep)
            if command.action == codec.ACTION_SECURE:
                return self._open(command, keep)
        except SecureCommandError as error:
            return Failure(Code(error.code), str(error))
        except _BAD_PAYLOAD as error:
            return _bad_payload(error)
        return Failure(
            Code.UNKNOWN_COMMAND,
            f"this agent does not know the action; it answers {', '.join(sorted(codec.ACTIONS_PLAIN))} and {codec.ACTION_SECURE}",
        )

    def _open(self, command: Command, keep: codec.Keep) -> HttpRequest | Failure:
        keyring = self._keyring()
        if not keyring:
            raise SecureCommandError(Code.ENOKEY, "this agent has no SECURE_COMMAND_KEY; set the one that the sender uses")
        opened = open_command(codec.take_envelope(command.payload), keyring, agent_id=self._agent_id, now=self._clock.now())
        text = [opened.plaintext]  # Handed over, so that it is gone before what it says is used.
        opened = replace(opened, plaintext=b"")
        if not self._journal.remember_token(opened.jti, command.id, opened.exp):
            raise SecureCommandError(Code.EREPLAY, "the jti of this secure command was used before")
        payload = codec.load_payload(lambda: text.pop().decode("utf-8"))
        try:
            request = codec.decode_request(payload, secure=True, keep=keep)
            return replace(request, jti=opened.jti, not_after=_earlier(request.not_after, from_timestamp(opened.exp)))
        except _BAD_PAYLOAD as error:
            return replace(_bad_payload(error), sealed=codec.wants_sealed_answer(payload), jti=opened.jti)

    def _run(self, task: Task, executor: Executor) -> _Result:
        command = task.command
        if self._expired(command) and task.started:
            return _Result(Status.FAILURE, Failure(Code.EINTERRUPTED, _INTERRUPTED))
        if self._expired(command) and not self._was_refused(task):
            return _Result(Status.REJECTED, Failure(Code.EEXPIRED, _NOT_STARTED))
        request = task.request if task.request is not None else self._look(task, self._spool.hold)
        try:
            return self._carried_out(task, request, executor)
        finally:
            _free(request)

    def _carried_out(self, task: Task, request: HttpRequest | Failure, executor: Executor) -> _Result:
        command = task.command
        if task.started and (isinstance(request, Failure) or (request.encrypt_response and not self._keyring())):
            # It was sent once, by the agent's last run; that it cannot be made out now denies nothing of that.
            return _Result(Status.FAILURE, Failure(Code.EINTERRUPTED, _INTERRUPTED))
        if isinstance(request, Failure):
            return _Result(Status.REJECTED if request.code == Code.UNKNOWN_COMMAND else Status.FAILURE, request)
        if request.encrypt_response and not self._keyring():
            # Found out before anything is sent: an answer that cannot be told as asked must not be had.
            return _Result(Status.FAILURE, Failure(Code.ENOKEY, "encrypt_response needs a key, and this agent has no SECURE_COMMAND_KEY"))
        if request.not_after is not None and request.not_after <= self._clock.now():
            if task.started:
                return _Result(Status.FAILURE, Failure(Code.EINTERRUPTED, _INTERRUPTED), request)
            return _Result(Status.REJECTED, Failure(Code.EEXPIRED, _TOO_LATE), request)
        seconds = self._seconds(command, request)
        deadline = Deadline(seconds, self._clock.monotonic)
        begun = _Begun(task.started)

        def start() -> None:
            self._journal.start(command.id, may_repeat(request.method, request.headers))
            begun.noted = True
            reach(Point.STARTED)

        try:
            outcome = executor.execute(request, deadline, start)
        except Interrupted:
            if not begun.noted or may_repeat(request.method, request.headers):
                raise
            # It cannot run again, so its sender need not wait for the next start to be told.
            return _Result(
                Status.FAILURE, Failure(Code.EINTERRUPTED, _INTERRUPTED, str(request.url), int(deadline.elapsed() * 1000)), request
            )
        reach(Point.ANSWERED)
        if task.started and isinstance(outcome, Failure):
            outcome = replace(outcome, message=f"{outcome.message} {_SENT_BEFORE}")
        succeeded = isinstance(outcome, HttpResponse) and outcome.status_code < 400
        # What came in time has a moment more to be put in its form; what takes long there is the target's doing too.
        grace = Deadline(max(deadline.remaining(), RECORD_SECONDS), self._clock.monotonic)
        return _Result(Status.SUCCESS if succeeded else Status.FAILURE, outcome, request, grace)

    def _expired(self, command: Command) -> bool:
        return command.expires_at is not None and command.expires_at <= self._clock.now()

    @staticmethod
    def _was_refused(task: Task) -> bool:
        return isinstance(task.request, Failure) and task.request.code == Code.UNKNOWN_COMMAND

    def _seconds(self, command: Command, request: HttpRequest) -> float:
        """The command's own limit, bounded by what is left until it expires, and by a day (PROTOCOL §3)."""
        left = (command.expires_at - self._clock.now()).total_seconds() if command.expires_at is not None else None
        wanted = request.timeout if request.timeout is not None else left
        seconds = min(self._default_seconds if wanted is None else wanted, MOST_SECONDS)
        return max(0.001, seconds if left is None else min(seconds, left))

    def _look(self, task: Task, keep: codec.Keep) -> HttpRequest | Failure:
        """Look at a payload that did not wait in memory: from the journal, or from the spool.

        One thread at a time: beside the text stands what it says, and what is made of that.
        """
        with self._reading:
            if task.body is None:
                return self._decode(codec.decode_message(self._journal.raw(task.command.id)), keep)
            return self._kept(task.command, task.body, keep)

    # --- how one is answered ---

    def _answer(self, command: Command, result: _Result) -> tuple[_Result, Update]:
        """Put the outcome in the form in which it will be told; where that takes too long, that is the outcome."""
        response = result.outcome
        if isinstance(response, Failure):
            return result, self._answers.failure(command, result.status, response, result.request)
        try:
            return result, self._answers.response(command, result.status, response, result.request, result.deadline)
        except Late:
            text = (
                f"the whole answer came (status {response.status_code}), but there was no time to encode its {response.content.size} bytes"
            )
            late = Failure(Code.ETIMEDOUT, text, response.url, response.elapsed_ms)
            told = self._answers.failure(command, Status.FAILURE, late, result.request)
            return replace(result, status=Status.FAILURE, outcome=late), told
        finally:
            response.content.close()

    # --- intake's and recovery's details ---

    def _new(self, rows: list[Incoming], oddities: list[str]) -> set[str]:
        new: set[str] = set()
        for row, admission in zip(rows, self._journal.admit(rows) if rows else [], strict=True):
            if admission is Admission.NEW:
                new.add(row.id)
            elif admission is Admission.CHANGED:
                oddities.append("a command id came a second time with another body; it is answered once, as it came first")
        return new

    def _refusal(self, command: Command, text: str, code: Code = Code.EBADCOMMAND, request: HttpRequest | None = None) -> Update:
        """Answer a command that does not run; on the threads that come here nobody may wait for a disk."""
        update = self._answers.failure(command, Status.FAILURE, Failure(code, text))
        url = request.url if request else None
        report = Report(
            command.id,
            command.action,
            Status.FAILURE,
            code=code,
            method=request.method if request else None,
            host=url.host if url else None,
            port=url.port if url else None,
        )
        self._journal.finish(update, _about(report), then=lambda: self._told(report), wait=False)
        return update

    def _report(self, task: Task, result: _Result, update: Update, begun: float) -> Report:
        """What is to be said of an outcome that is told so: not the target's own status where its answer is too large to be told."""
        outcome, request = result.outcome, result.request
        response = outcome if isinstance(outcome, HttpResponse) else None
        return Report(
            id=task.command.id,
            action=task.command.action,
            status=update.status,
            method=request.method if request else None,
            host=request.url.host if request else None,
            port=request.url.port if request else None,
            code=update.code,
            status_code=response.status_code if response else None,
            bytes_in=response.content.size if response else 0,
            bytes_out=size_of(request.body) if request else 0,
            queued_ms=int((begun - task.admitted) * 1000),
            target_ms=outcome.elapsed_ms,
            total_ms=int((self._clock.monotonic() - task.admitted) * 1000),
            warnings=request.warnings if request else (),
        )


def _earlier(first: datetime | None, second: datetime) -> datetime:
    return second if first is None else min(first, second)


def _in_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _free(request: HttpRequest | Failure) -> None:
    if isinstance(request, HttpRequest) and request.body is not None and not isinstance(request.body, bytes):
        request.body.close()


def _about(report: Report) -> About:
    return About(report.action, report.method, report.host, report.port, report.status_code)


# What a payload can trip in the libraries that read it: it must not take the agent down with it.
_BAD_PAYLOAD = (BadRequest, ValueError, TypeError, LookupError, ArithmeticError, RecursionError)


def _bad_payload(error: Exception) -> Failure:
    return Failure(Code.EBADCOMMAND, str(error) if isinstance(error, BadRequest) else "the payload cannot be read")


def _lane(request: HttpRequest | Failure) -> str:
    if isinstance(request, Failure):
        return _ANY_LANE
    return f"{request.url.host}:{request.url.port}"
