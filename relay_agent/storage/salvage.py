"""Opening a journal, even a damaged one: that is set aside, and every row that SQLite can read goes into a fresh one.

This module owns the files set aside and the rescue of their rows. It must not guess: a command that may have been started counts as
started, and a row that cannot be read is reported.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from relay_agent.core.errors import JournalDamaged
from relay_agent.storage import schema
from relay_agent.storage.commit_counter import counter_path, recorded_commits
from relay_agent.storage.disk_faults import is_unwritable, text_of
from relay_agent.storage.integrity import SIDE_FILES, UNREADABLE, CommitsMissing, altered_rows, check_files, opened_read_only
from relay_agent.storage.wal import read_log, wal_path

_MARKER = b"relay-agent: this journal was damaged and is being salvaged from "
"""What the marker's file begins with; the rest is `Aside` as JSON."""
_MARKER_BYTES = 4096
_NAMES = tuple(name.strip() for name in schema.COLUMNS.split(","))
_PLACES = {name: place for place, name in enumerate(_NAMES)}

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """What was wrong with the journal, the name it was given, and how much was salvaged.

    `salvaged` counts rows by state; `unreadable` are the ids whose rows could not be read; `complete` says that every row was
    reached, so that only those ids are missing.
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
class Opened:
    """A journal ready for use; `spoiled` counts the rows of which only the id is still believed."""

    connection: sqlite3.Connection
    damage: Damage | None
    spoiled: int


def open_sound(path: Path, now: Callable[[], datetime]) -> Opened:
    """Open the journal or create it; set a damaged one aside, and open a fresh one with what could be salvaged.

    A marker stands in the journal's place until the fresh one is complete, so that a start after a crash continues the salvage.

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
            return _open(path, None)
        except (JournalDamaged, *UNREADABLE) as error:
            if isinstance(error, sqlite3.Error) and is_unwritable(error):
                raise
            stale = bool(log) or isinstance(error, CommitsMissing)
            aside = _set_aside(path, log, now(), Aside("", stale, text_of(error)))
    return _open(path, _replace_by_fresh(path, aside))


def damage_being_salvaged(path: Path) -> str | None:
    """Return what was wrong with a journal whose salvage has begun and not ended; None for any other."""
    aside = _marked(path)
    return None if aside is None else aside.reason


def _open(path: Path, damage: Damage | None) -> Opened:
    """Open a sound journal, or create one."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    connection = schema.connect(path)
    try:
        schema.migrate(connection)
        return Opened(connection, damage, _distrust_altered_rows(connection))
    except BaseException:
        connection.close()
        raise


def _distrust_altered_rows(connection: sqlite3.Connection) -> int:
    """Make every altered row a started command whose message is lost, and return how many there were."""
    altered = [(command_id,) for command_id in altered_rows(connection)]
    if altered:
        with connection:
            connection.execute("BEGIN")
            connection.executemany(
                "UPDATE commands SET state = 'started', repeatable = 0, raw = NULL, message = NULL, spool = NULL,"
                " upload_url = NULL, fallback = NULL, seal = NULL WHERE id = ?",
                altered,
            )
    return len(altered)


# --- setting aside ---


def _set_aside(path: Path, log: bytes, moment: datetime, found: Aside) -> Aside:
    """Give the journal and its log a dated name, and put the marker in the journal's place."""
    stem = f"{path.name}.damaged-{moment:%Y%m%dT%H%M%SZ}"
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


def _replace_by_fresh(path: Path, aside: Aside) -> Damage:
    """Make a fresh journal from what can be read of the one set aside, and put it in the marker's place."""
    fresh = path.with_name(f"{path.name}.fresh")
    stale = [place.with_name(place.name + ending) for place in (path, fresh) for ending in SIDE_FILES]
    for leftover in (fresh, *stale):
        leftover.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    with closing(schema.connect(fresh)) as connection:
        schema.migrate(connection)
        damage = _salvage(path.with_name(aside.name), connection, aside)
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


