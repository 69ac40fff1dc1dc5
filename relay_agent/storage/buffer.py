"""A body as a stream of bytes: in memory, in an encrypted temporary file, or in a file that exists.

This module owns where a body's bytes are while it is read or sent. It must not know what they mean.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from relay_agent.storage.file_cipher import FileCipher

IN_MEMORY = 64 * 1024
"""Bytes of a body that are kept in memory; the rest goes to a file."""
_CHUNK = 16 * 1024


class Buffer:
    """A body being received: its beginning in memory, the rest in an encrypted temporary file.

    So no body is on the disk unencrypted, in particular not that of a secure command.
    """

    def __init__(self, directory: Path | None, *, without_disk: bool = False) -> None:
        """Write to a file in `directory` (None: the system's); `without_disk`: keep the data in memory if the disk accepts no writes."""
        self._directory = directory
        self._without_disk = without_disk
        self._head: list[bytes] = []
        self._file: _EncryptedFile | None = None
        self._tail: list[bytes] = []
        self._size = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def write(self, data: bytes) -> None:
        """Append the bytes.

        Raises:
            OSError: the disk refuses them.
        """
        self._size += len(data)
        if self._size <= IN_MEMORY:
            self._head.append(data)
        elif self._tail:
            self._tail.append(data)
        else:
            self._store(data)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, in pieces of at most 16 KiB.

        Raises:
            OSError: the file cannot be read.
            ValueError: the buffer is closed.
        """
        if self._closed:
            raise ValueError("the buffer is closed")
        yield from _bounded(self._head)
        if self._file is not None:
            yield from self._file.chunks()
        yield from _bounded(self._tail)

    def close(self) -> None:
        """Free the memory and the file."""
        self._closed = True
        self._head.clear()
        self._tail.clear()
        if self._file is not None:
            self._file.close()

    def _store(self, data: bytes) -> None:
        before = 0 if self._file is None else self._file.size
        try:
            if self._file is None:
                self._file = _EncryptedFile(self._directory)
            self._file.write(data)
        except OSError:
            if not self._without_disk:
                raise
            written = 0 if self._file is None else self._file.size - before
            self._tail.append(data[written:])


class _EncryptedFile:
    """A temporary file without a name, encrypted."""

    def __init__(self, directory: Path | None) -> None:
        self._file = tempfile.TemporaryFile(buffering=0, dir=directory)  # noqa: SIM115 - closed by close()
        self._cipher = FileCipher()
        self._encrypt = self._cipher.stream()
        self.size = 0

    def write(self, data: bytes) -> None:
        rest = memoryview(self._encrypt(data))
        while rest:
            written = self._file.write(rest)
            self.size += written
            rest = rest[written:]

    def chunks(self) -> Iterator[bytes]:
        self._file.seek(0)
        return map(self._cipher.stream(), _exactly(self._file, self.size))

    def close(self) -> None:
        self._file.close()


class Filed:
    """The content of an existing file."""

    def __init__(self, path: Path) -> None:
        """Take the file's size.

        Raises:
            OSError: there is no such file.
        """
        self.size = path.stat().st_size
        self._path = path

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, in pieces of at most 16 KiB.

        Raises:
            OSError: the file cannot be read, or is shorter than it was.
        """
        with self._path.open("rb") as file:
            yield from _exactly(file, self.size)

    def close(self) -> None:
        """Do nothing: `chunks` closes the file."""


def _bounded(pieces: list[bytes]) -> Iterator[bytes]:
    """Yield the bytes in pieces of at most `_CHUNK`."""
    for piece in pieces:
        for start in range(0, len(piece), _CHUNK):
            yield piece[start : start + _CHUNK]


def _exactly(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield `size` bytes of the file, or raise EIO."""
    left = size
    while left:
        data = file.read(min(_CHUNK, left))
        if not data:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        left -= len(data)
        yield data
