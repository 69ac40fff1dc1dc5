"""The directory `spool/`, for bytes too large for memory: fetched bodies, and answers until they are uploaded.

This module owns the files in it. It must not know what the bytes mean.
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
    """Return the name of a spool file: the id without unsafe characters, and the ending."""
    return re.sub(r"[^A-Za-z0-9-]", "", unique) + ending


@dataclass(frozen=True, slots=True)
class Spooled:
    """An answer as it is uploaded: the name of a gzip file in the spool, and its size in bytes."""

    name: str
    size: int


class Spool:
    """The spool's directory, created if it is missing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def store(self, pieces: Iterable[str], limit: int, name: str) -> str | Spooled:
        """Return the whole text if it is at most `limit` bytes of UTF-8, else write it to the gzip file `name`, which is then durable.

        Raises:
            OSError: the disk refuses the file.
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
        """Return the bytes if they are at most `limit`, else write them to the file `name` and return None.

        Raises:
            OSError: the disk refuses the file.
        """
        # Not durable: after a crash the file is an orphan, and its content is fetched again.
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
        """Return the text that `keep` wrote to the file `name`.

        Raises:
            OSError: the file cannot be read.
            UnicodeDecodeError: it is not UTF-8.
        """
        with self.path(name).open(encoding="utf-8", newline="") as file:
            return file.read()

    def hold(self, pieces: Iterable[bytes]) -> Body:
        """Return a request's body: bytes if it is small, else a `Buffer`, which the caller must close."""
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
        """Return the path of the file `name`."""
        return self.directory / name

    def remove(self, name: str) -> None:
        """Remove the file `name`, if there is one."""
        self.path(name).unlink(missing_ok=True)

    def remove_orphans(self, known: set[str]) -> int:
        """Remove every file whose name is not in `known`, and return how many there were."""
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
            # mtime=0, so that the same answer always gives the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=1) as packed:
                for piece in head:
                    packed.write(piece.encode("utf-8"))
                head.clear()
                for piece in rest:
                    packed.write(piece.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def _fsync_directory(self) -> None:
        """Make the file's name durable too: after a power cut, a row of the journal that names it must find it."""
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _gathered(pieces: Iterable[bytes], limit: int) -> tuple[list[bytes], Iterator[bytes] | None]:
    """Return all pieces and None; or, if they exceed `limit` bytes, those up to there and an iterator over the rest."""
    gathered: list[bytes] = []
    size = 0
    rest = iter(pieces)
    for piece in rest:
        gathered.append(piece)
        size += len(piece)
        if size > limit:
            return gathered, rest
    return gathered, None
