"""Room on the disk of the state directory: what is kept back for a full one, and why nothing may be taken in.

This room owns the file `reserve` and the verdict. It must not know what the space is used for.

A command that was taken over needs room until its answer is told. So some is kept back in a file, which is removed when
the disk is full: what was admitted can be finished with it, and nothing new is taken in until it could be kept back again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

from relay_agent.core.failures import Obstacle, StorageTrouble

RESERVE_BYTES = 8 * 1024 * 1024
"""What a thousand commands with small answers need; an eighth of a disk that is smaller than 64 MiB."""
BACKLOG_BYTES = 4_000_000_000
"""What may wait in the state directory for the platform: beyond it nothing new is taken in."""


class Disk:
    """The disk under one state directory. `look` is one thread's; everything else may be called from any."""

    def __init__(self, directory: Path, *, reserve_bytes: int = RESERVE_BYTES, backlog_bytes: int = BACKLOG_BYTES) -> None:
        self._directory = directory
        self._path = directory / "reserve"
        self.backlog_bytes = backlog_bytes
        self._lock = threading.Lock()
        self._size = _least(directory, reserve_bytes)
        self._held = _kept_back(self._path)
        self._short = False
        self._read_only = False
        self.backlog = False
        """Whether more waits for the platform than is good for the disk."""

    @property
    def obstacle(self) -> Obstacle | None:
        """Why nothing may be taken in; None where there is room."""
        return _obstacle(read_only=self._read_only, full=not self._held, short=self._short)

    def make_room(self) -> bool:
        """Give up what was kept back; whether there was any."""
        with self._lock:
            if not self._held:
                return False
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._held = False
            return True

    def look(self) -> None:
        """See how much room there is, and keep some back where it is missing."""
        try:
            self._read_only = _is_read_only(self._directory)
            free = shutil.disk_usage(self._directory).free
            # A step apart, so that it does not go up and down with each commit.
            self._short = free < (2 * self._size if self._short else self._size) and self._held
            self.backlog = self.used() > self.backlog_bytes
        except OSError:
            return  # The next commit says what is wrong with the disk.
        if not self._held and free >= 2 * self._size:
            self._keep_back()

    def _keep_back(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            except OSError:
                self._path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
            self._held = True

    def used(self) -> int:
        """Bytes of what waits for the platform: the journal and the spool, but no journal that was set aside."""
        journal = [self._directory / "journal.db", self._directory / "journal.db-wal"]
        return sum(path.stat().st_size for path in (*journal, *(self._directory / "spool").glob("*")) if path.is_file())


def obstacle_seen(directory: Path, there: Path, *, reserve_bytes: int = RESERVE_BYTES) -> Obstacle | None:
    """Why an agent on this state directory takes nothing in, from outside; None where it does. `there` is the part of its path that exists.

    An agent at work may still say that its disk is almost full where it no longer is: its own verdict has a step.

    Raises:
        OSError: the disk does not say.
    """
    free, size = shutil.disk_usage(there).free, _least(there, reserve_bytes)
    held = _kept_back(directory / "reserve")
    return _obstacle(read_only=_is_read_only(there), full=not held and free < 2 * size, short=free < size)


def _obstacle(*, read_only: bool, full: bool, short: bool) -> Obstacle | None:
    if read_only:
        return Obstacle("the disk of the state directory is read-only", StorageTrouble.READ_ONLY)
    if full:
        return Obstacle("the disk of the state directory is full", StorageTrouble.FULL)
    return Obstacle("the disk of the state directory is almost full", StorageTrouble.FULL) if short else None


def _least(directory: Path, reserve_bytes: int) -> int:
    return min(reserve_bytes, shutil.disk_usage(directory).total // 8)


def _kept_back(reserve: Path) -> bool:
    return reserve.exists() and reserve.stat().st_size > 0


def _is_read_only(directory: Path) -> bool:
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
