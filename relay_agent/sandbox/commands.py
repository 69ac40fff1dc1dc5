"""The platform's records of commands: status, history, and every status update received for them.

This module owns the state machine CREATED → PENDING → PROCESSING → a final status, and search. It must not speak SQS or S3.
"""

from __future__ import annotations

import heapq
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from relay_agent.core.clock import iso
from relay_agent.sandbox.changes import Changes
from relay_agent.sandbox.forms import Json

STATUSES = ("CREATED", "UNSENT", "PENDING", "EXPIRED", "PURGED", "ERROR", "PROCESSING", "REJECTED", "SUCCESS", "FAILURE")
KEPT = 20_000
OPEN = frozenset({"CREATED", "PENDING", "PROCESSING"})
REPORTED = frozenset({"PROCESSING", "SUCCESS", "FAILURE", "REJECTED"})


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a command's history."""

    reason: str
    by: str
    at: datetime
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True)
class Command:
    """One command. `updates` holds the text of every status update for it, in the order of arrival."""

    id: str
    org_slug: str
    target_id: str
    action: str
    created_at: datetime
    expires_at: datetime
    updated_at: datetime
    payload: Json = field(repr=False)
    metadata: Json = field(default_factory=dict)
    delivery: str | None = None
    created_by: str = "sandbox"
    status: str = "CREATED"
    response_body: object = field(default=None, repr=False)
    history: list[Event] = field(default_factory=list, repr=False)
    updates: list[str] = field(default_factory=list, repr=False)
    group: str | None = None
    """The message group of the agent's queue; None for the agent's id, one group for all its commands."""

    @property
    def final(self) -> bool:
        """Whether its status can no longer change."""
        return self.status not in OPEN

    def to_json(self) -> Json:
        """Return the answer of `GET /v1/commands/{id}`."""
        return {
            "id": self.id,
            "orgSlug": self.org_slug,
            "targetId": self.target_id,
            "action": self.action,
            "expiresAt": iso(self.expires_at),
            "metadata": self.metadata,
            "status": self.status,
            "requestBody": self.request_json(),
            "responseBody": self.response_body,
            "requestPayloadDelivery": self.delivery or "embedded",
            "createdByEntity": "user",
            "createdBy": self.created_by,
            "createdAt": iso(self.created_at),
            "updatedAt": iso(self.updated_at),
        }

    def request_json(self) -> Json:
        """Return the message for the agent, without its URLs."""
        return {
            "body": self.payload,
            "action": self.action,
            "targetId": self.target_id,
            "commandId": self.id,
            "createdAt": iso(self.created_at),
            "expiresAt": iso(self.expires_at),
        }

    def history_json(self) -> Json:
        """Return the answer of `GET /v1/commands/{id}/history`."""
        return {
            "id": self.id,
            "history": [
                {"id": event.id, "commandId": self.id, "reason": event.reason, "updatedBy": event.by, "updatedAt": iso(event.at)}
                for event in list(self.history)
            ],
        }


class Commands:
    """Every command, the newest last. Any thread may call it."""

    def __init__(self, now: Callable[[], datetime], changes: Changes) -> None:
        self._now = now
        self._changes = changes
        self._commands: dict[str, Command] = {}
        self._ends: list[tuple[datetime, str]] = []
        self._lock = threading.RLock()

    def add(self, command: Command) -> None:
        """Add a new command, CREATED; beyond `KEPT` commands the oldest is removed."""
        with self._lock:
            self._commands[command.id] = command
            heapq.heappush(self._ends, (command.expires_at, command.id))
            self._note(command, "Command created", "platform")
            if len(self._commands) > KEPT:
                del self._commands[next(iter(self._commands))]

    def get(self, command_id: object) -> Command | None:
        """Return the command with this id, None if there is none."""
        with self._lock:
            return self._commands.get(command_id) if isinstance(command_id, str) else None

    def all(self) -> list[Command]:
        """Return every command, the oldest first."""
        with self._lock:
            return list(self._commands.values())

    def move(self, command: Command, status: str, reason: str) -> bool:
        """Change a status on the platform's behalf; return False, without a change, if it is final."""
        with self._lock:
            if command.final:
                return False
            command.status = status
            self._note(command, reason, "platform")
            return True

    def touch(self) -> None:
        """Count a change that is not a command's (`Changes`)."""
        self._changes.touch()

    def report(self, command: Command, status: str, body: object, text: str) -> None:
        """Apply a status update of the agent's; one after a final status is recorded in the history and changes nothing."""
        with self._lock:
            command.updates.append(text)
            if status not in REPORTED:
                self._note(command, f"Status {status} ignored: no target may set it", "target", changed=False)
            elif command.final:
                self._note(command, f"Status {status} ignored: the command is {command.status}", "target", changed=False)
            else:
                command.status = status
                command.response_body = body if command.final else command.response_body
                self._note(command, f"Command status changed to {status}", "target")

    def expire(self) -> datetime | None:
        """Expire every open command whose `expires_at` has passed; return when the next one expires, None if none does."""
        moment = self._now()
        with self._lock:
            while self._ends:
                expires_at, command_id = self._ends[0]
                command = self._commands.get(command_id)
                if command is not None and not command.final and expires_at > moment:
                    return expires_at
                heapq.heappop(self._ends)
                if command is not None:
                    self.move(command, "EXPIRED", "Command status changed to EXPIRED")
        return None

    def purge(self, target_id: str) -> list[Command]:
        """Mark every command of a target that is CREATED or PENDING as PURGED, and return them."""
        return [command for command in self.waiting(target_id) if self.move(command, "PURGED", "Status update to PURGED")]

    def waiting(self, target_id: str) -> list[Command]:
        """Return every command of a target that is CREATED or PENDING: those that a purge marks."""
        return [command for command in self.all() if command.target_id == target_id and command.status in ("CREATED", "PENDING")]

    def _note(self, command: Command, reason: str, by: str, changed: bool = True) -> None:
        moment = self._now()
        command.history.append(Event(reason, by, moment))
        if changed:
            command.updated_at = moment
        self._changes.touch()


@dataclass(frozen=True, slots=True)
class Search:
    """The filters of `GET /v1/commands`; an empty filter matches everything. Times are inclusive."""

    targets: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()
    metadata: tuple[tuple[str, str], ...] = ()
    after: tuple[tuple[str, datetime], ...] = ()
    before: tuple[tuple[str, datetime], ...] = ()
    sort_by: str = "created_at"
    descending: bool = True

    def run(self, commands: Iterable[Command]) -> list[Command]:
        """Return the commands that match, in order."""
        found = [command for command in commands if self._passes(command)]
        return sorted(found, key=lambda command: getattr(command, self.sort_by), reverse=self.descending)

    def _passes(self, command: Command) -> bool:
        return (
            (not self.targets or command.target_id in self.targets)
            and (not self.actions or command.action in self.actions)
            and (not self.statuses or command.status in self.statuses)
            and all(command.metadata.get(key) == value for key, value in self.metadata)
            and all(getattr(command, name) >= moment for name, moment in self.after)
            and all(getattr(command, name) <= moment for name, moment in self.before)
        )
