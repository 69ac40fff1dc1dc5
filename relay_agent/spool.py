"""Bytes too large for memory: responses while they are read, answers until they are uploaded.

This room owns the files in `spool/`. It must not know what the bytes mean.
"""

from __future__ import annotations

import gzip
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

IN_MEMORY = 1024 * 1024
"""Bytes of a response that are kept in memory; what is larger goes to a file."""
_CHUNK = 64 * 1024


def file_name(unique: str, ending: str) -> str:
    """A name for a file here, from an id."""
    return re.sub(r"[^A-Za-z0-9-]", "", unique) + ending


class Buffer:
    """A response's content while it is read: in memory up to 1 MiB, then in an unnamed file."""

    def __init__(self, directory: Path | None) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=None if directory is None else str(directory))  # noqa: SIM115 - closed by close()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def write(self, data: bytes) -> None:
        """Add to the end."""
        self._file.write(data)
        self._size += len(data)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, in pieces of at most 64 KiB."""
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            yield data

    def close(self) -> None:
        """Free the memory or the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Spooled:
    """An answer in the form in which it is uploaded: a gzip file beside the journal."""

    name: str
    size: int


class Spool:
    """The directory of answers that wait for their upload."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def store(self, pieces: Iterable[str], limit: int, name: str) -> str | Spooled:
        """Gather pieces of text: the whole as a string while it is at most `limit` bytes of UTF-8, else a gzip file `name`.

        The file is complete and on the disk when this returns.
        """
        gathered: list[str] = []
        size = 0
        rest = iter(pieces)
        for piece in rest:
            gathered.append(piece)
            size += len(piece) if piece.isascii() else len(piece.encode("utf-8"))
            if size > limit:
                return self._file(gathered, rest, name)
        return "".join(gathered)

    def keep(self, data: bytes, name: str) -> str:
        """Keep a fetched body until its command runs; after a crash it is an orphan, and is fetched again."""
        path = self.path(name)
        with path.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
        return name

    def path(self, name: str) -> Path:
        """Where the file of that name lies."""
        return self.directory / name

    def remove(self, name: str) -> None:
        """Remove a file whose answer was delivered."""
        self.path(name).unlink(missing_ok=True)

    def remove_orphans(self, known: set[str]) -> int:
        """Remove every file that no answer names; the number removed."""
        orphans = [path for path in self.directory.iterdir() if path.name not in known]
        for path in orphans:
            path.unlink(missing_ok=True)
        return len(orphans)

    def _file(self, head: list[str], rest: Iterator[str], name: str) -> Spooled:
        path = self.path(name)
        try:
            self._pack(path, head, rest)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._fsync_directory()
        return Spooled(name, path.stat().st_size)

    @staticmethod
    def _pack(path: Path, head: list[str], rest: Iterator[str]) -> None:
        with path.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            # mtime 0: the same answer gives the same bytes, however often it is written.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=1) as packed:
                for piece in head:
                    packed.write(piece.encode("utf-8"))
                head.clear()
                for piece in rest:
                    packed.write(piece.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def _fsync_directory(self) -> None:
        """Make the file's name durable too: a row that names a file must find it after a power cut."""
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
