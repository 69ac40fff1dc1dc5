"""How long the journal keeps what is delivered, and how its files stay small.

This module owns the bounds and the work of keeping them. It must not remove a command that is not delivered.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import datetime

from relay_agent.core.clock import DAY_SECONDS
from relay_agent.storage.call_history import count_calls, forget_old
from relay_agent.storage.group_commit import Writer
from relay_agent.storage.used_tokens import UsedTokens

KEEP_IDS_SECONDS = DAY_SECONDS
"""The id of a delivered command is kept at least this long, and until the command expires, so that a duplicate is recognised."""
KEEP_UNACKED_SECONDS = 14 * DAY_SECONDS
"""The same for a message that was not acknowledged: SQS's longest retention (AWS, MessageRetentionPeriod)."""
KEEP_IDS = 50_000
"""At most this many ids of acknowledged messages are kept, the newest."""
AT_ONCE = 500
"""Rows removed, or pages given back, in one commit: a few milliseconds, so that no command waits long."""
CHECKPOINT_MS = 50
"""How long a checkpoint waits for readers; commits wait for the checkpoint."""


class Retention:
    """Forgets old commands and empties the write-ahead log. Only the maintenance thread calls."""

    def __init__(self, writer: Writer, tokens: UsedTokens, now: Callable[[], datetime], stopping: threading.Event) -> None:
        self._writer = writer
        self._tokens = tokens
        self._now = now
        self._stopping = stopping

    def prune(self) -> None:
        """Forget expired tokens and old or surplus delivered commands, and shrink the file, in steps that let commands commit in between.

        Raises:
            JournalUnwritable: the disk accepts no writes now.
            JournalError: the journal cannot be read or written.
        """
        now = self._now().timestamp()
        self._tokens.forget_expired(now)
        # Rows with acked = 0 outlive both bounds for acknowledged ones: SQS may deliver their messages again, and neither a clock that
        # jumps nor many commands may let one run twice.
        known = self._writer.read("SELECT COUNT(*) FROM commands WHERE state = 'delivered'")[0][0]
        for surplus in range(known - KEEP_IDS, 0, -AT_ONCE):
            self.forget_delivered("acked = 1", (), min(surplus, AT_ONCE))
        old = "acked = 1 AND delivered_at < ? AND (keep_until IS NULL OR keep_until < ?)"
        while self.forget_delivered(old, (now - KEEP_IDS_SECONDS, now), AT_ONCE):
            pass
        while self.forget_delivered("delivered_at < ?", (now - KEEP_UNACKED_SECONDS,), AT_ONCE):
            pass
        self._writer.commit(lambda connection: forget_old(connection, now))  # Last, so that what was counted just now is bounded too.
        while self._writer.read("PRAGMA freelist_count")[0][0] > AT_ONCE and not self._stopping.is_set():
            self._writer.use(lambda connection: connection.execute(f"PRAGMA incremental_vacuum({AT_ONCE})").fetchall())
        self.checkpoint()

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the database and truncate it: requests wiped from the database are still in the log.

        Returns False if a reader prevented it; the next call tries again.

        Raises:
            JournalError: the journal cannot be read.
        """
        return self._writer.use(_checkpoint)

    def forget_everything(self) -> None:
        """Remove all delivered commands: no message of theirs will be received here again."""
        while self.forget_delivered("1", (), AT_ONCE):
            pass
        self.checkpoint()

    def forget_delivered(self, condition: str, values: tuple[float, ...], limit: int) -> int:
        """Remove the oldest delivered commands for which the SQL condition holds ; return how many.

        At most `limit` are removed. What they called is counted (`call_history`).
        """
        chosen = (
            "id IN (SELECT id FROM commands INDEXED BY commands_old"  # noqa: S608 - our own words
            f" WHERE state = 'delivered' AND {condition} ORDER BY delivered_at LIMIT {limit})"
        )

        def forget(connection: sqlite3.Connection) -> int:
            count_calls(connection, chosen, values)
            return connection.execute(f"DELETE FROM commands WHERE {chosen}", values).rowcount  # noqa: S608 - our own words

        return int(self._writer.commit(forget))


def _checkpoint(connection: sqlite3.Connection) -> bool:
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout={CHECKPOINT_MS}")
    try:
        (busy, _pages, _moved) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout={before}")
    return not busy
