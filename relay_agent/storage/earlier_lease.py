"""Remembers the longest lease of earlier runs whose messages may still be in the queue: for that long SQS may hide such a message.

This module owns the file that says so. If the lease was shortened, an earlier run may have hidden such a message for longer than a lease
of this run. It must not decide what follows from that: `ownership` does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

FILE_NAME = "lease"
LONGEST_SECONDS = 43_200
"""SQS's longest visibility timeout: a file that says more is damaged."""


def earlier_lease(directory: Path, seconds: int, *, unsettled: bool) -> int:
    """Record the lease of this run, and return the longest since the file was last begun anew, in seconds; at least `seconds`.

    `unsettled`: whether the journal has messages of earlier runs that may still be in the queue. If not, the record starts again with
    this run's lease. On a disk that cannot be written it stays as it is.
    """
    path = directory / FILE_NAME
    recorded = _recorded(path)
    longest = max(recorded, seconds) if unsettled else seconds
    if longest != recorded:
        _record(path, longest)
    return longest


def _recorded(path: Path) -> int:
    try:
        seconds = int(path.read_bytes())
    except (OSError, ValueError):
        return 0
    return seconds if 0 < seconds <= LONGEST_SECONDS else 0


def _record(path: Path, seconds: int) -> None:
    fresh = path.with_name(f"{FILE_NAME}.new")
    with contextlib.suppress(OSError):
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"{seconds}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
