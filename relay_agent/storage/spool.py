"""Bytes too large for memory: bodies of requests and responses under way, answers until they are uploaded.

This room owns the files in `spool/`, those without a name too. It must not know what the bytes mean.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from relay_agent.core.models import Body
from relay_agent.storage.buffer import IN_MEMORY, Buffer


def file_name(unique: str, ending: str) -> str:
    """A name for a file here, from an id."""
    return re.sub(r"[^A-Za-z0-9-]", "", unique) + ending


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
