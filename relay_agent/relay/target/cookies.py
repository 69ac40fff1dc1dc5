"""The cookies of one command: those that its redirects and challenges set, and which of them the next request carries (RFC 6265 §5).

This module parses, stores and selects them, within limits. The command's own Cookie field is added in `redirects`.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from relay_agent.core.header_syntax import has_control

MAX_FIELD = 16 * 1024
"""Longest Set-Cookie field in characters; a longer one is ignored."""
MAX_PAIR = 4096
"""Longest name and value together, in characters, as in browsers (RFC 6265bis §5.6)."""
MAX_ATTRIBUTE = 1024
"""Longest attribute value in characters; an attribute with a longer one is ignored (RFC 6265bis §5.6)."""
MAX_COOKIES = 300
"""Most cookies of one command; RFC 6265 §6.1 asks for at least 50 per domain."""

_DELIMITERS = re.compile(r"[\x09\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:[^0-9].*)?", re.DOTALL)
_DAY = re.compile(r"([0-9]{1,2})(?:[^0-9].*)?", re.DOTALL)
_MONTH = re.compile(r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec).*", re.DOTALL | re.IGNORECASE)
_YEAR = re.compile(r"([0-9]{2,4})(?:[^0-9].*)?", re.DOTALL)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DELTA = re.compile(r"-?[0-9]+")
_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class SetCookie:
    """One Set-Cookie field, parsed (§5.2). `expires_at` and `max_age` are in seconds; `path` is None if the default path applies."""

    name: str
    value: str
    expires_at: float | None = None
    max_age: float | None = None
    domain: str = ""
    path: str | None = None
    secure: bool = False


@dataclass(frozen=True, slots=True)
class _Cookie:
    """One stored cookie (§5.3). HttpOnly is left out: there are no scripts to hide it from."""

    name: str
    value: str
    expires_at: float
    domain: str
    host_only: bool
    path: str
    secure: bool
    number: int
    """How many cookies were created before it."""

    def goes_to(self, host: str, path: str, *, secure: bool) -> bool:
        """Return whether a request carries it (§5.4)."""
        same = host == self.domain if self.host_only else domain_matches(host, self.domain)
        return same and path_matches(path, self.path) and (secure or not self.secure)


class Cookies:
    """The cookies of one command."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now` returns seconds since 1970, because a cookie's expiry is a date."""
        self._now = now
        self._kept: dict[tuple[str, str, str], _Cookie] = {}
        """By name, domain and path; least recently sent first, the order in which they are evicted."""
        self._created = 0

    def store(self, fields: Iterable[str], host: str, target: str) -> None:
        """Store the Set-Cookie fields of a response, in order (§5.3).

        `host` is the request's host in lower case, `target` its path and query.
        """
        directory = default_path(target)
        for field in fields:
            parsed = parse(field)
            if parsed is not None and _may_set(host, parsed.domain):
                self._store(parsed, host, directory)

    def for_request(self, host: str, target: str, *, secure: bool) -> list[tuple[str, str]]:
        """Return the names and values that a request carries, longest path first, then oldest first (§5.4)."""
        self._expire()
        path = _path(target)
        found = [(key, cookie) for key, cookie in self._kept.items() if cookie.goes_to(host, path, secure=secure)]
        for key, cookie in found:
            del self._kept[key]
            self._kept[key] = cookie
        chosen = sorted((cookie for _, cookie in found), key=lambda cookie: (-len(cookie.path), cookie.number))
        return [(cookie.name, cookie.value) for cookie in chosen]

    def _store(self, parsed: SetCookie, host: str, directory: str) -> None:
        domain, path, end = parsed.domain or host, parsed.path or directory, self._end(parsed)
        key = (parsed.name, domain, path)
        old = self._kept.pop(key, None)
        if end <= self._now():
            return
        number = self._created if old is None else old.number
        self._created += 1
        # A Domain equal to the host makes a host-only cookie (PROTOCOL §3).
        self._kept[key] = _Cookie(parsed.name, parsed.value, end, domain, domain == host, path, parsed.secure, number)
        if len(self._kept) > MAX_COOKIES:
            self._expire()
        while len(self._kept) > MAX_COOKIES:
            del self._kept[next(iter(self._kept))]

    def _end(self, parsed: SetCookie) -> float:
        """Return the expiry time: Max-Age takes precedence over Expires; without either the cookie lives as long as the command."""
        if parsed.max_age is not None:
            return self._now() + parsed.max_age if parsed.max_age > 0 else -_FOREVER
        return _FOREVER if parsed.expires_at is None else parsed.expires_at

    def _expire(self) -> None:
        now = self._now()
        for key in [key for key, cookie in self._kept.items() if cookie.expires_at <= now]:
            del self._kept[key]


