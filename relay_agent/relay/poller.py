"""When commands are received: the loop of the thread `poller`, the only producer of the workers' queue.

It never waits for a worker: it asks SQS only for as many commands as fit. What is admitted is decided in `intake`.
"""

from __future__ import annotations

from collections.abc import Callable

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
from relay_agent.diagnostics.platform_causes import ACK_REFUSED, cause_of
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.relay.admission_gate import AdmissionGate
from relay_agent.relay.intake import Intake
from relay_agent.relay.outbox import Outbox
from relay_agent.storage.journal import Journal
from relay_agent.tdp.client import PlatformClient, QueueDisabled
from relay_agent.tdp.sqs import BATCH, WAIT_SECONDS, Queue, Received
from relay_agent.telemetry.repeated_failure import RepeatedFailure

QUEUE_FULL_SECONDS = 0.05
DISABLED_SECONDS = 1.0
STARTING_SECONDS = 0.5
NO_DISK_SECONDS = 1.0
SHORT_WAIT_SECONDS = 1
"""How long a receive waits for messages while receiving or acknowledging fails."""


class Poller:
    """Receives commands, journals and queues them, then acknowledges them."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        platform_status: PlatformStatus,
        intake: Intake,
        gate: AdmissionGate,
        journal: Journal,
        outbox: Outbox,
        disk_full: RepeatedFailure,
        stopping: Callable[[], bool],
        loop: LoopContext,
    ) -> None:
        """`disk_full` logs the gate's obstacle. Other threads abort an open receive for an obstacle and for the stop."""
        self._platform = platform
        self._platform_status = platform_status
        self._intake = intake
        self._journal = journal
        self._gate = gate
        self._outbox = outbox
        self._disk_full = disk_full
        self._stopping = stopping
        self._status = loop.status
        self._tally = loop.tally
        self._log = loop.log
        self.receiving = False
        """Whether nothing is lost if the open call to SQS is aborted: no received command waits to be admitted. Any thread may read it."""
        self._has_unacked = True
        self._held: list[Received] = []
        self._backoff = Backoff()
        self._poll_failure = loop.repeated_failure("poll-failed", "poll-recovered")
        self._ack_failure = loop.repeated_failure("ack-failed", "ack-recovered")
        self._refused_acks = loop.repeated_failure("ack-refused", "ack-accepted")

    def step(self) -> float:
        """Receive once, or note why not; return the seconds to wait before the next step."""
        self.receiving = False
        if not self._platform_status.may_poll:
            return self._wait_until_ready()
        obstacle = self._gate.obstacle()
        if obstacle is not None:
            return self._blocked(obstacle)
        if self._disk_full.failing:
            self._status.pause("waiting for commands")  # Clears the problem now; the next receive may take 20 s.
        self._disk_full.success()
        free = min(self._gate.free(), BATCH)
        if free <= 0:
            self._status.pause("waiting for space in the agent's queue")
            return QUEUE_FULL_SECONDS
        try:
            self._platform_status.polled = queue = self._platform.inbound()
        except QueueDisabled:
            self._status.pause("waiting for the queue to be enabled")
            return DISABLED_SECONDS
        try:
            self._status.turn("receiving")
            self.receiving = True
            self._acknowledge_unacked(queue)
            received = self._held or self._receive(queue, free)
            self.receiving = False
            self._status.turn("accepting commands")
            self._admit(received, queue)
        except JournalDamaged:
            raise
        except (PlatformError, JournalError) as error:
            if isinstance(error, JournalError) and not isinstance(error, JournalUnwritable):
                self._held = []
            aborted = self._stopping() or self._gate.obstacle() is not None or self._platform.replaced(queue)
            return 0.0 if aborted else self._failed(error)
        self._status.success()
        self._poll_failure.success()
        self._backoff.reset()
        return 0.0

    def _receive(self, queue: Queue, most: int) -> list[Received]:
        """Receive once; only a short wait while receiving or acknowledging fails, so that recovery is noticed soon."""
        received = queue.receive(most, SHORT_WAIT_SECONDS if self._poll_failure.failing or self._ack_failure.failing else WAIT_SECONDS)
        self._tally.count("polls")
        if received:
            reach(Point.RECEIVED)
            self._tally.count("commands", len(received))
        return received

    def _acknowledge_unacked(self, queue: Queue) -> None:
        """Acknowledge commands of the last run and those whose acknowledgement failed; an invalid receipt does no harm.

        Until then, or until its visibility time-out (perhaps ten minutes), SQS delivers nothing more of a message's group.
        """
        if not self._has_unacked:
            return
        unacked = self._journal.unacked()
        for start in range(0, len(unacked), BATCH):
            batch = unacked[start : start + BATCH]
            if not self._acknowledge(queue, [(command_id, receipt) for command_id, receipt in batch]):
                return
        self._has_unacked = False

    def _blocked(self, obstacle: Obstacle) -> float:
        """Admit nothing, and log why; after a minute of this the heartbeat stops."""
        cause = journal_cause(obstacle.trouble)
        self._status.failure(obstacle.reason, cause)
        self._disk_full.failure(obstacle.reason, cause)
        return NO_DISK_SECONDS

    def _wait_until_ready(self) -> float:
        if self._platform_status.disabled:
            self._status.pause("waiting for the agent to be enabled")
            return DISABLED_SECONDS
        self._status.pause("starting")
        self._platform_status.ready.wait(STARTING_SECONDS)
        return 0.0

    def _admit(self, received: list[Received], queue: Queue) -> None:
        if not received:
            return
        # Held until the journal has them: SQS delivers nothing else of their group before their visibility time-out, perhaps ten minutes.
        # If they arrive again meanwhile, the journal recognises them.
        self._held = received
        admitted = self._intake.admit([(message.body, message.receipt) for message in received])
        self._held = []
        for task in admitted.tasks:
            self._gate.enqueue(task)
        for update in admitted.refused:
            self._outbox.put(update)
        for oddity in admitted.oddities:
            self._log.warning("odd-message", reason=oddity)
        if not self._acknowledge(queue, [(admitted.ids.get(message.receipt), message.receipt) for message in received]):
            self._has_unacked = True

    def _acknowledge(self, queue: Queue, messages: list[tuple[str | None, str]]) -> bool:
        """Delete (command id, receipt) pairs from the queue; return whether the call succeeded.

        A message that is not deleted is delivered again and recognised by its id.
        """
        reach(Point.BEFORE_ACK)
        try:
            refused = set(queue.delete([receipt for _, receipt in messages]))
        except PlatformError as error:
            cause = cause_of(error)
            self._ack_failure.failure(error.reason, cause, messages=len(messages))
            return False
        reach(Point.AFTER_ACK)
        self._ack_failure.success()
        if refused:
            self._refused_acks.failure("refused", ACK_REFUSED, messages=len(refused))
        else:
            self._refused_acks.success()
        self._journal.acked(command_id for place, (command_id, _) in enumerate(messages) if command_id and place not in refused)
        return True

    def _failed(self, error: PlatformError | JournalError) -> float:
        reason = str(error)
        self._tally.count("polls_failed")
        cause = cause_of(error) if isinstance(error, PlatformError) else journal_cause(error.trouble)
        self._status.failure(reason, cause)
        self._poll_failure.failure(reason, cause)
        if isinstance(error, QueueUnavailable | CredentialsExpired | PlatformRefused):
            self._platform_status.look_again.set()
        return self._backoff.next_seconds(error.retry_after if isinstance(error, RateLimited) else 0.0)
