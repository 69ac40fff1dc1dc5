"""The `jti` of every secure command that was accepted, so that a sealed request cannot be replayed (PROTOCOL §5).

This module owns the table `seen_tokens`. It must not open a sealed request or read the clock.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

from relay_agent.storage.group_commit import Writer

_FORGOTTEN = ""
"""The row of `seen_tokens` that holds the latest `exp` of the forgotten tokens; no token is an empty text."""


class UsedTokens:
    """Which command used which token. Any thread may call."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._uncommitted: dict[str, str] = {}

    def claim(self, jti: str, command_id: str, exp: float) -> bool:
        """Return whether this command may use the token: it is unused, or this same command has used it since it was admitted.

        `exp` is in seconds since 1970. The claim is durable with the next commit, which is before the command's first byte is sent.

        Raises:
            JournalError: the journal cannot be read.
        """
        with self._lock:
            known = self._writer.read("SELECT command_id FROM seen_tokens WHERE jti = ?", jti)
            forgotten = self._writer.read("SELECT forget_at FROM seen_tokens WHERE jti = ?", _FORGOTTEN)
            # A token that may have been forgotten stays refused even if the clock was set back since.
            if not known and forgotten and exp <= forgotten[0][0]:
                return False
            user = str(known[0][0]) if known else self._uncommitted.setdefault(jti, command_id)
            if not known and user == command_id:
                self._writer.later(lambda connection: _insert(connection, jti, command_id, exp))
            return user == command_id

    def release(self, command_ids: Sequence[str]) -> None:
        """Forget, with the next commit, the tokens of commands that this agent ceded and so never sent: they may be admitted again."""
        ids = frozenset(command_ids)
        with self._lock:
            self._uncommitted = {jti: user for jti, user in self._uncommitted.items() if user not in ids}
            rows = [(command_id,) for command_id in ids]
            self._writer.later(lambda connection: connection.executemany("DELETE FROM seen_tokens WHERE command_id = ?", rows))

    def forget_expired(self, now: float) -> None:
        """Forget the tokens whose `exp` is before `now` (seconds since 1970).

        Raises:
            JournalUnwritable: the disk accepts no writes now.
            JournalError: the journal cannot be written.
        """
        with self._lock:
            self._writer.commit(lambda connection: _delete_expired(connection, now))
            self._uncommitted.clear()  # That commit wrote them to the table.


def disown(connection: sqlite3.Connection, command_id: str) -> None:
    """Let no command use the tokens recorded under this id, because a new command uses the id.

    They belong to a command that was forgotten or lost, and its message must not run again.
    """
    connection.execute("UPDATE seen_tokens SET command_id = '' WHERE command_id = ?", (command_id,))


def _insert(connection: sqlite3.Connection, jti: str, command_id: str, exp: float) -> None:
    connection.execute("INSERT OR IGNORE INTO seen_tokens VALUES (?, ?, ?)", (jti, command_id, exp))
    connection.execute("UPDATE commands SET keep_until = MAX(COALESCE(keep_until, 0), ?) WHERE id = ?", (exp, command_id))


def _delete_expired(connection: sqlite3.Connection, now: float) -> None:
    which = "forget_at < ? AND jti <> ?"
    (latest,) = connection.execute(f"SELECT MAX(forget_at) FROM seen_tokens WHERE {which}", (now, _FORGOTTEN)).fetchone()  # noqa: S608 - our own
    if latest is None:
        return
    connection.execute(f"DELETE FROM seen_tokens WHERE {which}", (now, _FORGOTTEN))  # noqa: S608 - our own words
    connection.execute(
        "INSERT INTO seen_tokens VALUES (?, '', ?) ON CONFLICT (jti) DO UPDATE SET forget_at = MAX(forget_at, excluded.forget_at)",
        (_FORGOTTEN, latest),
    )
