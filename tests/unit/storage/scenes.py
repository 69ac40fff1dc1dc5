"""Journals, commands and files: the scenes of the tests of `storage`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay_agent.core.clock import Clock
from relay_agent.core.models import Status, Update
from relay_agent.storage.journal import Journal


def files_open_in(directory: Path) -> list[Path]:
    """Return the descriptors, as paths, of the files that this process has open in the directory; what ends meanwhile is elsewhere."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if path.readlink().is_relative_to(directory):
                found.append(path)
    return found


def unnamed_file(directory: Path) -> Path:
    """Return the only file without a name that this process has open in the directory."""
    (found,) = files_open_in(directory)
    return found


def pieces_of(data: bytes, size: int = 50_000) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Time:
    def __init__(self) -> None:
        self.now = NOW

    def clock(self) -> Clock:
        return Clock(now=lambda: self.now)


def admitted(journal: Journal, *ids: str) -> None:
    journal.admit([(command_id, f"raw of {command_id}", f"receipt of {command_id}") for command_id in ids])


def outcome(command_id: str, text: str = "told", **more: str) -> Update:
    return Update(command_id, Status.SUCCESS, text, **more)


def states(journal: Journal) -> dict[str, int]:
    return {state: count for state, count in journal.counts().items() if count}


def forget(journal: Journal, time: Time, command_id: str = "a", **passes: float) -> None:
    """Answer a command, let time pass, and prune."""
    journal.acked([command_id])
    journal.finish(outcome(command_id))
    journal.deliver([command_id])
    time.now += timedelta(**passes)
    journal.retention.prune()
