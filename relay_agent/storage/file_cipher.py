"""Encryption of temporary files with a key that is only in memory.

This module owns the cipher and its key. It must not open a file or store the key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import cast

from Crypto.Cipher import AES

from relay_agent.protocol.keyring import KEY_BYTES


class FileCipher:
    """Encrypts the bytes of one file under a random key: AES-256 in counter mode, without authentication."""

    # No authentication: a process that could alter another's unnamed files could as well read its memory.

    def __init__(self) -> None:
        self._key = secrets.token_bytes(KEY_BYTES)

    def stream(self) -> Callable[[bytes], bytes]:
        """Return a function that encrypts or decrypts bytes from the start of the file, piece by piece.

        Encrypt one text only with each FileCipher: two under the same key stream would reveal each other.
        """
        return cast("Callable[[bytes], bytes]", AES.new(self._key, AES.MODE_CTR, nonce=bytes(8)).encrypt)
