"""The redaction that logs, status pages, checks and the support bundle share: of values of any type, by known secrets and by patterns.

Redact first, shorten afterwards: a secret that was cut in half is not recognised. Only a text that is too long to be searched is cut
before, and then in front of a token or a known secret that the cut would split.

Every method takes time in proportion to its input; those that apply patterns search a bounded part of it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import islice
from urllib.parse import quote, quote_plus, unquote

from pydantic import ValidationError

from relay_agent.telemetry.secret_patterns import MASK, MAX_CHARACTERS, SENSITIVE_FIELD, harmless, mask_patterns, on_head, redact_text

_MIN_SECRET = 4  # Shorter ones appear by chance in many lines.
_MIN_FRAGMENT = 8  # Shorter fragments of base64, and parts of a secret, appear by chance in longer texts.
_MAX_DEPTH = 6
_MAX_VALUES = 1000
_MAX_TEXTS = 4
_LEFT_OUT = "…"
_MAX_BITS = 64
_MAX_DESCRIPTION = 300

# Fields of the canonical line: their names need not be searched.
_CANONICAL_FIELDS = frozenset(
    [
        *("event", "id", "action", "method", "host", "port", "status", "code", "statusCode"),
        *("bytesIn", "bytesOut", "queuedMs", "targetMs", "totalMs"),
    ]
)


class Redactor:
    """Masks secrets in text: those that are known by value, and those that match a pattern. Any thread may call.

    Known values are found plain, percent-encoded, JSON- or repr-escaped, as hex, and in base64 at any position of a longer text.
    """

    def __init__(self, secrets: Iterable[str | bytes] = ()) -> None:
        self._lock = threading.Lock()
        self._fixed: frozenset[str] = frozenset()
        self._rotating: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._needles: tuple[str, ...] = ()
        self._plain_needles: tuple[str, ...] = ()
        self.add(*secrets)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._needles)} texts>"

    def add(self, *secrets: str | bytes) -> None:
        """Mask these secrets from now on, in any encoding. Those of fewer than four characters are ignored."""
        found = _all_forms(secrets)
        with self._lock:
            self._fixed |= found
            self._refresh()

    def rotate(self, name: str, *secrets: str | bytes) -> None:
        """Mask these secrets until `name` is rotated a second time: for credentials that are replaced every hour."""
        found = _all_forms(secrets)
        with self._lock:
            current, _ = self._rotating.get(name, (frozenset(), frozenset()))
            if found != current:
                self._rotating[name] = (found, current)
                self._refresh()

    def text(self, text: str) -> str:
        """Return the text with every secret masked, and shortened if it is too long to be searched."""
        return on_head(text, self._masked, lambda edge: self._splits(text, edge))

    def known(self, text: str) -> str:
        """Return the whole text, however long, with the secrets masked that are known by value, and no others."""
        return self._by_value(text)

    def value(self, value: object) -> object:
        """Return the value in plain JSON types, its texts redacted; of bytes only the number.

        A value that is too long, too deep or has too many parts is cut, with an ellipsis at the end.
        """
        return self._value(value, _Budget())

    def __call__(self, logger: object, method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
        """Redact a log event's fields; a structlog processor."""
        if self._harmless(event):
            return event
        return {key: self._field(key, value, _Budget()) for key, value in event.items()}

    def _value(self, value: object, left: _Budget, depth: int = 0) -> object:
        if isinstance(value, str):
            return self.text(str(value)) if left.take_text(len(value)) else _LEFT_OUT
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            # Larger ones have more digits than readers of JSON accept, or Python writes.
            return value if value.bit_length() <= _MAX_BITS else _LEFT_OUT
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"<{len(value)} bytes>"
        if depth >= _MAX_DEPTH:
            return _LEFT_OUT
        if isinstance(value, Mapping):
            return self._mapping(value, left, depth + 1)
        if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str):
            return [self._value(value[0], left, depth + 1), self._field(value[0], value[1], left, depth + 1)]  # A header as a pair.
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._items(value, left, depth + 1)
        if isinstance(value, BaseException):
            return describe(value, self.text) if left.take_text(MAX_CHARACTERS) else _LEFT_OUT
        return self._value(_string(value), left, depth)

    def _field(self, name: str, value: object, left: _Budget, depth: int = 0) -> object:
        if value is not None and not isinstance(value, bool) and SENSITIVE_FIELD.fullmatch(name):
            return MASK
        return self._value(value, left, depth)

    def _items(self, items: Iterable[object], left: _Budget, depth: int) -> list[object]:
        shown: list[object] = []
        for item in items:
            if not left.take_value():
                return [*shown, _LEFT_OUT]
            shown.append(self._value(item, left, depth))
        return shown

    def _mapping(self, mapping: Mapping[object, object], left: _Budget, depth: int) -> dict[str, object]:
        header = mapping.get("name", mapping.get("key"))  # A header as {"name": …, "value": …}.
        named = header if isinstance(header, str) and SENSITIVE_FIELD.fullmatch(header) else None
        shown: dict[str, object] = {}
        for key, item in mapping.items():
            if not left.take_value():
                return shown | {_LEFT_OUT: _LEFT_OUT}
            name = _string(key)
            shown[str(self._value(name, left))] = self._field(named if named and name == "value" else name, item, left, depth)
        return shown

    def _harmless(self, event: MutableMapping[str, object]) -> bool:
        """Return whether nothing in the event can be a secret."""
        # All texts are searched together: that is much faster than one by one.
        texts = []
        for key, value in event.items():
            if isinstance(value, str):
                texts.append(value)
            elif value is not None and type(value) is not int and type(value) is not bool:
                return False
            if key not in _CANONICAL_FIELDS and SENSITIVE_FIELD.fullmatch(key):
                return False
        if sum(map(len, texts)) > MAX_CHARACTERS:
            return False
        joined = "\0".join(texts)
        return harmless(joined) and not any(needle in joined for needle in self._plain_needles)

    def _masked(self, text: str) -> str:
        return self._by_value(text if harmless(text) else mask_patterns(text))

    def _splits(self, text: str, edge: int) -> bool:
        """Return whether a cut at `edge` would split a known secret, so that it is not recognised."""
        return any(needle in text[max(0, edge - len(needle) + 1) : edge + len(needle) - 1] for needle in self._needles)

    def _by_value(self, text: str) -> str:
        for needle in self._needles:
            if needle in text:
                text = text.replace(needle, MASK)
        return text

    def _refresh(self) -> None:
        known = set(self._fixed).union(*(forms for generations in self._rotating.values() for forms in generations))
        self._needles = tuple(sorted(known, key=len, reverse=True))  # A whole secret before its parts.
        # Every part of a harmless text is harmless, so that only these needles can be in one; most needles are not harmless.
        self._plain_needles = tuple(needle for needle in self._needles if harmless(needle))


