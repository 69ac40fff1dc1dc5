"""Spool files are encrypted with a key that only this process has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay_agent.storage.file_cipher import FileCipher


@given(st.lists(st.binary(max_size=100), max_size=10), st.integers(1, 50))
def test_a_cipher_decrypts_what_it_encrypted_whatever_the_pieces(pieces: list[bytes], size: int) -> None:
    cipher = FileCipher()
    encrypt, decrypt = cipher.stream(), cipher.stream()
    encrypted = b"".join(encrypt(piece) for piece in pieces)
    plaintext = b"".join(pieces)
    assert len(encrypted) == len(plaintext)
    assert b"".join(decrypt(encrypted[start : start + size]) for start in range(0, len(encrypted), size)) == plaintext


def test_two_ciphers_encrypt_the_same_bytes_differently() -> None:
    assert len({FileCipher().stream()(b"the same bytes") for _ in range(3)} | {b"the same bytes"}) == 4
