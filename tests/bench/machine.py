"""What a result was measured on: without it a figure means nothing."""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("boto3", "requests", "urllib3")


def describe(place: Path) -> dict[str, str]:
    """Return the description; `place` is where journals lie. `load` is how busy the machine was before the bench began."""
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _output("git", "describe", "--always", "--dirty"),
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 1e6:.0f} GB",
        "load": load(),
        "system": f"{platform.system()} {platform.release()}",
        "disk": _output("df", "--output=fstype", str(place)).splitlines()[-1],
        "python": f"{platform.python_version()} ({sys.implementation.name}), SQLite {sqlite3.sqlite_version}, {ssl.OPENSSL_VERSION}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
    }


def load() -> str:
    """Return the load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


class Others:
    """How much of the machine's CPU other programs took while this one and its children ran: the first thing to doubt a figure by."""

    def __init__(self) -> None:
        self._busy, self._whole = _cpu_seconds()
        self._own = _own_cpu_seconds()

    def percent(self) -> float:
        """Return their part of all cores' time since the start; children that still run count as others."""
        busy, whole = _cpu_seconds()
        others = (busy - self._busy) - (_own_cpu_seconds() - self._own)
        return max(0.0, others / max(whole - self._whole, 1e-9) * 100)


def _cpu_seconds() -> tuple[float, float]:
    """CPU seconds that the machine was busy, and all that it had, idle ones included."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    ticks = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - fields[3] - fields[4]) / ticks, sum(fields) / ticks


def _own_cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _field(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown 0"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() or "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
