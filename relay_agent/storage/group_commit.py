"""Group commit: changes from many threads, one transaction, one fsync.

This module owns when a transaction is written. It must not know what the changes do.

The first thread to arrive is the leader: it writes for all that wait. Under load the leader lingers a millisecond for
threads that are about to commit too, since a commit costs one fsync, however much it carries; a lone change is written at once.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from relay_agent.core.callbacks import nothing
from relay_agent.core.errors import JournalDamaged, JournalError, JournalUnwritable
from relay_agent.core.failures import Obstacle
from relay_agent.storage.commit_counter import CommitCounter, count_commit
from relay_agent.storage.disk_faults import journal_error

LINGER_SECONDS = 0.001
PATIENCE_SECONDS = 10.0
"""How long a reader waits for a writer: a disk that hangs must not hang the threads that read."""
FOLLOWER_WAIT_SECONDS = 0.01
"""How long, under load, a flush waits for another thread's commit before it makes one."""
LOAD_CHANGES = 8
LOAD_SECONDS = 0.1
"""Load is this many changes within so many seconds: a lone command makes five."""

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], Any]


@dataclass(eq=False, slots=True)
class _Work:
    """One change in the queue for the next commit.

    `change` is None for a flush, which only waits for the changes before it; `awaited` is False if no thread leads for it, so that any
    later commit may carry it; `then` is called once it is durable, `failed` if it cannot be made. `ready` is set when it is settled, or
    when its thread must lead; it is None if no thread waits.
    """

    change: Change | None
    ready: threading.Event | None = None
    awaited: bool = True
    then: Callable[[], None] = nothing
    failed: Callable[[JournalError], None] | None = None
    settled: bool = False
    result: Any = None
    error: JournalError | None = None

    def settle(self, result: Any, error: JournalError | None = None) -> None:
        self.result, self.error, self.settled = result, error, True


