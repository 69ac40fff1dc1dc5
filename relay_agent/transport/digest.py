"""Digest authentication (RFC 7616): MD5 and SHA-256, each with its `-sess` form, qop `auth` or none.

Written here, since requests' own cuts `;parameters` from the URI, knows neither `userhash` nor users beyond ISO-8859-1, and wants its
own adapter. This module must not send anything.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from pydantic import SecretStr

from relay_agent.transport.authentication import Call, Handshake
from relay_agent.transport.challenges import Challenge, listed

_ALGORITHMS = {"md5": "md5", "md5-sess": "md5", "sha-256": "sha256", "sha-256-sess": "sha256"}
_MAX_REMEMBERED = 256
_MAX_COUNT = 0xFFFFFFFF


class _Remembered:
    """The last challenge of each host and port, so that the next request needs none. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str, int], _Session] = {}

    def get(self, call: Call) -> _Session | None:
        with self._lock:
            return self._sessions.get((call.host, call.port))

    def set(self, call: Call, session: _Session | None) -> None:
        with self._lock:
            if len(self._sessions) >= _MAX_REMEMBERED:
                self._sessions.clear()
            self._sessions.pop((call.host, call.port), None)
            if session is not None:
                self._sessions[call.host, call.port] = session


@dataclass(frozen=True, slots=True)
class Digest:
    """A user and a password for Digest."""

    user: str
    password: SecretStr
    remembered: _Remembered = field(default_factory=_Remembered, repr=False, compare=False)
    scheme = "digest"
    per_connection = False

    def handshake(self, call: Call) -> Handshake:
        """Return what authenticates one exchange."""
        return _Handshake(self, call)


class _Handshake:
    opening = False
    bound = False

    def __init__(self, credentials: Digest, call: Call) -> None:
        self._credentials = credentials
        self._call = call
        self._session = credentials.remembered.get(call)
        self._fresh = self._stale = False

    def connected(self, certificate: bytes | None) -> None:
        """Go on: a nonce is not bound to a connection."""

    def challenged(self, challenges: Sequence[Challenge]) -> bool:
        """Take a nonce: the first of this exchange, or one more in place of one that is too old (RFC 7616 §3.3)."""
        chosen = next((one for one in challenges if one.scheme == "digest" and _understood(one)), None)
        stale = chosen is not None and chosen.parameters.get("stale", "").lower() == "true" and not self._stale
        if chosen is None or (self._fresh and not stale):
            self._credentials.remembered.set(self._call, None)
            return False
        self._stale = self._fresh
        self._fresh = True
        self._session = _Session(self._credentials, chosen)
        self._credentials.remembered.set(self._call, self._session)
        return True

    def authorization(self) -> str | None:
        return None if self._session is None else self._session.authorization(self._call.method, self._call.target)


def _understood(challenge: Challenge) -> bool:
    given = challenge.parameters
    known = given.get("algorithm", "MD5").lower() in _ALGORITHMS
    return known and "realm" in given and bool(given.get("nonce")) and ("qop" not in given or "auth" in listed(given, "qop"))


class _Session:
    """One nonce, and how often it was used. Shared by the threads that call its host."""

    def __init__(self, credentials: Digest, challenge: Challenge, cnonce: Callable[[], str] = lambda: os.urandom(16).hex()) -> None:
        given = self._given = challenge.parameters
        self._cnonce = cnonce()
        # `next` of a counter is one step of the interpreter: no two requests get the same count.
        self._counts = itertools.count(1)
        self._algorithm = given.get("algorithm", "MD5").lower()
        self._utf8 = given.get("charset", "").lower() == "utf-8"
        self._user = self._normal(credentials.user)
        secret = self._hash(_wire(self._user), given["realm"], _wire(self._normal(credentials.password.get_secret_value())))
        if self._algorithm.endswith("-sess"):
            secret = self._hash(secret, given["nonce"], self._cnonce)
        self._secret = secret

    def authorization(self, method: str, uri: str) -> str:
        """Return the credentials of one request (RFC 7616 §3.4)."""
        given, nonce = self._given, self._given["nonce"]
        asked = self._hash(method, uri)
        if "qop" in given:
            count = f"{next(self._counts) & _MAX_COUNT:08x}"
            parts = [("response", _quoted(self._hash(self._secret, nonce, count, self._cnonce, "auth", asked)))]
            parts += [("qop", "auth"), ("nc", count), ("cnonce", _quoted(self._cnonce))]
        else:
            parts = [("response", _quoted(self._hash(self._secret, nonce, asked)))]
            parts += [("cnonce", _quoted(self._cnonce))] if self._algorithm.endswith("-sess") else []
        before = [*self._username(), ("realm", _quoted(given["realm"])), ("nonce", _quoted(nonce)), ("uri", _quoted(uri))]
        after = [(name, shown(given[name])) for name, shown in (("algorithm", str), ("opaque", _quoted)) if name in given]
        return "Digest " + ", ".join(f"{name}={value}" for name, value in (*before, *parts, *after))

    def _username(self) -> Iterator[tuple[str, str]]:
        if self._given.get("userhash", "").lower() == "true":
            yield "username", _quoted(self._hash(_wire(self._user), self._given["realm"]))
            yield "userhash", "true"
        elif self._utf8 and not self._user.isascii():
            yield "username*", f"UTF-8''{quote(self._user, safe='')}"
        else:
            yield "username", _quoted(_wire(self._user))

    def _hash(self, *parts: str) -> str:
        return hashlib.new(_ALGORITHMS[self._algorithm], ":".join(parts).encode("latin-1"), usedforsecurity=False).hexdigest()

    def _normal(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._utf8 else text


def _wire(text: str) -> str:
    """Return the bytes of a text in UTF-8, as header fields have bytes: one character for each."""
    return text.encode().decode("latin-1")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'
