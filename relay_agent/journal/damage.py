"""A journal that does not hold what was written to it: found out, set aside, and salvaged as far as SQLite can read it.

This room owns the judgement of a file and the rescue of its rows. It must not guess: what may have been started is taken
for started, and what cannot be read is reported.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from relay_agent.errors import JournalDamaged
from relay_agent.journal import schema, witness
from relay_agent.journal.writer import unwritable, words_of

_MAGIC = b"SQLite format 3\x00"
_WAL_HEADER, _FRAME_HEADER = 32, 24
_ENDINGS = ("-wal", "-shm")
_MARK = b"relay-agent: this journal was damaged and is being salvaged from "
_NAMES = tuple(name.strip() for name in schema.COLUMNS.split(","))
_PLACES = {name: place for place, name in enumerate(_NAMES)}

_UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises: SQLite's own words may repeat its bytes, which are no UTF-8."""
_CONTRADICTIONS = (
    "state NOT IN ('admitted', 'started', 'finished', 'delivered')"
    " OR (state = 'admitted' AND (started_at IS NOT NULL OR repeatable IS NOT NULL))"
    " OR (state = 'finished' AND message IS NULL)"
    " OR (state = 'delivered' AND (raw IS NOT NULL OR message IS NOT NULL OR delivered_at IS NULL))"
)
"""Rows that no change of ours leaves."""

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


class _CommitsMissing(JournalDamaged):
    """The database is older than it was: what its rows say may not be the last that was written."""


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
        log = _read_log(path)
        try:
            if log or witness.told(path):
                path.touch(mode=0o600)  # A log, or a witness, without its database is no first start.
            if path.exists() and (path.stat().st_size or log or witness.told(path)):
                _judge(path, log)
            return _open(path, None)
        except (JournalDamaged, *_UNREADABLE) as error:
            if isinstance(error, sqlite3.Error) and unwritable(error):
                raise
            stale = bool(log) or isinstance(error, _CommitsMissing)
            found = _set_aside(path, log, now(), Aside("", stale, words_of(error)))
    return _open(path, _renew(path, found))


def digest(text: str | bytes) -> bytes:
    """What tells one message's text from another's, and a text from its damaged copy."""
    return hashlib.sha256(_bytes(text)).digest()


def seal(*parts: str | bytes | None) -> bytes:
    """What an outcome's row must agree with."""
    return digest(b"\x00".join(b"" if part is None else _bytes(part) for part in parts))


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


# --- judging ---


def judge(path: Path) -> None:
    """Judge a copy of a journal and of its log; the copy may be changed by it.

    Raises:
        JournalDamaged: it does not hold what was written to it.
        JournalError: a newer agent wrote it.
        sqlite3.Error: as SQLite says.
    """
    _judge(path, _read_log(path))


def set_aside_already(path: Path) -> str | None:
    """What was wrong with a journal that is being salvaged since, None for any other."""
    found = _marked(path)
    return None if found is None else found.reason


def _judge(path: Path, log: bytes) -> None:
    """Look at the file without changing it: neither it nor its log may be lost to the look.

    Raises:
        JournalDamaged: it does not hold what was written to it.
        JournalError: a newer agent wrote it.
        sqlite3.Error: as SQLite says.
    """
    with path.open("rb") as file:
        head = file.read(len(_MAGIC) + 4)
    if not head:
        raise _CommitsMissing("it is empty, and was not")
    if not head.startswith(_MAGIC):
        raise JournalDamaged("it is no SQLite database")
    if not set(head[18:20]) <= {1, 2}:  # https://sqlite.org/fileformat2.html#file_format_version_numbers
        raise JournalDamaged("its header is damaged")
    sums = _check_header(log)
    with _looking(path) as connection:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise JournalDamaged(f"SQLite finds: {found[0].splitlines()[-1][:200] if found else 'nothing'}")
        schema.check(connection)
        if not _all_there(connection, witness.told(path)):
            _check_frames(log, sums)


def _all_there(connection: sqlite3.Connection, told: int) -> bool:
    """Whether every commit that was made is there for sure; False where the witness cannot tell.

    Raises:
        JournalDamaged: commits are missing: the log was cut at a commit's end, is damaged, or is gone.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'progress'").fetchone():
        return False  # version 1
    row = connection.execute("SELECT commits FROM progress").fetchone()
    count = int(row[0]) if row else 0
    if count < told:
        raise _CommitsMissing(f"the last {told - count} commits are missing: its write-ahead log was cut, is damaged, or is gone")
    # One more than told: killed between a commit and its note. A witness that a power cut left far behind tells nothing.
    return told > 0 and 0 <= count - told <= 1


@contextmanager
def _looking(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing, and leaves nothing behind: SQLite makes a log and its index even to read.

    What was there before stays: SQLite's locks are on the index, and another program's would be gone with it.
    """
    path.chmod(0o600)  # These get the database's own mode.
    made = [other for other in (path.with_name(path.name + ending) for ending in _ENDINGS) if not other.exists()]
    try:
        with closing(schema.connect_to_read(path)) as connection:
            yield connection
    finally:
        for other in made:
            other.unlink(missing_ok=True)


