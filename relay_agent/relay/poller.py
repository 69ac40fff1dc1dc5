"""When commands are received: the loop of the thread `poller`, which admits commands.

It never waits for a worker: it asks SQS only for as many commands as fit. What is admitted is decided in `intake`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from relay_agent.core.errors import (
    CredentialsExpired,
    JournalDamaged,
    JournalError,
    JournalUnwritable,
    PlatformError,
    PlatformRefused,
    QueueUnavailable,
    RateLimited,
)
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Obstacle
from relay_agent.core.loop import Backoff
from relay_agent.diagnostics.local_causes import journal_cause
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.relay.admission_gate import AdmissionGate
from relay_agent.relay.intake import Intake
from relay_agent.relay.ownership import Ownership
from relay_agent.storage.journal import Journal
from relay_agent.tdp.client import PlatformClient, QueueDisabled
from relay_agent.tdp.sqs import BATCH, Lease, Queue, Received, longest_wait_seconds
from relay_agent.telemetry.repeated_failure import RepeatedFailure

QUEUE_FULL_SECONDS = 0.05
DISABLED_SECONDS = 1.0
STARTING_SECONDS = 0.5
NO_DISK_SECONDS = 1.0
BUSY_SECONDS = 0.5
"""How long after commands arrived more of them are likely to be on their way."""
SHORT_WAIT_SECONDS = 1
"""How long a receive waits for messages while receiving or acknowledging fails, or while `ownership` needs an empty one."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """What a received message passes through: it is admitted if there is room, then owned and released to the workers."""

    intake: Intake
    gate: AdmissionGate
    lease: Lease
    ownership: Ownership


class Poller:
    """Receives commands and journals them; `ownership` acknowledges them and hands them to the workers."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        platform_status: PlatformStatus,
        inbound: Inbound,
        journal: Journal,
        keep_malformed: Callable[[str, str], None],
        disk_full: RepeatedFailure,
        stopping: Callable[[], bool],
        loop: LoopContext,
    ) -> None:
        """`keep_malformed` takes a message that is no new command, and why; `disk_full` logs the gate's obstacle.

        Other threads abort an open receive for an obstacle and for the stop.
        """
        self._platform = platform
        self._platform_status = platform_status
        self._intake = inbound.intake
        self._journal = journal
        self._gate = inbound.gate
        self._ownership = inbound.ownership
        self._lease = inbound.lease
        self._keep_malformed = keep_malformed
        self._disk_full = disk_full
        self._stopping = stopping
        self._status = loop.status
        self._tally = loop.tally
        self._log = loop.log
        self.receiving = False
        """Whether nothing is lost if the open call to SQS is aborted: no received command waits to be admitted. Any thread may read it."""
        self._monotonic = loop.clock.monotonic
        self._received_at = float("-inf")
        self._held: list[Received] = []
        self._backoff = Backoff()
        self._poll_failure = loop.repeated_failure("poll-failed", "poll-recovered")

    def step(self) -> float:
        """Receive once, or note why not; return the seconds to wait before the next step."""
        self.receiving = False
        if not self._platform_status.may_poll:
            return self._wait_until_ready()
        obstacle = self._gate.obstacle()
        if obstacle is not None:
            return self._blocked(obstacle)
        if self._disk_full.failing:
            self._status.idle("waiting for commands")  # Clears the problem now; the next receive may take 20 s.
        self._disk_full.success()
        if self._free() <= 0 and not self._ownership.claimed():
            return self._full()
        try:
            self._platform_status.polled = queue = self._platform.inbound()
        except QueueDisabled:
            self._status.idle("waiting for the queue to be enabled")
            return DISABLED_SECONDS
        try:
            wait_seconds = self._receive_and_admit(queue)
        except JournalDamaged:
            raise
        except (PlatformError, JournalError) as error:
            if isinstance(error, JournalError) and not isinstance(error, JournalUnwritable):
                self._held = []
            aborted = self._stopping() or self._gate.obstacle() is not None or self._platform.replaced(queue)
            return 0.0 if aborted else self._failed(error)
        if not wait_seconds:
            self._status.success()
            self._poll_failure.success()
            self._backoff.reset()
        return wait_seconds

    # --- any thread ---

    @property
    def busy(self) -> bool:
        """Whether commands arrived just now: an open receive will probably return more, and an aborted one delays them by a lease."""
        return self._monotonic() - self._received_at < BUSY_SECONDS

    # --- its own thread, or another after it has ended ---

    def give_back(self) -> None:
        """Make SQS deliver again at once what was received and not admitted."""
        with contextlib.suppress(PlatformError, JournalError):  # Then it comes back when its lease ends.
            self._ownership.give_back(self._platform.inbound(), self._held)
            self._held = []

    # --- details ---

    def _free(self) -> int:
        """Return how many commands may be received now."""
        return min(self._gate.free() - self._ownership.claimed(), BATCH)

    def _full(self) -> float:
        self._status.idle("waiting for space in the agent's queue")
        # Claims wait for their deletes, which fail.
        return SHORT_WAIT_SECONDS if self._ownership.claimed() else QUEUE_FULL_SECONDS

    def _receive_and_admit(self, queue: Queue) -> float:
        """Settle what was not acknowledged, then receive; return the seconds to wait if there is no capacity for another command."""
        self._status.begin("receiving")
        self.receiving = not self._ownership.shared
        self._ownership.catch_up(queue)
        free = self._free()
        if free <= 0:
            self.receiving = False
            return self._full()
        self.receiving = True
        received = self._ownership.still_leased(self._held) or self._receive(queue, free)
        self.receiving = False
        if self._stopping():
            # It would wait in the journal for this agent's next start. So another agent, or that start, receives it.
            self._held = received
            self.give_back()
            return 0.0
        self._status.begin("accepting commands")
        self._admit(received, queue)
        return 0.0

    def _receive(self, queue: Queue, most: int) -> list[Received]:
        """Receive once; only a short wait while receiving or acknowledging fails, so that recovery is noticed soon.

        The wait is short too while commands that were accepted before the queue was shared wait for an empty receive: if new commands keep
        arriving, a long receive is never empty.
        """
        short = self._poll_failure.failing or self._ownership.failing or self._ownership.awaited()
        wait_seconds = SHORT_WAIT_SECONDS if short else longest_wait_seconds(self._lease.seconds)
        received = self._ownership.receive(queue, most, wait_seconds)
        self._tally.count("polls")
        if received:
            self._received_at = self._monotonic()
            reach(Point.RECEIVED)
            self._tally.count("commands", len(received))
        return received

    def _blocked(self, obstacle: Obstacle) -> float:
        """Admit nothing, and log why; after a minute of this the heartbeat stops."""
        cause = journal_cause(obstacle.trouble)
        self._status.failure(obstacle.reason, cause)
        self._disk_full.failure(obstacle.reason, cause)
        return NO_DISK_SECONDS

    def _wait_until_ready(self) -> float:
        if self._platform_status.disabled:
            self._status.idle("waiting for the agent to be enabled")
            return DISABLED_SECONDS
        self._status.idle("starting")
        self._platform_status.ready.wait(STARTING_SECONDS)
        return 0.0

    def _admit(self, received: list[Received], queue: Queue) -> None:
        if not received:
            return
        # Held until the journal has them: SQS delivers nothing else of their group before their leases end.
        # If they arrive again meanwhile, the journal recognises them.
        self._held = received
        lease_until = self._ownership.wall_lease(received[0].lease_until)
        admitted = self._intake.admit([(message.body, message.receipt) for message in received], lease_until)
        if admitted.until_durable is None:
            self._held = []
        for oddity in admitted.oddities:
            self._log.warning("odd-message", reason=oddity.reason)
            self._keep_malformed(oddity.message, oddity.reason)
        self._tally.count("malformed", len(admitted.oddities))
        self._ownership.take(queue, received, admitted)
        self._held = []

    def _failed(self, error: PlatformError | JournalError) -> float:
        reason = str(error)
        self._tally.count("polls_failed")
        cause = cause_of(error) if isinstance(error, PlatformError) else journal_cause(error.trouble)
        self._status.failure(reason, cause)
        self._poll_failure.failure(reason, cause)
        if isinstance(error, QueueUnavailable | CredentialsExpired | PlatformRefused):
            self._platform_status.refresh_requested.set()
        return self._backoff.next_seconds(error.retry_after if isinstance(error, RateLimited) else 0.0)
