"""Alive means working: which part of the agent is stuck, for how long, and when the agent must end because of it.

Owns the judgement of the loops' status. It must not repair, send or end anything: `heartbeat` sends nothing while it finds something
stuck, and the main thread ends the agent on its verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay_agent.core.failures import Cause
from relay_agent.diagnostics.local_causes import JOURNAL_HANGS, OVERDUE, STUCK
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_causes import NO_ANSWERS, NOT_READ
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.storage.disk_faults import intake_obstacle
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal

RECENT_SECONDS = 60.0
"""A part that is stuck for longer stops the heartbeats."""
STUCK_SECONDS = 300.0
"""A part that is stuck for longer ends the agent (docs/durability.md, "The watchdog")."""


class WatchedWorker(Protocol):
    """What the watchdog needs of a worker."""

    name: str

    def overdue_seconds(self) -> float:
        """Return by how many seconds the worker exceeds the time limit of its command; 0 within the limit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A part that makes no progress: for how many seconds, its cause, and whether a restart may cure it."""

    reason: str
    seconds: float
    cause: Cause
    curable: bool = True


class Watchdog:
    """Judges the agent's threads. Any thread may ask."""

    def __init__(
        self,
        *,
        loops: Mapping[str, LoopStatus],
        workers: Sequence[WatchedWorker],
        journal: Journal,
        disk: Disk,
        platform_status: PlatformStatus,
        draining: Callable[[], bool],
    ) -> None:
        """`loops` are the loops' status by thread name, with `poller` and `sender`; more may be added until the threads start."""
        self._loops = loops
        self._workers = workers
        self._journal = journal
        self._disk = disk
        self._platform_status = platform_status
        self._draining = draining

    def stall(self) -> Finding | None:
        """Return why no heartbeat may be sent; None while the agent works."""
        if self._draining():
            return None
        return next((finding for finding in self.findings() if finding.seconds > RECENT_SECONDS), None)

    def verdict(self) -> str | None:
        """Return why the agent must end, so that its supervisor restarts it, with cause and cure; None if there is no reason."""
        found = next((finding for finding in self.findings() if finding.curable and finding.seconds > STUCK_SECONDS), None)
        return None if found is None else f"{found.reason}: {found.cause.cause}; {found.cause.cure}"

    def findings(self) -> list[Finding]:
        """Return every part, with the time since its last progress, however short."""
        return self.internal_findings() + self.platform_findings()

    def platform_findings(self) -> list[Finding]:
        """Return the findings that involve the platform: the queue is not read, or answers are not sent."""
        if not self._platform_status.registered or self._platform_status.disabled:
            return []
        # A corrected token cures the agent without a restart (docs/durability.md, "The watchdog").
        curable = not self._full and self._platform_status.refused is None
        polling, sending = self._loops["poller"], self._loops["sender"]
        return [
            Finding(
                f"the queue could not be read: {polling.problem or polling.activity}",
                polling.unhealthy_seconds(),
                polling.cause or NOT_READ,
                curable,
            ),
            Finding(
                f"no answer could be sent: {sending.problem or sending.activity}",
                sending.unhealthy_seconds(),
                sending.cause or NO_ANSWERS,
                curable,
            ),
        ]

    def internal_findings(self) -> list[Finding]:
        """Return the findings within the agent: a thread, a commit, a worker."""
        found = [
            Finding(f"the thread {name} is stuck, while {status.activity}", status.seconds_since_iteration(), STUCK)
            for name, status in self._loops.items()
        ]
        found.append(Finding("a commit to the journal does not finish", self._journal.stuck_seconds(), JOURNAL_HANGS))
        # A full disk is cured by an administrator, not by a restart: work that waits for it is not stuck.
        found += [
            Finding(f"{worker.name} runs a command longer than its time limit", worker.overdue_seconds(), OVERDUE, not self._full)
            for worker in self._workers
        ]
        return found

    @property
    def _full(self) -> bool:
        return intake_obstacle(self._journal, self._disk) is not None
