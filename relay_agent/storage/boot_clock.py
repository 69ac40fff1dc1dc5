"""A clock for the ends of leases that the journal keeps: across restarts of the agent, and whatever the time of day is set to.

This module owns the file that says when the machine was started. It must not decide what a lease's end means: `ownership` does.

CLOCK_BOOTTIME cannot be set, but starts from zero when the machine boots. The file holds the offset from CLOCK_BOOTTIME to Unix time,
measured when the agent first looked, and the kernel's id of this boot. After a restart of the machine the offset is measured again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from relay_agent.core.clock import Clock, from_timestamp

FILE_NAME = "boot"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_boot() -> str:
    """Return the kernel's id of this boot; empty if it has none."""
    try:
        return _BOOT_ID.read_bytes().decode("ascii", "replace").strip()
    except OSError:
        return ""


def settled(clock: Clock, directory: Path, boot: Callable[[], str] = this_boot) -> Clock:
    """Return the clock with a `now` that stays in step with `boottime` until the machine restarts.

    Without an id of the boot, or if the file cannot be written, it does so until the agent restarts.
    """
    began, path = boot(), directory / FILE_NAME
    offset = _recorded(path, began) if began else None
    if offset is None:
        offset = clock.now().timestamp() - clock.boottime()
        if began:
            _record(path, began, offset)
    seconds = offset
    return replace(clock, now=lambda: from_timestamp(clock.boottime() + seconds))


def _recorded(path: Path, boot: str) -> float | None:
    """Return what the file says of this boot; None if it says nothing of it."""
    try:
        found = json.loads(path.read_bytes())
        return float(found["offset_seconds"]) if found["boot"] == boot else None
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        return None


def _record(path: Path, boot: str, offset: float) -> None:
    fresh = path.with_name(f"{FILE_NAME}.new")
    with contextlib.suppress(OSError):
        # Not forced to the disk: after a power cut it is another boot.
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump({"boot": boot, "offset_seconds": offset}, file)
        fresh.replace(path)
