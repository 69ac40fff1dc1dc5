"""Wire JSON to models and back: the only room that knows field names on the wire (PROTOCOL §2–§4).

It must not decide anything about a command, and it never puts a value that it refuses into a message.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from relay_agent.bodies import encode_body
from relay_agent.charsets import text_decoder
from relay_agent.clock import FAR_FUTURE, clamped
from relay_agent.errors import BadRequest, MalformedMessage
from relay_agent.json_bounds import check_text, check_value
from relay_agent.models import Body, Command, Failure, Headers, HttpRequest, HttpResponse, Status, Url
from relay_agent.urls import BadUrl, check_host_header, parse_url

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
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FAR_YEAR = re.compile(r"\+?\d{5,9}-\d\d-\d\dT")
"""A year beyond what Python counts (ISO 8601 §4.3.2)."""
_END_OF_DAY = re.compile(r"(\d{4}-\d\d-\d\dT)24(:00(?::00(?:[.,]0{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)\Z")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_FOR_SQS = re.compile(r"[\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REQUEST_FIELDS = frozenset(
    {
        *("method", "url", "headers", "body", "ignore_tls_certificate"),
        *("timeout", "follow_redirects", "encrypt_response", "not_after"),
    }
)


# --- in ---


def decode_message(text: str) -> Command:
    """Read one message of the inbound queue (PROTOCOL §2). Its payload is read and not looked at: that is `decode_request`'s.

    The work is bounded by MAX_MESSAGE, whatever the message says.

    Raises:
        MalformedMessage: it is no command; carries the `commandId` where that could be read.
    """
    if len(text) > MAX_MESSAGE:
        raise MalformedMessage("the message is larger than a queue's messages are", readable_id(text))
    message = _loads(text)
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
            created_at=_moment(message, "createdAt"),
            expires_at=_moment(message, "expiresAt"),
            payload=message.get("body"),
            body_url=_body_url(message),
            upload_url=_text(message, "responseBodyUploadUrl"),
        )
    except BadRequest as error:
        raise MalformedMessage(str(error), command_id, target_id) from None


def decode_payload(text: str | bytes) -> object:
    """Read a referenced body, or the plaintext of a secure command: any JSON value.

    Raises:
        BadRequest: it is no JSON.
    """
    return load_payload(lambda: text if isinstance(text, str) else text.decode("utf-8"))


def load_payload(read: Callable[[], str]) -> object:
    """Read a payload as `decode_payload` does; its text is nobody else's, so that it is gone before what it says is used.

    Raises:
        BadRequest: it is no JSON, or holds more than PROTOCOL §3 allows.
    """
    try:
        text = [read()]
        over = check_text(text[0])
        if over is not None:
            raise BadRequest("payload", over)
        return _loads(text.pop())
    except (MalformedMessage, UnicodeDecodeError):
        raise BadRequest("payload", "is no JSON in UTF-8") from None


def take_envelope(payload: object) -> str:
    """Take the JWE out of a secure command's payload (PROTOCOL §5): it may be of 10 MB, and need not stand beside its plaintext.

    Raises:
        BadRequest: there is none.
    """
    if not isinstance(payload, dict):
        raise BadRequest("payload", "must be an object")
    jwe = payload.pop("jwe", None)
    if not isinstance(jwe, str):
        raise BadRequest("jwe", "must be a string: a JWE in compact serialisation")
    return jwe


Keep = Callable[[Iterator[bytes]], Body]
"""What puts the pieces of a body where they are to be."""


def forget(pieces: Iterator[bytes]) -> bytes:
    """Look at a body's pieces, and keep none."""
    for _ in pieces:
        pass
    return b""


def decode_request(payload: object, *, secure: bool = False, keep: Keep = b"".join) -> HttpRequest:
    """Read the request that a command asks for (PROTOCOL §3); `keep` is given its body.

    Raises:
        BadRequest: names the field that is wrong, never its value.
    """
    if not isinstance(payload, dict):
        raise BadRequest("payload", "must be an object")
    over = check_value(payload)
    if over is not None:
        raise BadRequest("payload", over)
    url = _url(payload.get("url"))
    headers, warnings = _headers(payload.get("headers"))
    pieces, content_type = encode_body(payload.get("body"), _first(headers, "content-type"))
    if content_type is not None:
        headers = _with_content_type(headers, content_type)
    warnings += _unknown(payload, secure)
    return HttpRequest(
        url=url,
        method=_method(payload.get("method")),
        headers=tuple(headers),
        body=None if pieces is None else keep(pieces),
        ignore_tls_certificate=_flag(payload, "ignore_tls_certificate", False),
        timeout=_seconds(payload.get("timeout")),
        follow_redirects=_flag(payload, "follow_redirects", True),
        encrypt_response=_flag(payload, "encrypt_response", False),
        not_after=_moment(payload, "not_after"),
        secure=secure,
        warnings=tuple(warnings),
    )


