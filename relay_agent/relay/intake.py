"""How commands are admitted: messages from the queue and, after a restart, unfinished commands from the journal.

This module runs no command and answers none: one that cannot run is refused once it is this agent's (`ownership`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relay_agent.core.errors import JournalDamaged, JournalUnwritable, MalformedMessage
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTIONS, ACTIONS_PLAIN, Command, Failure, HttpRequest, Update
from relay_agent.protocol import requests
from relay_agent.protocol.messages import decode_message, readable_id
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.payload_reader import BAD_PAYLOAD, PayloadReader
from relay_agent.relay.task import INTERRUPTED, KEPT_IN_MEMORY, Refusal, Task, lane_of
from relay_agent.storage.journal import Admission, Incoming, Journal, Open

_UNREADABLE = "the agent cannot resume this command from its journal; its outcome is unknown, and the request was not repeated"
_DAMAGED = "this command's record in the agent's journal was damaged; its outcome is unknown, and the request was not repeated"


_ANOTHER_BODY = "a command id arrived again with a different body; only the first command is run and answered"


@dataclass(frozen=True, slots=True)
class Oddity:
    """A message that is no new command: `reason` is a text for the log, `message` is the message itself, which no log may contain."""

    reason: str
    message: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The result of admitting a batch of messages."""

    tasks: list[Task]
    """The commands to run."""
    refused: list[Refusal]
    """The commands that cannot run."""
    ids: dict[str, str]
    """Command id by receipt."""
    oddities: list[Oddity]
    """The messages that are neither a new command nor an exact repetition of one."""
    until_durable: Callable[[], None] | None = None
    """Waits until the journal has them on the disk, and raises JournalError if it cannot (`Journal.admit_soon`); None if it has them."""


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

    def admit(self, messages: Sequence[tuple[str, str]], lease_until: float | None = None) -> Admitted:
        """Admit (message text, receipt) pairs into the journal in one commit, or with the next one (`Admitted.until_durable`).

        A malformed message that names its command is a refusal. One that names no command, and a known id with another body,
        is an oddity. `lease_until`, in seconds since 1970, is None if the commands are this agent's at once (`Incoming`).

        Raises:
            JournalError: nothing was admitted, so nothing may be acknowledged.
        """
        commands: dict[str, tuple[Command, int]] = {}
        refused: dict[str, Refusal] = {}
        rows: list[Incoming] = []
        oddities: list[Oddity] = []
        for text, receipt in messages:
            raw = _in_utf8(text)
            try:
                command = self._command(raw)
                if command.id not in refused:
                    commands.setdefault(command.id, (command, len(raw)))
            except MalformedMessage as error:
                if error.command_id is None:
                    oddities.append(Oddity(f"a malformed message is deleted from the queue: {error}", raw))
                    continue
                command = self._command_by_id(error.command_id, error.target_id)
                if command.id not in commands:
                    refused.setdefault(command.id, Refusal(command, str(error)))
            expires = None if command.expires_at is None else command.expires_at.timestamp()
            rows.append(Incoming(command.id, raw, receipt, expires, lease_until))
        reach(Point.BEFORE_COMMIT)
        ids = {row.receipt: row.id for row in rows}
        lone = self._lone(rows, commands)
        if lone is not None and isinstance(lone.request, HttpRequest) and lone.request.harmless:
            # It shares the commit of its outcome. Until then it is only in the queue, where a crash leaves it, and it may run again.
            until_durable = self._journal.admit_soon(rows[0])
            if until_durable is not None:
                return Admitted([lone], [], ids, oddities, until_durable)
        new = self._admit_rows(rows, oddities)
        reach(Point.AFTER_COMMIT)
        return Admitted(
            [lone or self._task_or_undecoded(*entry) for command_id, entry in commands.items() if command_id in new],
            [refusal for command_id, refusal in refused.items() if command_id in new],
            ids,
            oddities,
        )

    def command_id(self, text: str) -> str | None:
        """Return the id under which the journal has a message's command, or would have it; None if the message names none."""
        try:
            return self._command(_in_utf8(text)).id
        except MalformedMessage as error:
            return error.command_id

    # --- main's thread, before the others start ---

    def recover(self, deliver: Callable[[Update | Refusal], None], set_aside: Callable[[str, Exception], None]) -> list[Task]:
        """Resume the commands that the last run left, and return those that may run.

        `deliver` is called with each answer that SQS has not confirmed, and with each command that may not run again.
        A command that cannot be resumed is among them, and `set_aside` is called with its id and the error.

        Raises:
            JournalDamaged, JournalUnwritable: the journal fails as a whole.
        """
        for command_id, update in self._journal.undelivered():
            if isinstance(update, Exception):
                set_aside(command_id, update)
                update = self._outcomes.overwrite(self._command_by_id(command_id), _UNREADABLE)
            deliver(update)
        tasks: list[Task] = []
        for unfinished in self._journal.unfinished():
            try:
                resumed = self._resume(unfinished)
            except (JournalDamaged, JournalUnwritable):
                raise
            except Exception as error:  # noqa: BLE001 - top of the loop: one bad row must not prevent this start and every later one
                set_aside(unfinished.id, error)
                resumed = Refusal(self._command_by_id(unfinished.id), _UNREADABLE, Code.EINTERRUPTED)
            if isinstance(resumed, Task):
                tasks.append(resumed)
            elif resumed is not None:
                deliver(resumed)
        return tasks

    # --- details ---

    def _resume(self, unfinished: Open) -> Task | Refusal | None:
        """Return the task of a command that the last run left, or its refusal if it must not run; None if another row or agent has it."""
        if unfinished.raw is None:
            return Refusal(self._command_by_id(unfinished.id), _DAMAGED, Code.EINTERRUPTED)
        try:
            command = self._command(unfinished.raw)
        except MalformedMessage as error:
            return Refusal(self._command_by_id(unfinished.id, error.target_id), str(error))
        if command.id != unfinished.id:
            # The journal checked the message against its digest, so it is the row's id that was altered.
            return Refusal(command, _DAMAGED, Code.EINTERRUPTED) if self._journal.restore_id(unfinished.id, command.id) else None
        task = replace(self._task(command, len(unfinished.raw)), started=unfinished.started)
        if unfinished.started and not task.may_run_again(unfinished.repeatable, lambda: self._reader.read(task, requests.forget)):
            request = task.request if isinstance(task.request, HttpRequest) else None
            return Refusal(command, INTERRUPTED, Code.EINTERRUPTED, request)
        return task

    def _lone(self, rows: list[Incoming], commands: Mapping[str, tuple[Command, int]]) -> Task | None:
        """Return the task of a command that came alone, if nothing of it depends on its row in the journal before it is there.

        The token of a secure command does, and a request that is read from the journal; and so does whether another agent may own it.
        """
        if len(rows) != 1 or rows[0].lease_until is not None or rows[0].id not in commands:
            return None
        command, size = commands[rows[0].id]
        if command.action not in ACTIONS_PLAIN or command.body_url is not None or size > KEPT_IN_MEMORY:
            return None
        return self._task_or_undecoded(command, size)

    def _admit_rows(self, rows: list[Incoming], oddities: list[Oddity]) -> set[str]:
        new: set[str] = set()
        for row, admission in zip(rows, self._journal.admit(rows) if rows else [], strict=True):
            if admission is Admission.NEW:
                new.add(row.id)
            elif admission is Admission.CHANGED:
                oddities.append(Oddity(_ANOTHER_BODY, row.raw))
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
        except Exception:  # noqa: BLE001 - it is in the journal: the worker answers the error, and the rest of the batch is admitted
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
