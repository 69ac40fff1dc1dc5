"""What the pages show while the agent's journal cannot be opened yet, because its disk cannot be written: `AgentStatus` before it exists.

Owns that one state. It must not wait for the disk: `startup` does, and sets `obstacle`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from relay_agent.agent.admin.status import RECENT_COMMANDS, Identity, problem_json, to_the_second
from relay_agent.core.callbacks import nothing
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
    """The status before the journal is open. Any thread may ask; the main thread sets `obstacle`."""

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
        policy: Callable[[], dict[str, Any] | None] = nothing,
    ) -> None:
        """`log_lines` returns how many wait to be delivered, `policy` which policy is in force."""
        self._identity = identity
        self._clock = clock
        self._disk = disk
        self._reader = reader
        self._workers = workers
        self._capacity = capacity
        self._token_ends = token_ends
        self._log_lines = log_lines
        self._policy = policy
        self.obstacle = Obstacle("the journal is being opened")
        """Why the journal cannot be opened."""

    def live(self) -> list[Problem]:
        """Return no problems: the agent waits, and a restart would not help."""
        return []

    def ready(self) -> list[Problem]:
        """Return what it waits for."""
        return [Problem(self.obstacle.reason, journal_cause(self.obstacle.trouble))]

    def status(self) -> dict[str, Any]:
        """Return the page `status.json`, in the form of `AgentStatus`."""
        problems = self.ready()
        return {
            "state": "starting",
            "sentence": f"Starting: {problems[0].cause.cause}.",
            "summary": problems[0].cause.cause,
            **self._identity.facts(self._clock.now(), None),
            "problems": [problem_json(problem) for problem in problems],
            "warnings": [],
            "queue": {"enabled": None, "waiting": 0, "capacity": self._capacity, "shared": self._identity.shared_queue},
            "workers": {"busy": 0, "total": self._workers},
            "untold": 0,
            "policy": self._policy(),
            "journal": {**self._counts(), "bytes": self._disk.used()},
            "lastReceive": None,
            "lastHeartbeat": None,
            "lastAnswer": None,
            "lastConfiguration": None,
            "tokenEnds": to_the_second(self._token_ends()),
            "credentialsEnd": None,
            "ending": [],
            "logLines": {"waiting": self._log_lines(), "dropped": 0},
            "threads": [
                {"name": "main", "alive": True, "activity": "opening the journal", "silentSeconds": None, "problem": self.obstacle.reason}
            ],
            "lastHour": [[0, 0]] * MINUTES,
        }

    def recent(self) -> list[Listed]:
        """Return the newest commands, if the journal can be read nevertheless."""
        with contextlib.suppress(JournalError):
            return command_history.recent(self._reader, RECENT_COMMANDS)
        return []

    def moments(self) -> dict[str, float]:
        """Return the metrics' timestamps, in seconds since 1970."""
        found = {"start": self._identity.uptime.started, "token_expiry": self._token_ends()}
        return {name: moment.timestamp() for name, moment in found.items() if moment is not None}

    def _counts(self) -> dict[str, int]:
        with contextlib.suppress(JournalError):
            return self._reader.counts()
        return {}
