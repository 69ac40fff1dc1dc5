"""The table by which a `LocalAgent` answers without any call.

Owns how a request finds its answer, and the forms that an answer may have. It must not call anything.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests

from relay_agent.core.failures import Code
from relay_agent.core.models import Failure
from relay_agent.core.urls import DEFAULT_PORTS
from relay_agent.pipelines.requests_adapter import as_sent

Json = dict[str, Any]
Answers = Mapping[str, Any]
"""Answers by URL, or by `METHOD URL`: a status, a pair (status, body), a triple (status, body, headers), a code such as "ECONNREFUSED",
a pair (code, message), or a callable that is given the payload and returns one of these. A body is bytes, text, None for none, or
anything else that JSON can express. Headers are a mapping, or pairs, in which a name may be repeated."""

UNANSWERED = frozenset({"EXPIRED", "PURGED", "UNSENT", "ERROR"})
"""Statuses of commands that no agent has answered, which may stand in the place of a code."""


def found_in(answers: Answers, method: str, payload: Mapping[str, Any]) -> tuple[str, Json | Failure | None]:
    """Return the command's status, and a response's body, a failure, or None if no agent has answered.

    Raises:
        ValueError: what the table has is no answer.
    """
    url = str(payload.get("url"))
    table = {_key(name): answer for name, answer in answers.items()}
    name = next((name for name in _names(method, _address(url)) if name in table), None)
    if name is None:
        return "FAILURE", Failure(Code.ECONNREFUSED, f"the table of answers has none for {method} {url}")
    answer = table[name]
    status, found = _read(answer(dict(payload)) if callable(answer) else answer, url)
    if method.upper() == "HEAD" and isinstance(found, dict):
        found = {**found, "body": "", "bodyEncoding": "utf-8"}
    return status, found


def _read(answer: Any, url: str) -> tuple[str, Json | Failure | None]:
    parts = answer if isinstance(answer, tuple | list) else (answer,)
    match parts:
        case (str() as code,) | (str() as code, str()) if code in UNANSWERED:
            return code, None
        case (str() as code,) | (str() as code, str()) if code in Code.__members__:
            message = parts[1] if len(parts) > 1 else "the table of answers says so"
            return "REJECTED" if code == Code.EEXPIRED else "FAILURE", Failure(Code(code), message)
        case (int() as status, *rest) if len(rest) < 3 and not isinstance(status, bool) and 100 <= status <= 999:
            body = rest[0] if rest else None
            return "SUCCESS" if status < 400 else "FAILURE", _response(status, body, rest[1] if len(rest) > 1 else (), url)
    forms = "a status, (status, body), (status, body, headers), a code such as ECONNREFUSED, or (code, message)"
    raise ValueError(f"the table's answer for {url} is none of these: {forms}")


def _response(status: int, body: Any, headers: Mapping[str, str] | Iterable[tuple[str, str]], url: str) -> Json:
    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    if body is None:
        body = b""
    if isinstance(body, bytearray | memoryview):
        body = bytes(body)
    if not isinstance(body, bytes | str):
        body = json.dumps(body)
        if not any(name.lower() == "content-type" for name, _ in fields):
            fields = [("Content-Type", "application/json"), *fields]
    common = {"statusCode": status, "headers": [{name: value} for name, value in fields], "url": url, "elapsedMs": 0}
    if isinstance(body, bytes):
        return {**common, "body": base64.b64encode(body).decode("ascii"), "bodyEncoding": "base64"}
    return {**common, "body": body, "bodyEncoding": "utf-8"}


def _names(method: str, address: str) -> Iterator[tuple[str, str]]:
    """Yield the names under which the table may have the answer, the most specific first."""
    without_query = urlunsplit(urlsplit(address)._replace(query=""))
    for known in (address, without_query):
        yield method.upper(), known
        yield "", known


def _key(name: str) -> tuple[str, str]:
    method, space, url = name.strip().partition(" ")
    return (method.upper(), _address(url.strip())) if space and "://" not in method else ("", _address(name.strip()))


@functools.lru_cache(maxsize=4096)
def _address(url: str) -> str:
    """Return the one form of all that mean the same address: what requests makes of it, without a default port, a user and a fragment."""
    try:
        parts = urlsplit(as_sent(url))
        port = "" if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    except (requests.RequestException, ValueError):
        return url
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return urlunsplit(parts._replace(netloc=host + port, fragment=""))
