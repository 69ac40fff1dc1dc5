"""How commands come in: messages of the queue, and after a restart what the journal still holds.

This module must not run a command. What cannot run is answered here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from relay_agent.core.errors import JournalDamaged, JournalUnwritable, MalformedMessage
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTIONS, Command, Failure, HttpRequest, Update
from relay_agent.protocol import requests
from relay_agent.protocol.messages import decode_message, readable_id
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.payload_reader import BAD_PAYLOAD, KEPT_IN_MEMORY, PayloadReader
from relay_agent.relay.task import INTERRUPTED, Task, lane_of
from relay_agent.storage.journal import Admission, Incoming, Journal, Open

_UNREADABLE = "the agent cannot take up again what its journal holds of this command; its outcome is unknown, and it was not repeated"
_DAMAGED = "the agent's journal was damaged, and this command's record with it; its outcome is unknown, and it was not repeated"


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came of a batch of messages."""

    tasks: list[Task]
    """The commands to run."""
    refused: list[Update]
    """The answers of commands that do not run."""
    ids: dict[str, str]
    """The command id of each receipt."""
    oddities: list[str]
    """A line for the log for each message that was not taken as a new command, and is not simply a repetition."""


class Intake:
    """Admits commands. One thread at a time: main's at the start, then the poller's."""

    def __init__(
        self, *, agent_id: str, journal: Journal, reader: PayloadReader, outcomes: Outcomes, monotonic: Callable[[], float]
    ) -> None:
        self._agent_id = agent_id
        self._journal = journal
        self._reader = reader
        self._outcomes = outcomes
        self._monotonic = monotonic

    # --- the poller's thread ---

    def admit(self, messages: Sequence[tuple[str, str]]) -> Admitted:
        """Admit (message text, receipt) pairs into the journal, in one commit.

        A malformed message that names its command is answered at once; one that names none, and an id that came
        back with another body, is an oddity.

        Raises:
            JournalError: nothing was admitted, so nothing may be acknowledged.
        """
        commands: dict[str, tuple[Command, int]] = {}
        refused: dict[str, tuple[Command, str]] = {}
        rows: list[Incoming] = []
        oddities: list[str] = []
        for text, receipt in messages:
            raw = _in_utf8(text)
            try:
                command = self._command(raw)
                if command.id not in refused:
                    commands.setdefault(command.id, (command, len(raw)))
            except MalformedMessage as error:
                if error.command_id is None:
                    oddities.append(f"a malformed message is deleted from the queue: {error}")
                    continue
                command = self._named(error.command_id, error.target_id)
                if command.id not in commands:
                    refused.setdefault(command.id, (command, str(error)))
            expires = None if command.expires_at is None else command.expires_at.timestamp()
            rows.append(Incoming(command.id, raw, receipt, expires))
        reach(Point.BEFORE_COMMIT)
        new = self._new(rows, oddities)
        reach(Point.AFTER_COMMIT)
        return Admitted(
            [self._task_whatever_comes(*entry) for command_id, entry in commands.items() if command_id in new],
            [self._outcomes.refuse(command, text) for command_id, (command, text) in refused.items() if command_id in new],
            {row.receipt: row.id for row in rows},
            oddities,
        )

    # --- main's thread, before the others start ---

    def recover(self, tell: Callable[[Update], None], aside: Callable[[str, Exception], None]) -> list[Task]:
        """Take up what the last run of the agent left, and return what may run.

        `tell` is called with each answer that SQS has not confirmed, and with those of commands that may not run again. No single command
        may keep the agent from starting: one that cannot be taken up is answered, and `aside` is called with its id and the error.

        Raises:
            JournalDamaged, JournalUnwritable: the journal fails as a whole.
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

    # --- details ---

    def _set_aside(self, command_id: str, error: Exception, aside: Callable[[str, Exception], None], *, finished: bool) -> Update:
        """The answer of a command that cannot be taken up."""
        aside(command_id, error)
        command = self._named(command_id)
        if finished:
            return self._outcomes.overwrite(command, _UNREADABLE)
        return self._outcomes.refuse(command, _UNREADABLE, Code.EINTERRUPTED)

    def _taken_up(self, left: Open) -> Task | Update:
        """The task of a command that the last run left, or the answer it gets instead."""
        if left.raw is None:
            return self._outcomes.refuse(self._named(left.id), _DAMAGED, Code.EINTERRUPTED)
        try:
            command = self._command(left.raw)
        except MalformedMessage as error:
            return self._outcomes.refuse(self._named(left.id, error.target_id), str(error), Code.EBADCOMMAND)
        if command.id != left.id:
            return self._outcomes.refuse(self._named(left.id), _DAMAGED, Code.EINTERRUPTED)
        task = replace(self._task(command, len(left.raw)), started=left.started)
        if left.started and not task.may_run_again(left.repeatable, lambda: self._reader.read(task, requests.forget)):
            known = task.request if isinstance(task.request, HttpRequest) else None
            return self._outcomes.refuse(command, INTERRUPTED, Code.EINTERRUPTED, known)
        return task

    def _new(self, rows: list[Incoming], oddities: list[str]) -> set[str]:
        new: set[str] = set()
        for row, admission in zip(rows, self._journal.admit(rows) if rows else [], strict=True):
            if admission is Admission.NEW:
                new.add(row.id)
            elif admission is Admission.CHANGED:
                oddities.append("a command id arrived again with a different body; only the first command is run and answered")
        return new

    def _command(self, raw: str) -> Command:
        """Decode a message; one that names no target is for this agent.

        Raises:
            MalformedMessage: it is no command.
        """
        try:
            command = decode_message(raw)
        except BAD_PAYLOAD:
            raise MalformedMessage("the message cannot be read", readable_id(raw)) from None
        return command if command.target_id else replace(command, target_id=self._agent_id)

    def _named(self, command_id: str, target_id: str | None = None) -> Command:
        """A command of which nothing but its id can be read."""
        return Command(command_id, target_id or self._agent_id, "")

    def _task_whatever_comes(self, command: Command, size: int) -> Task:
        """The task of a command that was admitted; if an error of ours keeps it from being decoded now, a worker tries, and answers it."""
        try:
            return self._task(command, size)
        except JournalDamaged:
            raise
        except Exception:  # noqa: BLE001 - the journal has it: an error of ours is the worker's to answer, and stops no other command
            return Task(replace(command, payload=None), self._monotonic())

    def _task(self, command: Command, size: int) -> Task:
        admitted = self._monotonic()
        if command.body_url is not None and command.action in ACTIONS:
            return Task(command, admitted)
        request = self._reader.decode(command, requests.forget if size > KEPT_IN_MEMORY else b"".join)
        if isinstance(request, Failure):
            return Task(command, admitted, request=request)
        return Task(replace(command, payload=None), admitted, lane_of(request), request if size <= KEPT_IN_MEMORY else None)


def _in_utf8(text: str) -> str:
    """The text with `?` for each lone surrogate: SQS takes none, and the journal cannot hold one."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
