"""An uploader with a bucket and an outbox: the scenes of the tests of `relay`."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from relay_agent.core.clock import Clock
from relay_agent.core.models import Status, Update
from relay_agent.diagnostics.transfer_failures import UploadFailures
from relay_agent.relay.outbox import Upload
from relay_agent.relay.uploader import Uploader

START = datetime(2026, 1, 1, tzinfo=UTC)


class Uploads:
    """An uploader whose platform is scripted and whose time the test moves."""

    def __init__(self, directory: Path) -> None:
        self.time = 0.0
        self.answers: list[Exception | None] = []
        self.directory = directory
        self.log: list[str] = []
        self.fields: dict[str, object] = {}
        clock = Clock(now=lambda: START + timedelta(seconds=self.time), monotonic=lambda: self.time)
        whatever = cast("Any", self)
        self.failures = UploadFailures(whatever, clock.monotonic)
        self.uploader = Uploader(
            platform=whatever,
            outcomes=whatever,
            spool=whatever,
            outbox=whatever,
            failures=self.failures,
            clock=clock,
            stop=threading.Event(),
        )

    def upload(self, _url: str, _path: Path, seconds: float) -> None:
        assert seconds > 0
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer

    def path(self, name: str) -> Path:
        return self.directory / name

    def warning(self, event: str, **fields: object) -> None:
        self.log.append(event)
        self.fields = fields

    error = info = warning

    def job(self, tell_by: float | None = None, command_id: str = "c") -> Upload:
        until = None if tell_by is None else START + timedelta(seconds=tell_by)
        return Upload(Update(command_id, Status.SUCCESS, "referenced", "c.gz", "http://s3/", FALLBACK, until), self.time)


FALLBACK = '{"commandId":"c","body":{"code":"ERESPONSETOOLARGE","message":"too large"}}'
