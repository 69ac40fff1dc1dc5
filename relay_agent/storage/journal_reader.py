"""Reading the commands of a journal that another thread or process writes, to show them to people.

This module owns the queries, on a connection of its own. It must not write, keep a lock or wait for a commit that does not end.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from relay_agent.core.errors import JournalError
from relay_agent.storage import schema
from relay_agent.storage.call_history import CalledTarget, is_counted, read_calls
from relay_agent.storage.disk_faults import journal_error
from relay_agent.storage.wal import wal_path

SQLITE_VERSION = sqlite3.sqlite_version

_COLUMNS = (
    "id, state, acked, admitted_at, started_at, finished_at, delivered_at, action, method, host, port, status, code, status_code,"
    " scheme, would_refuse, CASE WHEN state IN ('admitted', 'started') THEN raw END"
)
_OLDER_COLUMNS = _COLUMNS.replace("scheme, would_refuse", "NULL, NULL")
"""The same from a journal that no agent of this version has opened yet."""


@dataclass(frozen=True, slots=True)
class Row:
    """One command in the journal; times are seconds since 1970, `raw` is the message of an unfinished one, else None."""

    id: str
    state: str
    acked: bool
    admitted_at: float
    started_at: float | None
    finished_at: float | None
    delivered_at: float | None
    action: str | None
    method: str | None
    host: str | None
    port: int | None
    status: str | None
    code: str | None
    status_code: int | None
    scheme: str | None
    would_refuse: str | None
    raw: str | None = field(repr=False)


class Reader:
    """Reads the journal of one state directory. Each call opens it again; any thread may call.

    Every method raises JournalError if there is no journal or it cannot be read.
    """

    def __init__(self, path: Path, *, in_use: bool) -> None:
        """`in_use` says that an agent has the journal open; if none has, a copy of its files is read."""
        self._path = path
        self._in_use = in_use

    @contextmanager
    def rows(self, state: str | None = None) -> Iterator[Iterator[Row]]:
        """Yield the commands, all or those in one state, the newest first."""
        where, values = ("", ()) if state is None else (" WHERE state = ?", (state,))
        with self._connection() as connection:
            query = f"SELECT {_columns(connection)} FROM commands{where} ORDER BY seq DESC"  # noqa: S608 - our own words
            found = connection.execute(query, values)
            with closing(found):  # An open cursor would keep its read transaction.
                yield (Row(*row) for row in found)

    def one(self, command_id: str) -> Row | None:
        """Return the command with this id, or the only one whose id begins with it; None if there is none, or several."""
        start = command_id.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        with self._connection() as connection:
            where = "id = ?1 OR id LIKE ?2 ESCAPE '\\' ORDER BY id <> ?1 LIMIT 2"
            query = f"SELECT {_columns(connection)} FROM commands WHERE {where}"  # noqa: S608 - our own words
            found = [Row(*row) for row in connection.execute(query, (command_id, f"{start}%"))]
        return found[0] if found and (len(found) == 1 or found[0].id == command_id) else None

    def counts(self) -> dict[str, int]:
        """Return how many commands are in each state."""
        with self._connection() as connection:
            waiting = connection.execute("SELECT state, COUNT(*) FROM commands WHERE state <> 'delivered' GROUP BY state").fetchall()
            (delivered,) = connection.execute("SELECT COUNT(*) FROM commands WHERE state = 'delivered'").fetchone()
        return {"admitted": 0, "started": 0, "finished": 0, **dict(waiting), "delivered": delivered}

    def finished_by_minute(self, now: float, minutes: int) -> dict[int, tuple[int, int]]:
        """Return how many commands finished, and how many of them failed, by how many minutes ago; `now` is in seconds since 1970."""
        query = (
            "SELECT CAST((?1 - finished_at) / 60 AS INTEGER), COUNT(*), COUNT(CASE WHEN status <> 'SUCCESS' THEN 1 END) FROM commands"
            " WHERE finished_at > ?1 - 60 * ?2 AND finished_at <= ?1 GROUP BY 1"
        )
        with self._connection() as connection:
            return {ago: (done, failed) for ago, done, failed in connection.execute(query, (now, minutes))}

    def calls(self, since: float) -> list[CalledTarget]:
        """Return which targets were called since a time in seconds since 1970, the most often called first."""
        with self._connection() as connection:
            return read_calls(connection, since) if is_counted(connection) else []

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self._path.exists():
                raise JournalError(f"there is no journal at {self._path}")
            with self._file() as path, closing(_open(path, self._in_use)) as connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise journal_error(error, "the journal cannot be read") from None

    @contextmanager
    def _file(self) -> Iterator[Path]:
        if self._in_use:
            yield self._path
            return
        # SQLite would move the log that a killed agent left into the file; the next start must find both as they are.
        with tempfile.TemporaryDirectory(prefix="relay-agent-") as directory:
            for file in (self._path, wal_path(self._path)):
                if file.exists():
                    shutil.copyfile(file, Path(directory) / file.name)
            yield Path(directory) / self._path.name


def _columns(connection: sqlite3.Connection) -> str:
    return _COLUMNS if _is_current(connection) else _OLDER_COLUMNS


def _is_current(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM pragma_table_info('commands') WHERE name = 'from_proxy'").fetchone())


def _open(path: Path, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rw"
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=2.0)
    connection.text_factory = schema.readable
    connection.execute("PRAGMA query_only = ON")
    return connection
