"""Whether each row of a journal is as the agent writes it, column by column, and what becomes of one that is not.

This module owns the judgement of rows. It must not write: `salvage` does.

SQLite's own check does not notice a changed byte in a column that no index contains, and digests cover only the columns that decide what
is sent. So every column is looked at here, once, when the journal is opened: no later reader meets a value of another type.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from relay_agent.core.errors import MalformedMessage
from relay_agent.protocol.messages import load_json, readable_id
from relay_agent.storage import schema
from relay_agent.storage.integrity import digest, seal
from relay_agent.storage.retention import KEEP_UNACKED_SECONDS

_SEALED = ("message", "spool", "upload_url", "fallback", "status")
_MOST_SEQ = 2**62
_NAME_CHARACTERS = 200
_DISTRUSTED: dict[str, Any] = {
    "state": "started",
    "started_at": None,
    "repeatable": 0,
    "raw": None,
    "message": None,
    "spool": None,
    "upload_url": None,
    "fallback": None,
    "seal": None,
    "finished_at": None,
    "delivered_at": None,
}
"""A started command whose message is lost: it is answered `EINTERRUPTED`."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A text that is not valid UTF-8."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Altered:
    """A row that is not as it was written. `key` is its id as SQLite has it, `name` the id for people."""

    key: str | bytes | Undecodable
    name: str
    changes: dict[str, Any] | None
    """The columns to write, so that the row can be used; None to remove it, because another agent may own its command."""
    readable: bool
    """Whether the id can be read."""


# --- one value ---


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < schema.MOST_SECONDS


def _is_flag(value: object) -> bool:
    return value in (0, 1) and isinstance(value, int)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < _MOST_SEQ


def _is_blob(value: object) -> bool:
    return isinstance(value, bytes)


_KINDS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("receipt", "raw", "message", "spool", "upload_url", "fallback", "status", "code"), _is_text),
    **dict.fromkeys(("action", "method", "host", "scheme", "would_refuse"), _is_text),
    **dict.fromkeys(("tell_by", "admitted_at", "started_at", "finished_at", "delivered_at", "keep_until", "lease_until"), _is_time),
    **dict.fromkeys(("acked", "repeatable", "from_proxy"), _is_flag),
    **dict.fromkeys(("seq", "port", "status_code"), _is_number),
    **dict.fromkeys(("digest", "seal"), _is_blob),
}
"""What each column may contain; `id` and `state` are judged apart."""
NEVER_NULL = frozenset({"seq", "digest", "acked", "admitted_at"})
"""The columns of `_KINDS` that each row has a value in."""


def _substitute(name: str, now: float) -> Any:
    """Return what an unreadable value counts as: the cautious choice where it decides something, else absent.

    An id is then kept as long as any, a message counts as not acknowledged, and a request as not repeatable.
    """
    cautious = {"acked": 0, "repeatable": 0, "seq": 0, "digest": b"", "admitted_at": 0.0, "keep_until": now + KEEP_UNACKED_SECONDS}
    return cautious.get(name)


# --- one row ---


def judge(row: dict[str, Any], now: float) -> Altered | None:
    """Return what is to become of a row, None if it is as the agent writes it; `now` is in seconds since 1970."""
    changes = {
        name: _substitute(name, now)
        for name, is_right in _KINDS.items()
        if (row[name] is None and name in NEVER_NULL) or (row[name] is not None and not is_right(row[name]))
    }
    state = _state(row)
    if "lease_until" in changes and not _is_owned(row, state):
        changes["lease_until"] = 0.0  # A claim that is over: another agent may have run the command meanwhile.
    changes |= _DISTRUSTED if state is None else _cleared(row, changes, state, now)
    readable = isinstance(row["id"], str) and bool(row["id"])
    name = _name(row["id"])
    true_id = _answered_id(row) if state == "finished" else None
    if not readable:
        return _nameless(row, changes, state, name, now, true_id)
    if true_id is not None:
        changes["id"] = true_id
    if all(_same(row[column], value) for column, value in changes.items()):
        return None
    return Altered(row["id"], name, changes, readable=True)


