"""Wire JSON to models and back: the only room that knows field names on the wire (PROTOCOL §2–§4).

It must not decide anything about a command, and it never puts a value that it refuses into a message.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from relay_agent.core.clock import FAR_FUTURE, clamped, iso
from relay_agent.core.errors import BadRequest, MalformedMessage
from relay_agent.core.models import Command, Status

MESSAGE_LIMIT = 262_144
"""Bytes of one queue message, and of one batch (PROTOCOL §2)."""

MAX_ID = 8192
"""Characters of a command's or target's id; the platform's are UUIDs."""

MAX_MESSAGE = 4 * MESSAGE_LIMIT
"""Characters of a queue message that are looked at: more than any queue takes (AWS, MaximumMessageSize)."""
MAX_ACTION = 128
MAX_METHOD = 32
MAX_DIGITS = 300
MOST_WARNINGS = 5
_READABLE_ID = re.compile(r'"commandId"\s*:\s*"([^"\\\x00-\x1f\ud800-\udfff]{1,256})"')
_FAR_YEAR = re.compile(r"\+?\d{5,9}-\d\d-\d\dT")
"""A year beyond what Python counts (ISO 8601 §4.3.2)."""
_END_OF_DAY = re.compile(r"(\d{4}-\d\d-\d\dT)24(:00(?::00(?:[.,]0{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)\Z")
_NOT_FOR_SQS = re.compile(r"[\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


# --- in ---


def decode_message(text: str) -> Command:
    """Read one message of the inbound queue (PROTOCOL §2). Its payload is read and not looked at: that is `decode_request`'s.

    The work is bounded by MAX_MESSAGE, whatever the message says.

    Raises:
        MalformedMessage: it is no command; carries the `commandId` where that could be read.
    """
    if len(text) > MAX_MESSAGE:
        raise MalformedMessage("the message is larger than a queue's messages are", readable_id(text))
    message = load_json(text)
    if not isinstance(message, dict):
        raise MalformedMessage("the message is no JSON object")
    command_id = message.get("commandId")
    if not isinstance(command_id, str) or not command_id.strip() or not _storable(command_id) or len(command_id) > MAX_ID:
        raise MalformedMessage("the message has no commandId that can be answered")
    target_id = message.get("targetId")
    target_id = target_id if isinstance(target_id, str) and _storable(target_id) and len(target_id) <= MAX_ID else ""
    try:
        return Command(
            id=command_id,
            target_id=target_id,
            action=_action(message),
            created_at=read_moment(message, "createdAt"),
            expires_at=read_moment(message, "expiresAt"),
            payload=message.get("body"),
            body_url=_body_url(message),
            upload_url=_text(message, "responseBodyUploadUrl"),
        )
    except BadRequest as error:
        raise MalformedMessage(str(error), command_id, target_id) from None


def load_json(text: str) -> Any:
    """JSON, bounded by Python's own limits on nesting. NaN, Infinity and endless numbers are of no type that a field takes."""
    try:
        return json.loads(text, parse_constant=_no_number, parse_int=_integer)
    except (ValueError, RecursionError):
        raise MalformedMessage("the message is no JSON", readable_id(text)) from None


def readable_id(text: str) -> str | None:
    """The id of a message that is no JSON, so that it is answered all the same: the platform writes it first."""
    found = _READABLE_ID.search(text, 0, MAX_MESSAGE)
    return found[1] if found else None


class _NoNumber:
    """Stands where a message has a number that is none."""


def _no_number(_constant: str) -> _NoNumber:
    return _NoNumber()


def _integer(digits: str) -> int | _NoNumber:
    return int(digits) if len(digits) <= MAX_DIGITS else _NoNumber()


def _storable(text: str) -> bool:
    """Whether the text can go into the journal and back onto the wire: no lone surrogate, no NUL."""
    return "\x00" not in text and not re.search(r"[\ud800-\udfff]", text)


def _text(message: dict[str, Any], name: str, *, required: bool = False) -> str | None:
    value = message.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not _storable(value):
        raise BadRequest(name, "must be a string")
    return value


def _action(message: dict[str, Any]) -> str:
    action = _text(message, "action", required=True) or ""
    if len(action) > MAX_ACTION:
        raise BadRequest("action", f"is longer than {MAX_ACTION} characters")
    return action


def read_moment(message: dict[str, Any], name: str) -> datetime | None:
    """A moment within what every clock can say: `9999-12-31T23:59:59.9999999Z`, .NET's *never*, is a far day and nothing else."""
    value = _text(message, name)
    if value is None:
        return None
    if _FAR_YEAR.match(value):
        return FAR_FUTURE
    midnight = _END_OF_DAY.match(value)
    try:
        moment = datetime.fromisoformat(value if midnight is None else f"{midnight[1]}00{midnight[2]}")
        moment += timedelta(days=1 if midnight else 0)
    except OverflowError:
        return FAR_FUTURE
    except ValueError:
        raise BadRequest(name, "must be an ISO 8601 time") from None
    # Clamped before it is brought to UTC: at both ends of the calendar that fails.
    return clamped(moment).astimezone(UTC)


def _body_url(message: dict[str, Any]) -> str | None:
    delivery = _text(message, "bodyDelivery")
    if delivery not in (None, "embedded", "referenced"):
        raise BadRequest("bodyDelivery", "must be embedded or referenced")
    url = _text(message, "bodyUrl")
    if delivery == "referenced" and not url:
        raise BadRequest("bodyUrl", "is missing, though bodyDelivery says referenced")
    return url if delivery == "referenced" or (delivery is None and message.get("body") is None) else None


# --- out ---


def dumps(value: object) -> str:
    r"""JSON in which every character may go through SQS (XML 1.0), the rest as `\uXXXX` (PROTOCOL §2)."""
    return sqs_safe(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def sqs_safe(text: str) -> str:
    """Escape what SQS does not take; inside JSON strings the escape means the same character."""
    return _NOT_FOR_SQS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def update_message(
    command_id: str, target_id: str, status: Status, created_at: datetime, body: str | None = "{}", delivery: str = "embedded"
) -> str:
    """The text of one status update (PROTOCOL §2). `body` is JSON already; None where it was uploaded."""
    head = dumps({"commandId": command_id, "targetId": target_id, "status": status})
    tail = dumps({"responseBodyDelivery": delivery, "createdAt": iso(created_at)})
    return f'{head[:-1]},"body":{"null" if body is None else body},{tail[1:]}'
