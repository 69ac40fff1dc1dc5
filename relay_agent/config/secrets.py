"""Reads a token or key from a variable or a file, and judges its form.

It must not use a secret, send it or repeat it in an error.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jwt as pyjwt
from pydantic import SecretStr

from relay_agent.core.errors import TokenExpired
from relay_agent.protocol.keyring import parse_keys

_LIKE_TOKEN = re.compile(r"eyJ[\w-]{5,}\.|[\w+=-]{80,}")
"""The beginning of a JWT, or a word that is too long for a file's name."""
_LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class SecretSource:
    """A secret given as a value, or as a file that may change while the agent runs (OPERATIONS §5)."""

    def __init__(self, value: SecretStr | None = None, path: Path | None = None) -> None:
        self._value = value
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
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
                        raise OSError(f"cannot read {shown_path(self._path)} ({reason})") from None
            return self._value.get_secret_value().strip() if self._value else ""

    def _refresh(self, path: Path) -> None:
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        self.gone = "it is empty" if not stat.st_size else None
        if stamp == self._stamp:
            return
        text = path.read_text(encoding="utf-8-sig").strip()
        self._stamp = stamp
        if text or self._value is None:
            self._value = SecretStr(text)


def shown_path(path: Path | str) -> str:
    """Return the path for display, unless it looks like a token or key that was given instead of a file's name."""
    text = str(path)
    try:
        parse_keys(text)
        looks_secret = True
    except ValueError:
        looks_secret = _LIKE_TOKEN.search(text) is not None
    return "the file, since the value looks like the secret itself and not like a file's name" if looks_secret else text


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
        raise TokenExpired(
            f"the JWT expired on {expiry:%Y-%m-%d %H:%M} UTC, according to this machine's clock: create a new token for the service user,"
            " and set JWT (or write it to the file of JWT_FILE); if that date is in the future, set this machine's clock"
        )


def _moment(seconds: float) -> datetime:
    # Some issuers write milliseconds: such a date is beyond any calendar, but not in the past.
    return _LAST_MOMENT if seconds >= _LAST_MOMENT.timestamp() else datetime.fromtimestamp(seconds, UTC)
