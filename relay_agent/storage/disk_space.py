"""Space on the disk of the state directory, and a reserve for when it is full.

This module owns the measurements and the file `reserve`. It must not know what the space is used for.

An admitted command needs space until its outcome is delivered. So the agent reserves some in a file, and removes that when the disk
is full: admitted commands can be finished, and no new one is admitted until the reserve could be made again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

from relay_agent.core.failures import Obstacle
from relay_agent.storage.disk_faults import space_obstacle
from relay_agent.storage.state_directory import JOURNAL, SPOOL

RESERVE_BYTES = 8 * 1024 * 1024
"""Enough for a thousand commands with small answers; on a disk smaller than 64 MiB an eighth of it is reserved."""
BACKLOG_BYTES = 4_000_000_000
"""How much may wait in the state directory for the platform before no new command is admitted."""


class Disk:
    """The disk of one state directory. One thread calls `look`; any thread may call the rest."""

    def __init__(self, directory: Path, *, reserve_bytes: int = RESERVE_BYTES, backlog_bytes: int = BACKLOG_BYTES) -> None:
        self._directory = directory
        self._path = directory / "reserve"
        self.backlog_bytes = backlog_bytes
        self._lock = threading.Lock()
        self._size = _reserve_size(directory, reserve_bytes)
        self._reserved = _has_reserve(self._path)
        self._almost_full = False
        self._read_only = False
        self.backlog = False
        """Whether more than `backlog_bytes` wait for the platform."""

    @property
    def obstacle(self) -> Obstacle | None:
        """Why no command may be admitted; None if there is space."""
        return space_obstacle(read_only=self._read_only, full=not self._reserved, almost_full=self._almost_full)

    def make_room(self) -> bool:
        """Free the reserve; return whether there was one."""
        with self._lock:
            if not self._reserved:
                return False
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._reserved = False
            return True

    def look(self) -> None:
        """Measure the disk, and make the reserve again if it is missing and there is space for twice as much."""
        try:
            self._read_only = is_read_only(self._directory)
            free = shutil.disk_usage(self._directory).free
            # Two thresholds, so that the verdict does not change with each commit.
            self._almost_full = free < (2 * self._size if self._almost_full else self._size) and self._reserved
            self.backlog = self.used() > self.backlog_bytes
        except OSError:
            return  # The next commit reports what is wrong with the disk.
        if not self._reserved and free >= 2 * self._size:
            self._reserve()
        elif free < self._size // 4:
            self.make_room()  # The next commit would too; but an answer may come first, and needs the space.

    def _reserve(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            except OSError:
                self._path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
            self._reserved = True

    def used(self) -> int:
        """Return the bytes of the journal and the spool; a journal set aside does not count."""
        # Not by pathlib, which costs several times as much: this is asked every second.
        used = 0
        for name in (JOURNAL, f"{JOURNAL}-wal"):
            with contextlib.suppress(FileNotFoundError):
                used += os.stat(self._directory / name).st_size  # noqa: PTH116
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory / SPOOL) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    used += file.stat().st_size if file.is_file() else 0
        return used


def obstacle_seen(directory: Path, there: Path, *, reserve_bytes: int = RESERVE_BYTES) -> Obstacle | None:
    """Return why an agent with this state directory would admit no command, as seen from another process; None if it would.

    `there` is the part of the directory's path that exists.

    Raises:
        OSError: the disk cannot be measured.
    """
    # A running agent may call its disk almost full a little longer: `Disk.look` has two thresholds.
    free, size = shutil.disk_usage(there).free, _reserve_size(there, reserve_bytes)
    reserved = _has_reserve(directory / "reserve")
    return space_obstacle(read_only=is_read_only(there), full=not reserved and free < 2 * size, almost_full=free < size)


def _reserve_size(directory: Path, reserve_bytes: int) -> int:
    return min(reserve_bytes, shutil.disk_usage(directory).total // 8)


def _has_reserve(reserve: Path) -> bool:
    return reserve.exists() and reserve.stat().st_size > 0


def is_read_only(directory: Path) -> bool:
    """Return whether the file system of this directory is mounted read-only."""
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
