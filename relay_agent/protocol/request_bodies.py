"""Request bodies: the modes of a command's `body` and their encodings (PROTOCOL §3, Postman's modes).

Everything is encoded in pieces, so that no second copy of a body of 10 MB is in memory.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote_plus

from urllib3.filepost import choose_boundary

from relay_agent.core.errors import BadRequest
from relay_agent.protocol.media_types import MAX_CHARACTERS, parameter

Pieces = Iterator[bytes]
_PIECE = 48 * 1024
"""Characters that are encoded at once; a multiple of base64's groups of four."""
_BOUNDARY = re.compile(r"[\x20-\x7e]{1,70}")


def encode_body(body: object, content_type: str | None) -> tuple[Pieces | None, str | None]:
    """Return the bytes of a command's `body` in pieces (None if there is no body), and the `Content-Type` that the mode needs.

    `content_type` is the command's own, None if it has none. The `Content-Type` of the result is None if the command's header, or
    its absence, is not to be changed.

    Raises:
        BadRequest: a field is wrong. Some faults are found only when the pieces are read.
    """
    if body is None:
        return None, None
    if isinstance(body, str):
        return _text("body", body), None
    if not isinstance(body, dict):
        raise BadRequest("body", "must be an object with a mode, or a string")
    mode = body.get("mode")
    if not isinstance(mode, str):
        raise BadRequest("body.mode", "must be one of raw, urlencoded, formdata, base64")
    encode = _MODES.get(mode)
    if encode is None:
        raise BadRequest("body.mode", "must be one of raw, urlencoded, formdata, base64")
    return encode(body.get(mode), content_type)


def _raw(value: object, _content_type: str | None) -> tuple[Pieces, None]:
    if value is None:
        return iter(()), None
    if not isinstance(value, str):
        raise BadRequest("body.raw", "must be a string")
    return _text("body.raw", value), None


def _base64(value: object, _content_type: str | None) -> tuple[Pieces, None]:
    return _decoded("body.base64", value), None


def _urlencoded(value: object, content_type: str | None) -> tuple[Pieces, str | None]:
    entries = _entries("body.urlencoded", value)
    return _pairs(entries), None if content_type is not None else "application/x-www-form-urlencoded"


def _pairs(entries: list[tuple[str, dict[str, Any]]]) -> Pieces:
    for index, (name, entry) in enumerate(entries):
        key, text = _string(f"{name}.key", entry.get("key")), _string(f"{name}.value", entry.get("value", ""))
        if index:
            yield b"&"
        yield from _quoted(f"{name}.key", key)
        yield b"="
        yield from _quoted(f"{name}.value", text)


def _quoted(name: str, value: str) -> Pieces:
    return (quote_plus(piece).encode("ascii") for piece in _text(name, value))


def _formdata(value: object, content_type: str | None) -> tuple[Pieces, str | None]:
    boundary, given = _boundary(content_type)
    encoded = _multipart(_entries("body.formdata", value), boundary)
    return encoded, None if given else f"{content_type or 'multipart/form-data'}; boundary={boundary}"


def _multipart(entries: list[tuple[str, dict[str, Any]]], boundary: str) -> Pieces:
    """Yield a form as RFC 7578 has it, each field's header as urllib3 writes it."""
    # Not by urllib3: it has the whole body in memory twice, and holds the interpreter's lock for 1 s to escape a name of 8 MB.
    for name, entry in entries:
        head, data = _field(name, entry)
        yield f"--{boundary}\r\n".encode("ascii")
        yield from head
        yield from data
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode("ascii")


def _field(name: str, entry: dict[str, Any]) -> tuple[Pieces, Pieces]:
    """Return header and content of a form's field."""
    key = _string(f"{name}.key", entry.get("key"))
    kind = entry.get("type") or "text"
    filename: str | None = None
    if kind == "file":
        filename = _string(f"{name}.filename", entry.get("filename", "file"))
        data = _decoded(f"{name}.base64", entry.get("base64"))
    elif kind == "text":
        data = _text(f"{name}.value", _string(f"{name}.value", entry.get("value", "")))
    else:
        raise BadRequest(f"{name}.type", "must be text or file")
    content_type = entry.get("contentType") or ("application/octet-stream" if kind == "file" else None)
    if content_type is not None:
        content_type = _string(f"{name}.contentType", content_type)
        if not content_type.isascii() or not content_type.isprintable():
            raise BadRequest(f"{name}.contentType", "contains a character that a header cannot have")
    return _field_header(name, key, filename, content_type), data


def _field_header(name: str, key: str, filename: str | None, content_type: str | None) -> Pieces:
    yield b'Content-Disposition: form-data; name="'
    yield from _escaped(f"{name}.key", key)
    if filename is not None:
        yield b'"; filename="'
        yield from _escaped(f"{name}.filename", filename)
    yield b'"\r\n'
    yield f"Content-Type: {content_type}\r\n\r\n".encode("ascii") if content_type else b"\r\n"


def _escaped(name: str, value: str) -> Pieces:
    # As browsers do (HTML, "Multipart form data").
    return (piece.replace(b"\n", b"%0A").replace(b"\r", b"%0D").replace(b'"', b"%22") for piece in _text(name, value))


def _boundary(content_type: str | None) -> tuple[str, bool]:
    """Return the boundary, and whether the command's own Content-Type names it.

    Raises:
        BadRequest: it names one that RFC 2046 §5.1.1 does not allow.
    """
    if content_type is None:
        return choose_boundary(), False
    if len(content_type) > MAX_CHARACTERS:
        raise BadRequest("headers", f"has a Content-Type of more than {MAX_CHARACTERS:,} characters")
    named = parameter(content_type, "boundary")
    if named is None:
        return choose_boundary(), False
    if not _BOUNDARY.fullmatch(named):
        raise BadRequest("headers", "names a boundary that is not 1 to 70 printable ASCII characters")
    return named, True


def _entries(name: str, value: object) -> list[tuple[str, dict[str, Any]]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest(name, "must be a list of objects")
    entries = []
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise BadRequest(f"{name}[{index}]", "must be an object")
        if entry.get("disabled") is not True:
            entries.append((f"{name}[{index}]", entry))
    return entries


def _string(name: str, value: object) -> str:
    if value is None:
        raise BadRequest(name, "is missing")
    if not isinstance(value, str):
        raise BadRequest(name, "must be a string")
    return value


def _text(name: str, value: str) -> Pieces:
    try:
        for start in range(0, len(value), _PIECE):
            yield value[start : start + _PIECE].encode("utf-8")
    except UnicodeEncodeError:
        raise BadRequest(name, "contains half of a surrogate pair; send the bytes with mode base64") from None


def _decoded(name: str, value: object) -> Pieces:
    text = _string(name, value)
    bad = BadRequest(name, "must be base64 (RFC 4648 §4, padded)")
    if len(text) % 4 or text.endswith("==="):
        raise bad  # Python accepts surplus padding.
    for start in range(0, len(text), _PIECE):
        try:
            data = base64.b64decode(text[start : start + _PIECE], validate=True)
        except (binascii.Error, ValueError):
            raise bad from None
        if start + _PIECE < len(text) and len(data) * 4 != _PIECE * 3:
            raise bad  # Padding before the end.
        yield data


_MODES: dict[str, Callable[[object, str | None], tuple[Pieces, str | None]]] = {
    "raw": _raw,
    "urlencoded": _urlencoded,
    "formdata": _formdata,
    "base64": _base64,
}
