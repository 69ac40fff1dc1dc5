"""The state directory: made private, held by one agent at a time.

This room owns the directory and its lock. It must not know what the files in it say.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from relay_agent.core.errors import ConfigurationError, Mistake, StateDirectoryBusy


class StateDirectory:
    """An open state directory. The lock goes with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        """Make the directory where it is missing, and take its lock.

        Raises:
            ConfigurationError: it cannot be made or written.
            StateDirectoryBusy: another agent has it.
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_uid == os.getuid():
                path.chmod(0o700)
            self._lock = os.open(path / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cure = "; free space on its disk, or set another directory" if full else _whose(self._closed(path))
            raise ConfigurationError(Mistake("RELAY_STATE_DIR", f"cannot write {path} ({error.strerror}){cure}")) from None
        self._check_files()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StateDirectoryBusy(
                f"another agent is running on {path}; stop it, or set RELAY_STATE_DIR to a directory of its own for this agent"
            ) from None

    @staticmethod
    def _closed(path: Path) -> Path:
        """What stands in the way: the lock's file where that is another user's, else the directory."""
        lock = path / "agent.lock"
        try:
            return lock if lock.exists() and not os.access(lock, os.R_OK | os.W_OK) else path
        except OSError:
            return path

    def _check_files(self) -> None:
        """Name what an earlier run left as another user, before anything trips over it."""
        closed = _closed_files(self.path)
        if closed:
            os.close(self._lock)
            raise ConfigurationError(*(Mistake("RELAY_STATE_DIR", f"cannot write {path}{_whose(path)}") for path in closed))

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.path / "journal.db"

    @property
    def spool(self) -> Path:
        """Where answers wait for their upload."""
        return self.path / "spool"

    @property
    def socket(self) -> Path:
        """Where the admin pages are served to this machine."""
        return self.path / "admin.sock"

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._lock)


def obstacle(path: Path) -> tuple[Path, str] | None:
    """What would keep an agent from working in this directory: the path, and what to do about it. Nothing is changed.

    Room on the disk is not looked at; a directory that is missing is one that the agent makes.

    Raises:
        OSError: something else than a missing right stands in the way.
    """
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        return nearest, "; it is not a directory"
    closed = [nearest] if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK) else []
    if nearest == path and not closed:
        closed = _closed_files(path)
    return (closed[0], _whose(closed[0])) if closed else None


def held(path: Path) -> bool:
    """Whether an agent holds the directory's lock, as the system lists it (proc(5), /proc/locks): the lock itself is not touched."""
    try:
        lock = (path / "agent.lock").stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    where = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    return any(fields[1:2] == ["FLOCK"] and where in fields for fields in map(str.split, lines))


def _closed_files(path: Path) -> list[Path]:
    """What an earlier run left there as another user."""
    names = ("journal.db", "journal.db-wal", "journal.db-shm", "reserve", "journal.witness", "spool", "agent.lock")
    return [place for place in (path / name for name in names) if place.exists() and not os.access(place, os.R_OK | os.W_OK)]


def _whose(path: Path) -> str:
    """What to do about a path that the agent may not write, by whose it is."""
    while not path.exists() and path != path.parent:
        path = path.parent
    owner, ours = path.stat().st_uid, os.getuid()
    if owner != ours:
        return f"; {path} belongs to user {owner}, and the agent runs as user {ours}: change its owner (chown -R {ours})"
    return "; set a directory that the agent's user may write, on a disk that is not read-only"
