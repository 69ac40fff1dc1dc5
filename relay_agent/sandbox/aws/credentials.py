"""The AWS credentials that the sandbox issues, and whether they are valid.

This module owns which access key is valid. It must not know services or the form of their errors.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Credentials:
    """One set of AWS credentials; the root key has no token and does not expire."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


class Verdict(Enum):
    """The result of checking a key."""

    GOOD = auto()
    EXPIRED = auto()
    UNKNOWN = auto()
    WRONG_TOKEN = auto()


class Keys:
    """Every key that the sandbox issued, and its root key. Any thread may call it."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self.root = Credentials("AKIA" + _letters(), secrets.token_urlsafe(30))
        self._issued: dict[str, Credentials] = {self.root.access_key_id: self.root}

    def issue(self, lifetime_seconds: float) -> Credentials:
        """Return new temporary credentials."""
        issued = Credentials(
            "ASIA" + _letters(),
            secrets.token_urlsafe(30),
            secrets.token_urlsafe(120),
            self._now() + timedelta(seconds=lifetime_seconds),
        )
        with self._lock:
            self._issued[issued.access_key_id] = issued
        return issued

    def expire_all(self) -> None:
        """Let every temporary key expire now."""
        with self._lock:
            for key, credentials in self._issued.items():
                if credentials.expires_at is not None:
                    self._issued[key] = replace(credentials, expires_at=self._now())

    def verdict(self, access_key_id: str, session_token: str | None) -> Verdict:
        """Check a key and the token sent with it."""
        with self._lock:
            credentials = self._issued.get(access_key_id)
        if credentials is None:
            return Verdict.UNKNOWN
        if credentials.session_token != session_token:
            return Verdict.WRONG_TOKEN
        if credentials.expires_at is not None and credentials.expires_at <= self._now():
            return Verdict.EXPIRED
        return Verdict.GOOD


def _letters() -> str:
    return "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))
