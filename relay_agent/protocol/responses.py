"""From what came of a request to the body of its answer (PROTOCOL §4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from relay_agent.core.models import Failure, Headers, HttpResponse
from relay_agent.protocol.charsets import text_decoder
from relay_agent.protocol.messages import MESSAGE_LIMIT, dumps, sqs_safe


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
