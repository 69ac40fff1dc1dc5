"""Files that an administrator names: read only if they are regular ones, and read again only if they have changed.

Opening a named pipe waits until somebody writes to it, and a terminal or a device may never end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

Stamp = tuple[int, int, int, int]
"""What changes whenever a file does. The time of its last change of state is part of it, since every program may set the others."""


def stamp(found: os.stat_result) -> Stamp:
    """Return what changes whenever a file does, from what `stat` found of it."""
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns


def file_size(found: Stamp) -> int:
    """Return the size in bytes of the file that a stamp is of."""
    return found[1]


def read_regular(path: Path, most: int = -1) -> bytes:
    """Return the first `most` bytes of a regular file, or all of it; symbolic links are followed.

    Raises:
        OSError: it cannot be read, or it is a directory, a pipe, a socket or a device.
        ValueError: the path contains a NUL character.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read(most)


def check_regular(path: Path) -> None:
    """Check that a file is one that `read_regular` reads.

    Raises:
        OSError: it is not.
        ValueError: the path contains a NUL character.
    """
    read_regular(path, 0)


@contextlib.contextmanager
def as_file(content: bytes) -> Iterator[str]:
    """Give the path of a file with this content, which is in memory and ends with the block: for libraries that read only files.

    Raises:
        OSError: the system gives no file descriptor.
    """
    if not hasattr(os, "memfd_create"):  # Only Linux has it.
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
        return
    with open(_in_memory(), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


_NOEXEC_SEAL = 0x8
"""MFD_NOEXEC_SEAL, without which a hardened system (vm.memfd_noexec=2) refuses; Linux before 6.3 does not know it."""


def _in_memory() -> int:
    try:
        return os.memfd_create("pem", os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("pem", os.MFD_CLOEXEC)


def how_to_allow(path: Path, error: OSError, *, secret: bool = False) -> str:
    """Return how to let this process's user read a file, as the continuation of a message; empty if its permissions are not the cause."""
    if not isinstance(error, PermissionError):
        return ""
    user = os.getuid()
    closed = next((parent for parent in reversed(path.absolute().parents) if not os.access(parent, os.X_OK)), None)
    if closed is not None:
        return f"; let user {user} enter its directory: chmod a+x {closed}"
    way = f"chown {user} {path}; chmod 0400 {path}" if secret else f"chmod 0644 {path}"
    return f"; let user {user} read it: {way}"


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
