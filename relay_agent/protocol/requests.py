"""Decodes a command's payload to the HTTP request that it asks for (PROTOCOL §3).

An error's text must not repeat the value that it refuses: values may be secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from relay_agent.core.errors import BadRequest, MalformedMessage
from relay_agent.core.header_syntax import has_control, is_token
from relay_agent.core.models import Body, HttpRequest, Url
from relay_agent.core.urls import BadUrl, check_host_header, parse_url
from relay_agent.protocol.json_bounds import check_text, check_value
from relay_agent.protocol.messages import load_json, read_moment
from relay_agent.protocol.request_bodies import encode_body

REQUEST_FIELDS = frozenset(
    {
        *("method", "url", "headers", "body", "ignore_tls_certificate"),
        *("timeout", "follow_redirects", "encrypt_response", "not_after"),
    }
)
MAX_METHOD = 32
MAX_WARNINGS = 5
"""Warnings of each kind that one request gets."""
Keep = Callable[[Iterator[bytes]], Body]
"""Stores a body that is given in pieces, and returns it."""


def decode_payload(text: str | bytes) -> object:
    """Parse a referenced body, or the plaintext of a secure command: any JSON value.

    Raises:
        BadRequest: it is not JSON, or exceeds a bound of PROTOCOL §3.
    """
    return load_payload(lambda: text if isinstance(text, str) else text.decode("utf-8"))


def load_payload(read: Callable[[], str]) -> object:
    """Parse the payload that `read` returns; frees its text as soon as it is parsed, if `read` keeps no reference.

    Raises:
        BadRequest: it is not JSON, or exceeds a bound of PROTOCOL §3.
    """
    try:
        text = [read()]  # A list, so that the text can be handed over without a reference from here.
        excess = check_text(text[0])
        if excess is not None:
            raise BadRequest("payload", excess)
        return load_json(text.pop())
    except (MalformedMessage, UnicodeDecodeError):
        raise BadRequest("payload", "is not JSON in UTF-8") from None


def take_envelope(payload: object) -> str:
    """Remove the JWE from a secure command's payload, and return it (PROTOCOL §5).

    Raises:
        BadRequest: there is none.
    """
    if not isinstance(payload, dict):
        raise BadRequest("payload", "must be an object")
    jwe = payload.pop("jwe", None)  # Removed, so that it need not stay in memory beside its plaintext: it may have 10 MB.
    if not isinstance(jwe, str):
        raise BadRequest("jwe", "must be a string: a JWE in compact serialisation")
    return jwe


def wants_sealed_answer(payload: object) -> bool:
    """Return whether the failure of an invalid request is to be encrypted: `encrypt_response` is present and not false (PROTOCOL §5)."""
    wanted = payload.get("encrypt_response") if isinstance(payload, dict) else None
    return wanted is not None and wanted is not False  # By identity, because 0 equals False.


def forget(pieces: Iterator[bytes]) -> bytes:
    """Check a body's pieces by reading them, and keep none; a `Keep`."""
    for _ in pieces:
        pass
    return b""


def decode_request(payload: object, *, secure: bool = False, keep: Keep = b"".join) -> HttpRequest:
    """Decode the request that a command asks for (PROTOCOL §3); `keep` stores its body.

    Raises:
        BadRequest: a field is wrong. The text names the field, never its value.
    """
    if not isinstance(payload, dict):
        raise BadRequest("payload", "must be an object")
    excess = check_value(payload)
    if excess is not None:
        raise BadRequest("payload", excess)
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
        not_after=read_moment(payload, "not_after"),
        secure=secure,
        warnings=tuple(warnings),
    )


def _unknown(payload: dict[str, Any], secure: bool) -> list[str]:
    """Return a warning for each of the first unknown fields."""
    names = [name for name in payload if name not in REQUEST_FIELDS]
    if secure:  # Their names are plaintext, too, which no log may show.
        return [f"{len(names)} unknown field(s) ignored"] if names else []
    return [f"unknown field {name[:64]!r} ignored" for name in names[:MAX_WARNINGS]]


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
    if not is_token(value):
        raise BadRequest("method", "must be a token (RFC 9110 §5.6.2)")
    return value


def _headers(value: object) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the header fields in order, and a warning for each of the first that are dropped (PROTOCOL §3)."""
    kept: list[tuple[str, str]] = []
    warnings: list[str] = []
    for where, name, text in _header_pairs(value):
        _check_header(where, name, text)
        if name.lower() in ("content-length", "transfer-encoding"):
            if len(warnings) < MAX_WARNINGS:
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
        for index, entry in enumerate(value):
            if not isinstance(entry, dict) or len(entry) != 1:
                raise BadRequest(f"headers[{index}]", "must be an object with one key")
            for name, text in entry.items():
                yield from _values(f"headers[{index}]", name, text)
    else:
        raise BadRequest("headers", "must be a list of one-key objects, or an object")


def _values(where: str, name: str, value: object) -> Iterator[tuple[str, str, str]]:
    if not is_token(name):
        raise BadRequest(where, "has a name that is not a token (RFC 9110 §5.1)")
    where = f"{where}.{name}"
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str):
            raise BadRequest(where, "must be a string or a list of strings")
        yield where, name, text


def check_field(where: str, name: str, text: str) -> None:
    """Check that a header field can be sent as it is.

    Raises:
        BadRequest: its name is no token, or its value has a character that it must not have.
    """
    if not is_token(name):
        raise BadRequest(where, "has a name that is not a token (RFC 9110 §5.1)")
    _check_header(where, name, text)


def _check_header(where: str, name: str, text: str) -> None:
    if has_control(text):
        raise BadRequest(where, "contains a control character")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        problem = "contains a character beyond ISO-8859-1; percent-encode it, or give its UTF-8 bytes as ISO-8859-1"
        raise BadRequest(where, problem) from None
    if name.lower() == "host":
        try:
            check_host_header(text)
        except BadUrl as error:
            raise BadRequest(where, str(error)) from None


def _with_content_type(headers: list[tuple[str, str]], content_type: str) -> list[tuple[str, str]]:
    """Return the header fields with this Content-Type in the place of the command's, or last if it has none."""
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
        raise BadRequest("timeout", "must be more than 0 and less than 1e9 seconds")
    return float(value)
