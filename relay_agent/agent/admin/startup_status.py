"""What the pages show of an agent whose journal cannot be opened yet, because the disk takes nothing: `facts` before there are any.

This room owns that one state. It must not wait for the disk: the agent does, and says here what stands in its way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from relay_agent.agent.admin.status import RECENT_COMMANDS, Identity, to_the_second, told
from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalError
from relay_agent.core.failures import Obstacle
from relay_agent.diagnostics import command_history
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.command_history import Listed
from relay_agent.diagnostics.local_causes import journal_cause
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal_reader import Reader
from relay_agent.telemetry.throughput import MINUTES


class StartupStatus:
    """What is known before the journal is open. Any thread may ask; the main thread sets `obstacle`."""

    def __init__(
        self,
        *,
        identity: Identity,
        clock: Clock,
        disk: Disk,
        reader: Reader,
        workers: int,
        capacity: int,
        token_ends: Callable[[], datetime | None],
        log_lines: Callable[[], int],
    ) -> None:
        """`log_lines` is how many wait for their delivery."""
        self._identity = identity
        self._clock = clock
        self._disk = disk
        self._reader = reader
        self._workers = workers
        self._capacity = capacity
        self._token_ends = token_ends
        self._log_lines = log_lines
        self.obstacle = Obstacle("the journal is being opened")
        """What the disk says."""

    def live(self) -> list[Problem]:
        """Nothing: the agent waits, and a restart would change nothing."""
        return []

    def ready(self) -> list[Problem]:
        """What it waits for."""
        return [Problem(self.obstacle.reason, journal_cause(self.obstacle.trouble))]

    def status(self) -> dict[str, Any]:
        """The page `status.json`, in the form that `facts` gives it."""
        problems = self.ready()
        return {
            "state": "starting",
            "sentence": f"Starting: {problems[0].cause.cause}.",
            "version": self._identity.version,
            "agent": {
                "id": self._identity.agent_id,
                "name": None,
                "organisation": self._identity.organisation,
                "apiTarget": self._identity.api_target,
            },
            "time": to_the_second(self._clock.now()),
            "started": to_the_second(self._identity.uptime.started),
            "uptimeSeconds": round(self._identity.uptime.seconds()),
            "problems": [told(problem) for problem in problems],
            "warnings": [],
            "queue": {"waiting": 0, "capacity": self._capacity},
            "workers": {"busy": 0, "total": self._workers},
            "untold": 0,
            "journal": {**self._counts(), "bytes": self._disk.used()},
            "lastReceive": None,
            "lastHeartbeat": None,
            "lastAnswer": None,
            "lastConfiguration": None,
            "tokenEnds": to_the_second(self._token_ends()),
            "credentialsEnd": None,
            "logLines": {"waiting": self._log_lines(), "dropped": 0},
            "threads": [
                {"name": "main", "alive": True, "activity": "opening the journal", "silentSeconds": None, "problem": self.obstacle.reason}
            ],
            "lastHour": [[0, 0]] * MINUTES,
        }

    def recent(self) -> list[Listed]:
        """The newest commands, where the journal can be read all the same."""
        with contextlib.suppress(JournalError):
            return command_history.recent(self._reader, RECENT_COMMANDS)
        return []

    def moments(self) -> dict[str, float]:
        """What the metrics call timestamps, in seconds since 1970."""
        found = {"start": self._identity.uptime.started, "token_expiry": self._token_ends()}
        return {name: moment.timestamp() for name, moment in found.items() if moment is not None}

    def _counts(self) -> dict[str, int]:
        with contextlib.suppress(JournalError):
            return self._reader.counts()
        return {}
