"""Secrets out of text: the one redaction that logs, status pages, checks and the support bundle share.

This room owns the list of secrets that are known by value, and how values of any type are made fit to
be shown. It must not decide what is shown where.

Redact first, cut afterwards: a secret that was cut in half is no longer recognised. The one cut that comes first, that of what is
too long to be looked at, ends before the token, or the known secret, that it would split.

Every method takes time in proportion to what it is given; those that apply patterns look at a bounded part of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import islice
from urllib.parse import quote, quote_plus, unquote

from pydantic import ValidationError

from relay_agent.telemetry.secret_patterns import (
    MASK,
    MOST_CHARACTERS,
    SENSITIVE_FIELD,
    harmless,
    mask_shapes,
    on_head,
    redact_text,
    shown_target,
)

__all__ = ["MASK", "Redactor", "describe", "proxy_secrets", "redact_text", "shown_target"]

_SHORTEST_SECRET = 4  # masking shorter ones would punch holes into every second line
_SHORTEST_FRAGMENT = 8  # of base64 in the middle of something longer: shorter ones are met by chance
_DEEPEST = 6
_MOST_VALUES = 1000
_MOST_TEXTS = 4
_LEFT_OUT = "…"
_LARGEST_BITS = 64
_LONGEST_SAID = 300

# The canonical line's own fields, which need no look at their names.
_OUR_FIELDS = frozenset(
    [
        *("event", "id", "action", "method", "host", "port", "status", "code", "statusCode"),
        *("bytesIn", "bytesOut", "queuedMs", "targetMs", "totalMs"),
    ]
)


class Redactor:
    """Take secrets out of text: by their looks, and by value where they are known.

    Any thread may call any method. Known values are found plain, percent-encoded, JSON- or
    repr-escaped, as hex, and in base64 wherever in a longer base64 text they begin.
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
        """Never show these again, in any encoding. Secrets of under four characters are not kept."""
        found = _all_forms(secrets)
        with self._lock:
            self._fixed |= found
            self._refresh()

    def rotate(self, name: str, *secrets: str | bytes) -> None:
        """Never show these again until `name` has been rotated twice more: for credentials that are replaced every hour."""
        found = _all_forms(secrets)
        with self._lock:
            current, _ = self._rotating.get(name, (frozenset(), frozenset()))
            if found != current:
                self._rotating[name] = (found, current)
                self._refresh()

    def text(self, text: str) -> str:
        """The text with every secret replaced by a mask; of a long one, the beginning."""
        return on_head(text, self._masked, lambda edge: self._splits(text, edge))

    def known(self, text: str) -> str:
        """The whole text, however long, without the secrets that are known by value; what only looks like one stays."""
        return self._by_value(text)

    def value(self, value: object) -> object:
        """The value made of plain JSON types, its texts redacted; bytes are told by their number only.

        Of what is too long, too deep or too much there is the beginning, and an ellipsis.
        """
        return self._value(value, _Allowance())

    def __call__(self, logger: object, method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
        """Redact a log event's fields: a structlog processor."""
        if self._harmless(event):
            return event
        return {key: self._field(key, value, _Allowance()) for key, value in event.items()}

    def _value(self, value: object, left: _Allowance, depth: int = 0) -> object:
        if isinstance(value, str):
            return self.text(str(value)) if left.take_text(len(value)) else _LEFT_OUT
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= _LARGEST_BITS else _LEFT_OUT  # more digits than JSON's readers take, or Python writes
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"<{len(value)} bytes>"
        if depth >= _DEEPEST:
            return _LEFT_OUT
        if isinstance(value, Mapping):
            return self._mapping(value, left, depth + 1)
        if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str):
            return [self._value(value[0], left, depth + 1), self._field(value[0], value[1], left, depth + 1)]  # a header as a pair
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._items(value, left, depth + 1)
        if isinstance(value, BaseException):
            return describe(value, self.text) if left.take_text(MOST_CHARACTERS) else _LEFT_OUT
        return self._value(_string(value), left, depth)

    def _field(self, name: str, value: object, left: _Allowance, depth: int = 0) -> object:
        if value is not None and not isinstance(value, bool) and SENSITIVE_FIELD.fullmatch(name):
            return MASK
        return self._value(value, left, depth)

    def _items(self, items: Iterable[object], left: _Allowance, depth: int) -> list[object]:
        shown: list[object] = []
        for item in items:
            if not left.take_value():
                return [*shown, _LEFT_OUT]
            shown.append(self._value(item, left, depth))
        return shown

    def _mapping(self, mapping: Mapping[object, object], left: _Allowance, depth: int) -> dict[str, object]:
        header = mapping.get("name", mapping.get("key"))  # a header as {"name": …, "value": …}
        named = header if isinstance(header, str) and SENSITIVE_FIELD.fullmatch(header) else None
        shown: dict[str, object] = {}
        for key, item in mapping.items():
            if not left.take_value():
                return shown | {_LEFT_OUT: _LEFT_OUT}
            name = _string(key)
            shown[str(self._value(name, left))] = self._field(named if named and name == "value" else name, item, left, depth)
        return shown

    def _harmless(self, event: MutableMapping[str, object]) -> bool:
        """Whether nothing in it can be a secret: one look at all texts together instead of one at each."""
        texts = []
        for key, value in event.items():
            if isinstance(value, str):
                texts.append(value)
            elif value is not None and type(value) is not int and type(value) is not bool:
                return False
            if key not in _OUR_FIELDS and SENSITIVE_FIELD.fullmatch(key):
                return False
        if sum(map(len, texts)) > MOST_CHARACTERS:
            return False
        joined = "\0".join(texts)
        return harmless(joined) and not any(needle in joined for needle in self._plain_needles)

    def _masked(self, text: str) -> str:
        return self._by_value(text if harmless(text) else mask_shapes(text))

    def _splits(self, text: str, edge: int) -> bool:
        """Whether a cut at `edge` would leave the beginning of a known secret, no longer to be recognised."""
        return any(needle in text[max(0, edge - len(needle) + 1) : edge + len(needle) - 1] for needle in self._needles)

    def _by_value(self, text: str) -> str:
        for needle in self._needles:
            if needle in text:
                text = text.replace(needle, MASK)
        return text

    def _refresh(self) -> None:
        known = set(self._fixed).union(*(forms for generations in self._rotating.values() for forms in generations))
        self._needles = tuple(sorted(known, key=len, reverse=True))  # the whole before its parts
        # Every part of a harmless text is harmless itself: no other needle can stand in one, and most are long runs that are not.
        self._plain_needles = tuple(needle for needle in self._needles if harmless(needle))


