"""When commands are taken in: the loop of the thread `poller`, the queue's only producer.

It must not know rules about commands (that is `relay`) and never waits for a worker: it asks SQS only for as
many as there are free places.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from relay_agent.causes import ACK_REFUSED, cause_of, journal_cause
from relay_agent.errors import (
    CredentialsExpired,
    JournalDamaged,
    JournalError,
    JournalUnwritable,
    PlatformError,
    PlatformRefused,
    QueueUnavailable,
    RateLimited,
)
from relay_agent.faultpoints import Point, reach
from relay_agent.journal import Journal
from relay_agent.models import Obstacle
from relay_agent.outbox import Outbox
from relay_agent.periodic import Backoff
from relay_agent.pulse import Pulse
from relay_agent.relay import Relay, Task
from relay_agent.standing import Standing
from relay_agent.tdp.client import PlatformClient, QueueDisabled
from relay_agent.tdp.queues import BATCH, WAIT_SECONDS, Queue, Received
from relay_agent.telemetry.logs import Logger
from relay_agent.telemetry.repeated import RepeatedFailure
from relay_agent.telemetry.summary import Tally

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
        relay: Relay,
        journal: Journal,
        room: Callable[[], int],
        obstacle: Callable[[], Obstacle | None],
        outbox: Outbox,
        pulse: Pulse,
        tally: Tally,
        full: RepeatedFailure,
        log: Logger,
        monotonic: Callable[[], float],
        standing: Standing,
        enqueue: Callable[[Task], None],
        stopping: Callable[[], bool],
        look_again: threading.Event,
    ) -> None:
        """Take what the steps need.

        `room` says how many commands there is a place for, and `enqueue` takes one; `obstacle` says why the disk lets
        nothing be taken in, None where it does, and `full` logs that; `stopping` says that the agent stops; `look_again`
        asks for the configuration to be read now. For an obstacle and for the stop, others break off a receive that is open.
        """
        self._platform = platform
        self._relay = relay
        self._journal = journal
        self._room = room
        self._obstacle = obstacle
        self._enqueue = enqueue
        self._outbox = outbox
        self._pulse = pulse
        self._tally = tally
        self._log = log
        self._standing = standing
        self._stopping = stopping
        self._look_again = look_again
        self._left_over = True
        self._held: list[Received] = []
        self._backoff = Backoff()
        self._trouble = RepeatedFailure(log, "poll-failed", "poll-recovered", monotonic, remind_seconds=300.0)
        self._full = full
        self._acks = RepeatedFailure(log, "ack-failed", "ack-recovered", monotonic, remind_seconds=300.0)
        self._stale = RepeatedFailure(log, "ack-refused", "ack-accepted", monotonic, remind_seconds=300.0)

    def step(self) -> float:
        """One receive, or the reason why there is none; seconds to wait before the next."""
        if not self._standing.may_poll:
            return self._wait_until_wanted()
        obstacle = self._obstacle()
        if obstacle is not None:
            return self._disk_full(obstacle)
        if self._full.failing:
            self._pulse.pause("waiting for commands")  # Healed, which a receive of 20 s would say late.
        self._full.success()
        room = min(self._room(), self._outbox.room(), BATCH)
        if room <= 0:
            self._pulse.pause("waiting for free places")
            return NO_ROOM_SECONDS
        try:
            self._pulse.turn("receiving")
            self._standing.polled = queue = self._platform.inbound()
            self._acknowledge_left_over(queue)
            received = self._held or self._receive(queue, room)
            self._pulse.turn("taking in")
            self._take(received, queue)
        except QueueDisabled:
            self._pulse.pause("queue disabled")
            return DISABLED_SECONDS
        except JournalDamaged:
            raise
        except (PlatformError, JournalError) as error:
            if isinstance(error, JournalError) and not isinstance(error, JournalUnwritable):
                self._held = []
            on_purpose = self._stopping() or self._obstacle() is not None or self._platform.replaced(queue)
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

    def _disk_full(self, obstacle: Obstacle) -> float:
        """Take nothing in, and say so; the heartbeat falls silent after a minute of it."""
        cause = journal_cause(obstacle.trouble)
        self._pulse.failure(obstacle.reason, cause)
        self._full.failure(obstacle.reason, cause)
        return NO_DISK_SECONDS

    def _wait_until_wanted(self) -> float:
        if self._standing.disabled:
            self._pulse.pause("disabled")
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
        taken = self._relay.intake([(message.body, message.receipt) for message in received])
        self._held = []
        for task in taken.tasks:
            self._enqueue(task)
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
            self._look_again.set()
        return self._backoff.next_seconds(error.retry_after if isinstance(error, RateLimited) else 0.0)
