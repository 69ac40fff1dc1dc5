"""A journal that does not hold what was written to it: found out, set aside, and salvaged as far as SQLite can read it.

This room owns the judgement of a file and the rescue of its rows. It must not guess: what may have been started is taken
for started, and what cannot be read is reported.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from relay_agent.core.errors import JournalDamaged
from relay_agent.storage import commit_counter, schema
from relay_agent.storage.group_commit import unwritable, words_of
from relay_agent.storage.integrity import SIDE_FILES, UNREADABLE, CommitsMissing, check_files, count_doubtful, opened_read_only
from relay_agent.storage.wal import read_log

_MARK = b"relay-agent: this journal was damaged and is being salvaged from "
_NAMES = tuple(name.strip() for name in schema.COLUMNS.split(","))
_PLACES = {name: place for place, name in enumerate(_NAMES)}


Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """What was wrong with the journal, where it lies now, and what came of its commands.

    `salvaged` counts the rows by state; `unreadable` are the ids whose rows could not be read; `complete` says that every
    row was reached, so that nothing but these is missing.
    """

    reason: str
    aside: str
    salvaged: dict[str, int]
    unreadable: tuple[str, ...]
    complete: bool


@dataclass(frozen=True)
class Aside:
    """A journal set aside: its name, whether newer versions of its rows may be lost with its log's end, what was wrong."""

    name: str
    stale: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal that can be worked with; `spoiled` counts the rows of which nothing is believed any more but their id."""

    connection: sqlite3.Connection
    damage: Damage | None
    spoiled: int


def open_sound(path: Path, now: Callable[[], datetime]) -> Opened:
    """Open the journal; set a damaged one aside, and go on with a fresh one that holds what could be salvaged.

    Killed at any moment of that, the next start goes on with it: a marker stands in the journal's place meanwhile.

    Raises:
        JournalError: a newer agent wrote it.
        sqlite3.Error, OSError: the disk does not let it be opened.
    """
    found = _marked(path)
    if found is None:
        log = read_log(path)
        try:
            if log or commit_counter.told(path):
                path.touch(mode=0o600)  # A log, or a witness, without its database is no first start.
            if path.exists() and (path.stat().st_size or log or commit_counter.told(path)):
                check_files(path, log)
            return _open(path, None)
        except (JournalDamaged, *UNREADABLE) as error:
            if isinstance(error, sqlite3.Error) and unwritable(error):
                raise
            stale = bool(log) or isinstance(error, CommitsMissing)
            found = _set_aside(path, log, now(), Aside("", stale, words_of(error)))
    return _open(path, _renew(path, found))


# --- judging ---


def set_aside_already(path: Path) -> str | None:
    """What was wrong with a journal that is being salvaged since, None for any other."""
    found = _marked(path)
    return None if found is None else found.reason


def _open(path: Path, damage: Damage | None) -> Opened:
    """Open a sound journal, or make one where there is none."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    connection = schema.connect(path)
    try:
        schema.migrate(connection)
        return Opened(connection, damage, count_doubtful(connection))
    except BaseException:
        connection.close()
        raise


# --- setting aside ---


def _set_aside(path: Path, log: bytes, moment: datetime, found: Aside) -> Aside:
    """Give the journal's files a name with the date, and leave a marker in their place that says what to do."""
    stem = f"{path.name}.damaged-{moment:%Y%m%dT%H%M%SZ}"
    aside, number = path.with_name(stem), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{stem}-{number}")
    named, marker, copy = replace(found, name=aside.name), path.with_name(f"{path.name}.marker"), aside.with_name(f"{aside.name}-wal")
    aside.hardlink_to(path)
    try:
        if log:
            _write_private(copy, log)
        _write_private(marker, _MARK + json.dumps(asdict(named)).encode())
        marker.replace(path)
    except OSError:
        for half in (marker, copy, aside):  # A full disk: the next try begins anew.
            half.unlink(missing_ok=True)
        raise
    return named


def _marked(path: Path) -> Aside | None:
    """What was set aside, where the process ended while it was being salvaged."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        head = file.read(4096)
        if head.startswith(_MARK):
            return Aside(**json.loads(head.removeprefix(_MARK)))
    return None


def _renew(path: Path, found: Aside) -> Damage:
    """Make a fresh journal of what can be read of the file set aside, and put it in the marker's place."""
    fresh = path.with_name(f"{path.name}.fresh")
    stale = [place.with_name(place.name + ending) for place in (path, fresh) for ending in SIDE_FILES]
    for leftover in (fresh, *stale):
        leftover.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    with closing(schema.connect(fresh)) as connection:
        schema.migrate(connection)
        damage = _salvage(path.with_name(found.name), connection, found)
    commit_counter.beside(path).unlink(missing_ok=True)  # It counted the other's commits.
    fresh.replace(path)
    return damage


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


