"""Alive means working: what stands still, for how long, and when that must end the agent.

This room owns the judgement of statuses. It must not mend, send or end anything: `heartbeat` is silent while it finds something,
and the main thread ends the agent on its verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay_agent.core.failures import Cause
from relay_agent.diagnostics.local_causes import CAUGHT, JOURNAL_HANGS, STUCK
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_causes import NO_ANSWERS, NOT_READ
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.storage.disk_faults import intake_obstacle
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal

RECENT_SECONDS = 60.0
"""What stands still for longer silences the heartbeat."""
STUCK_SECONDS = 300.0
"""What stands still for longer ends the agent (ARCHITECTURE, "Alive means working")."""


class Crew(Protocol):
    """A worker, as far as it is watched."""

    name: str

    def overdue_seconds(self) -> float:
        """How far the worker is beyond the limit of what it does; 0 within it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that stands still: for how many seconds, what lies behind it, and whether a restart may cure it."""

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
        workers: Sequence[Crew],
        journal: Journal,
        disk: Disk,
        platform_status: PlatformStatus,
        draining: Callable[[], bool],
    ) -> None:
        """`loops` are the statuses by thread name, `poller` and `sender` among them; more may be added until the threads start."""
        self._loops = loops
        self._workers = workers
        self._journal = journal
        self._disk = disk
        self._platform_status = platform_status
        self._draining = draining

    def standstill(self) -> Finding | None:
        """Why the agent must not say that it is alive; None while it works."""
        if self._draining():
            return None
        return next((finding for finding in self.findings() if finding.seconds > RECENT_SECONDS), None)

    def verdict(self) -> str | None:
        """Why the agent must end, for its supervisor to start it again, with what lies behind it; None while there is no reason."""
        found = next((finding for finding in self.findings() if finding.curable and finding.seconds > STUCK_SECONDS), None)
        return None if found is None else f"{found.reason}: {found.cause.cause}; {found.cause.cure}"

    def findings(self) -> list[Finding]:
        """Everything that does not come round, whatever its time."""
        return self.standing_still() + self.not_served()

    def not_served(self) -> list[Finding]:
        """Of that, what the platform has to do with: the queue is not read, or answers are not sent."""
        if not self._platform_status.enrolled or self._platform_status.disabled:
            return []
        # A token that is put right heals the agent without a restart (OPERATIONS §2).
        curable = not self._full and self._platform_status.refused is None
        polling, sending = self._loops["poller"], self._loops["sender"]
        return [
            Finding(
                f"the queue was not read: {polling.problem or polling.activity}",
                polling.dead_seconds(),
                polling.cause or NOT_READ,
                curable,
            ),
            Finding(
                f"no answer could be sent: {sending.problem or sending.activity}",
                sending.dead_seconds(),
                sending.cause or NO_ANSWERS,
                curable,
            ),
        ]

    def standing_still(self) -> list[Finding]:
        """Of what does not come round, what is within the agent: a thread, a commit, a worker."""
        found = [
            Finding(f"the thread {name} has not come round, while {status.activity}", status.silent_seconds(), STUCK)
            for name, status in self._loops.items()
        ]
        found.append(Finding("the journal does not end a commit", self._journal.stuck_seconds(), JOURNAL_HANGS))
        # A full disk is cured by an administrator, and work that waits for it is not stuck.
        found += [
            Finding(f"{worker.name} is caught in a command beyond its time limit", worker.overdue_seconds(), CAUGHT, not self._full)
            for worker in self._workers
        ]
        return found

    @property
    def _full(self) -> bool:
        return intake_obstacle(self._journal, self._disk) is not None
