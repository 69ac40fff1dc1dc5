"""The journal: every command from its admission until the platform has its outcome, in one SQLite file.

This module owns the states of a command and what a restart finds. It must not know what a command asks for.

States go one way: admitted → started → finished → delivered. A change is durable when its method returns; a method that says
"with the next commit" leaves that to `flush`. Calls from many threads share one commit (`group_commit`).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import Clock, from_timestamp
from relay_agent.core.errors import JournalError, JournalUnwritable, NotAdmitted
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code, Obstacle
from relay_agent.core.models import Status, Update
from relay_agent.storage import integrity, salvage
from relay_agent.storage.commit_counter import CommitCounter
from relay_agent.storage.disk_faults import journal_error
from relay_agent.storage.group_commit import Change, Writer
from relay_agent.storage.retention import KEEP_UNACKED_SECONDS, Retention
from relay_agent.storage.used_tokens import UsedTokens, disown

RETRY_SECONDS = 1.0
"""How long a change waits before it is tried again on a disk that accepts no writes."""


def _alone() -> int:
    return 0


def _no_room() -> bool:
    return False


class State(StrEnum):
    """The states of a command, in order."""

    ADMITTED = "admitted"
    STARTED = "started"
    FINISHED = "finished"
    DELIVERED = "delivered"


class Admission(StrEnum):
    """What the journal knows of a received message."""

    NEW = "new"
    KNOWN = "known"
    CHANGED = "changed"
    """The same command id with another body: only the first is executed and answered."""


class Incoming(NamedTuple):
    """A received message: `raw` is its text. Times are in seconds since 1970.

    `expires` is None if the command does not expire. `lease_until` is None if the command is this agent's as soon as it is admitted; else
    the agent only claims it (`own`, `cede`).
    """

    id: str
    raw: str
    receipt: str
    expires: float | None = None
    lease_until: float | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """A command that the last run left unfinished; `raw` is its message as received, None if the journal's copy is damaged.

    `started` says that the request may have been sent, `repeatable` that it may be sent again all the same (None: not recorded).
    """

    id: str
    raw: str | None
    started: bool
    repeatable: bool | None


@dataclass(frozen=True, slots=True)
class About:
    """What a list of commands shows for a finished command (`journal_reader`); the agent does not use it otherwise."""

    action: str
    method: str | None = None
    host: str | None = None
    port: int | None = None
    status_code: int | None = None
    scheme: str | None = None
    would_refuse: str | None = None
    from_proxy: bool = False
    """Whether the status is a proxy's, or may be: then it does not show that the target answers (`call_history`)."""


