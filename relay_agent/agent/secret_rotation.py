"""The token and the keys in use, while the files that hold them change.

This module decides which new values replace the old ones, and logs it. The files are read in `config.secrets`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from relay_agent.config.secrets import SecretSource, token_expiry
from relay_agent.diagnostics.local_causes import KEYS, TOKEN_UNUSABLE
from relay_agent.protocol.keyring import Keyring
from relay_agent.telemetry.logger import Logger


class CurrentToken:
    """The current token. Each new value is passed to the redactor before it is used; an invalid one does not replace the old."""

    def __init__(self, source: SecretSource, register: Callable[[str], None], log: Logger) -> None:
        """`register` makes a value known to the redactor."""
        self._source = source
        self._register = register
        self._log = log
        self._lock = threading.Lock()
        self._current = self._rejected = ""
        self.unusable = False
        """Whether the file now holds no valid token."""

    def get(self) -> str:
        """Return the token, read again if its file has changed."""
        with self._lock:  # Called by every thread that calls the platform; only one of them may log the change.
            before = self.unusable
            changed = self._update(self._source.get())
            recovered = before and not self.unusable
            token = self._current
        if changed and self.unusable:
            self._log.warning("token-unusable", cause=TOKEN_UNUSABLE.cause, cure=TOKEN_UNUSABLE.cure)
        elif recovered:
            self._log.info("token-usable")
        return token

    def _update(self, value: str) -> bool:
        """Adopt a valid token or remember an invalid one; return whether the value is new."""
        if value == self._current:
            self._rejected, self.unusable = "", False
            return False
        if value == self._rejected:
            return False
        usable = _is_token(value) or not self._current
        self._register(value)
        if usable:
            self._current, self._rejected = value, ""
        else:
            self._rejected = value
            self._register(
                self._current
            )  # An invalid value may be a half-written token; the redactor must keep the current one as the newest.
        self.unusable = not usable
        return True


class CurrentKeys:
    """The current keyring. A changed file replaces it, unless it holds no valid key, which is logged once."""

    def __init__(self, source: SecretSource, register: Callable[..., None], log: Logger) -> None:
        """`register` makes values known to the redactor."""
        self._source = source
        self._register = register
        self._log = log
        self._lock = threading.Lock()
        self._text: str | None = None
        self._rejected: str | None = None
        self.unusable = False
        """Whether the file now holds no valid key."""
        self._keyring = Keyring([])

    def get(self) -> Keyring:
        """Return the keyring, read again if its file has changed."""
        with self._lock:  # Called by workers and by the thread `environment`.
            self._update(self._source.get() if self._source.given else "")
            return self._keyring

    def _update(self, text: str) -> None:
        if text != self._text:
            try:
                keyring = Keyring.from_text(text)
            except ValueError as error:
                self.unusable = True
                if text != self._rejected:
                    self._rejected = text
                    self._log.warning("secure-key-unusable", reason=str(error), cause=KEYS.cause, cure=KEYS.cure)
                return
            self._register(text, *[part.strip() for part in text.split(",") if part.strip()])
            self._keyring, self._text = keyring, text
        if self.unusable:
            self.unusable, self._rejected = False, None
            self._log.info("secure-key-usable")


def _is_token(text: str) -> bool:
    try:
        token_expiry(text)
    except ValueError:
        return False
    return True
