"""Secrets as they are given: from a variable or a file, and what a well-formed one looks like.

This room owns reading a token or key and judging its form. It must not use a secret, send it or
repeat it in an error.
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
"""The beginning of a JWT, or a longer word than a file is named with."""
_LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class SecretSource:
    """A secret given as a value, or as a file that may change while the agent runs (OPERATIONS §5)."""

    def __init__(self, value: SecretStr | None = None, path: Path | None = None) -> None:
        self._value = value
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self.gone: str | None = None
        """Why the file gave nothing at the last look, while what was read before is in force."""

    @property
    def given(self) -> bool:
        """Whether there is a secret at all."""
        return self._value is not None or self._path is not None

    def get(self) -> str:
        """Give the secret, white space around it stripped; a file is read again when it has changed.

        A file that vanished, or is empty because it is being rewritten, leaves what was last read.

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
    """A path as it may be shown: a token or a key that was put in the place of its file's name is not."""
    text = str(path)
    try:
        parse_keys(text)
        looks_secret = True
    except ValueError:
        looks_secret = _LIKE_TOKEN.search(text) is not None
    return "what it is set to, which looks like the secret itself and not like its file," if looks_secret else text


def token_expiry(token: str) -> datetime | None:
    """Say when the JWT's `exp` ends it (UTC), None where it has none; its signature is the platform's to check.

    Raises:
        ValueError: it is no JWT.
    """
    checks = ("signature", "exp", "aud", "nbf", "iat", "iss", "sub", "jti")
    try:
        claims = pyjwt.decode(token, options={f"verify_{check}": False for check in checks})  # type: ignore[arg-type]
        expiry = claims.get("exp")
        return None if expiry is None else _moment(float(expiry))
    except (pyjwt.PyJWTError, TypeError, OverflowError, OSError, ValueError):
        raise ValueError("is no JSON Web Token (three base64url parts with dots between them)") from None


def check_token(token: str, now: Callable[[], datetime]) -> None:
    """Refuse a token whose time is over.

    Raises:
        TokenExpired: with the moment it ended, never the token.
        ValueError: it is no JWT.
    """
    expiry = token_expiry(token)
    if expiry is not None and expiry <= now():
        raise TokenExpired(
            f"the JWT expired on {expiry:%Y-%m-%d %H:%M} UTC, according to this machine's clock: create a new token for the service user,"
            " and set JWT (or write it to the file of JWT_FILE); if that date is in the future, set this machine's clock"
        )


def _moment(seconds: float) -> datetime:
    # Some issuers write milliseconds: a date no calendar holds is still not in the past.
    return _LAST_MOMENT if seconds >= _LAST_MOMENT.timestamp() else datetime.fromtimestamp(seconds, UTC)
