"""The environment of a soak: mounts of its own, so that the disk can fill and a name can vanish without affecting anybody else.

The mount namespace, the small disk, and the files that replace DNS; all of it ends with the process. If the system permits no mounts,
the state is in an ordinary directory and the platform has an address: then no disk fills and no name vanishes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

NAME = "platform.soak.test"
INSIDE = "--inside"
_DISK = "24m"
_HOSTS = "127.0.0.1 localhost\n"
# Nobody listens there: names missing from the hosts file fail at once, and no packet leaves the machine.
_RESOLVER = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"


def enter(arguments: list[str]) -> None:
    """Begin again in a mount namespace of our own; return only where that is not possible."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return
    space = [unshare, "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*space, "true"], capture_output=True, check=False).returncode == 0:
        os.execv(unshare, [*space, sys.executable, "-m", "tests.soak", *arguments, INSIDE])


class Ground:
    """A directory for the agent's state and a name for the platform; `notes` says what the system did not allow."""

    def __init__(self, directory: Path, own_mounts: bool) -> None:
        self.disk = directory / "disk"
        self.notes: list[str] = []
        self._hosts = directory / "hosts"
        self._filler = self.disk / "filler"
        shutil.rmtree(self.disk, ignore_errors=True)
        self.disk.mkdir(parents=True)
        self.has_disk = own_mounts and _mount("-t", "tmpfs", "-o", f"size={_DISK}", "soak", str(self.disk))
        if not self.has_disk:
            self.notes.append("no disk of our own can be mounted here: it does not fill")
        self.has_name = own_mounts and self._take_names(directory)
        if not self.has_name:
            self.notes.append("names cannot be taken over here: DNS does not go")

    @property
    def host(self) -> str:
        """The platform's host as the agent knows it."""
        return NAME if self.has_name else "127.0.0.1"

    def close(self) -> None:
        """Unmount what was mounted; the namespace's end would do it too."""
        if self.has_name:
            _unmount("/etc/hosts")
            _unmount("/etc/resolv.conf")
        if self.has_disk:
            _unmount(str(self.disk))

    def fill(self) -> None:
        """Fill the disk to the last block."""
        if not self.has_disk:
            return
        with self._filler.open("ab", buffering=0) as filler:
            for block in (1 << 20, 1 << 16, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(block))

    def free(self) -> None:
        """Free what the filler took."""
        self._filler.unlink(missing_ok=True)

    def forget_name(self) -> None:
        """Let the platform's name not be found."""
        if self.has_name:
            self._hosts.write_text(_HOSTS)

    def recall_name(self) -> None:
        """Let it be found again."""
        if self.has_name:
            self._hosts.write_text(f"{_HOSTS}127.0.0.1 {NAME}\n")

    def _take_names(self, directory: Path) -> bool:
        resolver = directory / "resolv.conf"
        resolver.write_text(_RESOLVER)
        self._hosts.write_text(f"{_HOSTS}127.0.0.1 {NAME}\n")
        if not _mount("--bind", str(resolver), "/etc/resolv.conf"):
            return False
        if _mount("--bind", str(self._hosts), "/etc/hosts") and _resolves(NAME):
            return True
        _unmount("/etc/resolv.conf")
        return False


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, 80))
    except OSError:
        return False


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def _unmount(path: str) -> None:
    subprocess.run(["umount", "--lazy", path], capture_output=True, check=False)
