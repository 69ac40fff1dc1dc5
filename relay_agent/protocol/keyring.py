"""The keys of secure commands: how they are written, named and chosen (PROTOCOL §5)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

from relay_agent.core.errors import SecureCommandError
from relay_agent.core.failures import Code

KEY_BYTES = 32
NO_KEY = "no key for secure commands is set: set SECURE_COMMAND_KEY, or SECURE_COMMAND_KEY_FILE"


class Keyring:
    """The keys of secure commands. The first encrypts, each of them decrypts, so that keys can be rotated."""

    def __init__(self, keys: list[bytes]) -> None:
        """Make a keyring of `keys`, each of 32 bytes; duplicates are dropped.

        Raises:
            ValueError: a key has another length. The text does not contain it.
        """
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a key must be {KEY_BYTES} bytes")
        self._keys = tuple(dict.fromkeys(keys))

    @classmethod
    def from_text(cls, text: str) -> Keyring:
        """Make a keyring of the keys in a text, as SECURE_COMMAND_KEY has it; an empty text makes an empty keyring.

        Raises:
            ValueError: a key is wrong. The text gives its position, never the key.
        """
        return cls(parse_keys(text) if text.strip() else [])

    @staticmethod
    def kid(key: bytes) -> str:
        """Return the key's id, which does not reveal it: the first 8 hex digits of its SHA-256 (PROTOCOL §5)."""
        return hashlib.sha256(key).hexdigest()[:8]

    @property
    def kids(self) -> tuple[str, ...]:
        """The ids of all keys, the current one first."""
        return tuple(self.kid(key) for key in self._keys)

    @property
    def current(self) -> bytes:
        """The key that encrypts new messages.

        Raises:
            SecureCommandError: ENOKEY, the keyring is empty.
        """
        if not self._keys:
            raise SecureCommandError(Code.ENOKEY, NO_KEY)
        return self._keys[0]

    def named(self, name: str | None) -> Keyring:
        """Return a keyring of the keys with that id, of all keys if it is None."""
        return Keyring([key for key in self._keys if name is None or self.kid(key) == name])

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.kids)})"


def parse_key(text: str) -> bytes:
    """Decode 32 bytes from base64, base64url or 64 hex digits (PROTOCOL §5).

    Raises:
        ValueError: it is none of them, or of another length. The text does not contain the key.
    """
    text = text.strip()
    try:
        if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
            return bytes.fromhex(text)
        digits = text.rstrip("=").replace("-", "+").replace("_", "/")
        key = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64, base64url or 64 hex digits") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"is {len(key)} bytes long, not {KEY_BYTES}")
    return key


def parse_keys(text: str) -> list[bytes]:
    """Decode every key of a comma-separated list, the one that encrypts first (PROTOCOL §5).

    Raises:
        ValueError: there is no key, or one is wrong. The text gives its position, never the key.
    """
    keys = []
    for position, part in enumerate(text.split(","), 1):
        if not part.strip():
            continue
        try:
            keys.append(parse_key(part))
        except ValueError as error:
            raise ValueError(f"key {position} {error}" if "," in text else str(error)) from None
    if not keys:
        raise ValueError("contains no key")
    return keys
