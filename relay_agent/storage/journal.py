"""The journal: what was accepted, what was started, what came of it, until the platform has been told.

SQLite, one file, one writer at a time. This room owns states, recovery and retention. It must not know what
a command asks for, and it never opens the network.

States go one way: admitted → started → finished → delivered. Every change is on the disk when its method
returns, but for those that say otherwise, until `flush`. Calls from many threads share one commit (`writer`).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import Clock, from_timestamp
from relay_agent.core.errors import JournalError, JournalUnwritable
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Obstacle
from relay_agent.core.models import Status, Update
from relay_agent.storage import integrity, salvage
from relay_agent.storage.commit_counter import CommitCounter
from relay_agent.storage.group_commit import Change, Writer, trouble_of, unwritable

KEEP_IDS_SECONDS = 24 * 3600.0
"""How long a delivered command's id is remembered at least, to know a message that comes twice; else until it expires."""
KEEP_UNACKED_SECONDS = 14 * 24 * 3600.0
"""How long one is whose message SQS may still hold: its longest retention (AWS, MessageRetentionPeriod)."""
KEEP_IDS = 50_000
"""How many are at most, the newest; those that SQS may still hold are kept beside them."""
AT_ONCE = 500
"""Rows removed, or pages given back, in one commit: a few milliseconds, so that no command waits for upkeep."""
RETRY_SECONDS = 1.0
CHECKPOINT_MS = 50
"""How long a checkpoint waits for readers, and commits for it."""

_FORGOTTEN = ""
"""The row of `seen_tokens` that holds the latest `exp` of those that were forgotten; no token is an empty text."""

T = TypeVar("T")


def _alone() -> int:
    return 0


def _no_room() -> bool:
    return False


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


class Incoming(NamedTuple):
    """A message that comes in: `raw` as received, `expires` in seconds since 1970, None where it names no end."""

    id: str
    raw: str
    receipt: str
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """A command that the last run left unfinished: its message as received, None where the journal's copy is damaged.

    `started` says that bytes may have gone out, `repeatable` that they may go out again all the same; None: it was not noted.
    """

    id: str
    raw: str | None
    started: bool
    repeatable: bool | None


@dataclass(frozen=True, slots=True)
class About:
    """What a finished command is listed with, for people (`reader`): nothing of it is read back to be acted on."""

    action: str
    method: str | None = None
    host: str | None = None
    port: int | None = None
    status_code: int | None = None