def _open(path: Path, damage: Damage | None) -> Opened:
    """Open a sound journal, or make one where there is none."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    connection = schema.connect(path)
    try:
        schema.migrate(connection)
        return Opened(connection, damage, _doubt(connection))
    except BaseException:
        connection.close()
        raise


def _doubt(connection: sqlite3.Connection) -> int:
    """Hold every open row against what was noted when it was written; how many do not agree any more.

    Of such a command nothing is believed but its id: it counts as started, and its message as lost.
    """
    bad = [(command_id,) for command_id in _disagreeing(connection)]
    if bad:
        with connection:
            connection.execute("BEGIN")
            connection.executemany(
                "UPDATE commands SET state = 'started', repeatable = 0, raw = NULL, message = NULL, spool = NULL,"
                " upload_url = NULL, fallback = NULL, seal = NULL WHERE id = ?",
                bad,
            )
    return len(bad)


def _disagreeing(connection: sqlite3.Connection) -> list[str]:
    """The ids of open rows whose content is not what was written, read one row at a time."""
    text_factory, connection.text_factory = connection.text_factory, bytes  # A damaged text may be no UTF-8.
    try:
        waiting = connection.execute("SELECT id, digest, raw FROM commands WHERE state IN ('admitted', 'started') AND raw IS NOT NULL")
        bad = [command_id for command_id, known, raw in waiting if digest(raw) != known]
        finished = connection.execute(
            "SELECT id, seal, message, spool, upload_url, fallback, status FROM commands WHERE state = 'finished' AND seal IS NOT NULL"
        )
        bad += [command_id for command_id, known, *parts in finished if seal(*parts) != known]
        bad += [row[0] for row in connection.execute(f"SELECT id FROM commands WHERE {_CONTRADICTIONS}")]  # noqa: S608 - constants
    finally:
        connection.text_factory = text_factory
    return [command_id.decode("utf-8", "replace") for command_id in bad]


def _read_log(path: Path) -> bytes:
    """The write-ahead log as the last run left it: SQLite forgets what it cannot use when it opens the database."""
    with suppress(FileNotFoundError):
        return path.with_name(f"{path.name}-wal").read_bytes()
    return b""


def _check_header(log: bytes) -> tuple[int, int]:
    """Look at the log's header (https://sqlite.org/fileformat2.html#walformat); its checksum, which that of the frames goes on from.

    Raises:
        JournalDamaged: it is damaged, and with it everything that the log holds.
    """
    if len(log) < _WAL_HEADER + _FRAME_HEADER:
        return 0, 0
    magic = struct.unpack(">I", log[:4])[0]
    sum_1, sum_2 = struct.unpack(">2I", log[_WAL_HEADER - 8 : _WAL_HEADER])
    if magic not in (0x377F0682, 0x377F0683) or _checksum((0, 0), log[:24], _order(log)) != (sum_1, sum_2):
        raise JournalDamaged("the header of the write-ahead log is damaged")
    return sum_1, sum_2


def _check_frames(log: bytes, sums: tuple[int, int]) -> None:
    """Find damage in the log that SQLite will pass over, where no witness tells.

    SQLite takes the log up to the first frame whose checksum is wrong, without a word. What lies behind it is the rest of
    unfinished transactions, or, where that rest holds a whole commit of the same generation, what damage has cut off. (A commit that
    a full disk broke off and a shorter one behind it look the same: that is why the witness is asked first.)

    Raises:
        JournalDamaged: there is such a commit.
    """
    if len(log) < _WAL_HEADER + _FRAME_HEADER:
        return
    size, salts, sound = _FRAME_HEADER + struct.unpack(">I", log[8:12])[0], log[16:24], True
    for start in range(_WAL_HEADER, len(log) - size + 1, size):
        _page, pages_after_commit = struct.unpack(">2I", log[start : start + 8])
        ours = log[start + 8 : start + 16] == salts
        if sound and ours:
            sums = _checksum(_checksum(sums, log[start : start + 8], _order(log)), log[start + _FRAME_HEADER : start + size], _order(log))
        sound = sound and ours and struct.pack(">2I", *sums) == log[start + 16 : start + _FRAME_HEADER]
        if not sound and ours and pages_after_commit:
            raise JournalDamaged("the write-ahead log is damaged before its last commit")


def _order(log: bytes) -> str:
    """The byte order of the log's checksums, by its magic number."""
    return ">" if log[3] & 1 else "<"


def _checksum(sums: tuple[int, int], data: bytes, order: str) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


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
    stale = [place.with_name(place.name + ending) for place in (path, fresh) for ending in _ENDINGS]
    for leftover in (fresh, *stale):
        leftover.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    with closing(schema.connect(fresh)) as connection:
        schema.migrate(connection)
        damage = _salvage(path.with_name(found.name), connection, found)
    witness.beside(path).unlink(missing_ok=True)  # It counted the other's commits.
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
    with suppress(*_UNREADABLE), _looking(aside) as old:
        if not aside.stat().st_size:
            raise sqlite3.DatabaseError("SQLite would remove the log of an empty database")
        columns = _columns(old)
        complete = _gather(old, columns, rows, "SELECT {} FROM commands ORDER BY id")
        if not complete:
            _gather(old, columns, rows, "SELECT {} FROM commands ORDER BY id DESC")
            known = _ids_of_indexes(old)
            for command_id in known - rows.keys():
                with suppress(*_UNREADABLE):
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
    except _UNREADABLE:
        return False
    return True


def _gather_tokens(old: sqlite3.Connection, tokens: dict[str, Row], order: str) -> bool:
    """The same of the tokens that secure commands have used: one that is lost may be used again until its `exp`."""
    try:
        for row in old.execute(f"SELECT jti, command_id, forget_at FROM seen_tokens ORDER BY jti {order}"):  # noqa: S608 - our own words
            if isinstance(row[0], str) and isinstance(row[1], str) and isinstance(row[2], float):
                tokens.setdefault(row[0], row)
    except _UNREADABLE:
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
    with suppress(*_UNREADABLE):
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
