"""Encodes the result of a request as the body of the command's answer (PROTOCOL §4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from relay_agent.core.models import Failure, Headers, HttpResponse
from relay_agent.protocol.charsets import text_decoder
from relay_agent.protocol.messages import MESSAGE_LIMIT, dumps


def response_body(response: HttpResponse) -> Iterator[str]:
    """Yield the body of an HTTP response's answer as pieces of JSON, so that a large one is never in memory as a whole."""
    head = {"statusCode": response.status_code, "headers": _grouped(response.headers)}
    yield dumps(head)[:-1] + ',"body":"'
    yield from _text_pieces(response) if response.text else _base64_pieces(response)
    tail = {"bodyEncoding": "utf-8" if response.text else "base64", "url": response.url, "elapsedMs": response.elapsed_ms}
    yield '",' + dumps(tail)[1:]


def failure_body(failure: Failure) -> str:
    """Return the body of an answer without an HTTP response, as JSON."""
    body: dict[str, object] = {"code": failure.code, "message": failure.message}
    if failure.url is not None:
        body["url"] = failure.url
    body["elapsedMs"] = failure.elapsed_ms
    return dumps(body)


def brief_failure_body(failure: Failure) -> str:
    """Return the body of a failure without its URL and with a shortened text, for one that would not fit into a message."""
    return dumps({"code": failure.code, "message": failure.message[:1000], "elapsedMs": failure.elapsed_ms})


def undeliverable_body(response: HttpResponse, code: str, message: str) -> str:
    """Return the body that replaces one which cannot be uploaded: the response's status and headers, and what happened."""
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
    """Add a reason to the failure text of an update; returns it unchanged if its body is encrypted or the message would be too long."""
    update = json.loads(message)
    body = update.get("body")
    if not isinstance(body, dict) or not isinstance(body.get("message"), str):
        return message
    body["message"] = f"{body['message']} ({reason})"
    longer = dumps(update)
    return longer if len(longer.encode("utf-8")) <= MESSAGE_LIMIT else message


def sealed_body(status_code: int) -> tuple[str, str]:
    """Return the JSON before and after the JWE of an encrypted response (PROTOCOL §5)."""
    return f'{{"statusCode":{status_code},"jwe":"', '"}'


def sealed_failure(code: str, jwe: str, status_code: int | None = None) -> str:
    """Return the body of an encrypted failure: its code, the response's status if there was one, and the JWE (PROTOCOL §5)."""
    status = {} if status_code is None else {"statusCode": status_code}
    return dumps({"code": code, **status, "jwe": jwe})


def _grouped(headers: Headers) -> list[dict[str, str | list[str]]]:
    """Return one object for each name in the order received, with a list for a repeated name (PROTOCOL §4)."""
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
    return dumps(text)[1:-1]


def _base64_pieces(response: HttpResponse) -> Iterator[str]:
    rest = b""
    for chunk in response.content.chunks():
        data = rest + chunk
        whole = len(data) - len(data) % 3
        rest = data[whole:]
        yield base64.b64encode(data[:whole]).decode("ascii")
    yield base64.b64encode(rest).decode("ascii")
