"""Runs agents that are killed at a fault point and started again, and collects what is then seen of their commands.

How a point is reached is in `kill_scenes`, what is expected in `kill_table`.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.faults import Fault, FaultHandle
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, page, wait_until
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget

LARGE_BYTES = 400_000
_WRITE_LOCK_BYTE = 120
"""Where SQLite's one writer locks the `-shm` file (https://sqlite.org/walformat.html#wal_locks)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request, as far as it matters after a kill."""

    name: str
    method: str
    repeatable: bool
    headers: dict[str, str] = field(default_factory=dict)


KINDS = (
    Kind("get", "GET", True),
    Kind("put", "PUT", True),
    Kind("post", "POST", False),
    Kind("patch", "PATCH", False),
    Kind("keyed", "POST", True, {"Idempotency-Key": "7"}),
)
SMALL, LARGE = "small", "large"


@dataclass
class Trace:
    """One command: what had become of it at the death, and in the end."""

    command: Command
    path: str
    journal: str | None = None
    asked_then: int = 0
    asked: int = 0
    finals: list[str] = field(default_factory=list)


class Life:
    """One agent, one target and their commands. `point` may say how often it is reached before the death: `sent:5`."""

    def __init__(
        self, sandbox: Sandbox, directory: Path, point: str, workers: int, environment: dict[str, str | None] | None = None
    ) -> None:
        self.sandbox = sandbox
        armed = {"RELAY_WORKERS": str(workers), "RELAY_FAULT_POINT": point}
        self.agent = RunningAgent(sandbox, directory, {**(environment or {}), **armed})
        self.state = directory / "state"
        self.target = ByteTarget()
        self.target.on("*", self._answer)
        self.gate = self.target.gate()
        self.gate.release()
        self.traces: dict[tuple[str, str], Trace] = {}
        self.plug: Command | None = None
        self.exit_codes: list[int] = []
        self.disagreements: list[str] = []
        self.left_over: list[str] = []

    def create(self, kind: Kind, size: str = SMALL, **options: Any) -> None:
        """Create one command and keep its trace."""
        path = f"/{kind.name}/{size}"
        payload = {"method": kind.method, "url": self.target.url(path), "headers": [dict([pair]) for pair in kind.headers.items()]}
        if kind.method != "GET":
            # Too large to be kept in memory if it is downloaded.
            payload["body"] = "b" * (20_000 if options else 20)
        self.traces[kind.name, size] = Trace(self.agent.create(payload, **options), path)

    def create_plug(self, path: str) -> Command:
        """Create a command that blocks the others."""
        self.plug = self.agent.create({"url": self.target.url(path)})
        return self.plug

    def close_gate(self) -> None:
        """Let the target read and not answer from now on."""
        self.gate = self.target.gate()

    def dies(self) -> None:
        """Wait for the death, and look at what it left."""
        self.agent.wait_log("fault-point-armed")
        self.exit_codes.append(self.agent.wait(60))
        rows = self._rows()
        for trace in self.traces.values():
            trace.journal = rows.get(trace.command.id)

    def lives_on(self) -> None:
        """Start the agent again, unarmed, and let it end its work."""
        for trace in self.traces.values():
            trace.asked_then = self.asked(trace.path)
        (self.state / "spool" / "nobody.json.gz").write_bytes(b"")
        self.gate.release()
        self.agent.start({"RELAY_FAULT_POINT": None}).ready()
        for command in [self.plug, *(trace.command for trace in self.traces.values())]:
            if command is not None:
                self.sandbox.wait_final(command.id, 20)
        wait_until(self.sandbox, lambda: self.sandbox.queue_depth(self.agent.agent_id) == (0, 0))
        self.exit_codes.append(self.agent.stop())
        self.left_over = [entry.name for entry in (self.state / "spool").iterdir()]
        self.target.close()

    def look(self, reported: int) -> None:
        """Gather what was seen in the end, once `reported` final statuses have arrived."""
        for trace in self.traces.values():
            wait_until(self.sandbox, lambda trace=trace: len(_finals(trace.command)) >= reported)
            trace.finals = _finals(trace.command)
            trace.asked = self.asked(trace.path)

    def asked(self, path: str) -> int:
        """How many requests for a path the target has read completely."""
        return sum(request.target == path for request in self.target.requests)

    def wait_asked(self, count: int) -> None:
        """Wait until the target has read so many requests."""
        self.target.wait_requests(count, 20)

    def wait_recorded(self) -> None:
        """Wait until the outcome of every command is in the journal; small ones, whose lines say so."""
        for trace in self.traces.values():
            self.agent.wait_log("command", id=trace.command.id)

    def untold(self) -> int:
        """How many answers are not delivered yet."""
        return int(json.loads(page(self.agent, "/status.json")[1])["untold"])

    def wait_large_recorded(self) -> None:
        """The same for large ones, whose lines come after their uploads."""
        self.agent.ready()
        wait_until(self.sandbox, lambda: json.loads(page(self.agent, "/status.json")[1])["journal"].get("finished") == len(self.traces))

    @contextmanager
    def nothing_recorded(self) -> Iterator[None]:
        """Be the journal's one writer for a while: the agent's own changes wait."""
        with (self.state / "journal.db-shm").open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, _WRITE_LOCK_BYTE)
            yield

    def nothing_sent(self) -> FaultHandle:
        """Let the platform's queue refuse what this agent sends."""
        return self._refuse("sqs", "SendMessageBatch", self.agent.agent_id)

    def nothing_uploaded(self) -> list[FaultHandle]:
        """Let S3 refuse every upload for now."""
        return [self._refuse("s3", "PutObject", trace.command.id) for trace in self.traces.values()]

    def close(self) -> None:
        """End what may be left of it after an error."""
        self.agent.__exit__()
        self.target.close()

    def _refuse(self, service: str, operation: str, contains: str) -> FaultHandle:
        return self.sandbox.inject(Fault(service, operation, contains, count=None, status=503, code="ServiceUnavailable"))

    def _answer(self, conn: Connection, request: RawRequest) -> None:
        """Answer with the method and how often this path was asked for, to tell answers apart; the plug's, with its path."""
        text = request.target if request.target.startswith("/plug") else f"{request.method} {self.asked(request.target)}"
        conn.wait(self.gate, 30)
        if request.target.endswith(LARGE):
            text += "\n" + "x" * LARGE_BYTES
        conn.respond(200, [("Content-Type", "text/plain")], text.encode())

    def _rows(self) -> dict[str, str]:
        """The state of every command by id, from a copy: to look is to recover, and that is the next start's."""
        aside = self.agent.directory / "aside"
        shutil.copytree(self.state, aside, ignore=shutil.ignore_patterns("admin.sock"))
        with closing(sqlite3.connect(aside / "journal.db")) as journal:
            rows = journal.execute("SELECT id, state, spool FROM commands").fetchall()
        for _, _, name in rows:
            if name is not None and not _whole(aside / "spool" / name):
                self.disagreements.append(name)
        return {row[0]: row[1] for row in rows}


def _whole(path: Path) -> bool:
    return path.is_file() and isinstance(json.loads(gzip.decompress(path.read_bytes())), dict)


def _finals(command: Command) -> list[str]:
    return [text for text in list(command.updates) if json.loads(text)["status"] != "PROCESSING"]
