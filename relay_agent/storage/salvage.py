"""Opens a journal. A damaged one is renamed (set aside), and every row that SQLite can read is copied to a fresh one.

This module owns the files set aside and the rescue of their rows. It must not guess: a command that may have been started counts as
started, and a row that cannot be read is reported. It must not judge what a row contains: `row_checks` does, for every journal that is
opened, and so for the fresh one too.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from relay_agent.core.clock import DAY_SECONDS, compact
from relay_agent.core.errors import JournalDamaged
from relay_agent.storage import schema
from relay_agent.storage.commit_counter import counter_path, recorded_commits
from relay_agent.storage.disk_faults import is_unwritable, text_of
from relay_agent.storage.integrity import SIDE_FILES, UNREADABLE, CommitsMissing, check_files, commits_of, opened_read_only
from relay_agent.storage.row_checks import NEVER_NULL, Altered, Undecodable, altered_rows, decoded
from relay_agent.storage.wal import read_log, wal_path

_MARKER = b"relay-agent: this journal was damaged and is being salvaged from "
"""What the marker's file begins with; the rest is `Aside` as JSON."""
_MARKER_BYTES = 4096
_TOKEN_SECONDS = 7 * DAY_SECONDS
"""How far ahead the `exp` of a secure command may be (PROTOCOL §5)."""
_ODD_TOKENS = f"typeof(forget_at) NOT IN ('integer', 'real') OR ABS(forget_at) > {schema.MOST_SECONDS}"
_PLACES = {name: place for place, name in enumerate(schema.COLUMN_NAMES)}
_REQUIRED = NEVER_NULL | {"id", "state"}
_EMPTY = ""
"""Copied in place of a NULL that the fresh table would not take; the row checks find it to be damage of that column alone."""
_BEGUN = ("started", "finished", "delivered")
_STATES = ("admitted", *_BEGUN)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """What was wrong with the journal, the name it was given, and how much was salvaged.

    `salvaged` counts rows by state, `unknown` if that is damaged; `unreadable` are the ids whose rows could not be read; `complete` says
    that every row was reached, so that only those ids are missing.
    """

    reason: str
    aside: str
    salvaged: dict[str, int]
    unreadable: tuple[str, ...]
    complete: bool


@dataclass(frozen=True)
class Aside:
    """A journal set aside: its new name, whether later versions of its rows may be lost with the log's end, and what was wrong."""

    name: str
    stale: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Indexed:
    """What the indexes say of a command: its number, and whether its answer was delivered."""

    seq: Any
    delivered: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal ready for use; `spoiled` counts the rows that were altered, `nameless` are those ids of them that cannot be read."""

    connection: sqlite3.Connection
    damage: Damage | None
    spoiled: int
    nameless: tuple[str, ...] = ()


def open_sound(path: Path, now: Callable[[], datetime]) -> Opened:
    """Open the journal or create it; set a damaged one aside, and open a fresh one with what could be salvaged.

    A marker file takes the journal's place until the fresh one is complete, so that a start after a crash continues the salvage.

    Raises:
        JournalError: a newer agent wrote it.
        sqlite3.Error, OSError: the disk does not allow it.
    """
    aside = _marked(path)
    if aside is None:
        log = read_log(path)
        try:
            if log or recorded_commits(path):
                path.touch(mode=0o600)  # A log or a counter without its database is not a first start.
            if path.exists() and (path.stat().st_size or log or recorded_commits(path)):
                check_files(path, log)
            return _open(path, None, now)
        except (JournalDamaged, *UNREADABLE) as error:
            if isinstance(error, sqlite3.Error) and is_unwritable(error):
                raise
            stale = bool(log) or isinstance(error, CommitsMissing)
            aside = _set_aside(path, log, now(), Aside("", stale, text_of(error)))
    return _open(path, _replace_by_fresh(path, aside, now().timestamp()), now)


def damage_being_salvaged(path: Path) -> str | None:
    """Return what was wrong with a journal whose salvage has begun and not ended; None for any other."""
    aside = _marked(path)
    return None if aside is None else aside.reason


def _open(path: Path, damage: Damage | None, now: Callable[[], datetime]) -> Opened:
    """Open a sound journal, or create one."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    connection = schema.connect(path)
    try:
        schema.migrate(connection)
        altered = _mend_rows(connection, now().timestamp(), recorded_commits(path))
        return Opened(connection, damage, len(altered), tuple(row.name for row in altered if not row.readable))
    except BaseException:
        connection.close()
        raise


def _mend_rows(connection: sqlite3.Connection, now: float, commits: int) -> list[Altered]:
    """Make every altered row one that can be used, or a started command whose message is lost; return the altered commands.

    `commits` is the number of commits that the counter's file has.
    """
    altered, counted = list(altered_rows(connection, now)), commits_of(connection) is not None
    tokens = connection.execute(f"SELECT COUNT(*) FROM seen_tokens WHERE {_ODD_TOKENS}").fetchone()[0]  # noqa: S608 - constants
    if not altered and counted and not tokens:
        return []
    with connection:
        connection.execute("BEGIN")
        for row in altered:
            _mend(connection, row)
        if not counted:
            connection.execute("DELETE FROM progress")
            connection.execute("INSERT INTO progress VALUES (?)", (commits,))
        # It is unknown how long such a token is needed, so it is kept as long as any; '' is the latest `exp` of those forgotten.
        query = f"UPDATE seen_tokens SET forget_at = CASE WHEN jti = '' THEN ? ELSE ? END WHERE {_ODD_TOKENS}"  # noqa: S608 - constants
        connection.execute(query, (now, now + _TOKEN_SECONDS))
    return altered


