"""Bytes too large for memory: bodies of requests and responses under way, answers until they are uploaded.

This room owns the files in `spool/`, those without a name too. It must not know what the bytes mean.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

from relay_agent.models import Body
from relay_agent.secure import Veil

IN_MEMORY = 64 * 1024
"""Bytes of a body under way that are kept in memory; what follows goes to a file."""
_CHUNK = 16 * 1024


def file_name(unique: str, ending: str) -> str:
    """A name for a file here, from an id."""
    return re.sub(r"[^A-Za-z0-9-]", "", unique) + ending


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
        self._veil = Veil()
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

    def keep(self, pieces: Iterable[bytes], limit: int, name: str) -> bytes | None:
        """Keep what is fetched until its command runs: as bytes while they are at most `limit`, else in the file `name`; then None.

        After a crash that file is an orphan, and its content is fetched again.

        Raises:
            OSError: the disk does not take it.
        """
        whole, rest = _gathered(pieces, limit)
        if rest is None:
            return b"".join(whole)
        path = self.path(name)
        try:
            with path.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.writelines(chain(whole, rest))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return None

    def text(self, name: str) -> str:
        """What was kept, as text.

        Raises:
            OSError: the disk does not give it.
            UnicodeDecodeError: it is not UTF-8.
        """
        with self.path(name).open(encoding="utf-8", newline="") as file:
            return file.read()

    def hold(self, pieces: Iterable[bytes]) -> Body:
        """Hold a request's body: as bytes while it is small, else where it takes no memory. Whoever asks for it closes it."""
        whole, rest = _gathered(pieces, IN_MEMORY)
        if rest is None:
            return b"".join(whole)
        held = Buffer(self.directory, without_disk=True)
        try:
            for piece in chain(whole, rest):
                held.write(piece)
        except BaseException:
            held.close()
            raise
        return held

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


def _gathered(pieces: Iterable[bytes], limit: int) -> tuple[list[bytes], Iterator[bytes] | None]:
    """The pieces, and None; or those until there are more than `limit` bytes, and the rest."""
    gathered: list[bytes] = []
    size = 0
    rest = iter(pieces)
    for piece in rest:
        gathered.append(piece)
        size += len(piece)
        if size > limit:
            return gathered, rest
    return gathered, None