def _salvage(old_path: Path, fresh: sqlite3.Connection, aside: Aside) -> Damage:
    """Copy every row that SQLite can read."""
    rows: dict[str, Row] = {}
    known: set[str] = set()
    tokens: dict[str, Row] = {}
    complete = False
    with suppress(*UNREADABLE), opened_read_only(old_path) as old:
        if not old_path.stat().st_size:
            raise sqlite3.DatabaseError("SQLite would remove the log of an empty database")
        columns = _columns(old)
        complete = _read_rows(old, columns, rows, "SELECT {} FROM commands ORDER BY id")
        if not complete:
            _read_rows(old, columns, rows, "SELECT {} FROM commands ORDER BY id DESC")
            known = _ids_of_indexes(old)
            for command_id in known - rows.keys():
                with suppress(*UNREADABLE):
                    _read_rows(old, columns, rows, "SELECT {} FROM commands WHERE id = ?", command_id)
        if not _read_tokens(old, tokens, "ASC"):
            _read_tokens(old, tokens, "DESC")
            complete = False
    unreadable = tuple(sorted(known - rows.keys()))
    kept = [_started_if_stale(row, stale=aside.stale) for row in rows.values()] + [_row_of_lost(command_id) for command_id in unreadable]
    with fresh:
        fresh.execute("BEGIN")
        fresh.executemany(f"INSERT OR IGNORE INTO commands ({schema.COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})", kept)  # noqa: S608 - constants
        fresh.executemany("INSERT OR IGNORE INTO seen_tokens VALUES (?, ?, ?)", tokens.values())
    counts = Counter(str(row[_PLACES["state"]]) for row in rows.values())
    return Damage(aside.reason, old_path.name, dict(counts), unreadable, complete and not aside.stale)


def _columns(old: sqlite3.Connection) -> str:
    """Return the columns to read, NULL for those that an older version does not have."""
    there = {str(row[1]) for row in old.execute("PRAGMA table_info(commands)")}
    return ", ".join(name if name in there else "NULL" for name in _NAMES)


def _read_rows(old: sqlite3.Connection, columns: str, rows: dict[str, Row], query: str, *values: str) -> bool:
    """Add rows up to the end, or to the first that cannot be read; return whether the end was reached."""
    try:
        for row in old.execute(query.format(columns), values):
            if _is_plausible(row):
                rows.setdefault(str(row[0]), tuple(row))
    except UNREADABLE:
        return False
    return True


def _read_tokens(old: sqlite3.Connection, tokens: dict[str, Row], order: str) -> bool:
    """Do the same for the tokens of secure commands: one that is lost can be replayed until its `exp`."""
    try:
        for row in old.execute(f"SELECT jti, command_id, forget_at FROM seen_tokens ORDER BY jti {order}"):  # noqa: S608 - our own words
            if isinstance(row[0], str) and isinstance(row[1], str) and isinstance(row[2], float):
                tokens.setdefault(row[0], row)
    except UNREADABLE:
        return False
    return True


def _is_plausible(row: Row) -> bool:
    """Return whether the row has a known state and the text that this state needs."""
    state, raw, message = (row[_PLACES[name]] for name in ("state", "raw", "message"))
    if not isinstance(row[0], str) or not isinstance(row[_PLACES["digest"]], bytes):
        return False
    needed = {"admitted": raw, "started": raw, "finished": message, "delivered": ""}
    return state in needed and isinstance(needed[state], str)


def _ids_of_indexes(old: sqlite3.Connection) -> set[str]:
    """Return the ids in the indexes, which are small, on pages of their own, and often readable if the table is not."""
    found: set[str] = set()
    for query in (
        "SELECT id FROM commands INDEXED BY commands_open WHERE state <> 'delivered' ORDER BY state, seq",
        "SELECT id FROM commands INDEXED BY commands_open WHERE state <> 'delivered' ORDER BY state DESC, seq DESC",
        "SELECT id FROM commands INDEXED BY commands_unacked WHERE acked = 0 ORDER BY seq",
    ):
        found.update(_readable_ids(old, query))
    return found


def _readable_ids(old: sqlite3.Connection, query: str) -> Iterator[str]:
    with suppress(*UNREADABLE):
        for (command_id,) in old.execute(query):
            if isinstance(command_id, str) and command_id.isprintable():
                yield command_id


def _started_if_stale(row: Row, *, stale: bool) -> Row:
    """Make an admitted command a started one if the record of its start may be lost."""
    if not stale or row[_PLACES["state"]] != "admitted":
        return row
    changed = list(row)
    changed[_PLACES["state"]] = "started"
    return tuple(changed)


def _row_of_lost(command_id: str) -> Row:
    """Return a row for a command of which only the id is known: it may have been started, and cannot be executed."""
    values = {"id": command_id, "seq": 0, "state": "started", "digest": b"", "acked": 1, "admitted_at": 0.0, "repeatable": 0}
    return tuple(values.get(name) for name in _NAMES)
