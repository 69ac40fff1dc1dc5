"""Recent commands as an administrator may see them: when, method and host, outcome, and the time of each stage.

Owns this form, for the status page, `commands` and the support bundle. It must not show anything that may be a sender's secret: no body,
header, path or query.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from relay_agent.core.clock import from_timestamp, iso
from relay_agent.core.errors import BadRequest, MalformedMessage
from relay_agent.core.models import ACTIONS_PLAIN
from relay_agent.protocol import messages, requests
from relay_agent.storage.journal_reader import Reader, Row

FAILED = frozenset({"FAILURE", "REJECTED"})


@dataclass(frozen=True, slots=True)
class Listed:
    """One command. Times are ISO 8601 (UTC), None if the stage was not reached; durations are milliseconds."""

    id: str
    when: str
    state: str
    action: str | None
    method: str | None
    host: str | None
    port: int | None
    status: str | None
    code: str | None
    """The failure's code (PROTOCOL §4), otherwise the target's status code."""
    admitted: str
    started: str | None
    finished: str | None
    delivered: str | None
    queued_ms: int | None
    """From admission to the first byte sent, or to the outcome if nothing was sent."""
    target_ms: int | None
    """From the first byte sent to the outcome."""
    delivered_ms: int | None
    """From the outcome to its delivery to the platform's queue."""
    would_refuse: str | None = None
    """The policy's rule that will refuse such a call once the policy is enforced (mode `observe`)."""

    @property
    def where(self) -> str:
        """Host and port as a person writes them, `-` if they are unknown."""
        return "-" if self.host is None else self.host if self.port is None else f"{self.host}:{self.port}"

    def as_json(self) -> dict[str, Any]:
        """Return the form of `--json` and `status.json`."""
        words = asdict(self)
        return {_CAMEL.get(name, name): value for name, value in words.items()}


_CAMEL = {"queued_ms": "queuedMs", "target_ms": "targetMs", "delivered_ms": "deliveredMs", "would_refuse": "wouldRefuse"}


def recent(reader: Reader, limit: int, *, state: str | None = None, host: str | None = None, failed: bool = False) -> list[Listed]:
    """Return the newest commands that match, at most `limit`.

    Raises:
        JournalError: the journal cannot be read.
    """
    fits = _fits(host, failed)
    with reader.rows(state) as rows:
        return list(itertools.islice(filter(fits, map(listed, rows)), limit))


def listed(row: Row) -> Listed:
    """Return what may be shown of a row."""
    action, method, host, port = (row.action, row.method, row.host, row.port) if row.raw is None else _of_message(row.raw)
    begun = row.started_at if row.started_at is not None else row.finished_at
    return Listed(
        id=_plain(row.id) or "",
        when=_iso(row.admitted_at) or "",
        state=row.state,
        action=_plain(action) or None,
        method=_plain(method),
        host=_plain(host),
        port=port,
        status=row.status,
        code=row.code or (None if row.status_code is None else str(row.status_code)),
        admitted=_iso(row.admitted_at) or "",
        started=_iso(row.started_at),
        finished=_iso(row.finished_at),
        delivered=_iso(row.delivered_at),
        queued_ms=_between(row.admitted_at, begun),
        target_ms=_between(row.started_at, row.finished_at),
        delivered_ms=_between(row.finished_at, row.delivered_at),
        would_refuse=_plain(row.would_refuse),
    )


def _fits(host: str | None, failed: bool) -> Callable[[Listed], bool]:
    def fits(one: Listed) -> bool:
        names = ((one.host or "").lower(), one.where.lower())
        return (host is None or host.lower() in names) and (not failed or one.status in FAILED)

    return fits


def _of_message(raw: str) -> tuple[str | None, str | None, str | None, int | None]:
    """Return action, method, host and port of an unfinished command; only the action if it is secure or its body is in S3."""
    try:
        command = messages.decode_message(raw)
    except MalformedMessage:
        return None, None, None, None
    if command.payload is None or command.action not in ACTIONS_PLAIN:
        return command.action[:100], None, None, None
    try:
        request = requests.decode_request(command.payload, keep=lambda _pieces: b"")  # The body is not shown, so it is not decoded.
    except (BadRequest, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return command.action[:100], None, None, None
    return command.action[:100], request.method[:20], request.url.host, request.url.port


def _plain(text: str | None) -> str | None:
    """Replace the characters of a sender's text that a terminal would act on."""
    return None if text is None else "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _between(start: float | None, end: float | None) -> int | None:
    """Return the milliseconds between two moments; 0 if the clock was set back in between."""
    return None if start is None or end is None else max(0, round((end - start) * 1000))


def _iso(moment: float | None) -> str | None:
    return None if moment is None else iso(from_timestamp(moment))


def as_json(entries: Iterable[Listed]) -> list[dict[str, Any]]:
    """Return the JSON form of several commands."""
    return [one.as_json() for one in entries]
