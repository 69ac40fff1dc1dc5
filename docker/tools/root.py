"""The directory that becomes the image's root: files are copied into it from this system, written and linked.

Runs inside the build, with the standard library only. It must not decide what is taken: that is rootfs.py's.
"""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path


class Root:
    """The directory that becomes the image's root. `taken` are the files that came from this system: they lie at the same path here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: set[Path] = set()
        path.mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib32", "lib64"):
            if (there := Path("/", name)).is_symlink():
                (path / name).symlink_to(os.readlink(there))
                (path / "usr" / name).mkdir(parents=True, exist_ok=True)

    def at(self, path: str | Path) -> Path:
        """Where a path of the image lies now, its directories followed as the image follows them."""
        return self.path / str(placed(path)).lstrip("/")

    def take(self, path: str | Path) -> None:
        """Copy a file; of a link, what it points to as well."""
        source = placed(path)
        target = self.at(source)
        if target.exists() or target.is_symlink():
            return
        self.taken.add(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
            if not source.is_dir():
                self.take(source.parent / os.readlink(source))
        else:
            # Not with its attributes: a capability of the file forbids its execution where no process may have one.
            shutil.copyfile(source, target)
            shutil.copymode(source, target)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file."""
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    def link(self, path: str, to: str) -> None:
        """Make a link, where nothing is."""
        target = self.at(path)
        if not (target.exists() or target.is_symlink()):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(to)


def placed(path: str | Path) -> Path:
    """Return the real place of a path: links among its directories are followed, but not the path itself (/lib is in /usr/lib)."""
    return resolved(Path(path).parent) / Path(path).name


@functools.cache
def resolved(directory: Path) -> Path:
    """A directory, its links followed."""
    return directory.resolve()
