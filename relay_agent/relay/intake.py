"""How commands are admitted: messages from the queue and, after a restart, unfinished commands from the journal.

This module runs no command; it answers those that cannot run.
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
    """The result of admitting a batch of messages."""

    tasks: list[Task]
    """The commands to run."""
    refused: list[Update]
    """The answers to commands that cannot run."""
    ids: dict[str, str]
    """Command id by receipt."""
    oddities: list[str]
    """A log text for each message that is neither a new command nor an exact repetition of one."""


class Intake:
    """Admits commands. Called by one thread at a time: main at the start, then the poller."""

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
        """Admit (message text, receipt) pairs into the journal in one commit.

        A malformed message that names its command is answered at once. One that names no command, and a known id with another body,
        is an oddity.

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
                command = self._command_by_id(error.command_id, error.target_id)
                if command.id not in commands:
                    refused.setdefault(command.id, (command, str(error)))
            expires = None if command.expires_at is None else command.expires_at.timestamp()
            rows.append(Incoming(command.id, raw, receipt, expires))
        reach(Point.BEFORE_COMMIT)
        new = self._admit_rows(rows, oddities)
        reach(Point.AFTER_COMMIT)
        return Admitted(
            [self._task_or_undecoded(*entry) for command_id, entry in commands.items() if command_id in new],
            [self._outcomes.refuse(command, text) for command_id, (command, text) in refused.items() if command_id in new],
            {row.receipt: row.id for row in rows},
            oddities,
        )

    # --- main's thread, before the others start ---

    def recover(self, deliver: Callable[[Update], None], set_aside: Callable[[str, Exception], None]) -> list[Task]:
        """Resume the commands that the last run left, and return those that may run.

        `deliver` is called with each answer that SQS has not confirmed and with the answers of commands that may not run again.
        A command that cannot be resumed is answered, and `set_aside` is called with its id and the error.

        Raises:
            JournalDamaged, JournalUnwritable: the journal fails as a whole.
        """
        for command_id, update in self._journal.undelivered():
            deliver(update if isinstance(update, Update) else self._refuse_unreadable(command_id, update, set_aside, finished=True))
        tasks: list[Task] = []
        for unfinished in self._journal.unfinished():
            try:
                resumed = self._resume(unfinished)
            except (JournalDamaged, JournalUnwritable):
                raise
            except Exception as error:  # noqa: BLE001 - top of the loop: one bad row must not prevent this start and every later one
                resumed = self._refuse_unreadable(unfinished.id, error, set_aside, finished=False)
            if isinstance(resumed, Task):
                tasks.append(resumed)
            else:
                deliver(resumed)
        return tasks

    # --- details ---

    def _refuse_unreadable(
        self, command_id: str, error: Exception, set_aside: Callable[[str, Exception], None], *, finished: bool
    ) -> Update:
        """Answer a command whose journal entry cannot be used."""
        set_aside(command_id, error)
        command = self._command_by_id(command_id)
        if finished:
            return self._outcomes.overwrite(command, _UNREADABLE)
        return self._outcomes.refuse(command, _UNREADABLE, Code.EINTERRUPTED)

    def _resume(self, unfinished: Open) -> Task | Update:
        """Return the task of a command that the last run left, or its answer if it must not run."""
        if unfinished.raw is None:
            return self._outcomes.refuse(self._command_by_id(unfinished.id), _DAMAGED, Code.EINTERRUPTED)
        try:
            command = self._command(unfinished.raw)
        except MalformedMessage as error:
            return self._outcomes.refuse(self._command_by_id(unfinished.id, error.target_id), str(error), Code.EBADCOMMAND)
        if command.id != unfinished.id:
            return self._outcomes.refuse(self._command_by_id(unfinished.id), _DAMAGED, Code.EINTERRUPTED)
        task = replace(self._task(command, len(unfinished.raw)), started=unfinished.started)
        if unfinished.started and not task.may_run_again(unfinished.repeatable, lambda: self._reader.read(task, requests.forget)):
            request = task.request if isinstance(task.request, HttpRequest) else None
            return self._outcomes.refuse(command, INTERRUPTED, Code.EINTERRUPTED, request)
        return task

    def _admit_rows(self, rows: list[Incoming], oddities: list[str]) -> set[str]:
        new: set[str] = set()
        for row, admission in zip(rows, self._journal.admit(rows) if rows else [], strict=True):
            if admission is Admission.NEW:
                new.add(row.id)
            elif admission is Admission.CHANGED:
                oddities.append("a command id arrived again with a different body; only the first command is run and answered")
        return new

    def _command(self, raw: str) -> Command:
        """Decode a message; a missing target means this agent.

        Raises:
            MalformedMessage: the message is not a command.
        """
        try:
            command = decode_message(raw)
        except BAD_PAYLOAD:
            raise MalformedMessage("the message cannot be read", readable_id(raw)) from None
        return command if command.target_id else replace(command, target_id=self._agent_id)

    def _command_by_id(self, command_id: str, target_id: str | None = None) -> Command:
        """Return a stand-in for a command of which only the id can be read."""
        return Command(command_id, target_id or self._agent_id, "")

    def _task_or_undecoded(self, command: Command, size: int) -> Task:
        """Return the task of an admitted command, undecoded if decoding hits a bug of the agent: then a worker decodes it again."""
        try:
            return self._task(command, size)
        except JournalDamaged:
            raise
        except Exception:  # noqa: BLE001 - it is in the journal: the worker answers the error, and the rest of the batch goes on
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
    """Replace each lone surrogate by `?`: SQS accepts none, and the journal cannot store one."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
