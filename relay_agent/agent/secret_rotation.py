"""The token and the keys that are in force, while the files that they come from change.

This room owns what is taken over from a file and what is not, and says it. It must not read the files itself (`secrets_source`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from relay_agent.config.secrets import SecretSource, token_expiry
from relay_agent.diagnostics.local_causes import KEYS, TOKEN_UNUSABLE
from relay_agent.protocol.keyring import Keyring
from relay_agent.telemetry.logger import Logger


class CurrentToken:
    """A token whose every new value is made known to the redactor before it is used; one that is none leaves the old in force."""

    def __init__(self, source: SecretSource, seen: Callable[[str], None], log: Logger) -> None:
        self._source = source
        self._seen = seen
        self._log = log
        self._lock = threading.Lock()
        self._last = self._refused = ""
        self.unusable = False
        """Whether what is in the file now is no token."""

    def get(self) -> str:
        """The token, read anew where its file has changed."""
        with self._lock:  # Every thread that calls the platform comes here, and one of them says what changed.
            before = self.unusable
            changed = self._look(self._source.get())
            healed = before and not self.unusable
            token = self._last
        if changed and self.unusable:
            self._log.warning("token-unusable", cause=TOKEN_UNUSABLE.cause, cure=TOKEN_UNUSABLE.cure)
        elif healed:
            self._log.info("token-usable")
        return token

    def _look(self, value: str) -> bool:
        """Take over a token, and remember what is none; whether this is the first look at it."""
        if value == self._last:
            self._refused, self.unusable = "", False
            return False
        if value == self._refused:
            return False
        usable = _is_token(value) or not self._last
        self._seen(value)
        if usable:
            self._last, self._refused = value, ""
        else:
            self._refused = value
            self._seen(self._last)  # What is none may be a token half written; the one in force stays known as the newest.
        self.unusable = not usable
        return True


class CurrentKeys:
    """The keyring, made again when the keys' file changed; one that holds no key any more leaves the old in place, and is said once."""

    def __init__(self, source: SecretSource, seen: Callable[..., None], log: Logger) -> None:
        self._source = source
        self._seen = seen
        self._log = log
        self._lock = threading.Lock()
        self._text: str | None = None
        self._unusable: str | None = None
        self.unusable = False
        """Whether what is in the file now is no key."""
        self._keyring = Keyring([])

    def get(self) -> Keyring:
        """The keyring, read anew where its file has changed."""
        with self._lock:  # Workers come here, and `upkeep` does.
            self._look(self._source.get() if self._source.given else "")
            return self._keyring

    def _look(self, text: str) -> None:
        if text != self._text:
            try:
                keyring = Keyring.from_text(text)
            except ValueError as error:
                self.unusable = True
                if text != self._unusable:
                    self._unusable = text
                    self._log.warning("secure-key-unusable", reason=str(error), cause=KEYS.cause, cure=KEYS.cure)
                return
            self._seen(text, *[part.strip() for part in text.split(",") if part.strip()])
            self._keyring, self._text = keyring, text
        if self.unusable:
            self.unusable, self._unusable = False, None
            self._log.info("secure-key-usable")


def _is_token(text: str) -> bool:
    try:
        token_expiry(text)
    except ValueError:
        return False
    return True