def _mend(connection: sqlite3.Connection, row: Altered) -> None:
    key, where = (row.key.data, "id = CAST(? AS TEXT)") if isinstance(row.key, Undecodable) else (row.key, "id = ?")
    if row.changes is not None:
        columns = ", ".join(f"{name} = ?" for name in row.changes)
        query = f"UPDATE OR IGNORE commands SET {columns} WHERE {where}"  # noqa: S608 - names of columns
        if connection.execute(query, (*row.changes.values(), key)).rowcount:
            return
    connection.execute(f"DELETE FROM commands WHERE {where}", (key,))  # noqa: S608 - our own words


# --- setting aside ---


def _set_aside(path: Path, log: bytes, moment: datetime, found: Aside) -> Aside:
    """Give the journal and its log a dated name, and put the marker in the journal's place."""
    stem = f"{path.name}.damaged-{compact(moment)}"
    aside, number = path.with_name(stem), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{stem}-{number}")
    named, marker, log_copy = replace(found, name=aside.name), path.with_name(f"{path.name}.marker"), wal_path(aside)
    aside.hardlink_to(path)
    try:
        if log:
            _write_private(log_copy, log)
        _write_private(marker, _MARKER + json.dumps(asdict(named)).encode())
        marker.replace(path)
    except OSError:
        for half in (marker, log_copy, aside):  # The disk is full: the next try starts afresh.
            half.unlink(missing_ok=True)
        raise
    return named


def _marked(path: Path) -> Aside | None:
    """Return what the marker in the journal's place says; None if a journal, or nothing, is there."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        head = file.read(_MARKER_BYTES)
        if head.startswith(_MARKER):
            return Aside(**json.loads(head.removeprefix(_MARKER)))
    return None


def _replace_by_fresh(path: Path, aside: Aside, now: float) -> Damage:
    """Make a fresh journal from what can be read of the one set aside, and put it in the marker's place."""
    fresh = path.with_name(f"{path.name}.fresh")
    stale = [place.with_name(place.name + ending) for place in (path, fresh) for ending in SIDE_FILES]
    for leftover in (fresh, *stale):
        leftover.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    with closing(schema.connect(fresh)) as connection:
        schema.migrate(connection)
        damage = _salvage(path.with_name(aside.name), connection, aside, now)
    counter_path(path).unlink(missing_ok=True)  # It counted the commits of the journal set aside.
    fresh.replace(path)
    return damage


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


# --- salvaging ---


def _salvage(old_path: Path, fresh: sqlite3.Connection, aside: Aside, now: float) -> Damage:
    """Copy every row that SQLite can read, whatever it contains."""
    rows: dict[Any, Row] = {}
    known: dict[str, _Indexed] = {}
    tokens: dict[Any, Row] = {}
    complete = False
    with suppress(*UNREADABLE), opened_read_only(old_path) as old:
        if not old_path.stat().st_size:
            raise sqlite3.DatabaseError("SQLite would remove the log of an empty database")
        if not schema.has_commands(old):
            raise sqlite3.DatabaseError("it is another program's database")
        old.text_factory = decoded
        columns = _columns(old)
        complete = _read_rows(old, columns, rows, "SELECT {} FROM commands ORDER BY id")
        if not complete:
            _read_rows(old, columns, rows, "SELECT {} FROM commands ORDER BY id DESC")
        known = _read_indexes(old)  # In any case: SQLite may reach the table's end although a row is out of its place.
        for command_id in known.keys() - rows.keys():
            _read_rows(old, columns, rows, "SELECT {} FROM commands WHERE id = ?", command_id)
        if not _read_tokens(old, tokens, "ASC"):
            _read_tokens(old, tokens, "DESC")
            complete = False
    lost = _lost(rows, known)
    kept = [_started_if_stale(row, stale=aside.stale) for row in rows.values()]
    kept += [_row_of_lost(command_id, now if known[command_id].delivered else None) for command_id in lost]
    with fresh:
        fresh.execute("BEGIN")
        written = sum(_insert(fresh, f"commands ({schema.COLUMNS})", row) for row in kept)
        for row in tokens.values():
            _insert(fresh, "seen_tokens", row)
    states = (row[_PLACES["state"]] for row in rows.values())
    counts = Counter(state if state in _STATES else "unknown" for state in states)
    complete = complete and not lost and written == len(kept)  # A lost row shows that others may be lost which no index names.
    return Damage(aside.reason, old_path.name, dict(counts), lost, complete and not aside.stale)


