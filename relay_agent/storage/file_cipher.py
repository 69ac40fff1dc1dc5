"""Encryption of spool files, with a key that lives as long as the process."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import cast

from Crypto.Cipher import AES

from relay_agent.protocol.keyring import KEY_BYTES


class FileCipher:
    """Hides bytes that have to wait in a file: its key is in memory only, and gone with it (AES-256 in counter mode).

    It keeps nobody from changing them: whoever can write another process's unnamed files needs no more.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(KEY_BYTES)

    def stream(self) -> Callable[[bytes], bytes]:
        """What hides bytes from the start on, piece by piece, or shows them again. One that hides hides once: each Veil is for one text."""
        return cast("Callable[[bytes], bytes]", AES.new(self._key, AES.MODE_CTR, nonce=bytes(8)).encrypt)