def wants_sealed_answer(payload: object) -> bool:
    """Whether a secure command that is no request wants its failure encrypted: where it does not say no, it does."""
    return isinstance(payload, dict) and payload.get("encrypt_response") not in (None, False)


def _unknown(payload: dict[str, Any], secure: bool) -> list[str]:
    """A warning for each of the first unknown fields; their names too are a secure command's plaintext."""
    names = [name for name in payload if name not in _REQUEST_FIELDS]
    if secure:
        return [f"{len(names)} unknown field(s) ignored"] if names else []
    return [f"unknown field {name[:64]!r} ignored" for name in names[:MOST_WARNINGS]]


def _loads(text: str) -> Any:
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


def _moment(message: dict[str, Any], name: str) -> datetime | None:
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


def _url(value: object) -> Url:
    if value is None:
        raise BadRequest("url", "is missing")
    if not isinstance(value, str):
        raise BadRequest("url", "must be a string")
    try:
        return parse_url(value)
    except BadUrl as error:
        raise BadRequest("url", str(error)) from None


def _method(value: object) -> str:
    if value is None:
        return "GET"
    if not isinstance(value, str):
        raise BadRequest("method", "must be a string")
    if len(value) > MAX_METHOD:
        raise BadRequest("method", f"is longer than {MAX_METHOD} characters")
    if not _TOKEN.fullmatch(value):
        raise BadRequest("method", "must be a token (RFC 9110 §5.6.2)")
    return value


def _headers(value: object) -> tuple[list[tuple[str, str]], list[str]]:
    """The header fields in order, and a warning for each that is dropped (PROTOCOL §3)."""
    kept: list[tuple[str, str]] = []
    warnings: list[str] = []
    for where, name, text in _header_pairs(value):
        _check_header(where, name, text)
        if name.lower() in ("content-length", "transfer-encoding"):
            if len(warnings) < MOST_WARNINGS:
                warnings.append(f"header {name} dropped: the agent sets it")
            continue
        kept.append((name, text))
    if sum(name.lower() == "host" for name, _ in kept) > 1:
        raise BadRequest("headers", "has more than one Host")
    return kept, warnings


def _header_pairs(value: object) -> Iterator[tuple[str, str, str]]:
    if value is None:
        return
    if isinstance(value, dict):
        for name, text in value.items():
            yield from _values("headers", name, text)
    elif isinstance(value, list):
        for place, entry in enumerate(value):
            if not isinstance(entry, dict) or len(entry) != 1:
                raise BadRequest(f"headers[{place}]", "must be an object with one key")
            for name, text in entry.items():
                yield from _values(f"headers[{place}]", name, text)
    else:
        raise BadRequest("headers", "must be a list of one-key objects, or an object")


def _values(where: str, name: str, value: object) -> Iterator[tuple[str, str, str]]:
    if not _TOKEN.fullmatch(name):
        raise BadRequest(where, "has a name that is no token (RFC 9110 §5.1)")
    where = f"{where}.{name}"
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str):
            raise BadRequest(where, "must be a string or a list of strings")
        yield where, name, text


def _check_header(where: str, name: str, text: str) -> None:
    if _BAD_VALUE.search(text):
        raise BadRequest(where, "holds a control character")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise BadRequest(where, "holds a character beyond ISO-8859-1; percent-encode it, or give its UTF-8 bytes as ISO-8859-1") from None
    if name.lower() == "host":
        try:
            check_host_header(text)
        except BadUrl as error:
            raise BadRequest(where, str(error)) from None


def _with_content_type(headers: list[tuple[str, str]], content_type: str) -> list[tuple[str, str]]:
    """The header fields with the type that the body's mode needs: in its place where the command gives one, else last."""
    if _first(headers, "content-type") is None:
        return [*headers, ("Content-Type", content_type)]
    return [(name, content_type if name.lower() == "content-type" else text) for name, text in headers]


def _first(headers: list[tuple[str, str]], name: str) -> str | None:
    return next((text for key, text in headers if key.lower() == name), None)


def _flag(payload: dict[str, Any], name: str, default: bool) -> bool:
    value = payload.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRequest(name, "must be true or false")
    return value


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest("timeout", "must be a number of seconds")
    if not 0 < value < 1e9:
        raise BadRequest("timeout", "must be more than 0 seconds, and less than 1e9")
    return float(value)


# --- out ---