class Writer:
    """One connection, one writer at a time. All methods may be called from any thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        others: Callable[[], int],
        monotonic: Callable[[], float],
        make_room: Callable[[], bool],
        counter: CommitCounter | None = None,
    ) -> None:
        """Take ownership of the connection and the counter.

        `others` returns how many commands a worker is executing; `make_room` frees the reserve kept for a full disk and returns
        whether there was any.
        """
        self._connection = connection
        self._others = others
        self._monotonic = monotonic
        self._make_room = make_room
        self._counter = counter
        self.using = threading.Lock()
        """Held while the connection is used; a test holds it for a commit that does not end."""
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._waiting: list[_Work] = []
        self._awaited = 0
        self._leading_since: float | None = None
        self._recent: deque[float] = deque(maxlen=LOAD_CHANGES)
        self._failed_later: JournalError | None = None
        self._put_back: list[_Work] = []
        self.patience_seconds = PATIENCE_SECONDS
        """How long a reader waits for a commit that does not end."""
        self.commits = 0
        """Transactions written; each is one fsync of the write-ahead log."""
        self.unwritable: Obstacle | None = None
        """Why the last commit failed, None since the first that succeeded again."""

    def commit(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run the change, and return its result once it is durable.

        Raises:
            JournalUnwritable: the disk accepts no writes now.
            JournalError: the change cannot be made; other changes are not affected.
        """
        result: T = self._await(change)
        return result

    def later(self, change: Change, then: Callable[[], None] = nothing, failed: Callable[[JournalError], None] | None = None) -> None:
        """Run the change with the next commit, and then `then`; a crash before loses it.

        If the change cannot be made, `failed` is called before any `flush` returns; without it every `flush` from then on raises, so that
        no thread relies on the change.
        """
        with self._lock:
            self._recent.append(self._monotonic())
            self._waiting.append(_Work(change, None, False, then, failed))

    def flush(self, patience_seconds: float | None = None, *, follow: bool = False) -> None:
        """Return once everything handed to `later` is durable; at once, and without a commit, if it already is.

        `patience_seconds` bounds the wait for the current commit; None waits until it finishes. With `follow`, another thread's commit is
        awaited for FOLLOWER_WAIT_SECONDS first, as it is under load.

        Raises:
            JournalUnwritable: the disk accepts no writes now.
            JournalError: one of the changes cannot be made, or the current commit did not finish in time.
        """
        committed = threading.Event()
        follower = _Work(None, committed, awaited=False)
        with self._lock:
            follower.settled = self._leading_since is None and not self._waiting
            if not follower.settled:
                self._waiting.append(follower)
        if (follow or self.loaded) and not follower.settled:
            committed.wait(FOLLOWER_WAIT_SECONDS)
        if not follower.settled or follower.error is not None:
            self._await(None, patience_seconds)
        if self._failed_later is not None:
            raise self._failed_later

    @property
    def loaded(self) -> bool:
        """Whether changes come so fast that the next commit is milliseconds away."""
        recent = self._recent
        return len(recent) == LOAD_CHANGES and self._monotonic() - recent[0] <= LOAD_SECONDS and self._others() > 1

    @property
    def busy(self) -> bool:
        """Whether a thread uses the connection: a commit may take long, or not end."""
        return self.using.locked()

    def read(self, query: str, *values: object) -> list[Any]:
        """Return the rows of a query.

        Raises:
            JournalError: the journal cannot be read, or the current commit did not finish within `patience_seconds`.
        """
        return self.use(lambda connection: connection.execute(query, values).fetchall())

    def use(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Call `act` with the connection, outside a transaction, while no thread writes.

        Raises:
            JournalError: as for `read`.
        """
        if not self.using.acquire(timeout=self.patience_seconds):
            raise JournalError("the journal cannot be read: a commit does not finish")
        try:
            return act(self._connection)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise journal_error(error, "the journal cannot be read") from None
        finally:
            self.using.release()

    def stuck_seconds(self) -> float:
        """Return how long the current commit has taken, 0 if there is none."""
        since = self._leading_since
        return 0.0 if since is None else self._monotonic() - since

    def close(self, patience_seconds: float) -> None:
        """Close the connection; if it stays in use for longer than this, leave it to the end of the process."""
        if self.using.acquire(timeout=patience_seconds):
            try:
                self._connection.close()
                if self._counter is not None:
                    self._counter.close()
            finally:
                self.using.release()

    # --- a thread that waits for its change ---

    def _await(self, change: Change | None, patience_seconds: float | None = None) -> Any:
        """Queue the change; lead if no thread does, else wait for the leader or to become it. None for a flush."""
        now = self._monotonic()
        work = _Work(change)
        with self._lock:
            self._waiting.append(work)
            self._awaited += 1
            if change is not None:
                self._recent.append(now)
            if self._leading_since is None:
                self._leading_since = now
            else:
                work.ready = threading.Event()
                self._more.notify()
        ready = work.ready
        if ready is not None and not ready.wait(patience_seconds):
            with self._lock:
                if not ready.is_set():
                    work.awaited = False
                    self._awaited -= work in self._waiting
                    raise JournalError("the journal cannot be written: a commit does not finish")
        if not work.settled:
            self._lead()
        if work.error is not None:
            raise work.error
        if not work.settled:
            raise JournalError("the journal cannot be written: the commit ended with an unexpected error")
        return work.result

    # --- the leader ---

    def _lead(self) -> None:
        with self._lock:
            self._linger()
            batch, self._waiting = self._waiting, []
            self._awaited = 0
        try:
            with self.using:
                self._write(batch)
        finally:
            self._hand_over()
            for work in batch:
                if work.ready is not None:
                    work.ready.set()
        for work in batch:  # Only now, so that no waiting thread is delayed by it.
            if work.settled and work.error is None:
                work.then()

    def _linger(self) -> None:
        if not self.loaded:
            return
        until = self._monotonic() + LINGER_SECONDS
        while self._awaited < self._others() and (left := until - self._monotonic()) > 0:
            self._more.wait(left)

    def _hand_over(self) -> None:
        """Make the first thread that waits the next leader."""
        with self._lock:
            self._waiting[:0], self._put_back = self._put_back, []
            successor = next((work for work in self._waiting if work.awaited), None)
            self._leading_since = None if successor is None else self._monotonic()
            if successor is not None and successor.ready is not None:
                successor.ready.set()

    def _write(self, batch: list[_Work]) -> None:
        """Commit the changes together; if one of them cannot be made, each alone, so that the others succeed."""
        try:
            results = self._transaction_or_make_room(batch)
        except (JournalUnwritable, JournalDamaged) as error:
            self._fail(batch, error)
        except JournalError as error:
            if len(batch) > 1:
                self._write_each(batch)
                return
            batch[0].settle(None, error)
            if batch[0].failed is not None:
                batch[0].failed(error)
            elif not batch[0].awaited:
                self._failed_later = error
        else:
            for work, result in zip(batch, results, strict=True):
                work.settle(result)

    def _write_each(self, batch: list[_Work]) -> None:
        """Commit each alone, up to the first that the disk does not accept: later ones may depend on it."""
        for place, work in enumerate(batch):
            self._write([work])
            if isinstance(work.error, JournalUnwritable | JournalDamaged):
                self._fail(batch[place + 1 :], work.error)
                return

    def _fail(self, batch: list[_Work], error: JournalError) -> None:
        """Report the error to the threads that wait, and queue again the changes that no thread would retry."""
        for work in batch:
            work.settle(None, error)
        self._put_back += [replace(work, settled=False, error=None) for work in batch if work.change is not None and not work.awaited]

    def _transaction_or_make_room(self, batch: list[_Work]) -> list[Any]:
        """Write; if the disk is full, free the reserve and write again."""
        if all(work.change is None for work in batch):
            return [None] * len(batch)
        try:
            results = self._transaction(batch)
        except JournalUnwritable as error:
            self.unwritable = error.obstacle
            if not self._make_room():
                raise
            results = self._transaction(batch)
        self.unwritable = None
        return results

    def _transaction(self, batch: list[_Work]) -> list[Any]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [None if work.change is None else work.change(self._connection) for work in batch]
            number = 0 if self._counter is None else count_commit(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - an error of a change goes to its caller, not to the leader
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            raise journal_error(error, "the journal cannot be written") from None
        if self._counter is not None:
            self._counter.record(number)
        self.commits += 1
        return results