def parse(field: str) -> SetCookie | None:
    """Parse a Set-Cookie field (§5.2); returns None if it is to be ignored."""
    # Stricter than the RFC, like browsers: no request may carry a control character back.
    if len(field) > MAX_FIELD or has_control(field):
        return None
    pair, *attributes = field.split(";")
    name, equals, value = (part.strip(" \t") for part in pair.partition("="))
    if not equals or not name or len(name) + len(value) > MAX_PAIR:
        return None
    # The last valid attribute of a name wins (§5.3).
    found: dict[str, object] = {}
    for attribute in attributes:
        key, _, text = attribute.partition("=")
        text = text.strip(" \t")
        read = _ATTRIBUTES.get(key.strip(" \t").lower()) if len(text) <= MAX_ATTRIBUTE else None
        if read is not None:
            found |= read(text)
    return SetCookie(name, value, **found)  # type: ignore[arg-type]


def _expires(value: str) -> dict[str, object]:
    moment = parse_date(value)
    return {} if moment is None else {"expires_at": moment}


def _max_age(value: str) -> dict[str, object]:
    if not _DELTA.fullmatch(value):
        return {}
    # As a float, so that a number of any length is accepted; the lost precision does not matter.
    return {"max_age": float(value)}


def _domain(value: str) -> dict[str, object]:
    return {"domain": value.removeprefix(".").lower()} if value else {}


_ATTRIBUTES: dict[str, Callable[[str], dict[str, object]]] = {
    "expires": _expires,
    "max-age": _max_age,
    "domain": _domain,
    "path": lambda value: {"path": value if value.startswith("/") else None},
    "secure": lambda _: {"secure": True},
}


def parse_date(text: str) -> float | None:
    """Parse a cookie date (§5.1.1) to seconds since 1970; returns None if it is not a date."""
    clock = day = month = year = None
    for token in _DELIMITERS.split(text):
        if clock is None and (match := _TIME.fullmatch(token)):
            clock = (int(match[1]), int(match[2]), int(match[3]))
        elif day is None and (match := _DAY.fullmatch(token)):
            day = int(match[1])
        elif month is None and (match := _MONTH.fullmatch(token)):
            month = _MONTHS.index(match[1].lower()) + 1
        elif year is None and (match := _YEAR.fullmatch(token)):
            year = int(match[1])
    if clock is None or day is None or month is None or year is None:
        return None
    year += 1900 if 70 <= year <= 99 else 2000 if year <= 69 else 0
    if year < 1601:
        return None
    try:
        return datetime(year, month, day, *clock, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def domain_matches(host: str, domain: str) -> bool:
    """Return whether a host matches a domain (§5.1.3); both in lower case. An IP address matches only itself."""
    return host == domain or (host.endswith(f".{domain}") and not _is_address(host))


def default_path(target: str) -> str:
    """Return the path of a cookie that names none (§5.1.4): the directory of the request's path."""
    path = _path(target)
    return path[: path.rindex("/")] or "/" if path.startswith("/") else "/"


def path_matches(path: str, cookie_path: str) -> bool:
    """Return whether a request's path matches a cookie's (§5.1.4)."""
    if not path.startswith(cookie_path):
        return False
    return len(path) == len(cookie_path) or cookie_path.endswith("/") or path[len(cookie_path)] == "/"


def _may_set(host: str, domain: str) -> bool:
    """Return whether a host may set cookies for a domain (§5.3). A single label such as `com` counts as a public suffix."""
    return domain in ("", host) or ("." in domain and domain_matches(host, domain))


def _path(target: str) -> str:
    return target.partition("?")[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
