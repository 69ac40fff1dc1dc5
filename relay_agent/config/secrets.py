"""Reads a token or key from a variable or a file, and judges its form.

It must not use a secret, send it or repeat it in an error.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import jwt as pyjwt
from pydantic import SecretStr

from relay_agent.core.errors import JWT_EXPIRED, NEW_JWT, TokenExpired
from relay_agent.core.files import Stamp, how_to_allow, read_regular, stamp
from relay_agent.protocol.keyring import parse_keys

_LIKE_TOKEN = re.compile(
    r"eyJ[\w-]{5,}\.|[\w+=-]{80,}|(?:^|/)(?:basic|bearer|digest|negotiate|ntlm|token)\s|[\r\n]|-----BEGIN|=$", re.IGNORECASE
)
"""The beginning of a JWT, a word that is too long for a file's name, the value of an Authorization field, several lines, or base64."""
_LIKE_URL = re.compile(r"[\w+.-]{2,}:/|@")
"""Of a URL's two slashes a `pathlib.Path` has one."""
_USUAL_ENDING = re.compile(r"\.(?:pem|crt|cer|key|txt)$")
_LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class SecretSource:
    """A secret given as a value, or as a file that may change while the agent runs (docs/operations.md, "Files")."""

    def __init__(self, value: SecretStr | None = None, path: Path | None = None) -> None:
        self._value = value
        self._path = path
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self.gone: str | None = None
        """Why the file could not be read at the last try; the value read before is still used. None if it could."""

    @property
    def given(self) -> bool:
        """Whether there is a secret at all."""
        return self._value is not None or self._path is not None

    def get(self) -> str:
        """Return the secret without white space around it; reread its file if that has changed.

        If the file is missing, or empty because it is being rewritten, returns what was last read.

        Raises:
            OSError: the file cannot be read and has never been read before; names the file.
        """
        with self._lock:
            if self._path is not None:
                try:
                    self._refresh(self._path)
                except (OSError, UnicodeDecodeError) as error:
                    self.gone = reason = (error.strerror or "unreadable") if isinstance(error, OSError) else "it is not UTF-8 text"
                    if self._value is None:
                        shown = shown_path(self._path)
                        cure = (
                            how_to_allow(self._path, error, secret=True) if isinstance(error, OSError) and shown == str(self._path) else ""
                        )
                        raise OSError(f"cannot read {shown} ({reason}){cure}") from None
            return self._value.get_secret_value().strip() if self._value else ""

    def _refresh(self, path: Path) -> None:
        stat = path.stat()
        self.gone = "it is empty" if not stat.st_size else None
        if stamp(stat) == self._stamp:
            return
        text = read_regular(path).decode("utf-8-sig").strip()
        self._stamp = stamp(stat)
        if text or self._value is None:
            self._value = SecretStr(text)


def shown_path(path: Path | str, beside: Path | None = None) -> str:
    """Return the path for display, unless it looks like a token or key that was given instead of a file's name.

    So does what names no file and has a scheme or a user, as URLs have. So does the name of a missing file below `beside`, the directory
    that names are relative to, unless its directory exists: a password may look like any name. One that ends as files of certificates,
    keys or texts do is a name.
    """
    text = str(path)
    shown = "the file, since the value looks like the secret itself and not like a file's name"
    if looks_secret(text):
        return shown
    relative = beside is not None and Path(path).is_relative_to(beside)
    if not _is_missing(text):
        return text
    if _LIKE_URL.search(str(Path(path).relative_to(beside)) if beside is not None and relative else text):
        return shown
    parent = Path(path).parent
    if relative and not _USUAL_ENDING.search(text) and (parent == beside or _is_missing(str(parent))):
        return "the file, since the value is the name of none and may be the secret itself"
    return text


def looks_secret(text: str) -> bool:
    """Return whether a text looks like a token, a key, or the value of an Authorization field."""
    try:
        parse_keys(text)
    except ValueError:
        return _LIKE_TOKEN.search(text) is not None
    return True


def _is_missing(path: str) -> bool:
    try:
        return not os.path.lexists(path)
    except ValueError:  # A name with a NUL is that of no file.
        return True


@lru_cache(maxsize=2)  # It is asked every two seconds.
def token_expiry(token: str) -> datetime | None:
    """Return when the JWT expires (`exp`, UTC), None if never; only the platform can check the signature.

    Raises:
        ValueError: it is not a JWT.
    """
    checks = ("signature", "exp", "aud", "nbf", "iat", "iss", "sub", "jti")
    try:
        claims = pyjwt.decode(token, options={f"verify_{check}": False for check in checks})  # type: ignore[arg-type]
        expiry = claims.get("exp")
        return None if expiry is None else _moment(float(expiry))
    except (pyjwt.PyJWTError, TypeError, OverflowError, OSError, ValueError):
        raise ValueError("is not a JSON Web Token (three base64url parts separated by dots)") from None


def check_token(token: str, now: Callable[[], datetime]) -> None:
    """Refuse an expired token.

    Raises:
        TokenExpired: the message has the time of expiry, never the token.
        ValueError: it is not a JWT.
    """
    expiry = token_expiry(token)
    if expiry is not None and expiry <= now():
        raise TokenExpired(f"{JWT_EXPIRED.format(date=f'{expiry:%Y-%m-%d %H:%M} UTC')}: {NEW_JWT}", expiry)


def _moment(seconds: float) -> datetime:
    # Some issuers write milliseconds: such a date is beyond any calendar, but not in the past.
    return _LAST_MOMENT if seconds >= _LAST_MOMENT.timestamp() else datetime.fromtimestamp(seconds, UTC)
