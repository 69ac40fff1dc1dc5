"""The state directory: private to the agent's user, and locked by one agent at a time.

This module owns the directory, its lock and the names in it. It must not know what the files hold.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from relay_agent.core.errors import ConfigurationError, Mistake, StateDirectoryBusy
from relay_agent.core.failures import StorageTrouble
from relay_agent.storage import commit_counter
from relay_agent.storage.disk_faults import trouble_of

JOURNAL = "journal.db"
SPOOL = "spool"
SOCKET = "admin.sock"
LOCK = "agent.lock"
"""The names in a state directory, for who looks at one from outside."""


class StateDirectory:
    """An open state directory. The lock ends with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        """Create the directory if it is missing, and take its lock.

        Raises:
            ConfigurationError: it cannot be created or written.
            StateDirectoryBusy: another agent holds the lock.
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_uid == os.getuid():
                path.chmod(0o700)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            full = trouble_of(error) is StorageTrouble.FULL
            cure = "; free space on its disk, or set another directory" if full else _cure(self._unwritable(path))
            raise ConfigurationError(Mistake("RELAY_STATE_DIR", f"cannot write {path} ({error.strerror}){cure}")) from None
        self._check_files()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StateDirectoryBusy(
                f"another agent is running on {path}; stop it, or set RELAY_STATE_DIR to a directory of its own for this agent", str(path)
            ) from None

    @staticmethod
    def _unwritable(path: Path) -> Path:
        """Return what cannot be written: the lock's file if it exists and is another user's, else the directory."""
        lock = path / LOCK
        try:
            return lock if lock.exists() and not os.access(lock, os.R_OK | os.W_OK) else path
        except OSError:
            return path

    def _check_files(self) -> None:
        """Raise ConfigurationError for files that an earlier run left as another user."""
        unwritable = _unwritable_files(self.path)
        if unwritable:
            os.close(self._lock)
            raise ConfigurationError(*(Mistake("RELAY_STATE_DIR", f"cannot write {path}{_cure(path)}") for path in unwritable))

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.path / JOURNAL

    @property
    def spool(self) -> Path:
        """The directory of answers waiting for their upload."""
        return self.path / SPOOL

    @property
    def socket(self) -> Path:
        """The socket on which the admin pages are served to this machine."""
        return self.path / SOCKET

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)


def obstacle(path: Path) -> tuple[Path, str] | None:
    """Return the path that the agent's user may not write, and the cure; None if there is none. Nothing is changed.

    Raises:
        OSError: the path cannot be examined for another reason than permissions.
    """
    # The agent creates a missing directory, so only the nearest existing parent counts.
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        return nearest, "; it is not a directory"
    unwritable = [nearest] if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK) else []
    if nearest == path and not unwritable:
        unwritable = _unwritable_files(path)
    return (unwritable[0], _cure(unwritable[0])) if unwritable else None


def held(path: Path) -> bool:
    """Return whether an agent holds the directory's lock, from /proc/locks (proc(5)), without touching the lock."""
    try:
        lock = (path / LOCK).stat()
        lines = Path("/proc/locks").read_bytes().decode("ascii", "replace").splitlines()
    except OSError:
        return False
    where = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    return any(fields[1:2] == ["FLOCK"] and where in fields for fields in map(str.split, lines))


def _unwritable_files(path: Path) -> list[Path]:
    """Return the files that an earlier run left there as another user."""
    names = (JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm", "reserve", commit_counter.FILE_NAME, SPOOL, LOCK)
    return [place for place in (path / name for name in names) if place.exists() and not os.access(place, os.R_OK | os.W_OK)]


def _cure(path: Path) -> str:
    """Return what to do about a path that the agent's user may not write."""
    while not path.exists() and path != path.parent:
        path = path.parent
    owner, ours = path.stat().st_uid, os.getuid()
    if owner != ours:
        return f"; {path} belongs to user {owner}, and the agent runs as user {ours}: change its owner (chown -R {ours})"
    return "; set a directory that the agent's user may write, on a disk that is not read-only"