# --- salvaging ---


def _salvage(aside: Path, fresh: sqlite3.Connection, found: Aside) -> Damage:
    """Copy every row that SQLite can read."""
    rows: dict[str, Row] = {}
    known: set[str] = set()
    tokens: dict[str, Row] = {}
    complete = False
    with suppress(*UNREADABLE), opened_read_only(aside) as old:
        if not aside.stat().st_size:
            raise sqlite3.DatabaseError("SQLite would remove the log of an empty database")
        columns = _columns(old)
        complete = _gather(old, columns, rows, "SELECT {} FROM commands ORDER BY id")
        if not complete:
            _gather(old, columns, rows, "SELECT {} FROM commands ORDER BY id DESC")
            known = _ids_of_indexes(old)
            for command_id in known - rows.keys():
                with suppress(*UNREADABLE):
                    _gather(old, columns, rows, "SELECT {} FROM commands WHERE id = ?", command_id)
        if not _gather_tokens(old, tokens, "ASC"):
            _gather_tokens(old, tokens, "DESC")
            complete = False
    unreadable = tuple(sorted(known - rows.keys()))
    kept = [_doubtful(row, stale=found.stale) for row in rows.values()] + [_lost(command_id) for command_id in unreadable]
    with fresh:
        fresh.execute("BEGIN")
        fresh.executemany(f"INSERT OR IGNORE INTO commands ({schema.COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})", kept)  # noqa: S608 - constants
        fresh.executemany("INSERT OR IGNORE INTO seen_tokens VALUES (?, ?, ?)", tokens.values())
    counts: dict[str, int] = {}
    for row in rows.values():
        state = str(row[_PLACES["state"]])
        counts[state] = counts.get(state, 0) + 1
    return Damage(found.reason, aside.name, counts, unreadable, complete and not found.stale)


def _columns(old: sqlite3.Connection) -> str:
    """The columns to read, NULL for those that an older version did not have."""
    there = {str(row[1]) for row in old.execute("PRAGMA table_info(commands)")}
    return ", ".join(name if name in there else "NULL" for name in _NAMES)


def _gather(old: sqlite3.Connection, columns: str, rows: dict[str, Row], query: str, *values: str) -> bool:
    """Read rows until the end, or the first that cannot be read; whether the end was reached."""
    try:
        for row in old.execute(query.format(columns), values):
            if _plausible(row):
                rows.setdefault(str(row[0]), tuple(row))
    except UNREADABLE:
        return False
    return True


def _gather_tokens(old: sqlite3.Connection, tokens: dict[str, Row], order: str) -> bool:
    """The same of the tokens that secure commands have used: one that is lost may be used again until its `exp`."""
    try:
        for row in old.execute(f"SELECT jti, command_id, forget_at FROM seen_tokens ORDER BY jti {order}"):  # noqa: S608 - our own words
            if isinstance(row[0], str) and isinstance(row[1], str) and isinstance(row[2], float):
                tokens.setdefault(row[0], row)
    except UNREADABLE:
        return False
    return True


def _plausible(row: Row) -> bool:
    state, raw, message = (row[_PLACES[name]] for name in ("state", "raw", "message"))
    if not isinstance(row[0], str) or not isinstance(row[_PLACES["digest"]], bytes):
        return False
    needed = {"admitted": raw, "started": raw, "finished": message, "delivered": ""}
    return state in needed and isinstance(needed[state], str)


def _ids_of_indexes(old: sqlite3.Connection) -> set[str]:
    """The ids that stand in the indexes: small, on pages of their own, and often whole where the table is not."""
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


def _doubtful(row: Row, *, stale: bool) -> Row:
    """Take a command that waits for one that was started, where the note that it was may be lost."""
    if not stale or row[_PLACES["state"]] != "admitted":
        return row
    changed = list(row)
    changed[_PLACES["state"]] = "started"
    return tuple(changed)


def _lost(command_id: str) -> Row:
    """The row of a command of which only the id is known: it may have been started, and cannot be run."""
    values = {"id": command_id, "seq": 0, "state": "started", "digest": b"", "acked": 1, "admitted_at": 0.0, "repeatable": 0}
    return tuple(values.get(name) for name in _NAMES)
