"""The journal: what was accepted, what was started, what came of it, until the platform has been told.

SQLite, one file, one writer at a time. This room owns states, recovery and retention. It must not know what
a command asks for, and it never opens the network.

States go one way: admitted → started → finished → delivered. Every change is on the disk when its method
returns. Calls from many threads share one commit: whoever comes first commits for all who wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from relay_agent.clock import Clock
from relay_agent.errors import JournalError
from relay_agent.models import Status, Update

SCHEMA_VERSION = 1
KEEP_IDS_SECONDS = 24 * 3600.0
"""How long a delivered command's id is remembered, to know a message that comes twice."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS commands (
    id TEXT PRIMARY KEY, seq INTEGER NOT NULL, state TEXT NOT NULL, digest BLOB NOT NULL, acked INTEGER NOT NULL DEFAULT 0,
    receipt TEXT, raw TEXT, message TEXT, spool TEXT, upload_url TEXT, fallback TEXT, tell_by REAL, status TEXT, code TEXT,
    admitted_at REAL NOT NULL, started_at REAL, repeatable INTEGER, finished_at REAL, delivered_at REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commands_open ON commands (state, seq) WHERE state <> 'delivered';
CREATE INDEX IF NOT EXISTS commands_old ON commands (delivered_at) WHERE state = 'delivered';
CREATE INDEX IF NOT EXISTS commands_unacked ON commands (seq) WHERE acked = 0;
CREATE TABLE IF NOT EXISTS seen_tokens (jti TEXT PRIMARY KEY, command_id TEXT NOT NULL, forget_at REAL NOT NULL) WITHOUT ROWID;
"""

T = TypeVar("T")


class State(StrEnum):
    """Where a command stands."""

    ADMITTED = "admitted"
    STARTED = "started"
    FINISHED = "finished"
    DELIVERED = "delivered"


class Admission(StrEnum):
    """What the journal says of a message that comes in."""

    NEW = "new"
    KNOWN = "known"
    CHANGED = "changed"
    """The same command id with another body: answered once only, as it came first."""


@dataclass(frozen=True, slots=True)
class Open:
    """A command that the last run left unfinished: its message as received.

    `started` says that bytes may have gone out, `repeatable` that they may go out again all the same.
    """

    id: str
    raw: str
    started: bool
    repeatable: bool


@dataclass
class _Work:
    """One change that waits for its commit."""

    change: Callable[[sqlite3.Connection], Any]
    done: Future[Any]


class Journal:
    """The journal of one state directory. All methods may be called from any thread."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[_Work] = []
        self._waiting_lock = threading.Lock()
        self._writing = threading.Lock()
        self.commits = 0
        try:
            path.touch(mode=0o600)
            path.chmod(0o600)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; PRAGMA foreign_keys=ON;"
            )
            self._migrate()
            self._seq = self._connection.execute("SELECT COALESCE(MAX(seq), 0) FROM commands").fetchone()[0]
        except (sqlite3.Error, OSError, JournalError) as error:
            if hasattr(self, "_connection"):
                self._connection.close()
            raise error if isinstance(error, JournalError) else JournalError(f"cannot open {path}: {error}") from None

    # --- the life of a command ---

    def admit(self, messages: Iterable[tuple[str, str, str]]) -> list[Admission]:
        """Take messages over: (command id, message text, SQS receipt). Afterwards they may be acknowledged."""
        rows = list(messages)
        return self._commit(lambda connection: [self._admit(connection, *row) for row in rows])

    def acked(self, ids: Iterable[str]) -> None:
        """Note that SQS has let go of these messages, with whatever is committed next: nothing is lost by forgetting it."""
        rows = [(command_id,) for command_id in ids]
        with self._waiting_lock:
            self._waiting.append(
                _Work(
                    lambda connection: connection.executemany("UPDATE commands SET acked = 1, receipt = NULL WHERE id = ?", rows), Future()
                )
            )

    def raw(self, command_id: str) -> str:
        """The message of a command that is not finished, as received.

        Raises:
            JournalError: there is none.
        """
        row = self._read("SELECT raw FROM commands WHERE id = ?", command_id)
        if not row or row[0][0] is None:
            raise JournalError("the journal holds no message for this command")
        return str(row[0][0])

    def start(self, command_id: str, repeatable: bool) -> None:
        """Note, before the first byte goes out, that from now on the target may have acted.

        `repeatable` says whether the request may be sent again when the agent ends before its outcome is known.
        """
        row = (self._clock.now().timestamp(), repeatable, command_id)
        self._commit(
            lambda connection: connection.execute(
                "UPDATE commands SET state = 'started', started_at = ?, repeatable = ? WHERE id = ? AND state = 'admitted'", row
            )
        )

    def finish(self, update: Update, code: str | None = None) -> None:
        """Record the outcome as it will be told, and wipe the request."""
        tell_by = None if update.tell_by is None else update.tell_by.timestamp()
        row = (
            update.message,
            update.spool,
            update.upload_url,
            update.fallback,
            tell_by,
            update.status,
            code,
            self._clock.now().timestamp(),
            update.command_id,
        )
        self._commit(
            lambda connection: connection.execute(
                "UPDATE commands SET state = 'finished', raw = NULL, message = ?, spool = ?, upload_url = ?,"
                " fallback = ?, tell_by = ?, status = ?, code = ?, finished_at = ? WHERE id = ? AND state IN ('admitted', 'started')",
                row,
            )
        )

    def settle(self, update: Update) -> None:
        """Record how an outcome will be told for good: after its upload, or in place of one that cannot be made."""
        row = (update.message, update.status, update.command_id)
        self._commit(
            lambda connection: connection.execute(
                "UPDATE commands SET message = ?, status = ?, spool = NULL, upload_url = NULL, fallback = NULL"
                " WHERE id = ? AND state = 'finished'",
                row,
            )
        )

    def deliver(self, ids: Iterable[str]) -> None:
        """Note that the platform's queue has these outcomes, and wipe them."""
        now = self._clock.now().timestamp()
        rows = [(now, command_id) for command_id in ids]
        self._commit(
            lambda connection: connection.executemany(
                "UPDATE commands SET state = 'delivered', message = NULL, spool = NULL, upload_url = NULL, fallback = NULL,"
                " delivered_at = ? WHERE id = ?",
                rows,
            )
        )

    def remember_token(self, jti: str, command_id: str, forget_at: float) -> bool:
        """Whether a secure command's `jti` was not yet used by another command (PROTOCOL §5); it is remembered durably."""
        return bool(self._commit(lambda connection: self._remember(connection, jti, command_id, forget_at)))

    # --- after a restart ---

    def unacked(self) -> list[tuple[str, str]]:
        """(command id, receipt) of messages that were taken over and perhaps not acknowledged."""
        return [
            (str(row[0]), str(row[1]))
            for row in self._read("SELECT id, receipt FROM commands WHERE acked = 0 AND receipt IS NOT NULL ORDER BY seq")
        ]

    def unfinished(self) -> list[Open]:
        """What was admitted or started, in the order in which it came."""
        rows = self._read("SELECT id, raw, state, repeatable FROM commands WHERE state IN ('admitted', 'started') ORDER BY seq")
        return [Open(str(row[0]), str(row[1]), row[2] == State.STARTED, bool(row[3])) for row in rows]

    def undelivered(self) -> list[Update]:
        """The outcomes that the platform has not been told for sure."""
        rows = self._read(
            "SELECT id, status, message, spool, upload_url, fallback, tell_by FROM commands WHERE state = 'finished' ORDER BY seq"
        )
        return [
            Update(row[0], Status(row[1]), row[2], row[3], row[4], row[5], None if row[6] is None else datetime.fromtimestamp(row[6], UTC))
            for row in rows
        ]

    def spooled(self) -> set[str]:
        """The names of the spool files that an outcome needs."""
        return {str(row[0]) for row in self._read("SELECT spool FROM commands WHERE spool IS NOT NULL")}

    # --- upkeep ---

    def counts(self) -> dict[str, int]:
        """How many commands stand in each state."""
        found = {str(row[0]): int(row[1]) for row in self._read("SELECT state, COUNT(*) FROM commands GROUP BY state")}
        return {state: found.get(state, 0) for state in State}

    def prune(self) -> None:
        """Forget what is older than a day, and empty the write-ahead log, where wiped requests would linger."""
        now = self._clock.now().timestamp()

        def forget(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM commands WHERE state = 'delivered' AND delivered_at < ?", (now - KEEP_IDS_SECONDS,))
            connection.execute("DELETE FROM seen_tokens WHERE forget_at < ?", (now,))

        self._commit(forget)
        self.checkpoint()

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and truncate it."""
        try:
            with self._writing:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"checkpoint: {error}") from None

    def close(self) -> None:
        """Write what may still wait, and close the file."""
        self._commit(lambda _connection: None)
        with self._writing:
            self._connection.close()

    # --- inside ---

    def _migrate(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"the journal was written by a newer agent (schema {version}, this one knows {SCHEMA_VERSION}); run that one"
            )
        self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def _admit(self, connection: sqlite3.Connection, command_id: str, raw: str, receipt: str) -> Admission:
        digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest()
        row = connection.execute("SELECT digest FROM commands WHERE id = ?", (command_id,)).fetchone()
        if row is not None:
            return Admission.KNOWN if row[0] == digest else Admission.CHANGED
        self._seq += 1
        connection.execute(
            "INSERT INTO commands (id, seq, state, digest, receipt, raw, admitted_at) VALUES (?, ?, 'admitted', ?, ?, ?, ?)",
            (command_id, self._seq, digest, receipt, raw, self._clock.now().timestamp()),
        )
        return Admission.NEW

    def _remember(self, connection: sqlite3.Connection, jti: str, command_id: str, forget_at: float) -> bool:
        connection.execute("INSERT INTO seen_tokens VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (jti, command_id, forget_at))
        row = connection.execute("SELECT command_id FROM seen_tokens WHERE jti = ?", (jti,)).fetchone()
        return bool(row[0] == command_id)

    def _commit(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run the change and return when it is on the disk; whoever gets the writer's lock commits for all who wait."""
        work = _Work(change, Future())
        with self._waiting_lock:
            self._waiting.append(work)
        with self._writing:
            if not work.done.done():
                with self._waiting_lock:
                    batch, self._waiting = self._waiting, []
                self._write(batch)
        result: T = work.done.result()
        return result

    def _write(self, batch: list[_Work]) -> None:
        """Commit the changes together; where that fails, each alone, so that one that cannot be made spoils no other."""
        try:
            results = self._transaction(batch)
        except JournalError as error:
            if len(batch) == 1:
                batch[0].done.set_exception(error)
                return
            for work in batch:
                self._write([work])
            return
        for work, result in zip(batch, results, strict=True):
            work.done.set_result(result)

    def _transaction(self, batch: list[_Work]) -> list[Any]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [work.change(self._connection) for work in batch]
            self._connection.execute("COMMIT")
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            # A value's own error may repeat the value; sqlite's do not.
            reason = error if isinstance(error, sqlite3.Error) else f"a value that it cannot hold ({type(error).__name__})"
            raise JournalError(f"the journal cannot be written: {reason}") from None
        self.commits += 1
        return results

    def _read(self, query: str, *values: object) -> list[Any]:
        try:
            with self._writing:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"the journal cannot be read: {error}") from None