def dumps(value: object) -> str:
    r"""JSON in which every character may go through SQS (XML 1.0), the rest as `\uXXXX` (PROTOCOL §2)."""
    return sqs_safe(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def sqs_safe(text: str) -> str:
    """Escape what SQS does not take; inside JSON strings the escape means the same character."""
    return _NOT_FOR_SQS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def response_body(response: HttpResponse) -> Iterator[str]:
    """Yield the response body of PROTOCOL §4 as pieces of JSON, so that no large body stands in memory whole."""
    head = {"statusCode": response.status_code, "headers": _grouped(response.headers)}
    yield dumps(head)[:-1] + ',"body":"'
    yield from _text_pieces(response) if response.text else _base64_pieces(response)
    tail = {"bodyEncoding": "utf-8" if response.text else "base64", "url": response.url, "elapsedMs": response.elapsed_ms}
    yield '",' + dumps(tail)[1:]


def failure_body(failure: Failure) -> str:
    """The response body of a command that got no HTTP response (PROTOCOL §4)."""
    body: dict[str, object] = {"code": failure.code, "message": failure.message}
    if failure.url is not None:
        body["url"] = failure.url
    body["elapsedMs"] = failure.elapsed_ms
    return dumps(body)


def brief_failure_body(failure: Failure) -> str:
    """The response body of a failure whose URL or text would not fit into a message."""
    return dumps({"code": failure.code, "message": failure.message[:1000], "elapsedMs": failure.elapsed_ms})


def undeliverable_body(response: HttpResponse, code: str, message: str) -> str:
    """The body that stands for an answer which cannot be uploaded: status and headers, and what happened."""
    return dumps(
        {
            "code": code,
            "message": message,
            "statusCode": response.status_code,
            "headers": _grouped(response.headers),
            "url": response.url,
            "elapsedMs": response.elapsed_ms,
        }
    )


def with_reason(message: str, reason: str) -> str:
    """An update's text whose failure also says this; as it was, where its body is sealed or there is no room for more."""
    update = json.loads(message)
    body = update.get("body")
    if not isinstance(body, dict) or not isinstance(body.get("message"), str):
        return message
    body["message"] = f"{body['message']} ({reason})"
    longer = dumps(update)
    return longer if len(longer.encode("utf-8")) <= MESSAGE_LIMIT else message


def sealed_body(status_code: int) -> tuple[str, str]:
    """What stands before and after the JWE of an encrypted response (PROTOCOL §5)."""
    return f'{{"statusCode":{status_code},"jwe":"', '"}'


def sealed_failure(code: str, jwe: str, status_code: int | None = None) -> str:
    """An encrypted response that has a code: that, the status where there is one, and the JWE of the body of PROTOCOL §4."""
    status = {} if status_code is None else {"statusCode": status_code}
    return dumps({"code": code, **status, "jwe": jwe})


def update_message(
    command_id: str, target_id: str, status: Status, created_at: datetime, body: str | None = "{}", delivery: str = "embedded"
) -> str:
    """The text of one status update (PROTOCOL §2). `body` is JSON already; None where it was uploaded."""
    head = dumps({"commandId": command_id, "targetId": target_id, "status": status})
    tail = dumps({"responseBodyDelivery": delivery, "createdAt": iso(created_at)})
    return f'{head[:-1]},"body":{"null" if body is None else body},{tail[1:]}'


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds, as the platform writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _grouped(headers: Headers) -> list[dict[str, str | list[str]]]:
    """One object for each name in the order received, a repeated name as one list (PROTOCOL §4)."""
    names: dict[str, str] = {}
    values: dict[str, list[str]] = {}
    for name, value in headers:
        names.setdefault(name.lower(), name)
        values.setdefault(name.lower(), []).append(value)
    return [{names[key]: found[0] if len(found) == 1 else found} for key, found in values.items()]


def _text_pieces(response: HttpResponse) -> Iterator[str]:
    decoder = text_decoder(response.charset)
    assert decoder is not None, "the executor found the body to be text in this charset"
    for chunk in response.content.chunks():
        yield _escaped(decoder.decode(chunk))
    yield _escaped(decoder.decode(b"", True))


def _escaped(text: str) -> str:
    return sqs_safe(json.dumps(text, ensure_ascii=False)[1:-1])


def _base64_pieces(response: HttpResponse) -> Iterator[str]:
    rest = b""
    for chunk in response.content.chunks():
        data = rest + chunk
        whole = len(data) - len(data) % 3
        rest = data[whole:]
        yield base64.b64encode(data[:whole]).decode("ascii")
    yield base64.b64encode(rest).decode("ascii")
