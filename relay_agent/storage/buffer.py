"""A body that is kept in memory while it is small, and in a file beyond that."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from relay_agent.storage.file_cipher import FileCipher

IN_MEMORY = 64 * 1024
"""Bytes of a body under way that are kept in memory; what follows goes to a file."""


_CHUNK = 16 * 1024


class Buffer:
    """A body under way: its beginning in memory, the rest in an unnamed file, under a key that only memory has.

    What a secure command says is never on the disk in the clear, and of another body nothing either.
    """

    def __init__(self, directory: Path | None, *, without_disk: bool = False) -> None:
        """Write to a file in `directory`; `without_disk` keeps in memory what the disk does not take."""
        self._directory = directory
        self._without_disk = without_disk
        self._head: list[bytes] = []
        self._file: _Unnamed | None = None
        self._tail: list[bytes] = []
        self._size = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def write(self, data: bytes) -> None:
        """Add to the end.

        Raises:
            OSError: the disk does not take it.
        """
        self._size += len(data)
        if self._size <= IN_MEMORY:
            self._head.append(data)
        elif self._tail:
            self._tail.append(data)
        else:
            self._store(data)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, in pieces of at most 64 KiB.

        Raises:
            OSError: the disk does not give what it took.
            ValueError: it was closed.
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
                self._file = _Unnamed(self._directory)
            self._file.write(data)
        except OSError:
            if not self._without_disk:
                raise
            taken = 0 if self._file is None else self._file.size - before
            self._tail.append(data[taken:])


class _Unnamed:
    """A file without a name, whose bytes are hidden."""

    def __init__(self, directory: Path | None) -> None:
        self._file = tempfile.TemporaryFile(buffering=0, dir=directory)  # noqa: SIM115 - closed by close()
        self._veil = FileCipher()
        self._hide = self._veil.stream()
        self.size = 0

    def write(self, data: bytes) -> None:
        hidden = memoryview(self._hide(data))
        while hidden:
            written = self._file.write(hidden)
            self.size += written
            hidden = hidden[written:]

    def chunks(self) -> Iterator[bytes]:
        self._file.seek(0)
        return map(self._veil.stream(), _exactly(self._file, self.size))

    def close(self) -> None:
        self._file.close()


class Filed:
    """The content of a file that stays where it is."""

    def __init__(self, path: Path) -> None:
        """Look at the file.

        Raises:
            OSError: there is none.
        """
        self.size = path.stat().st_size
        self._path = path

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, in pieces of at most 64 KiB.

        Raises:
            OSError: the disk does not give them all.
        """
        with self._path.open("rb") as file:
            yield from _exactly(file, self.size)

    def close(self) -> None:
        """Do nothing: each reading closes what it opened."""


def _bounded(pieces: list[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), _CHUNK):
            yield piece[start : start + _CHUNK]


def _exactly(file: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        data = file.read(min(_CHUNK, left))
        if not data:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        left -= len(data)
        yield data
