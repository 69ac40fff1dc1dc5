"""The cookies of one command: what its redirects were given, and which of it goes to the next (RFC 6265 §5).

This room owns their parsing, keeping and choosing, within bounds. It must not know requests, or the command's own Cookie field.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

MAX_FIELD = 16 * 1024
"""Characters of a Set-Cookie field; a longer one is not looked at."""
MAX_PAIR = 4096
"""Characters of a name and its value together, as in browsers (RFC 6265bis §5.6)."""
MAX_ATTRIBUTE = 1024
"""Characters of an attribute's value; a longer one is as if it were not there (RFC 6265bis §5.6)."""
MAX_COOKIES = 300
"""Cookies that one command may hold; RFC 6265 §6.1 asks for 50 a domain."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
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
    """One Set-Cookie field, parsed (§5.2). `expires_at` and `max_age` are in seconds; `path` is None for the default path."""

    name: str
    value: str
    expires_at: float | None = None
    max_age: float | None = None
    domain: str = ""
    path: str | None = None
    secure: bool = False


@dataclass(frozen=True, slots=True)
class _Cookie:
    """One cookie as it is kept (§5.3); it has no HttpOnly, since nobody but HTTP asks here."""

    name: str
    value: str
    expires_at: float
    domain: str
    host_only: bool
    path: str
    secure: bool
    number: int
    """How many were created before it."""

    def goes_to(self, host: str, path: str, *, secure: bool) -> bool:
        """Whether a request has it (§5.4)."""
        same = host == self.domain if self.host_only else domain_matches(host, self.domain)
        return same and path_matches(path, self.path) and (secure or not self.secure)


class Cookies:
    """The cookies of one command."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now` gives seconds since 1970, since a cookie's end is told as a date."""
        self._now = now
        self._kept: dict[tuple[str, str, str], _Cookie] = {}
        """By name, domain and path; those longest not sent first, as they are the first to go."""
        self._created = 0

    def store(self, fields: Iterable[str], host: str, target: str) -> None:
        """Take the Set-Cookie fields of an answer, in order (§5.3).

        `host` is whom the request was for, in lower case, `target` its path and query.
        """
        directory = default_path(target)
        for field in fields:
            parsed = parse(field)
            if parsed is not None and _may_set(host, parsed.domain):
                self._store(parsed, host, directory)

    def for_request(self, host: str, target: str, *, secure: bool) -> list[tuple[str, str]]:
        """Names and values that a request has, longer paths first, then in the order of their creation (§5.4)."""
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
        # Where Domain is the host itself, it asks for no more than the host: so PROTOCOL §3 has it.
        self._kept[key] = _Cookie(parsed.name, parsed.value, end, domain, domain == host, path, parsed.secure, number)
        if len(self._kept) > MAX_COOKIES:
            self._expire()
        while len(self._kept) > MAX_COOKIES:
            del self._kept[next(iter(self._kept))]

    def _end(self, parsed: SetCookie) -> float:
        """When it ends: Max-Age goes before Expires; without either it ends with the command."""
        if parsed.max_age is not None:
            return self._now() + parsed.max_age if parsed.max_age > 0 else -_FOREVER
        return _FOREVER if parsed.expires_at is None else parsed.expires_at

    def _expire(self) -> None:
        now = self._now()
        for key in [key for key, cookie in self._kept.items() if cookie.expires_at <= now]:
            del self._kept[key]


def parse(field: str) -> SetCookie | None:
    """Read a Set-Cookie field (§5.2); None for one that is to be ignored.

    More than the RFC asks, and as browsers do: one with a control character, which no request may carry back, is ignored.
    """
    if len(field) > MAX_FIELD or _CONTROL.search(field):
        return None
    pair, *attributes = field.split(";")
    name, equals, value = (part.strip(" \t") for part in pair.partition("="))
    if not equals or not name or len(name) + len(value) > MAX_PAIR:
        return None
    # Each attribute that is read at all takes the place of those of its name before it: the last one wins (§5.3).
    found: dict[str, object] = {}
    for attribute in attributes:
        key, _, said = attribute.partition("=")
        said = said.strip(" \t")
        read = _ATTRIBUTES.get(key.strip(" \t").lower()) if len(said) <= MAX_ATTRIBUTE else None
        if read is not None:
            found |= read(said)
    return SetCookie(name, value, **found)  # type: ignore[arg-type]


def _expires(value: str) -> dict[str, object]:
    moment = parse_date(value)
    return {} if moment is None else {"expires_at": moment}


def _max_age(value: str) -> dict[str, object]:
    if not _DELTA.fullmatch(value):
        return {}
    # A number of any length, as a float of any size: nobody lives to see the difference.
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
    """Read a date as cookies have it (§5.1.1), in seconds since 1970; None where it is none."""
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
    """Whether a host is a domain or lies within it (§5.1.3); both in lower case. An address lies within none."""
    return host == domain or (host.endswith(f".{domain}") and not _is_address(host))


def default_path(target: str) -> str:
    """The path of a cookie that names none (§5.1.4): the directory of what was asked for."""
    path = _path(target)
    return path[: path.rindex("/")] or "/" if path.startswith("/") else "/"


def path_matches(path: str, cookie_path: str) -> bool:
    """Whether a request's path lies within a cookie's (§5.1.4)."""
    if not path.startswith(cookie_path):
        return False
    return len(path) == len(cookie_path) or cookie_path.endswith("/") or path[len(cookie_path)] == "/"


def _may_set(host: str, domain: str) -> bool:
    """Whether a host may set cookies for a domain (§5.3). A single label is taken for a public suffix: nobody speaks for all of `com`."""
    return domain in ("", host) or ("." in domain and domain_matches(host, domain))


def _path(target: str) -> str:
    return target.partition("?")[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