def _insert(fresh: sqlite3.Connection, table: str, row: Row) -> int:
    """Write a row unless its key is there already, and return how many were written."""
    places = ", ".join("CAST(? AS TEXT)" if isinstance(value, Undecodable) else "?" for value in row)
    values = [value.data if isinstance(value, Undecodable) else value for value in row]
    return fresh.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", values).rowcount  # noqa: S608 - our own words


def _columns(old: sqlite3.Connection) -> str:
    """Return the columns to read, NULL for those that an older version does not have."""
    there = {str(row[1]) for row in old.execute("PRAGMA table_info(commands)")}
    return ", ".join(name if name in there else "NULL" for name in schema.COLUMN_NAMES)


def _read_rows(old: sqlite3.Connection, columns: str, rows: dict[Any, Row], query: str, *values: str) -> bool:
    """Add rows up to the end, or to the first that cannot be read; return whether all were added."""
    whole = True
    try:
        for row in old.execute(query.format(columns), values):
            named = zip(schema.COLUMN_NAMES, row, strict=True)
            found = tuple(_EMPTY if value is None and name in _REQUIRED else value for name, value in named)
            whole = rows.setdefault(row[0], found) == found and whole  # Of two rows with one id only the first can be kept.
    except UNREADABLE:
        return False
    return whole


def _read_tokens(old: sqlite3.Connection, tokens: dict[Any, Row], order: str) -> bool:
    """Do the same for the tokens of secure commands: one that is lost can be replayed until its `exp`."""
    try:
        for row in old.execute(f"SELECT jti, command_id, forget_at FROM seen_tokens ORDER BY jti {order}"):  # noqa: S608 - our own words
            tokens.setdefault(row[0], tuple(_EMPTY if value is None else value for value in row))
    except UNREADABLE:
        return False
    return True


def _read_indexes(old: sqlite3.Connection) -> dict[str, _Indexed]:
    """Return the commands in the indexes, which are on pages of their own, and often readable if the table is not."""
    unfinished: dict[Any, Any] = {}
    others: dict[Any, Any] = {}
    query = "SELECT id, seq FROM commands INDEXED BY commands_open WHERE state <> 'delivered' ORDER BY state {0}, seq {0}"
    whole = _read_index(old, unfinished, query.format("ASC")) or _read_index(old, unfinished, query.format("DESC"))
    if whole:  # Of an id that only `commands_recent` has it is unknown otherwise whether the command was answered.
        _read_index(old, others, "SELECT id, seq FROM commands INDEXED BY commands_recent ORDER BY seq")
    _read_index(old, others, "SELECT id, seq FROM commands INDEXED BY commands_unacked WHERE acked = 0 ORDER BY seq")
    numbers = set(unfinished.values())
    # `commands_open` holds every command that is not delivered: the others were answered, and must not be answered again.
    found = {key: _Indexed(seq, whole and key not in unfinished and seq not in numbers) for key, seq in (others | unfinished).items()}
    return {key: one for key, one in found.items() if isinstance(key, str) and key.isprintable()}


def _read_index(old: sqlite3.Connection, found: dict[Any, Any], query: str) -> bool:
    """Add the ids and numbers of an index up to its end, or to what cannot be read; return whether the end was reached."""
    try:
        found.update(old.execute(query))  # Row by row, so that those before the damage are kept.
    except UNREADABLE:
        return False
    return True


def _lost(rows: dict[Any, Row], known: dict[str, _Indexed]) -> tuple[str, ...]:
    """Return the ids in the indexes that no row has.

    An open command whose number a row has is not lost: one of the two ids was altered, and the row is answered by its message.
    """
    numbers = {row[_PLACES["seq"]] for row in rows.values()} - {0}  # 0 is the number of every command that was lost before.
    return tuple(sorted(key for key, one in known.items() if key not in rows and (one.delivered or one.seq not in numbers)))


def _started_if_stale(row: Row, *, stale: bool) -> Row:
    """Make an admitted command a started one if the record of its start may be lost.

    One that this agent had only claimed may have become its own and run, or be another agent's: it is answered and must not run again.
    """
    state = row[_PLACES["state"]]
    if not stale or state in _BEGUN:
        return row
    started = {"state": "started"} if state == "admitted" else {}  # The row checks decide what any other state means.
    claimed = {"lease_until": None, "receipt": None, "acked": 1, "repeatable": 0} if row[_PLACES["lease_until"]] is not None else {}
    changed = dict(zip(schema.COLUMN_NAMES, row, strict=True)) | started | claimed
    return tuple(changed.values())


def _row_of_lost(command_id: str, delivered_at: float | None) -> Row:
    """Return a row for a command of which only the id is known: it may have been started, and cannot be executed.

    One that was answered before needs only to be recognised if its message, which may not be acknowledged, comes again.
    """
    values = {"id": command_id, "seq": 0, "state": "started", "digest": b"", "acked": 1, "admitted_at": 0.0, "repeatable": 0}
    if delivered_at is not None:
        values |= {"state": "delivered", "acked": 0, "delivered_at": delivered_at}
    return tuple(values.get(name) for name in schema.COLUMN_NAMES)
