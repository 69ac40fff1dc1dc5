"""Whether files are as delivered: the image's against its manifest, those of an installed package against its RECORD.

Owns both forms. It must not decide what a difference means. The image has no RECORD: its manifest lists every file, bytecode too.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

MANIFEST = Path("/usr/share/relay-agent/manifest.sha256")
"""In the image: a line `<SHA-256>  <path from the root>` for every other file, as `sha256sum -c` reads it (docker/tools/rootfs.py)."""
PROGRAM = "opt/relay-agent"
"""Where the image has the program: a file there that is not listed is a difference."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Comparison:
    """Files compared with a list of checksums."""

    compared: int
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return self.compared > 0 and not (self.changed or self.missing or self.unlisted)

    def __str__(self) -> str:
        if self.same:
            return f"{self.compared:,} files, all with the listed SHA-256"
        kinds = (("changed", self.changed), ("missing or unreadable", self.missing), ("not listed", self.unlisted))
        listed = [
            f"{len(paths)} {kind}: {', '.join(paths[:_SHOWN])}{' …' if len(paths) > _SHOWN else ''}" for kind, paths in kinds if paths
        ]
        return "; ".join([f"{self.compared:,} files compared", *listed])


def compare_with_manifest(manifest: Path = MANIFEST, root: Path = Path("/")) -> Comparison:
    """Compare every file that the image's manifest lists.

    Raises:
        OSError: the manifest cannot be read.
    """
    listed = [(line[66:], line[:64]) for line in manifest.read_text(encoding="utf-8").splitlines() if line]
    known = {root / path for path, _ in listed}
    there = (path for path in (root / PROGRAM).rglob("*") if path.is_file() and not path.is_symlink())
    unlisted = sorted(str(path.relative_to(root)) for path in there if path not in known)
    return _compared(((path, root / path, digest) for path, digest in listed), unlisted)


def compare_with_record(distribution: Distribution) -> Comparison | None:
    """Compare every file of an installed package with its RECORD; None if it has none, or is installed from a directory of sources."""
    files = distribution.files
    if not files or is_editable(distribution) or distribution.read_text("RECORD") is None:
        return None
    hashed = [file for file in files if file.hash is not None and file.hash.mode == "sha256"]
    known = {PurePosixPath(file) for file in hashed}
    packages = {file.parts[0] for file in hashed if file.suffix == ".py" and len(file.parts) > 1}
    base = Path(str(distribution.locate_file("")))
    there = (path.relative_to(base) for package in packages for path in (base / package).rglob("*.py"))
    unlisted = sorted(str(path) for path in there if PurePosixPath(path.as_posix()) not in known)
    wanted = ((str(file), Path(str(file.locate())), _hex(file.hash.value)) for file in hashed if file.hash is not None)
    return _compared(wanted, unlisted)


def is_editable(distribution: Distribution) -> bool:
    """Whether the package is installed from a directory of sources, which has no checksums (PEP 610)."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(isinstance(origin, dict) and isinstance(origin.get("dir_info"), dict) and origin["dir_info"].get("editable"))


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compared(listed: Iterable[tuple[str, Path, str]], unlisted: list[str]) -> Comparison:
    changed, missing, count = [], [], 0
    for name, path, digest in listed:
        count += 1
        try:
            if sha256_of(path) != digest:
                changed.append(name)
        except OSError:
            missing.append(name)
    return Comparison(count, tuple(changed), tuple(missing), tuple(unlisted))


def _hex(value: str) -> str:
    """Return a RECORD's digest, base64 without padding, as hex."""
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
