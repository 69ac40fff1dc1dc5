"""When commands are taken in: the loop of the thread `poller`, the queue's only producer.

It must not know rules about commands (that is `relay`) and never waits for a worker: it asks SQS only for as
many as there are free places.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from relay_agent.causes import JOURNAL, cause_of
from relay_agent.errors import CredentialsExpired, JournalError, PlatformError, PlatformRefused, QueueUnavailable, RateLimited
from relay_agent.fair_queue import FairQueue
from relay_agent.journal import Journal
from relay_agent.outbox import Outbox
from relay_agent.periodic import Backoff
from relay_agent.pulse import Pulse
from relay_agent.relay import Relay, Task
from relay_agent.tdp.client import PlatformClient, QueueDisabled
from relay_agent.tdp.queues import BATCH, Received
from relay_agent.telemetry.logs import Logger, RepeatedFailure

NO_ROOM_SECONDS = 0.05
DISABLED_SECONDS = 1.0


class Poller:
    """Receives, journals, queues, acknowledges."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        relay: Relay,
        journal: Journal,
        tasks: FairQueue[Task],
        outbox: Outbox,
        pulse: Pulse,
        log: Logger,
        monotonic: Callable[[], float],
        enabled: Callable[[], bool],
        stopping: Callable[[], bool],
        look_again: threading.Event,
    ) -> None:
        """Take what the steps need.

        `stopping` says that a receive was broken off on purpose, `enabled` whether the platform wants us to
        poll; `look_again` asks for the configuration to be read now.
        """
        self._platform = platform
        self._relay = relay
        self._journal = journal
        self._tasks = tasks
        self._outbox = outbox
        self._pulse = pulse
        self._log = log
        self._enabled = enabled
        self._stopping = stopping
        self._look_again = look_again
        self._backoff = Backoff()
        self._trouble = RepeatedFailure(log, "poll-failed", "poll-recovered", monotonic, remind_seconds=300.0)

    def step(self) -> float:
        """One receive, or the reason why there is none; seconds to wait before the next."""
        if not self._enabled():
            self._pulse.pause("disabled")
            return DISABLED_SECONDS
        room = min(self._tasks.free(), self._outbox.room(), BATCH)
        if room <= 0:
            self._pulse.pause("waiting for free places")
            return NO_ROOM_SECONDS
        try:
            self._pulse.turn("receiving")
            self._take(self._platform.inbound().receive(room))
        except QueueDisabled:
            self._pulse.pause("queue disabled")
            return DISABLED_SECONDS
        except (PlatformError, JournalError) as error:
            return self._failed(error)
        self._pulse.success()
        self._trouble.success()
        self._backoff.reset()
        return 0.0

    def acknowledge_left_over(self) -> None:
        """Acknowledge what the last run took over and may not have acknowledged; a receipt that is no longer valid is no harm."""
        left = self._journal.unacked()
        for start in range(0, len(left), BATCH):
            self._acknowledge(
                [command_id for command_id, _ in left[start : start + BATCH]], [receipt for _, receipt in left[start : start + BATCH]]
            )

    def _take(self, received: list[Received]) -> None:
        if not received:
            return
        tasks, updates, oddities = self._relay.intake([(message.body, message.receipt) for message in received])
        for task in tasks:
            self._tasks.put((task.lane, task))
        for update in updates:
            self._outbox.put(update)
        for oddity in oddities:
            self._log.warning("odd-message", reason=oddity)
        self._acknowledge(
            [task.command.id for task in tasks] + [update.command_id for update in updates], [message.receipt for message in received]
        )

    def _acknowledge(self, ids: list[str], receipts: list[str]) -> None:
        """Delete from the queue. What fails comes again and is recognised by its id."""
        try:
            refused = self._platform.inbound().delete(receipts)
        except PlatformError as error:
            self._log.warning("ack-failed", reason=error.reason, messages=len(receipts))
            return
        if refused:
            self._log.warning("ack-refused", messages=len(refused))
        self._journal.acked(ids)

    def _failed(self, error: PlatformError | JournalError) -> float:
        if self._stopping():
            return 0.0
        reason = str(error)
        self._pulse.failure(reason)
        cause = cause_of(error) if isinstance(error, PlatformError) else JOURNAL
        self._trouble.failure(reason, cause=cause.cause, cure=cause.cure)
        if isinstance(error, QueueUnavailable | CredentialsExpired | PlatformRefused):
            self._look_again.set()
        return self._backoff.next_seconds(error.retry_after if isinstance(error, RateLimited) else 0.0)
