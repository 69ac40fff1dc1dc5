"""Status updates awaiting delivery: final answers, and PROCESSING for commands that are still running.

This module owns the order of a command's PROCESSING and its final status. It sends nothing; `sender` does.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from relay_agent.core.clock import Clock
from relay_agent.core.loop import Backoff
from relay_agent.core.models import Command, Status, Update
from relay_agent.protocol.messages import MESSAGE_LIMIT, update_message
from relay_agent.relay.task import KEPT_IN_MEMORY
from relay_agent.tdp.sqs import BATCH

PROCESSING_AFTER_SECONDS = 0.25
"""PROTOCOL §2: a command still running this long after its start gets one PROCESSING update."""
LINGER_SECONDS = 0.02
"""How long an incomplete batch waits for more updates."""
DRAIN_WAIT_SECONDS = 0.05
"""How long `take` waits at most while the agent stops."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message for the outbound queue; `final` is False for PROCESSING, `message` is None if it must be read from the journal."""

    command_id: str
    message: str | None = field(repr=False)
    final: bool
    size: int
    since: float = 0.0
    """When its outcome was known, on the monotonic clock."""


@dataclass
class Upload:
    """A spooled answer to upload to S3; `begun` and `due` (the next attempt) are on the monotonic clock."""

    update: Update
    begun: float
    due: float = 0.0
    waits: Backoff = field(default_factory=Backoff)


class Outbox:
    """Collects updates from the workers for the single sender. Thread-safe."""

    def __init__(self, clock: Clock, in_flight: Callable[[], int], capacity: int = 1000) -> None:
        """`in_flight` returns how many commands are queued or running: an incomplete batch waits briefly for their answers."""
        self._clock = clock
        self._in_flight = in_flight
        self._capacity = capacity
        self._changed = threading.Condition()
        self._ready: deque[Entry] = deque()
        self._running: dict[str, tuple[float, Command]] = {}
        self._active: set[str] = set()
        self._pending = 0
        self._since: dict[str, float] = {}
        self._draining = False
        self._lingering = False
        """Whether the sender waits for more answers to fill its batch."""
        self.uploads: queue.SimpleQueue[Upload | None] = queue.SimpleQueue()

    # --- workers, poller, uploader ---

    def command_started(self, command: Command) -> None:
        """Schedule the PROCESSING update of a command that a worker has taken."""
        with self._changed:
            # The sender knows when the first PROCESSING of several is due; the others are due later.
            if not self._running and not self._ready:
                self._changed.notify()
            self._running[command.id] = (self._clock.monotonic() + PROCESSING_AFTER_SECONDS, command)
            self._active.add(command.id)

    def put(self, update: Update) -> None:
        """Add a final answer that the journal has; a spooled one is uploaded first."""
        with self._changed:
            self._pending += 1
            self._since[update.command_id] = self._clock.monotonic()
            if update.spool is None:
                self._add(update)
        if update.spool is not None:
            self.uploads.put(Upload(update, self._clock.monotonic()))

    def forget(self, command_id: str) -> None:
        """Send no PROCESSING of a command that will have no answer."""
        with self._changed:
            self._end_processing(command_id)

    def uploaded(self, update: Update) -> None:
        """Add an answer whose body was uploaded, or is given up."""
        with self._changed:
            self._add(update)

    def free(self) -> int:
        """Return how many more answers fit; 0 once a long outage of the platform has filled the outbox."""
        with self._changed:
            return max(0, self._capacity - self._pending)

    def pending(self) -> int:
        """Return how many final answers are not yet delivered."""
        with self._changed:
            return self._pending

    # --- the sender ---

    def take(self, timeout: float) -> list[Entry]:
        """Wait up to `timeout` seconds, and return what one batch call can carry; an empty list if there is nothing."""
        give_up = self._clock.monotonic() + timeout
        with self._changed:
            while not self._ready:
                self._promote()
                left = give_up - self._clock.monotonic()
                if self._ready or left <= 0:
                    break
                self._changed.wait(min(left, self._until_due(), DRAIN_WAIT_SECONDS if self._draining else left))
                if self._draining:
                    break
            if self._ready and not self._draining:
                self._linger()
            self._promote()
            return self._batch()

    def delivered(self, entries: list[Entry]) -> None:
        """Forget entries that the queue accepted."""
        with self._changed:
            self._pending -= sum(entry.final for entry in entries)

    def put_back(self, entries: list[Entry]) -> None:
        """Put entries that were not sent back at the front; a PROCESSING only if its command is still running."""
        with self._changed:
            self._ready.extendleft(reversed([entry for entry in entries if entry.final or entry.command_id in self._active]))

    def put_last(self, entries: list[Entry]) -> None:
        """Put answers that the queue refused behind the others, so that they delay none; a PROCESSING is dropped."""
        with self._changed:
            self._ready.extend(entry for entry in entries if entry.final)

    def drain(self) -> None:
        """Return every batch at once from now on: the agent is stopping."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    # --- with the lock held ---

    def _add(self, update: Update) -> None:
        self._end_processing(update.command_id)
        since = self._since.pop(update.command_id, 0.0)
        size = len(update.message.encode("utf-8"))
        self._ready.append(Entry(update.command_id, update.message if size <= KEPT_IN_MEMORY else None, True, size, since))
        if not self._lingering or not self._more_expected():
            self._changed.notify()

    def _end_processing(self, command_id: str) -> None:
        """Cancel the PROCESSING of a command: none may follow its final status."""
        self._running.pop(command_id, None)
        self._active.discard(command_id)
        if any(not entry.final and entry.command_id == command_id for entry in self._ready):
            self._ready = deque(entry for entry in self._ready if entry.final or entry.command_id != command_id)

    def _promote(self) -> None:
        """Make a message of every PROCESSING that is due."""
        now = self._clock.monotonic()
        # The delay is constant, so insertion order is due order.
        while self._running:
            command_id, (due, command) = next(iter(self._running.items()))
            if due > now:
                return
            del self._running[command_id]
            message = update_message(command.id, command.target_id, Status.PROCESSING, self._clock.now())
            self._ready.append(Entry(command_id, message, False, len(message.encode("utf-8"))))

    def _until_due(self) -> float:
        if not self._running:
            return 3600.0
        due, _ = next(iter(self._running.values()))
        return max(0.0, due - self._clock.monotonic())

    def _linger(self) -> None:
        """Wait briefly for more updates, but only while commands are in flight."""
        until = self._clock.monotonic() + LINGER_SECONDS
        self._lingering = True
        while self._more_expected() and (left := until - self._clock.monotonic()) > 0:
            self._changed.wait(left)
        self._lingering = False

    def _more_expected(self) -> bool:
        return len(self._ready) < BATCH and not self._draining and self._in_flight() > 0

    def _batch(self) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while self._ready and len(batch) < BATCH and size + self._ready[0].size <= MESSAGE_LIMIT:
            entry = self._ready.popleft()
            batch.append(entry)
            size += entry.size
        if not batch and self._ready:
            batch.append(self._ready.popleft())
        return batch
