"""The journal's tables, their versions, and the connection to them.

This module owns what the file looks like. It must not know the life of a command or decide what damage is: `journal`, `integrity` and
`row_checks` do.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from relay_agent.core.errors import JournalDamaged, JournalError

SCHEMA_VERSION = 6
APPLICATION_ID = 0x52454C59
"""`RELY` in SQLite's header marks the database as a journal."""

TABLES = """
CREATE TABLE IF NOT EXISTS commands (
    id TEXT PRIMARY KEY, seq INTEGER NOT NULL, state TEXT NOT NULL, digest BLOB NOT NULL, acked INTEGER NOT NULL DEFAULT 0,
    receipt TEXT, raw TEXT, message TEXT, spool TEXT, upload_url TEXT, fallback TEXT, tell_by REAL, status TEXT, code TEXT,
    admitted_at REAL NOT NULL, started_at REAL, repeatable INTEGER, finished_at REAL, delivered_at REAL, seal BLOB,
    action TEXT, method TEXT, host TEXT, port INTEGER, status_code INTEGER, keep_until REAL,
    scheme TEXT, would_refuse TEXT, lease_until REAL, from_proxy INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commands_open ON commands (state, seq) WHERE state <> 'delivered';
CREATE INDEX IF NOT EXISTS commands_old ON commands (delivered_at) WHERE state = 'delivered';
CREATE INDEX IF NOT EXISTS commands_recent ON commands (seq);
CREATE INDEX IF NOT EXISTS commands_unacked ON commands (seq) WHERE acked = 0;
CREATE TABLE IF NOT EXISTS progress (commits INTEGER NOT NULL);
INSERT INTO progress SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM progress);
CREATE TABLE IF NOT EXISTS seen_tokens (jti TEXT PRIMARY KEY, command_id TEXT NOT NULL, forget_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tokens_owner ON seen_tokens (command_id);
CREATE TABLE IF NOT EXISTS daily_calls (
    day INTEGER NOT NULL, scheme TEXT NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL, method TEXT NOT NULL, secure INTEGER NOT NULL,
    commands INTEGER NOT NULL, answered INTEGER NOT NULL, last_at REAL NOT NULL, refused INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, scheme, host, port, method, secure)
) WITHOUT ROWID;
"""
COLUMNS = (
    "id, seq, state, digest, acked, receipt, raw, message, spool, upload_url, fallback, tell_by, status, code,"
    " admitted_at, started_at, repeatable, finished_at, delivered_at, seal,"
    " action, method, host, port, status_code, keep_until, scheme, would_refuse, lease_until, from_proxy"
)
COLUMN_NAMES = tuple(name.strip() for name in COLUMNS.split(","))
MOST_SECONDS = 1e11
"""Times beyond this (about the year 5100) are damage: the agent never writes them."""
_LISTED = {"action": "TEXT", "method": "TEXT", "host": "TEXT", "port": "INTEGER", "status_code": "INTEGER"}
_ADDED_BY_5 = {"scheme": "TEXT", "would_refuse": "TEXT", "lease_until": "REAL", "from_proxy": "INTEGER"}
_ADDED = {"seal": "BLOB", **_LISTED, "keep_until": "REAL", **_ADDED_BY_5}
"""Columns that version 1 did not have: 2 added `seal`, 3 those of the list of commands, 4 `keep_until`, 5 the others."""
_COLUMNS_OF_1 = set(COLUMN_NAMES) - _ADDED.keys()


def connect(path: Path) -> sqlite3.Connection:
    """Open the file with the journal's settings, under which a commit survives a power cut (`synchronous=FULL`).

    Raises:
        sqlite3.Error: the file cannot be opened, or is not a database.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.text_factory = readable  # A byte that changes while the agent runs must not make a whole query fail.
    try:
        if path.stat().st_size == 0:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # Later, this takes a VACUUM.
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the file so that neither it nor its write-ahead log is changed, not even by closing the connection.

    Raises:
        sqlite3.Error: the file cannot be opened, or is not a database.
    """
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
    connection.text_factory = readable  # The digest of a damaged text does not match.
    return connection


def readable(data: bytes) -> str:
    """Return a text of the journal, with U+FFFD in place of what is not UTF-8: a connection's `text_factory`."""
    return data.decode("utf-8", "replace")


def check(connection: sqlite3.Connection) -> None:
    """Check that the database is a journal which this version can read, before anything is written to it.

    Raises:
        JournalError: a newer agent wrote it.
        JournalDamaged: it is another program's database.
        sqlite3.Error: SQLite cannot read it.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if mark not in (0, APPLICATION_ID) or (tables and not has_commands(connection)):
        raise JournalDamaged("it is another program's database")
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"the journal was written by a newer agent (schema {version}, this one knows {SCHEMA_VERSION}); run that version or a later one"
        )


def has_commands(connection: sqlite3.Connection) -> bool:
    """Return whether there is a table of commands, of this version or an older one.

    Raises:
        sqlite3.Error: SQLite cannot read it.
    """
    return _columns(connection) >= _COLUMNS_OF_1


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables of a checked journal, or of an empty file, to this version.

    Raises:
        sqlite3.Error: SQLite cannot write it.
    """
    there = _columns(connection)
    for name in _ADDED.keys() - there if there else ():
        connection.execute(f"ALTER TABLE commands ADD COLUMN {name} {_ADDED[name]}")
    counts = _columns(connection, "daily_calls")
    if counts and "refused" not in counts:  # Version 6 added it, 5 the table.
        connection.execute("ALTER TABLE daily_calls ADD COLUMN refused INTEGER NOT NULL DEFAULT 0")
    if connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
        return
    connection.executescript(f"BEGIN; {TABLES} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 0:
        # Version 1 could not give pages back; this rewrites the file once. On a nearly full disk the start continues without it.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.executescript("PRAGMA auto_vacuum=INCREMENTAL; VACUUM;")


def _columns(connection: sqlite3.Connection, table: str = "commands") -> set[str]:
    return {str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")}
