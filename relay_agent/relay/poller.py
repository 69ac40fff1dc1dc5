"""When commands are taken in: the loop of the thread `poller`, the queue's only producer.

It must not know rules about commands (that is `intake`) and never waits for a worker: it asks SQS only for as
many as there are free places.
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

NO_ROOM_SECONDS = 0.05
DISABLED_SECONDS = 1.0
STARTING_SECONDS = 0.5
NO_DISK_SECONDS = 1.0
TRYING_SECONDS = 1
"""How long a receive waits for messages while receiving fails."""


class Poller:
    """Receives, journals, queues, acknowledges."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        standing: PlatformStatus,
        intake: Intake,
        gate: AdmissionGate,
        journal: Journal,
        outbox: Outbox,
        disk_full: RepeatedFailure,
        stopping: Callable[[], bool],
        loop: LoopContext,
    ) -> None:
        """`disk_full` logs the gate's obstacle. For an obstacle and for the stop, other threads break off a receive that is open."""
        self._platform = platform
        self._standing = standing
        self._intake = intake
        self._journal = journal
        self._gate = gate
        self._outbox = outbox
        self._disk_full = disk_full
        self._stopping = stopping
        self._pulse = loop.pulse
        self._tally = loop.tally
        self._log = loop.log
        self._left_over = True
        self._held: list[Received] = []
        self._backoff = Backoff()
        self._trouble = loop.repeated_failure("poll-failed", "poll-recovered")
        self._acks = loop.repeated_failure("ack-failed", "ack-recovered")
        self._stale = loop.repeated_failure("ack-refused", "ack-accepted")

    def step(self) -> float:
        """One receive, or the reason why there is none; seconds to wait before the next."""
        if not self._standing.may_poll:
            return self._wait_until_wanted()
        obstacle = self._gate.obstacle()
        if obstacle is not None:
            return self._blocked(obstacle)
        if self._disk_full.failing:
            self._pulse.pause("waiting for commands")  # Healed, which a receive of 20 s would say late.
        self._disk_full.success()
        room = min(self._gate.room(), BATCH)
        if room <= 0:
            self._pulse.pause("waiting for space in the agent's queue")
            return NO_ROOM_SECONDS
        try:
            self._pulse.turn("receiving")
            self._standing.polled = queue = self._platform.inbound()
            self._acknowledge_left_over(queue)
            received = self._held or self._receive(queue, room)
            self._pulse.turn("accepting commands")
            self._take(received, queue)
        except QueueDisabled:
            self._pulse.pause("waiting for the queue to be enabled")
            return DISABLED_SECONDS
        except JournalDamaged:
            raise
        except (PlatformError, JournalError) as error:
            if isinstance(error, JournalError) and not isinstance(error, JournalUnwritable):
                self._held = []
            on_purpose = self._stopping() or self._gate.obstacle() is not None or self._platform.replaced(queue)
            return 0.0 if on_purpose else self._failed(error)
        self._pulse.success()
        self._trouble.success()
        self._backoff.reset()
        return 0.0

    def _receive(self, queue: Queue, room: int) -> list[Received]:
        """One receive; a short one while receiving or acknowledging fails, so that its end is soon seen."""
        received = queue.receive(room, TRYING_SECONDS if self._trouble.failing or self._acks.failing else WAIT_SECONDS)
        self._tally.count("polls")
        if received:
            reach(Point.RECEIVED)
            self._tally.count("commands", len(received))
        return received

    def _acknowledge_left_over(self, queue: Queue) -> None:
        """Acknowledge what the last run may not have, and what this one could not; a receipt that is no longer valid is no harm.

        SQS gives out nothing more of a message's group until it is acknowledged, or its visibility ends: ten minutes perhaps.
        """
        if not self._left_over:
            return
        left = self._journal.unacked()
        for start in range(0, len(left), BATCH):
            batch = left[start : start + BATCH]
            if not self._acknowledge(queue, [(command_id, receipt) for command_id, receipt in batch]):
                return
        self._left_over = False

    def _blocked(self, obstacle: Obstacle) -> float:
        """Take nothing in, and say so; the heartbeat falls silent after a minute of it."""
        cause = journal_cause(obstacle.trouble)
        self._pulse.failure(obstacle.reason, cause)
        self._disk_full.failure(obstacle.reason, cause)
        return NO_DISK_SECONDS

    def _wait_until_wanted(self) -> float:
        if self._standing.disabled:
            self._pulse.pause("waiting for the agent to be enabled")
            return DISABLED_SECONDS
        self._pulse.pause("starting")
        self._standing.ready.wait(STARTING_SECONDS)
        return 0.0

    def _take(self, received: list[Received], queue: Queue) -> None:
        if not received:
            return
        # Held until the journal has them: SQS lets nothing of their group past them before their visibility ends, ten minutes perhaps.
        # Should they come again meanwhile, the journal knows them.
        self._held = received
        taken = self._intake.admit([(message.body, message.receipt) for message in received])
        self._held = []
        for task in taken.tasks:
            self._gate.enqueue(task)
        for update in taken.refused:
            self._outbox.put(update)
        for oddity in taken.oddities:
            self._log.warning("odd-message", reason=oddity)
        if not self._acknowledge(queue, [(taken.ids.get(message.receipt), message.receipt) for message in received]):
            self._left_over = True

    def _acknowledge(self, queue: Queue, messages: list[tuple[str | None, str]]) -> bool:
        """Delete (command id, receipt) from the queue; whether it was asked. What fails comes again and is recognised by its id."""
        reach(Point.BEFORE_ACK)
        try:
            refused = set(queue.delete([receipt for _, receipt in messages]))
        except PlatformError as error:
            cause = cause_of(error)
            self._acks.failure(error.reason, cause, messages=len(messages))
            return False
        reach(Point.AFTER_ACK)
        self._acks.success()
        if refused:
            self._stale.failure("refused", ACK_REFUSED, messages=len(refused))
        else:
            self._stale.success()
        self._journal.acked(command_id for place, (command_id, _) in enumerate(messages) if command_id and place not in refused)
        return True

    def _failed(self, error: PlatformError | JournalError) -> float:
        reason = str(error)
        self._tally.count("polls_failed")
        cause = cause_of(error) if isinstance(error, PlatformError) else journal_cause(error.trouble)
        self._pulse.failure(reason, cause)
        self._trouble.failure(reason, cause)
        if isinstance(error, QueueUnavailable | CredentialsExpired | PlatformRefused):
            self._standing.look_again.set()
        return self._backoff.next_seconds(error.retry_after if isinstance(error, RateLimited) else 0.0)