class _Budget:
    """Bounds the work on one value: the number of its parts, and of their characters."""

    def __init__(self) -> None:
        self._values = _MAX_VALUES
        self._characters = _MAX_TEXTS * MAX_CHARACTERS

    def take_value(self) -> bool:
        """Count a value; return whether it is within the bounds."""
        self._values -= 1
        return self._values >= 0 and self._characters > 0

    def take_text(self, length: int) -> bool:
        """Count the characters of a text that are searched; return whether it is within the bounds."""
        allowed = self._characters > 0
        self._characters -= min(length, MAX_CHARACTERS)
        return allowed


def proxy_secrets(url: str | None) -> tuple[str, ...]:
    """Return the secrets in a proxy's URL: its user info, and its password as written and percent-decoded."""
    if not url or "@" not in url:
        return ()
    userinfo = url.partition("://")[2].rpartition("@")[0] or url.rpartition("@")[0]
    password = userinfo.partition(":")[2]
    return userinfo, password, unquote(password)


def field_secrets(value: str) -> tuple[str, ...]:
    """Return the parts of a header field's secret value that give access without the rest.

    These are the token after a scheme (`Bearer …`), the password of `Basic …`, and the values of cookies and parameters.
    """
    scheme, _, rest = value.partition(" ")
    pieces = [rest.strip(), *(piece.partition("=")[2].strip('"') for piece in re.split(r"[\s,;]+", value))]
    found = [piece for piece in pieces if len(piece) >= _MIN_FRAGMENT]
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            decoded = base64.b64decode(rest.strip())
            for text in (decoded.decode("utf-8", "replace"), decoded.decode("latin-1")):
                found += [text, text.partition(":")[2]]
    return tuple(found)


def describe(error: BaseException, redact: Callable[[str], str] = redact_text) -> str:
    """Return the class and the redacted text of an exception on one line, of at most 300 characters."""
    if isinstance(error, ValidationError):  # Only fields and kinds of error: pydantic's text repeats the input.
        details = islice(error.errors(include_input=False, include_url=False, include_context=False), _MAX_DESCRIPTION)
        text = ", ".join(f"{'.'.join(map(str, item['loc']))}: {item['type']}" for item in details)
    else:
        text = _string(error)
    text = " ".join(redact(text).split())
    return f"{type(error).__name__}: {text}"[:_MAX_DESCRIPTION] if text else type(error).__name__


def _string(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - the line must not be lost because of a broken __str__
        return f"<{type(value).__name__}>"


def _all_forms(secrets: Iterable[str | bytes]) -> frozenset[str]:
    return frozenset(form for secret in secrets for form in _forms(secret))


def _forms(secret: str | bytes) -> Iterator[str]:
    """Yield every text as which a secret may appear."""
    text = None
    if isinstance(secret, str):
        text = secret = secret.strip()
        raw = secret.encode("utf-8", "surrogatepass")
        decoded = _decoded_key(secret)
        if decoded is not None:
            yield from _forms(decoded)
    else:
        raw = bytes(secret)
    if len(raw) < _MIN_SECRET:
        return
    if text is None:
        text = raw.decode("utf-8", "replace")
        text = None if "\ufffd" in text else text
    if text is not None:
        yield from (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1])
    yield from (repr(raw)[2:-1], raw.hex(), raw.hex().upper())
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    yield from _base64_forms(raw)


def _base64_forms(raw: bytes) -> Iterator[str]:
    """Yield the characters of base64 that depend only on the secret, for each of its three alignments in a longer text."""
    for lead in range(3):
        encoded = base64.b64encode(bytes(lead) + raw)
        first = (lead * 8 + 5) // 6
        fragment = encoded[first : (lead + len(raw)) * 8 // 6].decode()
        if len(fragment) >= _MIN_FRAGMENT:
            yield fragment
            yield fragment.replace("+", "-").replace("/", "_")


def _decoded_key(text: str) -> bytes | None:
    """Return the bytes of a key in hex or base64 (PROTOCOL §5); returns None if the text is neither."""
    try:
        if re.fullmatch(r"(?:[0-9A-Fa-f]{2}){16,}+", text):
            return bytes.fromhex(text)
        if re.fullmatch(r"[A-Za-z0-9+/_-]{22,88}={0,2}", text):
            bare = text.rstrip("=").replace("-", "+").replace("_", "/")
            return base64.b64decode(bare + "=" * (-len(bare) % 4))
    except (binascii.Error, ValueError):
        pass
    return None