def _state(row: dict[str, Any]) -> str | None:
    """Return the state that the columns agree on, None if they contradict each other or their digest."""
    state, raw, message = row["state"], row["raw"], row["message"]
    # Of three signs one may be wrong: a delivered command must not be answered a second time, nor another one be taken for delivered.
    wiped = raw is None and message is None and row["finished_at"] is not None
    if (state == "delivered") + (row["delivered_at"] is not None) + wiped >= 2:
        return "delivered"
    if state == "admitted":
        never_started = row["started_at"] is None and row["repeatable"] is None
        return state if never_started and _is_whole(row) else None
    if state == "started":
        return state if raw is None or _is_whole(row) else None
    return state if state == "finished" and _is_sealed(row) else None


def _is_owned(row: dict[str, Any], state: str | None) -> bool:
    """Return whether a row shows, without the end of its lease, that its command is this agent's."""
    return state in ("started", "finished", "delivered") or row["started_at"] is not None or row["acked"] == 1


def _is_whole(row: dict[str, Any]) -> bool:
    return isinstance(row["raw"], str) and digest(row["raw"]) == row["digest"]


def _is_sealed(row: dict[str, Any]) -> bool:
    parts = [row[name] for name in _SEALED]
    if not isinstance(row["message"], str) or not isinstance(row["status"], str):
        return False
    if not all(part is None or isinstance(part, str) for part in parts):
        return False
    return row["seal"] is None or seal(*parts) == row["seal"]  # Version 1 wrote no seal.


def _answered_id(row: dict[str, Any]) -> str | None:
    """Return the id in a finished command's answer; None if there is none, or if no seal shows that the answer is as it was written."""
    if row["seal"] is None:
        return None
    message = str(row["message"])
    if readable_id(message) == row["id"]:
        return str(row["id"])  # Usually, and without decoding an answer of 256 KiB.
    try:
        answer = load_json(message)
    except MalformedMessage:
        return None
    found = answer.get("commandId") if isinstance(answer, dict) else None
    return found if isinstance(found, str) and found else None


def _cleared(row: dict[str, Any], wrong: dict[str, Any], state: str, now: float) -> dict[str, Any]:
    """Return the changes that remove from a row what its state cannot have, and give it what its state needs."""
    if state == "delivered":
        time = row["delivered_at"] is not None and "delivered_at" not in wrong
        gone = {name: None for name in ("raw", "message", "lease_until") if row[name] is not None}
        return gone | ({} if row["state"] == state else {"state": state}) | ({} if time else {"delivered_at": now})
    absent: tuple[str, ...] = ("raw", "delivered_at", "lease_until") if state == "finished" else ("message", "finished_at", "delivered_at")
    if row["started_at"] is not None:
        absent = (*absent, "lease_until")  # It started, so the agent owned it: as a claim that is over it would be given up and run again.
    return {name: None for name in absent if row[name] is not None}


def _nameless(row: dict[str, Any], changes: dict[str, Any], state: str | None, name: str, now: float, true_id: str | None) -> Altered:
    """Return what becomes of a row whose id cannot be read.

    Its message, or its answer, contains the id too. A row that has neither cannot be answered: it is kept as one that is over, so that its
    message is deleted from the queue and does not run again.
    """
    if changes.get("lease_until", row["lease_until"]) is not None:  # Claimed only: SQS hands the message out again.
        return Altered(row["id"], name, None, readable=False)
    if state is None or (state == "started" and row["raw"] is None):
        changes |= _DISTRUSTED | {"state": "delivered", "delivered_at": now}
    return Altered(row["id"], name, changes | {"id": true_id or f"damaged-{name}"}, readable=False)


def _name(command_id: object) -> str:
    data = command_id.data if isinstance(command_id, Undecodable) else command_id
    text = data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else str(data)
    return text[:_NAME_CHARACTERS]


def _same(old: object, new: object) -> bool:
    return type(old) is type(new) and old == new


# --- all rows ---


def altered_rows(connection: sqlite3.Connection, now: float) -> Iterator[Altered]:
    """Yield the rows that are not as they were written, reading one at a time; `now` is in seconds since 1970.

    Raises:
        sqlite3.Error: the rows cannot be read.
    """
    text_factory, connection.text_factory = connection.text_factory, decoded
    try:
        for values in connection.execute(f"SELECT {schema.COLUMNS} FROM commands"):  # noqa: S608 - constants
            found = judge(dict(zip(schema.COLUMN_NAMES, values, strict=True)), now)
            if found is not None:
                yield found
    finally:
        connection.text_factory = text_factory


def decoded(data: bytes) -> str | Undecodable:
    """Return a text of the journal, or what is not UTF-8 as it is: a connection's `text_factory`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return Undecodable(data)
