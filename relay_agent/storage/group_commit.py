"""Group commit: changes from many threads, one transaction, one fsync.

This room owns when a transaction is written, and what an error of the disk means. It must not know what the changes say.

Whoever comes first leads: it writes for all who wait. Under load the leader lingers a millisecond for those who
are about to come, since a commit's price is its fsync, whatever it carries; a lone change is written at once.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from relay_agent.core.callbacks import nothing
from relay_agent.core.errors import JournalDamaged, JournalError, JournalUnwritable
from relay_agent.core.failures import Obstacle, StorageTrouble
from relay_agent.storage.commit_counter import CommitCounter, count

LINGER_SECONDS = 0.001
PATIENCE_SECONDS = 10.0
"""How long a reader waits for a writer: a disk that hangs must not hang whoever asks about it."""
RIDE_SECONDS = 0.01
"""How long, under load, a flush waits for a commit that comes anyway."""
LOAD_CHANGES = 8
LOAD_SECONDS = 0.1
"""Load is this many changes within so many seconds: a lone command makes five."""

_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM}
)
_TROUBLE_BY_CODE = {
    sqlite3.SQLITE_FULL: StorageTrouble.FULL,
    sqlite3.SQLITE_READONLY: StorageTrouble.READ_ONLY,
    sqlite3.SQLITE_BUSY: StorageTrouble.LOCKED,
}
_TROUBLE_BY_ERRNO = {
    errno.ENOSPC: StorageTrouble.FULL,
    errno.EDQUOT: StorageTrouble.FULL,
    errno.EROFS: StorageTrouble.READ_ONLY,
}
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], Any]


@dataclass(eq=False)
class _Work:
    """One change, and who waits for it; `awaited` is False for one that may come with any later commit.

    `change` is None for one that only waits for those before it; `then` is called when it is on the disk.
    """

    change: Change | None
    awaited: bool = True
    then: Callable[[], None] = nothing
    ready: threading.Event = field(default_factory=threading.Event)
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
        witness: CommitCounter | None = None,
    ) -> None:
        """Take the connection over.

        `others` says how many commands are with a worker, `make_room` frees what is kept back for a full disk;
        whether there was any.
        """
        self._connection = connection
        self._others = others
        self._monotonic = monotonic
        self._make_room = make_room
        self._witness = witness
        self._using = threading.Lock()
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._waiting: list[_Work] = []
        self._awaited = 0
        self._leading_since: float | None = None
        self._recent: deque[float] = deque(maxlen=LOAD_CHANGES)
        self._spoilt: JournalError | None = None
        self._left: list[_Work] = []
        self.patience_seconds = PATIENCE_SECONDS
        """How long a reader waits for a commit that does not end."""
        self.commits = 0
        """Transactions written: so many fsyncs of the write-ahead log."""
        self.unwritable: Obstacle | None = None
        """Why the disk takes nothing, while it does not."""

    def commit(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run the change, and return when it is on the disk.

        Raises:
            JournalUnwritable: the disk does not take it now.
            JournalError: the change cannot be made; it spoils no other.
        """
        result: T = self._await(_Work(change))
        return result

    def later(self, change: Change, then: Callable[[], None] = nothing) -> None:
        """Run the change with whatever is committed next, and then `then`: the process may end before.

        One that cannot be made is raised by each `flush` from then on: whoever relies on it must not go on.
        """
        with self._lock:
            self._recent.append(self._monotonic())
            self._waiting.append(_Work(change, awaited=False, then=then))

    def flush(self, patience_seconds: float | None = None) -> None:
        """Return when what was handed to `later` is on the disk; at once, and without a commit, where it is.

        Raises:
            JournalUnwritable: the disk does not take it now.
            JournalError: one of them cannot be made, or the commit under way does not end in so many seconds (None: wait for it).
        """
        rider = _Work(None, awaited=False)
        with self._lock:
            rider.settled = self._leading_since is None and not self._waiting
            if not rider.settled:
                self._waiting.append(rider)
        if self.loaded and not rider.settled:
            rider.ready.wait(RIDE_SECONDS)
        if not rider.settled or rider.error is not None:
            self._await(_Work(None), patience_seconds)
        if self._spoilt is not None:
            raise self._spoilt

    @property
    def loaded(self) -> bool:
        """Whether so much is written that the next commit is a matter of milliseconds."""
        recent = self._recent
        return len(recent) == LOAD_CHANGES and self._monotonic() - recent[0] <= LOAD_SECONDS and self._others() > 1

    def _await(self, work: _Work, patience_seconds: float | None = None) -> Any:
        now = self._monotonic()
        with self._lock:
            self._waiting.append(work)
            self._awaited += 1
            if work.change is not None:
                self._recent.append(now)
            lead = self._leading_since is None
            if lead:
                self._leading_since = now
            else:
                self._more.notify()
        if not lead and not work.ready.wait(patience_seconds):
            with self._lock:
                if not work.ready.is_set():
                    work.awaited = False
                    self._awaited -= work in self._waiting
                    raise JournalError("the journal cannot be written: a commit does not end")
        if not work.settled:
            self._lead()
        if work.error is not None:
            raise work.error
        if not work.settled:
            raise JournalError("the journal cannot be written: the commit ended by an error that nobody foresaw")
        return work.result

    def read(self, query: str, *values: object) -> list[Any]:
        """The rows of a query.

        Raises:
            JournalError: it cannot be read.
        """
        return self.use(lambda connection: connection.execute(query, values).fetchall())

    def use(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the connection outside a transaction, while nobody writes."""
        if not self._using.acquire(timeout=self.patience_seconds):
            raise JournalError("the journal cannot be read: a commit does not end")
        try:
            return act(self._connection)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise _error(error, "read") from None
        finally:
            self._using.release()

    def stuck_seconds(self) -> float:
        """How long the commit under way has taken, 0 where there is none."""
        since = self._leading_since
        return 0.0 if since is None else self._monotonic() - since

    def close(self, patience_seconds: float) -> None:
        """Close the connection; one that is in use for longer ends with the process."""
        if self._using.acquire(timeout=patience_seconds):
            try:
                self._connection.close()
                if self._witness is not None:
                    self._witness.close()
            finally:
                self._using.release()

    # --- the leader ---

    def _lead(self) -> None:
        with self._lock:
            self._linger()
            batch, self._waiting = self._waiting, []
            self._awaited = 0
        try:
            with self._using:
                self._write(batch)
        finally:
            self._hand_over()
            for work in batch:
                work.ready.set()
        for work in batch:  # After all who wait were woken: what is done then is nothing that they wait for.
            if work.settled and work.error is None:
                work.then()

    def _linger(self) -> None:
        if not self.loaded:
            return
        until = self._monotonic() + LINGER_SECONDS
        while self._awaited < self._others() and (left := until - self._monotonic()) > 0:
            self._more.wait(left)

    def _hand_over(self) -> None:
        with self._lock:
            self._waiting[:0], self._left = self._left, []
            heir = next((work for work in self._waiting if work.awaited), None)
            self._leading_since = None if heir is None else self._monotonic()
            if heir is not None:
                heir.ready.set()

    def _write(self, batch: list[_Work]) -> None:
        """Commit the changes together; where one of them cannot be made, each alone, so that it spoils no other."""
        try:
            results = self._with_room(batch)
        except (JournalUnwritable, JournalDamaged) as error:
            self._put_back(batch, error)
        except JournalError as error:
            if len(batch) > 1:
                self._write_each(batch)
                return
            batch[0].settle(None, error)
            if not batch[0].awaited:
                self._spoilt = error
        else:
            for work, result in zip(batch, results, strict=True):
                work.settle(result)

    def _write_each(self, batch: list[_Work]) -> None:
        """Commit each alone, up to the first that the disk does not take: what comes behind it may rely on it."""
        for place, work in enumerate(batch):
            self._write([work])
            if isinstance(work.error, JournalUnwritable | JournalDamaged):
                self._put_back(batch[place + 1 :], work.error)
                return

    def _put_back(self, batch: list[_Work], error: JournalError) -> None:
        for work in batch:
            work.settle(None, error)
        # What nobody waits for has nobody who would try again.
        self._left += [replace(work, settled=False, error=None) for work in batch if work.change is not None and not work.awaited]

    def _with_room(self, batch: list[_Work]) -> list[Any]:
        """Write; on a full disk free what was kept back for it, and write again."""
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
            number = 0 if self._witness is None else count(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever a change raises is its caller's, not the leader's
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            raise _error(error, "written") from None
        if self._witness is not None:
            self._witness.note(number)
        self.commits += 1
        return results


def unwritable(error: sqlite3.Error | OSError) -> bool:
    """Whether it is the disk that takes nothing: full, read-only, failing, locked by another program."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNWRITABLE


def trouble_of(error: sqlite3.Error | OSError) -> StorageTrouble | None:
    """What kind of trouble an error means, None where it does not say."""
    if isinstance(error, OSError):
        return _TROUBLE_BY_ERRNO.get(error.errno or 0)
    return _TROUBLE_BY_CODE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)


def words_of(error: Exception) -> str:
    """An error's own words for people. One of SQLite's repeats a value behind them: a text that is no UTF-8."""
    return str(error).partition(" with text ")[0]


def _error(error: Exception, what: str) -> JournalError:
    """Say what happened in our own exceptions, without a value: a value's own error may repeat it."""
    if not isinstance(error, sqlite3.Error):
        return JournalError(f"the journal cannot be {what}: a value that it cannot hold ({type(error).__name__})")
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind = JournalUnwritable if unwritable(error) else JournalDamaged if primary in _DAMAGED else JournalError
    return kind(f"the journal cannot be {what}: {words_of(error)}", trouble_of(error))
