"""The state directory: made private, held by one agent at a time.

This room owns the directory and its lock. It must not know what the files in it say.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from relay_agent.errors import ConfigurationError, StateDirectoryBusy


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
            raise ConfigurationError([f"RELAY_STATE_DIR: cannot write {path} ({error.strerror}){_whose(self._closed(path))}"]) from None
        self._check_files()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StateDirectoryBusy(
                f"another agent is running on {path}; stop it, or give this one a directory of its own with RELAY_STATE_DIR"
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
        log = [self.journal.with_name(f"{self.journal.name}{ending}") for ending in ("-wal", "-shm")]
        log += [self.path / "reserve", self.path / "journal.witness"]
        closed = [path for path in (self.journal, *log, self.spool) if path.exists() and not os.access(path, os.R_OK | os.W_OK)]
        if closed:
            os.close(self._lock)
            raise ConfigurationError([f"RELAY_STATE_DIR: cannot write {path}{_whose(path)}" for path in closed])

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


def _whose(path: Path) -> str:
    """What to do about a path that the agent may not write, by whose it is."""
    while not path.exists() and path != path.parent:
        path = path.parent
    owner, ours = path.stat().st_uid, os.getuid()
    if owner != ours:
        return f"; {path} belongs to user {owner}, and the agent runs as user {ours}: give it to that user (chown -R {ours})"
    return "; give a directory that the agent's user may write, on a disk that is not read-only"