class Journal:
    """The journal of one state directory. All methods may be called from any thread."""

    def __init__(self, path: Path, clock: Clock, *, others: Callable[[], int] = _alone, make_room: Callable[[], bool] = _no_room) -> None:
        """Open the journal or create it; a damaged one is set aside, and its readable rows are salvaged (`salvage`).

        `others` returns how many commands a worker is executing: under load a commit waits a moment for theirs. `make_room` frees the
        reserve kept for a full disk and returns whether there was any.

        Raises:
            JournalUnwritable: the disk is full or read-only.
            JournalError: it cannot be opened, or a newer agent wrote it.
        """
        self._clock = clock
        self._stopping = threading.Event()
        try:
            opened = _open(path, clock, make_room)
        except (sqlite3.Error, OSError) as error:
            raise journal_error(error, f"cannot open {path}") from None
        self.damage = opened.damage
        """What was wrong with the journal at its opening, None if nothing was."""
        self.spoiled = opened.spoiled
        """How many rows were altered since they were written."""
        self.nameless = opened.nameless
        """The ids of those whose ids cannot be read, as far as they can be shown."""
        self.writer = Writer(opened.connection, others=others, monotonic=clock.monotonic, make_room=make_room, counter=CommitCounter(path))
        """Public for tests that inspect or disturb the connection; the agent does not use it."""
        self._soon: set[str] = set()
        """The ids of commands whose admission is not durable yet, or failed."""
        self._tokens = UsedTokens(self.writer)
        self.retention = Retention(self.writer, self._tokens, clock.now, self._stopping)
        """For the maintenance thread."""
        self._seq = self.writer.read("SELECT COALESCE(MAX(seq), 0) FROM commands")[0][0]

    @property
    def commits(self) -> int:
        """Transactions written since the opening; each is one fsync of the write-ahead log."""
        return self.writer.commits

    @property
    def unwritable(self) -> Obstacle | None:
        """Why the last commit failed, None since the first that succeeded again."""
        return self.writer.unwritable

    def stuck_seconds(self) -> float:
        """Return how long the current commit has taken, 0 if there is none."""
        return self.writer.stuck_seconds()

    # --- the life of a command ---

    def admit(self, messages: Iterable[Incoming | tuple[str, str, str]]) -> list[Admission]:
        """Record received messages; afterwards they may be acknowledged to SQS.

        Raises:
            JournalUnwritable: the disk accepts no writes now; no message was recorded.
            JournalError: a message holds what cannot be written; no message was recorded.
        """
        rows = list(messages)
        return self.writer.commit(lambda connection: [self._admit(connection, *row) for row in rows])

    def admit_soon(self, message: Incoming) -> Callable[[], None] | None:
        """Record a received message with the next commit; return what waits for that, or None if the message must be given to `admit`.

        It must if the journal has its id, if others commit now or are about to, or if the disk accepts no writes. What is recorded of the
        command meanwhile is written after its admission, or with it. The returned function waits a moment for another thread's commit, then
        makes one; it raises JournalUnwritable (the disk accepts no writes now: the message stays recorded for the next commit that
        succeeds) and JournalError (it cannot be recorded: `finish` will raise NotAdmitted).
        """
        at_once = self.writer.loaded or self.writer.busy or self.writer.unwritable is not None or message.id in self._soon
        try:
            if at_once or self.known([message.id]):
                return None
        except JournalError:
            return None
        failures: list[JournalError] = []
        self._soon.add(message.id)
        self.writer.later(
            lambda connection: self._admit(connection, *message), then=lambda: self._soon.discard(message.id), failed=failures.append
        )

        def wait() -> None:
            self.writer.flush(follow=True)
            if failures:
                raise failures[0]

        return wait

    def acked(self, ids: Iterable[str]) -> None:
        """Record, with the next commit, that SQS has deleted these messages; after a crash before it they are only deleted again."""
        rows = [(command_id,) for command_id in ids]
        self.writer.later(lambda connection: connection.executemany("UPDATE commands SET acked = 1, receipt = NULL WHERE id = ?", rows))

    def own(self, ids: Sequence[str]) -> None:
        """Record that SQS has deleted these messages for this agent: the commands that it claimed are its own.

        Raises:
            JournalUnwritable: the disk takes nothing now; it is recorded with the next commit, which is before a command starts.
        """
        rows = [(command_id,) for command_id in ids]
        self.writer.later(
            lambda connection: connection.executemany(
                "UPDATE commands SET acked = 1, receipt = NULL, lease_until = NULL WHERE id = ?", rows
            )
        )
        self.writer.flush()

    def cede(self, ids: Sequence[str]) -> None:
        """Forget claimed commands and their tokens, with the next commit: another agent may own them. Each may be admitted again."""
        self._tokens.release(ids)
        rows = [(command_id,) for command_id in ids]
        self.writer.later(lambda connection: connection.executemany("DELETE FROM commands WHERE id = ? AND lease_until IS NOT NULL", rows))

    def raw(self, command_id: str) -> str:
        """Return the message of an unfinished command, as received.

        Raises:
            JournalError: there is none, or the journal cannot be read.
        """
        return self._text("SELECT raw FROM commands WHERE id = ?", command_id, "message")

    def message(self, command_id: str) -> str:
        """Return the status update of a finished command.

        Raises:
            JournalError: there is none, or the journal cannot be read.
        """
        return self._text("SELECT message FROM commands WHERE id = ? AND state = 'finished'", command_id, "answer")

    def start(self, command_id: str, repeatable: bool, *, wait: bool = True) -> None:
        """Record that the request is about to be sent; call it before the first byte.

        `repeatable` says whether the request may be sent again if the agent ends before the outcome is known. If `wait` is False, this
        is recorded with the next commit. While the disk takes nothing this waits in any case, as `finish` and `settle` do.

        Raises:
            JournalUnwritable: `give_up` ended the wait.
            JournalError: the journal cannot be written.
        """
        row = (self._clock.now().timestamp(), repeatable, command_id)

        def start(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE commands SET state = 'started', started_at = ?, repeatable = ? WHERE id = ? AND state = 'admitted'", row
            )

        if wait or self.writer.unwritable is not None:
            self._patiently(start)
        else:
            self.writer.later(start)

    def finish(self, update: Update, about: About | None = None, then: Callable[[], None] = nothing, *, wait: bool = True) -> None:
        """Record the outcome as it will be sent, and wipe the request; `then` is called once that is durable.

        Under load, or if `wait` is False, this returns at once and leaves the outcome to the next commit: call `flush` before
        sending it.

        Raises:
            NotAdmitted: the command could not be admitted (`admit_soon`).
            JournalUnwritable: `give_up` ended the wait.
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

        def finish(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE commands SET state = 'finished', raw = NULL, message = ?, spool = ?, upload_url = ?, fallback = ?,"
                " tell_by = ?, status = ?, code = ?, finished_at = ?, seal = ?,"
                " action = ?, method = ?, host = ?, port = ?, status_code = ?, scheme = ?, would_refuse = ?, from_proxy = ?"
                " WHERE id = ? AND state IN ('admitted', 'started')",
                row,
            ).rowcount

        def recorded() -> None:
            reach(Point.RECORDED)
            then()

        unsure = update.command_id in self._soon
        if not unsure and (not wait or (self.writer.loaded and update.spool is None)):
            self.writer.later(finish, then=recorded)
            return
        if not self._patiently(finish) and unsure:
            self._soon.discard(update.command_id)
            raise NotAdmitted("the journal did not admit this command")
        recorded()

    def settle(self, update: Update) -> None:
        """Record the final form of an outcome: after its upload, or in place of one that cannot be uploaded.

        Raises:
            JournalUnwritable: `give_up` ended the wait.
            JournalError: the outcome holds what cannot be written.
        """
        row = (update.message, update.status, update.code, _seal(update), update.command_id)
        self._patiently(
            lambda connection: connection.execute(
                "UPDATE commands SET message = ?, status = ?, code = COALESCE(?, code), seal = ?,"
                " spool = NULL, upload_url = NULL, fallback = NULL WHERE id = ? AND state = 'finished'",
                row,
            )
        )

    def deliver(self, ids: Iterable[str]) -> None:
        """Record, with the next commit, that the platform's queue has these outcomes, and wipe them.

        After a crash before it the same outcomes are sent again.
        """
        now = self._clock.now().timestamp()
        rows = [(now, command_id) for command_id in ids]
        self.writer.later(
            lambda connection: connection.executemany(
                "UPDATE commands SET state = 'delivered', message = NULL, spool = NULL, upload_url = NULL, fallback = NULL,"
                " seal = NULL, delivered_at = ? WHERE id = ?",
                rows,
            )
        )

    def flush(self) -> None:
        """Return once every change is durable; at once if all are.

        Raises:
            JournalUnwritable: the disk accepts no writes now.
            JournalError: one of the changes cannot be written.
        """
        self.writer.flush()

    def known(self, ids: Iterable[str]) -> set[str]:
        """Return those ids that the journal has, in whatever state.

        Raises:
            JournalError: the journal cannot be read.
        """
        return {str(row[0]) for command_id in ids for row in self.writer.read("SELECT id FROM commands WHERE id = ?", command_id)}

    def recorded(self, ids: Iterable[str]) -> set[str]:
        """Return the ids of those commands whose outcomes are durable and not yet recorded as delivered.

        Raises:
            JournalError: the journal cannot be read.
        """
        return {
            str(row[0])
            for command_id in ids
            for row in self.writer.read("SELECT id FROM commands WHERE id = ? AND state = 'finished'", command_id)
        }

    def remember_token(self, jti: str, command_id: str, exp: float) -> bool:
        """Return whether a secure command may use the token `jti`: it is unused, or this same command used it (PROTOCOL §5).

        `exp` is in seconds since 1970. The token stays refused to all others for good, even if the clock is set back. The claim is
        durable with the next commit, which is before the command's first byte is sent.

        Raises:
            JournalError: the journal cannot be read.
        """
        return self._tokens.claim(jti, command_id, exp)

    # --- after a restart ---

    def unacked(self) -> list[tuple[str, str]]:
        """Return (command id, receipt) of each message of this agent's own commands that may not be acknowledged.

        The receipt is empty if it was damaged: only the one with which the message comes again can delete it.

        Raises:
            JournalError: the journal cannot be read.
        """
        return [
            (str(row[0]), str(row[1] or ""))
            for row in self._read_all("SELECT id, receipt FROM commands WHERE acked = 0 AND lease_until IS NULL ORDER BY seq")
        ]

    def claims(self) -> list[tuple[str, str, float]]:
        """Return (command id, receipt, end of the lease in seconds since 1970) of each command that is claimed and not owned.

        Raises:
            JournalError: the journal cannot be read.
        """
        return [
            (str(row[0]), str(row[1] or ""), float(row[2]))
            for row in self._read_all("SELECT id, receipt, lease_until FROM commands WHERE lease_until IS NOT NULL ORDER BY seq")
        ]

    def unfinished(self) -> Iterator[Open]:
        """Yield the admitted and started commands, in the order of admission; each is read only when it is requested.

        Raises:
            JournalError: the journal cannot be read.
        """
        for row in self._each("id, raw, state, repeatable", "state IN ('admitted', 'started')"):
            yield Open(str(row[0]), row[1], row[2] == State.STARTED, None if row[3] is None else bool(row[3]))

    def restore_id(self, altered: str, command_id: str) -> bool:
        """Give the row of an unfinished command the id that its message has, and return True.

        Returns False, and removes the row, if the journal has that id already, or another agent may own the command.

        Raises:
            JournalUnwritable: `give_up` ended the wait.
            JournalError: the journal cannot be written.
        """

        def restore(connection: sqlite3.Connection) -> bool:
            query = "UPDATE OR IGNORE commands SET id = ? WHERE id = ? AND lease_until IS NULL"
            if connection.execute(query, (command_id, altered)).rowcount:
                return True
            connection.execute("DELETE FROM commands WHERE id = ?", (altered,))
            return False

        return bool(self._patiently(restore))

    def undelivered(self) -> Iterator[tuple[str, Update | Exception]]:
        """Yield command id and outcome (or the error of reading it) of each outcome that the platform may not have.

        Raises:
            JournalError: the journal cannot be read.
        """
        # Read one by one: there may be a thousand, of 256 KiB each.
        for row in self._each("id, status, message, spool, upload_url, fallback, tell_by, code", "state = 'finished'"):
            yield str(row[0]), _update(row)

    def about(self, command_id: str) -> About | None:
        """Return what the list of commands shows for a finished command; None if that was not recorded."""
        row = self.writer.read(
            "SELECT action, method, host, port, status_code, scheme, would_refuse FROM commands WHERE id = ? AND action IS NOT NULL",
            command_id,
        )
        return About(*row[0]) if row else None

    def spooled(self) -> set[str]:
        """Return the names of the spool files that an outcome needs."""
        return {str(row[0]) for row in self._read_all("SELECT spool FROM commands WHERE spool IS NOT NULL")}

    # --- maintenance ---

    def counts(self) -> dict[str, int]:
        """Return how many commands are in each state.

        Raises:
            JournalError: the journal cannot be read.
        """
        found = {str(row[0]): int(row[1]) for row in self._read_all("SELECT state, COUNT(*) FROM commands GROUP BY state")}
        return {state: found.get(state, 0) for state in State}

    def probe(self) -> bool:
        """Return whether the disk accepts a commit now, by making one that changes no row."""
        try:
            self.writer.commit(lambda connection: connection.execute("DELETE FROM seen_tokens WHERE forget_at < 0"))
        except JournalError:
            return False
        return True

    def give_up(self) -> None:
        """End every wait for a disk that accepts no writes; the next start continues with what was recorded."""
        self._stopping.set()
        self.writer.patience_seconds = RETRY_SECONDS

    def close(self) -> None:
        """Commit what waits for the next commit, and close the file.

        Raises:
            JournalError: what waits cannot be written; the file is closed all the same.
        """
        self.give_up()
        try:
            self.writer.flush(self.writer.patience_seconds)
        finally:
            self.writer.close(RETRY_SECONDS)

    # --- inside ---

    def _text(self, query: str, command_id: str, what: str) -> str:
        row = self.writer.read(query, command_id)
        if not row or row[0][0] is None:
            raise JournalError(f"the journal holds no {what} for this command")
        return str(row[0][0])

    def _each(self, columns: str, where: str) -> Iterator[Any]:
        """Yield the rows of the commands that match now, reading one at a time."""
        for (command_id,) in self._read_all(f"SELECT id FROM commands WHERE {where} ORDER BY seq"):  # noqa: S608 - our own words
            yield from self.writer.read(f"SELECT {columns} FROM commands WHERE id = ?", command_id)  # noqa: S608 - our own words

    def _read_all(self, query: str) -> list[Any]:
        """Return the rows of a query, after a flush; changes that wait for a disk that accepts no writes are left out."""
        with contextlib.suppress(JournalUnwritable):
            self.writer.flush(self.writer.patience_seconds)
        return self.writer.read(query)

    def _patiently(self, change: Change) -> Any:
        """Commit, and retry while the disk accepts no writes, until `give_up`."""
        while True:
            try:
                return self.writer.commit(change)
            except JournalUnwritable:
                if self._stopping.wait(RETRY_SECONDS):
                    raise

    def _admit(
        self,
        connection: sqlite3.Connection,
        command_id: str,
        raw: str,
        receipt: str,
        expires: float | None = None,
        lease_until: float | None = None,
    ) -> Admission:
        digest = integrity.digest(raw)
        row = connection.execute("SELECT digest FROM commands WHERE id = ?", (command_id,)).fetchone()
        if row is not None:
            # SQS delivered it again, so it was not deleted: only the new receipt can do that now.
            connection.execute(
                "UPDATE commands SET acked = 0, receipt = ?1,"
                # An agent that is alone now gives no lease: what it had claimed before stays claimed.
                " lease_until = CASE WHEN lease_until IS NULL THEN NULL ELSE COALESCE(?2, lease_until) END WHERE id = ?3",
                (receipt, lease_until, command_id),
            )
            return Admission.KNOWN if row[0] in (digest, b"") else Admission.CHANGED
        self._seq += 1
        now = self._clock.now().timestamp()
        keep_until = None if expires is None else min(expires, now + KEEP_UNACKED_SECONDS)
        connection.execute(
            "INSERT INTO commands (id, seq, state, digest, receipt, raw, admitted_at, keep_until, lease_until)"
            " VALUES (?, ?, 'admitted', ?, ?, ?, ?, ?, ?)",
            (command_id, self._seq, digest, receipt, raw, now, keep_until, lease_until),
        )
        disown(connection, command_id)
        return Admission.NEW


def _open(path: Path, clock: Clock, make_room: Callable[[], bool]) -> salvage.Opened:
    """Open the file; if the disk is full, free the reserve and open it again."""
    try:
        return salvage.open_sound(path, clock.now)
    except (sqlite3.OperationalError, OSError):
        if not make_room():
            raise
        return salvage.open_sound(path, clock.now)


def _update(row: Any) -> Update | Exception:
    try:
        tell_by = None if row[6] is None else from_timestamp(row[6])
        return Update(row[0], Status(row[1]), row[2], row[3], row[4], row[5], tell_by, _known_code(row[7]))
    except (ValueError, TypeError, ArithmeticError, OSError) as error:
        return error


def _known_code(text: str | None) -> Code | None:
    return Code(text) if text in frozenset(Code) else None


def _seal(update: Update) -> bytes:
    return integrity.seal(update.message, update.spool, update.upload_url, update.fallback, update.status)


def _listed(about: About | None) -> tuple[str | int | None, ...]:
    """Return the columns for the list of commands; texts that the sender chose are shortened."""
    if about is None:
        return (None,) * 8
    texts = about.action[:100], about.method and about.method[:20], about.host and about.host[:255]
    return *texts, about.port, about.status_code, about.scheme, about.would_refuse, about.from_proxy
