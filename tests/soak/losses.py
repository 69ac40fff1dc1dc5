"""Sorts commands without a final status: what a lost machine took with it, the one loss that is documented, and faults.

Rules only, without I/O. Times are monotonic seconds. docs/several-agents.md ("What is not promised") names the two that are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

SLACK_SECONDS = 1.5
"""How exactly it is known when a misfortune took hold of an agent's process, and let it go."""


class Loss(StrEnum):
    """Why a command has no final status."""

    MACHINE = "taken along by the lost machine"
    UNKNOWN_DELETE = "deleted by an agent that was struck before it knew"
    FAULT = "lost"


@dataclass(frozen=True, slots=True)
class Deleted:
    """An agent's delete that SQS carried out, and until when the message was leased to that agent."""

    agent: str
    at: float
    lease_until: float


@dataclass(frozen=True, slots=True)
class Struck:
    """A time during which an agent was killed, frozen or cut off from SQS."""

    agent: str
    begin: float
    end: float


@dataclass(slots=True)
class Evidence:
    """What is known of all commands, by their ids: whose journals hold which, and which deletes SQS carried out."""

    journals: Mapping[str, set[str]] = field(default_factory=dict)
    lost_machines: set[str] = field(default_factory=set)
    deleted: Mapping[str, Sequence[Deleted]] = field(default_factory=dict)
    struck: Sequence[Struck] = ()

    def judge(self, command_id: str) -> Loss:
        """Say why this command, which has no final status, was lost."""
        holders = {agent for agent, ids in self.journals.items() if command_id in ids}
        if holders & self.lost_machines:
            return Loss.MACHINE
        deletes = self.deleted.get(command_id, ())
        # Its journal forgets a command only by ceding it, which is right only if it could not know until the lease had ended.
        if deletes and not holders and self._could_not_know(deletes[0]):
            return Loss.UNKNOWN_DELETE
        return Loss.FAULT

    def _could_not_know(self, deleted: Deleted) -> bool:
        """Whether the agent was struck from its delete to the end of the lease, by one misfortune or several on end."""
        known_until = deleted.at + SLACK_SECONDS
        for struck in sorted((one for one in self.struck if one.agent == deleted.agent), key=lambda one: one.begin):
            if struck.end >= deleted.at and struck.begin <= known_until:
                known_until = max(known_until, struck.end + SLACK_SECONDS)
        return known_until > deleted.at + SLACK_SECONDS and known_until >= deleted.lease_until
