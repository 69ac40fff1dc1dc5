"""Queue messages: inbound ones to commands, status updates to outbound ones (PROTOCOL §2).

An error's text must not repeat the value that it refuses: values may be secret.
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
UPLOAD_HEADERS = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"))
"""The fields of the PUT that uploads a response's body (PROTOCOL §2): its presigned URL allows no others."""
MAX_ID = 8192
"""Characters of a command's or target's id; the platform's are UUIDs."""
MAX_MESSAGE = 4 * MESSAGE_LIMIT
"""Characters above which a queue message is not parsed: four times what a queue takes by default (AWS, MaximumMessageSize)."""
MAX_ACTION = 128
MAX_DIGITS = 300
_READABLE_ID = re.compile(r'"commandId"\s*:\s*"([^"\\\x00-\x1f\ud800-\udfff]{1,256})"')
_FAR_YEAR = re.compile(r"\+?\d{5,9}-\d\d-\d\dT")
"""A year of more than four digits, which Python does not have (ISO 8601 §4.3.2)."""
_END_OF_DAY = re.compile(r"(\d{4}-\d\d-\d\dT)24(:00(?::00(?:[.,]0{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)\Z")
# json.dumps would make an encoder for each call.
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_NOT_FOR_SQS = re.compile(r"[\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


# --- inbound ---


def decode_message(text: str) -> Command:
    """Decode one message of the inbound queue (PROTOCOL §2), but not its payload: `requests.decode_request` does that.

    Raises:
        MalformedMessage: it is not a command. Has the `commandId` if that could be read.
    """
    if len(text) > MAX_MESSAGE:
        raise MalformedMessage("the message is larger than a queue's messages can be", readable_id(text))
    message = load_json(text)
    if not isinstance(message, dict):
        raise MalformedMessage("the message is not a JSON object")
    command_id = message.get("commandId")
    if not isinstance(command_id, str) or not command_id.strip() or not _storable(command_id) or len(command_id) > MAX_ID:
        raise MalformedMessage("the message has no commandId to which an answer can be sent")
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
    """Parse JSON. NaN, Infinity and integers of more than MAX_DIGITS become a value that no field accepts.

    Raises:
        MalformedMessage: it is not JSON, or nested more deeply than Python parses.
    """
    try:
        return json.loads(text, parse_constant=_not_a_number, parse_int=_integer)
    except (ValueError, RecursionError):
        raise MalformedMessage("the message is not JSON", readable_id(text)) from None


def readable_id(text: str) -> str | None:
    """Return the first `commandId` in a text that is not JSON, so that the message can be answered; returns None if there is none."""
    found = _READABLE_ID.search(text, 0, MAX_MESSAGE)
    return found[1] if found and found[1].strip() else None


def read_moment(message: dict[str, Any], name: str) -> datetime | None:
    """Return the time in a field, in UTC and clamped (`clock.clamped`); returns None if the field is absent.

    Raises:
        BadRequest: it is not an ISO 8601 time.
    """
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
    # Clamped first: datetime's first and last day cannot be converted to UTC, such as .NET's `9999-12-31T23:59:59.9999999Z`.
    return clamped(moment).astimezone(UTC)


class _NotANumber:
    """The value of a number that the agent does not accept."""


def _not_a_number(_constant: str) -> _NotANumber:
    return _NotANumber()


def _integer(digits: str) -> int | _NotANumber:
    return int(digits) if len(digits) <= MAX_DIGITS else _NotANumber()


def _storable(text: str) -> bool:
    """Return whether the journal can store the text and a message can contain it: no lone surrogate, no NUL."""
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


def _body_url(message: dict[str, Any]) -> str | None:
    delivery = _text(message, "bodyDelivery")
    if delivery not in (None, "embedded", "referenced"):
        raise BadRequest("bodyDelivery", "must be embedded or referenced")
    url = _text(message, "bodyUrl")
    if delivery == "referenced" and not url:
        raise BadRequest("bodyUrl", "is missing, though bodyDelivery says referenced")
    return url if delivery == "referenced" or (delivery is None and message.get("body") is None) else None


# --- outbound ---


def update_message(
    command_id: str, target_id: str, status: Status, created_at: datetime, body: str | None = "{}", delivery: str = "embedded"
) -> str:
    """Return the text of one status update (PROTOCOL §2). `body` is JSON text, or None if it was uploaded."""
    head = f'{{"commandId":{dumps(command_id)},"targetId":{dumps(target_id)},"status":"{status}"'
    tail = f'"responseBodyDelivery":"{delivery}","createdAt":"{iso(created_at)}"}}'
    return f'{head},"body":{"null" if body is None else body},{tail}'


def dumps(value: object) -> str:
    r"""Return a value as JSON without characters that SQS refuses (XML 1.0): they are written as `\uXXXX` (PROTOCOL §2)."""
    return sqs_safe(_ENCODE(value))


def sqs_safe(text: str) -> str:
    """Escape the characters that SQS refuses; the text must be JSON, in whose strings the escape means the same character."""
    if text.isascii() and text.isprintable():
        return text  # A fast way for most texts.
    return _NOT_FOR_SQS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
