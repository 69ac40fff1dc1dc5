"""Which targets were called, longer than the journal keeps commands: counts by day, for `policy learn`.

This module owns the table `daily_calls`. It is written when old commands are removed, so that no command waits for it.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from relay_agent.core.clock import DAY_SECONDS
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTION_SECURE

KEEP_DAYS = 92
MAX_ROWS = 20_000
MAX_ROWS_A_DAY = 2_000
"""Bounds, since senders choose hosts and methods. What is forgotten first is `_LEAST_WORTH`."""

# In the mode `observe` that says only that no rule names the target yet. No rule's own name begins so (docs/policy.md).
_NO_RULE_YET = "default: deny"
_OF_COMMANDS = (
    "SELECT CAST(finished_at / 86400 AS INTEGER) AS day, scheme, host, port, method,"  # noqa: S608 - our own words
    f" action = '{ACTION_SECURE}' AS secure, COUNT(*) AS commands,"
    " COUNT(CASE WHEN from_proxy IS NOT 1 THEN status_code END) AS answered, MAX(finished_at) AS last_at,"
    f" COUNT(CASE WHEN code = '{Code.EPOLICY}' OR would_refuse NOT LIKE '{_NO_RULE_YET}%' THEN 1 END) AS refused FROM commands"
    " WHERE scheme IS NOT NULL AND host IS NOT NULL AND port IS NOT NULL AND method IS NOT NULL AND finished_at IS NOT NULL"
)
_GROUPED = " GROUP BY 1, 2, 3, 4, 5, 6"
_KEY = "day, scheme, host, port, method, secure"
_COUNTS = "commands, answered, last_at, refused"
# Called most often over all days is what a sender who invents targets can push out last.
_LEAST_WORTH = "ever_answered, often, day"
_RATED = (
    f"SELECT {_KEY}, SUM(answered) OVER target > 0 AS ever_answered, SUM(commands) OVER target AS often FROM daily_calls"  # noqa: S608
    " WINDOW target AS (PARTITION BY scheme, host, port, method, secure)"
)


@dataclass(frozen=True, slots=True)
class CalledTarget:
    """How often a target was called by one method; `last_at` is in seconds since 1970."""

    scheme: str
    host: str
    port: int
    method: str
    secure: bool
    """Whether the commands were secure ones."""
    commands: int
    answered: int
    """How many of them got a response of the target itself, not a proxy's."""
    last_at: float
    refused: int = 0
    """How many of them the policy refused, or a rule of it would have refused in the mode `enforce`; a redirect of theirs counts too."""


def is_counted(connection: sqlite3.Connection) -> bool:
    """Return whether the journal has the counts of this version: an older one gets them when an agent opens it."""
    return bool(connection.execute("SELECT 1 FROM pragma_table_info('daily_calls') WHERE name = 'refused'").fetchone())


def count_calls(connection: sqlite3.Connection, chosen: str, values: tuple[float, ...]) -> None:
    """Add commands that are about to be removed to the counts; `chosen` is an SQL condition with the parameters `values`."""
    connection.execute(
        f"INSERT INTO daily_calls ({_KEY}, {_COUNTS}) {_OF_COMMANDS} AND {chosen}{_GROUPED}"
        " ON CONFLICT DO UPDATE SET commands = commands + excluded.commands, answered = answered + excluded.answered,"
        " last_at = MAX(last_at, excluded.last_at), refused = refused + excluded.refused",
        values,
    )


def forget_old(connection: sqlite3.Connection, now: float) -> None:
    """Remove the counts of days that are too long ago, and the surplus: first what never answered, then what was called least often."""
    connection.execute("DELETE FROM daily_calls WHERE day < ?", (int(now // DAY_SECONDS) - KEEP_DAYS,))
    full = "SELECT day, COUNT(*) FROM daily_calls GROUP BY day HAVING COUNT(*) > ?"
    for day, rows in connection.execute(full, (MAX_ROWS_A_DAY,)).fetchall():
        _forget(connection, f"SELECT * FROM ({_RATED}) WHERE day = {int(day)}", rows - MAX_ROWS_A_DAY)  # noqa: S608 - our own words
    (rows,) = connection.execute("SELECT COUNT(*) FROM daily_calls").fetchone()
    if rows > MAX_ROWS:
        _forget(connection, _RATED, rows - MAX_ROWS)


def _forget(connection: sqlite3.Connection, rated: str, surplus: int) -> None:
    chosen = f"SELECT {_KEY} FROM ({rated}) ORDER BY {_LEAST_WORTH} LIMIT ?"  # noqa: S608 - our own words
    connection.execute(f"DELETE FROM daily_calls WHERE ({_KEY}) IN ({chosen})", (surplus,))  # noqa: S608 - our own words


def read_calls(connection: sqlite3.Connection, since: float) -> list[CalledTarget]:
    """Return what was called since a time in seconds since 1970 (counted by whole days), the most often called first."""
    rows = f"SELECT {_KEY}, {_COUNTS} FROM daily_calls UNION ALL {_OF_COMMANDS}{_GROUPED}"  # noqa: S608 - our own words
    query = (
        "SELECT scheme, host, port, method, secure, SUM(commands), SUM(answered), MAX(last_at), SUM(refused)"  # noqa: S608 - our own words
        f" FROM ({rows}) WHERE day >= ? GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 2, 3, 1, 4"
    )
    found = connection.execute(query, (int(since // DAY_SECONDS),))
    return [CalledTarget(row[0], row[1], row[2], row[3], bool(row[4]), *row[5:]) for row in found]