class _Allowance:
    """What is left of the work that one value may cost, whatever it is made of."""

    def __init__(self) -> None:
        self._values = _MOST_VALUES
        self._characters = _MOST_TEXTS * MOST_CHARACTERS

    def take_value(self) -> bool:
        """Whether one more value may be looked at."""
        self._values -= 1
        return self._values >= 0 and self._characters > 0

    def take_text(self, length: int) -> bool:
        """Whether one more text may be, of which no more than a bounded part is."""
        allowed = self._characters > 0
        self._characters -= min(length, MOST_CHARACTERS)
        return allowed


def proxy_secrets(url: str | None) -> tuple[str, ...]:
    """What must not be shown of a proxy's URL: its user info as it stands, its password as written and as it is meant."""
    if not url or "@" not in url:
        return ()
    userinfo = url.partition("://")[2].rpartition("@")[0] or url.rpartition("@")[0]
    password = userinfo.partition(":")[2]
    return userinfo, password, unquote(password)


def describe(error: BaseException, redact: Callable[[str], str] = redact_text) -> str:
    """An exception in a few words, on one line, redacted: its class and what it says, at most 300 characters.

    Of a pydantic error only places and kinds: its text repeats the input.
    """
    if isinstance(error, ValidationError):
        details = islice(error.errors(include_input=False, include_url=False, include_context=False), _LONGEST_SAID)
        said = ", ".join(f"{'.'.join(map(str, item['loc']))}: {item['type']}" for item in details)
    else:
        said = _string(error)
    said = " ".join(redact(said).split())
    return f"{type(error).__name__}: {said}"[:_LONGEST_SAID] if said else type(error).__name__


def _string(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ is no reason to lose the line
        return f"<{type(value).__name__}>"


def _all_forms(secrets: Iterable[str | bytes]) -> frozenset[str]:
    return frozenset(form for secret in secrets for form in _forms(secret))


def _forms(secret: str | bytes) -> Iterator[str]:
    """Every text that a secret may turn up as."""
    if isinstance(secret, str):
        secret = secret.strip()
        raw = secret.encode("utf-8", "surrogatepass")
        decoded = _decoded_key(secret)
        if decoded is not None:
            yield from _forms(decoded)
    else:
        raw = bytes(secret)
    if len(raw) < _SHORTEST_SECRET:
        return
    text = raw.decode("utf-8", "replace")
    if "\ufffd" not in text:
        yield from (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1])
    yield from (repr(raw)[2:-1], raw.hex(), raw.hex().upper())
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    yield from _base64_forms(raw)


def _base64_forms(raw: bytes) -> Iterator[str]:
    """The characters of base64 that depend on the secret alone, for each of the three places it may begin at."""
    for lead in range(3):
        encoded = base64.b64encode(bytes(lead) + raw)
        first = (lead * 8 + 5) // 6
        fragment = encoded[first : (lead + len(raw)) * 8 // 6].decode()
        if len(fragment) >= _SHORTEST_FRAGMENT:
            yield fragment
            yield fragment.replace("+", "-").replace("/", "_")


def _decoded_key(text: str) -> bytes | None:
    """The bytes of a key that is written as hex or base64, where it is one (PROTOCOL §5)."""
    try:
        if re.fullmatch(r"(?:[0-9A-Fa-f]{2}){16,}+", text):
            return bytes.fromhex(text)
        if re.fullmatch(r"[A-Za-z0-9+/_-]{22,88}={0,2}", text):
            bare = text.rstrip("=").replace("-", "+").replace("_", "/")
            return base64.b64decode(bare + "=" * (-len(bare) % 4))
    except (binascii.Error, ValueError):
        pass
    return None
