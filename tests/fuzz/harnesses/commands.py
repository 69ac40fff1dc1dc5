"""Queue messages and the payloads of commands, as a sender or the platform may write them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

from relay_agent.core.errors import BadRequest, MalformedMessage
from relay_agent.core.models import HttpRequest, Status
from relay_agent.core.urls import parse_url
from relay_agent.protocol import messages, requests
from relay_agent.protocol.json_bounds import check_text, check_value
from tests.fuzz.harness import PLANTED, Harness, check_refusal, storable, text

NOW = datetime(2026, 11, 28, tzinfo=UTC)
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What SQS refuses (XML 1.0 §2.2)."""
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def message(data: bytes) -> None:
    """A queue message is a command that can be answered, or is refused as malformed."""
    try:
        command = messages.decode_message(text(data))
    except MalformedMessage as error:
        check_refusal(error)
        if error.command_id is not None:
            check_answerable(error.command_id, error.target_id or "")
        return
    check_answerable(command.id, command.target_id)
    for moment in (command.created_at, command.expires_at):
        check_moment(moment)
    assert len(command.action) <= messages.MAX_ACTION
    assert all(storable(url) for url in (command.body_url, command.upload_url, command.action) if url is not None)


def check_answerable(command_id: str, target_id: str) -> None:
    """Check that a status update can be sent under that id."""
    update = messages.update_message(command_id, target_id, Status.FAILURE, NOW)
    assert NOT_XML.search(update) is None, "SQS refuses the answer"
    assert (json.loads(update)["commandId"], json.loads(update)["targetId"]) == (command_id, target_id)
    assert command_id.strip() and "\0" not in command_id


def check_moment(moment: datetime | None) -> None:
    """Check that one can reckon with a time."""
    if moment is not None:
        assert moment.utcoffset() == timedelta(0) and 1970 <= moment.year < 3000


def payload(data: bytes) -> None:
    """A payload is a request that can be sent, or is refused with the name of the field, never its value."""
    kind, rest = data[:1], data[1:]
    try:
        value = requests.decode_payload(rest)
    except BadRequest as error:
        check_refusal(error)
        return
    assert check_text(rest) == check_text(rest.decode())
    assert check_value(value) is None, "a bound that the text does not show"
    requests.wants_sealed_answer(value)
    secure = kind == b"s"
    try:
        request = requests.decode_request(value, secure=secure)
    except BadRequest as error:
        if PLANTED not in str(names(value)):
            check_refusal(error)
        return
    check_request(request, len(rest))


def names(value: object) -> list[str]:
    """The names within a value, which a message may repeat."""
    if isinstance(value, dict):
        return [*value, *(name for each in value.values() for name in names(each))]
    return [name for each in value for name in names(each)] if isinstance(value, list) else []


def check_request(request: HttpRequest, size: int) -> None:
    """Check that a request can be written to a connection, and is in proportion to its payload."""
    assert TOKEN.fullmatch(request.method) and len(request.method) <= requests.MAX_METHOD
    for name, value in request.headers:
        assert TOKEN.fullmatch(name) and name.lower() not in ("content-length", "transfer-encoding")
        assert CONTROL.search(value) is None
        value.encode("latin-1")
    again = parse_url(str(request.url))
    assert (again.origin, again.target) == (request.url.origin, request.url.target)
    assert request.timeout is None or 0 < request.timeout < 1e9
    assert len(request.warnings) <= 2 * requests.MAX_WARNINGS
    assert request.body is None or (isinstance(request.body, bytes) and len(request.body) < 1000 + 60 * size)
    check_moment(request.not_after)


def _message(**fields: object) -> str:
    usual = {"commandId": "c-1", "targetId": "a-1", "action": "TetraScience.Connector.http.Request.V1"}
    return json.dumps({**usual, "createdAt": "2026-11-23T03:13:00Z", "expiresAt": "2026-11-23T03:14:00.5+01:00", **fields})


def message_seeds() -> list[bytes]:
    """Commands of each delivery, odd times, and what is no command."""
    written = [
        _message(body={"url": "http://h/"}),
        _message(bodyDelivery="referenced", bodyUrl="https://s3.example/b?X-Amz-Signature=1", responseBodyUploadUrl="https://s3.example/r"),
        _message(bodyDelivery="embedded", body=None, bodyUrl="https://s3.example/b"),
        _message(createdAt="9999-12-31T23:59:59.9999999Z", expiresAt="+12026-11-23T00:00Z"),
        _message(createdAt="2026-11-23T24:00:00Z", expiresAt="0001-01-01T00:00:00+14:00"),
        _message(commandId="\ud83d\ude00 \x7f\ufffe", body=[1e400, 2**70, None, True]),
        _message(commandId="\ud800"),
        '{"commandId": "c-1", "body": NaN, "action": "a"}',
        '{"commandId" : "c-1", "body": ',
        "[[[[[[[[[[",
    ]
    return [each.encode() for each in written]


def payload_seeds() -> list[bytes]:
    """Requests with each field, and each kind of body."""
    url = f"https://user:{PLANTED}@lims.lab.example:8443/a%2Fb/../c?q=%41#f"
    bodies: list[object] = [
        "text",
        {"mode": "raw", "raw": "text"},
        {"mode": "urlencoded", "urlencoded": [{"key": "a", "value": "b c"}, {"key": "d", "value": "e", "disabled": True}]},
        {"mode": "formdata", "formdata": [{"key": "a", "value": "b", "type": "text"}]},
        {"mode": "base64", "base64": "QUFB"},
        {"a": 1},
        None,
    ]
    asked: list[object] = [{"url": url, "method": "POST", "body": body} for body in bodies]
    asked += [
        {"url": "http://h", "headers": [{"Accept": "*/*"}, {"X": ["1", "2"]}], "timeout": 1.5, "follow_redirects": False},
        {"url": "http://h", "headers": {"Content-Type": f"text/plain; a={PLANTED}", "Host": "h:1", "Content-Length": "1"}, "x": 1},
        {"url": "http://[::1]:80/", "ignore_tls_certificate": True, "encrypt_response": True, "not_after": "2026-11-23T03:13:00Z"},
        {"url": "http://h", "headers": {"Content-Type": 'multipart/form-data; boundary="b;b"'}, "body": bodies[3]},
        {"jwe": "a..b.c.d"},
        *([1], "x", 1.5, None),
    ]
    return [kind + json.dumps(each).encode() for each in asked for kind in (b"p", b"s")]


HARNESSES = [Harness("message", message, message_seeds), Harness("payload", payload, payload_seeds)]
