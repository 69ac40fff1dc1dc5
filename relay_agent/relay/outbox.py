"""What waits to be told: final answers, and the note that a command is still under way.

This room owns the order between a command's PROCESSING and its final status. It must not send anything.
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

PROCESSING_AFTER_SECONDS = 0.25
"""PROTOCOL §2: one PROCESSING update for a command still under way this long after it started."""
LINGER_SECONDS = 0.02
HURRIED_SECONDS = 0.05
BATCH = 10
KEPT_IN_MEMORY = 16 * 1024
"""Bytes of an answer's message that wait here; a larger one waits in the journal, however many there are."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message for the outbound queue; `final` is False for PROCESSING, `message` None where the journal has it."""

    command_id: str
    message: str | None = field(repr=False)
    final: bool
    size: int
    since: float = 0.0
    """When its outcome was there, on the monotonic clock."""


@dataclass
class Upload:
    """A spooled answer on its way to S3: when to try next and when it first was, on the monotonic clock."""

    update: Update
    begun: float
    due: float = 0.0
    waits: Backoff = field(default_factory=Backoff)


class Outbox:
    """Gathers updates from the workers for the one sender. Any thread may call."""

    def __init__(self, clock: Clock, others: Callable[[], int], capacity: int = 1000) -> None:
        """`others` says how many commands are on their way to an answer: a batch waits a moment for them."""
        self._clock = clock
        self._others = others
        self._capacity = capacity
        self._changed = threading.Condition()
        self._ready: deque[Entry] = deque()
        self._under_way: dict[str, tuple[float, Command]] = {}
        self._active: set[str] = set()
        self._pending = 0
        self._since: dict[str, float] = {}
        self._hurry = False
        self.uploads: queue.SimpleQueue[Upload | None] = queue.SimpleQueue()

    # --- workers, poller, uploader ---

    def begun(self, command: Command) -> None:
        """Note that a worker has the command: a PROCESSING is due for it in a moment."""
        with self._changed:
            self._under_way[command.id] = (self._clock.monotonic() + PROCESSING_AFTER_SECONDS, command)
            self._active.add(command.id)
            if not self._ready:
                self._changed.notify()

    def put(self, update: Update) -> None:
        """Take a final answer, recorded in the journal; a spooled one goes by way of its upload."""
        with self._changed:
            self._pending += 1
            self._since[update.command_id] = self._clock.monotonic()
            if update.spool is None:
                self._add(update)
        if update.spool is not None:
            self.uploads.put(Upload(update, self._clock.monotonic()))

    def uploaded(self, update: Update) -> None:
        """Take an answer whose body is where it belongs, or that will do without."""
        with self._changed:
            self._add(update)

    def room(self) -> int:
        """How many answers more may wait here; 0 while the platform takes none."""
        with self._changed:
            return max(0, self._capacity - self._pending)

    def pending(self) -> int:
        """How many final answers were not yet delivered."""
        with self._changed:
            return self._pending

    # --- the sender ---

    def take(self, timeout: float) -> list[Entry]:
        """Wait up to `timeout` seconds and give what one batch call can carry; nothing when there is nothing."""
        give_up = self._clock.monotonic() + timeout
        with self._changed:
            while not self._ready:
                self._promote()
                left = give_up - self._clock.monotonic()
                if self._ready or left <= 0:
                    break
                self._changed.wait(min(left, self._until_due(), HURRIED_SECONDS if self._hurry else left))
                if self._hurry:
                    break
            if self._ready and not self._hurry:
                self._linger()
            self._promote()
            return self._batch()

    def delivered(self, entries: list[Entry]) -> None:
        """Forget what the queue has taken."""
        with self._changed:
            self._pending -= sum(entry.final for entry in entries)

    def put_back(self, entries: list[Entry]) -> None:
        """Take again what could not be sent; a PROCESSING only while its command is still under way."""
        with self._changed:
            self._ready.extendleft(reversed([entry for entry in entries if entry.final or entry.command_id in self._active]))

    def put_last(self, entries: list[Entry]) -> None:
        """Take again what the queue refused by itself: behind the others, which it may not hold up."""
        with self._changed:
            self._ready.extend(entry for entry in entries if entry.final)

    def hurry(self) -> None:
        """Stop waiting for more: the agent is stopping."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()

    # --- with the lock held ---

    def _add(self, update: Update) -> None:
        self._no_longer_under_way(update.command_id)
        since = self._since.pop(update.command_id, 0.0)
        size = len(update.message.encode("utf-8"))
        self._ready.append(Entry(update.command_id, update.message if size <= KEPT_IN_MEMORY else None, True, size, since))
        self._changed.notify()

    def _no_longer_under_way(self, command_id: str) -> None:
        self._under_way.pop(command_id, None)
        self._active.discard(command_id)
        if any(not entry.final and entry.command_id == command_id for entry in self._ready):
            self._ready = deque(entry for entry in self._ready if entry.final or entry.command_id != command_id)

    def _promote(self) -> None:
        """Turn every PROCESSING that is due into a message."""
        now = self._clock.monotonic()
        # Insertion order is order of being due, and usually nothing is.
        while self._under_way:
            command_id, (due, command) = next(iter(self._under_way.items()))
            if due > now:
                return
            del self._under_way[command_id]
            message = update_message(command.id, command.target_id, Status.PROCESSING, self._clock.now())
            self._ready.append(Entry(command_id, message, False, len(message.encode("utf-8"))))

    def _until_due(self) -> float:
        if not self._under_way:
            return 3600.0
        due, _ = next(iter(self._under_way.values()))
        return max(0.0, due - self._clock.monotonic())

    def _linger(self) -> None:
        """Wait a moment for more, but only while more is on its way."""
        until = self._clock.monotonic() + LINGER_SECONDS
        while len(self._ready) < BATCH and self._others() > 0 and not self._hurry:
            left = until - self._clock.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

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
