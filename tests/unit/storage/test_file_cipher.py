"""Spool files are encrypted with a key that only this process has."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.storage.buffer import Buffer
from relay_agent.storage.file_cipher import FileCipher
from relay_agent.storage.spool import Spool
from tests.unit.storage.scenes import pieces_of, unnamed_file


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


@pytest.mark.parametrize("of", ["a request", "a response"])
def test_nothing_of_a_body_is_on_the_disk_in_the_clear(tmp_path: Path, of: str) -> None:
    text = b"canary-7b1f " * 60_000
    spool = Spool(tmp_path)
    if of == "a request":
        buffer = spool.hold(pieces_of(text))
        assert isinstance(buffer, Buffer)
    else:
        buffer = Buffer(tmp_path)
        for piece in pieces_of(text):
            buffer.write(piece)
    stored = unnamed_file(tmp_path).read_bytes()
    assert len(stored) > len(text) / 2
    assert b"canary" not in stored
    assert b"".join(buffer.chunks()) == text
    buffer.close()