class Journal:
    """The journal of one state directory. All methods may be called from any thread."""

    def __init__(self, path: Path, clock: Clock, *, others: Callable[[], int] = _alone, make_room: Callable[[], bool] = _no_room) -> None:
        """Open the journal; a damaged one is set aside, and what could be read of it salvaged (`damage`).

        `others` says how many commands are with a worker: a commit waits a moment for theirs. `make_room` frees what is
        kept back for a full disk; whether there was any.

        Raises:
            JournalUnwritable: the disk is full or read-only.
            JournalError: it cannot be opened, or a newer agent wrote it.
        """
        self._clock = clock
        self._closing = threading.Event()
        self._tokens_lock = threading.Lock()
        self._tokens: dict[str, str] = {}
        try:
            opened = _open(path, clock, make_room)
        except (sqlite3.Error, OSError) as error:
            kind = JournalUnwritable if unwritable(error) else JournalError
            raise kind(f"cannot open {path}: {error}", trouble_of(error)) from None
        self.damage, self.spoiled = opened.damage, opened.spoiled
        self._writer = Writer(opened.connection, others=others, monotonic=clock.monotonic, make_room=make_room, witness=CommitCounter(path))
        self._seq = self._writer.read("SELECT COALESCE(MAX(seq), 0) FROM commands")[0][0]

    @property
    def commits(self) -> int:
        """Transactions written since it was opened: so many fsyncs of the write-ahead log."""
        return self._writer.commits

    @property
    def unwritable(self) -> Obstacle | None:
        """Why the disk takes nothing, while it does not."""
        return self._writer.unwritable

    def stuck_seconds(self) -> float:
        """How long the commit under way has taken, 0 where there is none."""
        return self._writer.stuck_seconds()

    # --- the life of a command ---

    def admit(self, messages: Iterable[Incoming | tuple[str, str, str]]) -> list[Admission]:
        """Take messages over. Afterwards they may be acknowledged.

        Raises:
            JournalError: none was taken over. The disk's fault is `JournalUnwritable`.
        """
        rows = list(messages)
        return self._writer.commit(lambda connection: [self._admit(connection, *row) for row in rows])

    def acked(self, ids: Iterable[str]) -> None:
        """Note that SQS has let go of these messages, with whatever is committed next: nothing is lost by forgetting it."""
        rows = [(command_id,) for command_id in ids]
        self._writer.later(lambda connection: connection.executemany("UPDATE commands SET acked = 1, receipt = NULL WHERE id = ?", rows))

    def raw(self, command_id: str) -> str:
        """The message of a command that is not finished, as received.

        Raises:
            JournalError: there is none.
        """
        return self._text("SELECT raw FROM commands WHERE id = ?", command_id, "message")

    def message(self, command_id: str) -> str:
        """What is to be told of a command that is finished and on the disk.

        Raises:
            JournalError: there is nothing.
        """
        return self._text("SELECT message FROM commands WHERE id = ? AND state = 'finished'", command_id, "answer")

    def start(self, command_id: str, repeatable: bool) -> None:
        """Note, before the first byte goes out, that from now on the target may have acted.

        `repeatable` says whether the request may be sent again when the agent ends before its outcome is known. While the
        disk takes nothing this waits, as `finish` and `settle` do.

        Raises:
            JournalUnwritable: the agent stopped waiting.
        """
        row = (self._clock.now().timestamp(), repeatable, command_id)
        self._patiently(
            lambda connection: connection.execute(
                "UPDATE commands SET state = 'started', started_at = ?, repeatable = ? WHERE id = ? AND state = 'admitted'", row
            )
        )

    def finish(self, update: Update, about: About | None = None, then: Callable[[], None] = nothing, *, wait: bool = True) -> None:
        """Record the outcome as it will be told, and wipe the request; `then` is called when it is on the disk.

        Under load, and where `wait` is False, this does not wait for the disk: the next commit has it with it, and whoever tells
        it calls `flush` before.

        Raises:
            JournalUnwritable: the agent stopped waiting.
            JournalError: the outcome holds what cannot be written.
        """
        tell_by = None if update.tell_by is None else update.tell_by.timestamp()
        row = (
            update.message,
            update.spool,
            update.upload_url,
            update.fallback,
            tell_by,
            update.status,
            update.code,
            self._clock.now().timestamp(),
            _seal(update),
            *_listed(about),
            update.command_id,
        )

        def finish(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE commands SET state = 'finished', raw = NULL, message = ?, spool = ?, upload_url = ?, fallback = ?,"
                " tell_by = ?, status = ?, code = ?, finished_at = ?, seal = ?,"
                " action = ?, method = ?, host = ?, port = ?, status_code = ? WHERE id = ? AND state IN ('admitted', 'started')",
                row,
            )

        def recorded() -> None:
            reach(Point.RECORDED)
            then()

        if not wait or (self._writer.loaded and update.spool is None):
            self._writer.later(finish, then=recorded)
        else:
            self._patiently(finish)
            recorded()

    def settle(self, update: Update) -> None:
        """Record how an outcome will be told for good: after its upload, or in place of one that cannot be made."""
        row = (update.message, update.status, update.code, _seal(update), update.command_id)
        self._patiently(
            lambda connection: connection.execute(
                "UPDATE commands SET message = ?, status = ?, code = COALESCE(?, code), seal = ?,"
                " spool = NULL, upload_url = NULL, fallback = NULL WHERE id = ? AND state = 'finished'",
                row,
            )
        )

    def deliver(self, ids: Iterable[str]) -> None:
        """Note that the platform's queue has these outcomes, and wipe them, with whatever is committed next.

        A restart before tells them again, the same.
        """
        now = self._clock.now().timestamp()
        rows = [(now, command_id) for command_id in ids]
        self._writer.later(
            lambda connection: connection.executemany(
                "UPDATE commands SET state = 'delivered', message = NULL, spool = NULL, upload_url = NULL, fallback = NULL,"
                " seal = NULL, delivered_at = ? WHERE id = ?",
                rows,
            )
        )

    def flush(self) -> None:
        """Return when everything that was noted is on the disk; it costs nothing where it is already.

        Raises:
            JournalUnwritable: the disk does not take it now.
            JournalError: it cannot be written.
        """
        self._writer.flush()

    def recorded(self, ids: Iterable[str]) -> set[str]:
        """Which of these commands' outcomes are on the disk, and not yet noted as delivered."""
        return {
            str(row[0])
            for command_id in ids
            for row in self._writer.read("SELECT id FROM commands WHERE id = ? AND state = 'finished'", command_id)
        }

    def remember_token(self, jti: str, command_id: str, exp: float) -> bool:
        """Whether a secure command's `jti` was not yet used, but by this same command since it was taken over (PROTOCOL §5).

        It is remembered until `exp` (seconds since 1970), with the command's id as long. What was forgotten once is never taken again,
        wherever the clock stands: an `exp` that has passed has passed. It is on the disk with the next commit, and so before the
        command's first byte goes out.
        """
        with self._tokens_lock:
            known = self._writer.read("SELECT command_id FROM seen_tokens WHERE jti = ?", jti)
            forgotten = self._writer.read("SELECT forget_at FROM seen_tokens WHERE jti = ?", _FORGOTTEN)
            if not known and forgotten and exp <= forgotten[0][0]:
                return False
            user = str(known[0][0]) if known else self._tokens.setdefault(jti, command_id)
            if not known and user == command_id:
                row = (jti, command_id, exp)
                self._writer.later(lambda connection: _remember(connection, *row))
            return user == command_id

    # --- after a restart ---

    def unacked(self) -> list[tuple[str, str]]:
        """(command id, receipt) of messages that were taken over and perhaps not acknowledged."""
        return [
            (str(row[0]), str(row[1]))
            for row in self._read_all("SELECT id, receipt FROM commands WHERE acked = 0 AND receipt IS NOT NULL ORDER BY seq")
        ]

    def unfinished(self) -> Iterator[Open]:
        """What was admitted or started, in the order in which it came, read one by one."""
        for row in self._each("id, raw, state, repeatable", "state IN ('admitted', 'started')"):
            yield Open(str(row[0]), row[1], row[2] == State.STARTED, None if row[3] is None else bool(row[3]))

    def undelivered(self) -> Iterator[tuple[str, Update | Exception]]:
        """The outcomes that the platform has not been told for sure, with their commands' ids, or why one cannot be read.

        One by one: there may be a thousand, of 256 KiB each.
        """
        for row in self._each("id, status, message, spool, upload_url, fallback, tell_by", "state = 'finished'"):
            yield str(row[0]), _update(row)

    def about(self, command_id: str) -> About | None:
        """What a finished command is listed with; None where that was not noted."""
        row = self._writer.read(
            "SELECT action, method, host, port, status_code FROM commands WHERE id = ? AND action IS NOT NULL", command_id
        )
        return About(*row[0]) if row else None

    def spooled(self) -> set[str]:
        """The names of the spool files that an outcome needs."""
        return {str(row[0]) for row in self._read_all("SELECT spool FROM commands WHERE spool IS NOT NULL")}

    # --- upkeep ---

    def counts(self) -> dict[str, int]:
        """How many commands stand in each state."""
        found = {str(row[0]): int(row[1]) for row in self._read_all("SELECT state, COUNT(*) FROM commands GROUP BY state")}
        return {state: found.get(state, 0) for state in State}

    def prune(self) -> None:
        """Forget what is too old or too much, and give free pages back, in steps between which commands go on.

        A message that SQS may still hand out is remembered as long as SQS can: neither a clock that jumps nor many
        commands make it run twice.
        """
        now = self._clock.now().timestamp()
        with self._tokens_lock:
            self._writer.commit(lambda connection: _forget_tokens(connection, now))
            self._tokens.clear()  # They are in the table now.
        known = self._writer.read("SELECT COUNT(*) FROM commands WHERE state = 'delivered'")[0][0]
        for surplus in range(known - KEEP_IDS, 0, -AT_ONCE):
            self._forget("acked = 1", (), min(surplus, AT_ONCE))
        old = "acked = 1 AND delivered_at < ? AND (keep_until IS NULL OR keep_until < ?)"
        while self._forget(old, (now - KEEP_IDS_SECONDS, now), AT_ONCE):
            pass
        while self._forget("delivered_at < ?", (now - KEEP_UNACKED_SECONDS,), AT_ONCE):
            pass
        while self._writer.read("PRAGMA freelist_count")[0][0] > AT_ONCE and not self._closing.is_set():
            self._writer.use(lambda connection: connection.execute(f"PRAGMA incremental_vacuum({AT_ONCE})").fetchall())
        self.checkpoint()

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file and truncate it: wiped requests would linger there.

        Whether it was possible: a reader at work keeps what it reads, and commits must not wait for it.
        """
        return self._writer.use(_checkpoint)

    def probe(self) -> bool:
        """Whether the disk takes a commit again; nothing is written but that it does."""
        try:
            self._writer.commit(lambda connection: connection.execute("DELETE FROM seen_tokens WHERE forget_at < 0"))
        except JournalError:
            return False
        return True

    def give_up(self) -> None:
        """End every wait for a disk that takes nothing: what could not be recorded is taken up at the next start."""
        self._closing.set()
        self._writer.patience_seconds = RETRY_SECONDS

    def close(self) -> None:
        """Write what may still wait, and close the file."""
        self.give_up()
        try:
            self._writer.flush(self._writer.patience_seconds)
        finally:
            self._writer.close(RETRY_SECONDS)

    # --- inside ---

    def _text(self, query: str, command_id: str, what: str) -> str:
        row = self._writer.read(query, command_id)
        if not row or row[0][0] is None:
            raise JournalError(f"the journal holds no {what} for this command")
        return str(row[0][0])

    def _each(self, columns: str, where: str) -> Iterator[Any]:
        """One by one, the rows of commands that are so now."""
        for (command_id,) in self._read_all(f"SELECT id FROM commands WHERE {where} ORDER BY seq"):  # noqa: S608 - our own words
            yield from self._writer.read(f"SELECT {columns} FROM commands WHERE id = ?", command_id)  # noqa: S608 - our own words

    def _read_all(self, query: str) -> list[Any]:
        """The rows of a query, with what was noted and is not on the disk yet, where the disk takes it."""
        with contextlib.suppress(JournalUnwritable):
            self._writer.flush(self._writer.patience_seconds)
        return self._writer.read(query)

    def _patiently(self, change: Change) -> Any:
        """Commit; while the disk takes nothing, again and again until it does, or the agent gives up."""
        while True:
            try:
                return self._writer.commit(change)
            except JournalUnwritable:
                if self._closing.wait(RETRY_SECONDS):
                    raise

    def _forget(self, which: str, values: tuple[float, ...], limit: int) -> int:
        """Remove the oldest delivered commands that fit, at most `limit`; how many."""
        query = (
            "DELETE FROM commands WHERE id IN (SELECT id FROM commands INDEXED BY commands_old"  # noqa: S608 - our own words
            f" WHERE state = 'delivered' AND {which} ORDER BY delivered_at LIMIT {limit})"
        )
        return int(self._writer.commit(lambda connection: connection.execute(query, values).rowcount))

    def _admit(self, connection: sqlite3.Connection, command_id: str, raw: str, receipt: str, expires: float | None = None) -> Admission:
        digest = integrity.digest(raw)
        row = connection.execute("SELECT digest, acked FROM commands WHERE id = ?", (command_id,)).fetchone()
        if row is not None:
            # It came again, so SQS has not let go of it: what it is acknowledged with now is the new receipt.
            connection.execute("UPDATE commands SET acked = 0, receipt = ? WHERE id = ?", (receipt, command_id))
            return Admission.KNOWN if row[0] in (digest, b"") else Admission.CHANGED
        self._seq += 1
        now = self._clock.now().timestamp()
        keep_until = None if expires is None else min(expires, now + KEEP_UNACKED_SECONDS)
        connection.execute(
            "INSERT INTO commands (id, seq, state, digest, receipt, raw, admitted_at, keep_until) VALUES (?, ?, 'admitted', ?, ?, ?, ?, ?)",
            (command_id, self._seq, digest, receipt, raw, now, keep_until),
        )
        # A `jti` that was used under this id was a forgotten command's, or a lost one's: its message must not run again.
        connection.execute("UPDATE seen_tokens SET command_id = '' WHERE command_id = ?", (command_id,))
        return Admission.NEW


def _open(path: Path, clock: Clock, make_room: Callable[[], bool]) -> salvage.Opened:
    """Open the file; on a full disk free what was kept back for it, and open it again."""
    try:
        return salvage.open_sound(path, clock.now)
    except (sqlite3.OperationalError, OSError):
        if not make_room():
            raise
        return salvage.open_sound(path, clock.now)


def _update(row: Any) -> Update | Exception:
    try:
        tell_by = None if row[6] is None else from_timestamp(row[6])
        return Update(row[0], Status(row[1]), row[2], row[3], row[4], row[5], tell_by)
    except (ValueError, TypeError, ArithmeticError, OSError) as error:
        return error


def _remember(connection: sqlite3.Connection, jti: str, command_id: str, exp: float) -> None:
    connection.execute("INSERT OR IGNORE INTO seen_tokens VALUES (?, ?, ?)", (jti, command_id, exp))
    connection.execute("UPDATE commands SET keep_until = MAX(COALESCE(keep_until, 0), ?) WHERE id = ?", (exp, command_id))


def _forget_tokens(connection: sqlite3.Connection, now: float) -> None:
    """Forget the tokens whose `exp` has passed, and remember the latest of them: the clock may be set back."""
    which = "forget_at < ? AND jti <> ?"
    (latest,) = connection.execute(f"SELECT MAX(forget_at) FROM seen_tokens WHERE {which}", (now, _FORGOTTEN)).fetchone()  # noqa: S608 - our own
    if latest is None:
        return
    connection.execute(f"DELETE FROM seen_tokens WHERE {which}", (now, _FORGOTTEN))  # noqa: S608 - our own words
    connection.execute(
        "INSERT INTO seen_tokens VALUES (?, '', ?) ON CONFLICT (jti) DO UPDATE SET forget_at = MAX(forget_at, excluded.forget_at)",
        (_FORGOTTEN, latest),
    )


def _seal(update: Update) -> bytes:
    return integrity.seal(update.message, update.spool, update.upload_url, update.fallback, update.status)


def _listed(about: About | None) -> tuple[str | int | None, ...]:
    """The columns of what a command is listed with; what its sender chose is cut."""
    if about is None:
        return (None,) * 5
    return about.action[:100], about.method and about.method[:20], about.host and about.host[:255], about.port, about.status_code


def _checkpoint(connection: sqlite3.Connection) -> bool:
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout={CHECKPOINT_MS}")
    try:
        (busy, _pages, _moved) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout={before}")
    return not busy
