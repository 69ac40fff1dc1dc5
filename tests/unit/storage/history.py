"""Commands in a journal, and time between their stages: the scenes of the tests of their history."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay_agent.core.clock import Clock
from relay_agent.core.failures import Code
from relay_agent.core.models import Status, Update
from relay_agent.storage.journal import About, Journal
from relay_agent.storage.journal_reader import Reader

ACTION = "TetraScience.Connector.gdc.HttpRequest"
CANARY = "canary-81b2"


class History:
    """A journal, its reader, and a clock that the test advances."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.journal = Journal(path, Clock(now=lambda: self.now))
        self.reader = Reader(path, in_use=True)

    def admit(self, command_id: str, host: str = "lims.lab.example", action: str = ACTION) -> None:
        body = {"method": "POST", "url": f"https://{host}:8443/{CANARY}?{CANARY}", "headers": {"Authorization": CANARY}, "body": CANARY}
        raw = json.dumps(
            {
                "id": command_id,
                "commandId": command_id,
                "targetId": "a",
                "action": action,
                "createdAt": "2026-03-01T12:00:00Z",
                "body": body,
            }
        )
        self.journal.admit([(command_id, raw, "receipt")])

    def finish(self, command_id: str, status: Status = Status.SUCCESS, code: str | None = None, about: About | None = None) -> None:
        self.journal.finish(
            Update(command_id, status, CANARY, code=code and Code(code)), about or About(ACTION, "POST", "lims.lab.example", 8443, 200)
        )

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
