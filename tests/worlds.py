"""The rules of a command with a real journal and spool, and a stub executor that answers as the test says."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from relay_agent.core.clock import Clock, Deadline, iso
from relay_agent.core.errors import PlatformError
from relay_agent.core.models import Failure, Headers, HttpRequest, HttpResponse, Update
from relay_agent.protocol.jwe import seal_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.intake import Admitted, Intake
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.payload_reader import PayloadReader
from relay_agent.relay.processing import Processor
from relay_agent.relay.target.executor import Executor
from relay_agent.relay.task import Refusal, Task
from relay_agent.relay.updates import UpdateBuilder
from relay_agent.storage.buffer import Buffer
from relay_agent.storage.journal import Journal
from relay_agent.storage.spool import Spool
from relay_agent.tdp.s3_payloads import Payloads
from relay_agent.telemetry.command_report import Report

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
AGENT = "agent-1"
GDC = "TetraScience.Connector.gdc.HttpRequest"
V2 = "TetraScience.Connector.http.Request.V2"
UPLOAD = "https://s3.example/put?signature=x"
RING = Keyring([bytes(range(32))])
OTHER = Keyring([bytes(range(32, 64))])
CANARY = "canary-4d2a"
Answer = HttpResponse | Failure | BaseException


@dataclass
class Target:
    """Replaces an executor: returns the given answers one by one, and records the requests. `sends`: they count as sent."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[HttpRequest, Deadline]] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    sends: bool = True
    meanwhile: Callable[[], None] = lambda: None

    def execute(self, request: HttpRequest, deadline: Deadline, before_send: Callable[[], None]) -> HttpResponse | Failure:
        self.asked.append((request, deadline))
        if self.sends:
            before_send()
            self.sent.append(request.body if isinstance(request.body, bytes) else b"".join(request.body.chunks()) if request.body else b"")
        self.meanwhile()
        answer = self.answers.pop(0) if self.answers else response(b"ok")
        if isinstance(answer, BaseException):
            raise answer
        return answer


@dataclass
class Bucket:
    """Replaces `Payloads`: the bodies behind presigned URLs, or why they are not available."""

    bodies: dict[str, bytes | list[PlatformError | bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def download(self, url: str, _seconds: float, keep: Callable[[Iterator[bytes]], bytes | None]) -> bytes | None:
        self.asked.append(url)
        found = self.bodies[url]
        if isinstance(found, list):
            found = found.pop(0)
        if isinstance(found, PlatformError):
            raise found
        return keep(iter([found]))


class World:
    """The rules of a command on real files; `again` is the agent after a restart."""

    def __init__(self, directory: Path, agent_id: str = AGENT) -> None:
        self.directory = directory
        self.agent_id = agent_id
        self.now = NOW
        self.time = 1000.0
        self.keys = RING
        self.target = Target()
        self.bucket = Bucket()
        self.names = (f"name-{place}" for place in range(1000))
        self.clock = Clock(now=lambda: self.now, monotonic=lambda: self.time, new_id=lambda: next(self.names))
        self.journal = Journal(directory / "journal.db", self.clock)
        self.spool = Spool(directory / "spool")
        self.reports: list[Report] = []
        self.set_aside: list[tuple[str, Exception]] = []
        self._build()

    def again(self) -> tuple[list[Task], list[Update]]:
        self.journal.close()
        self.journal = Journal(self.directory / "journal.db", self.clock)
        self._build()
        updates: list[Update] = []
        tasks = self.intake.recover(lambda answer: updates.append(self.answer(answer)), lambda *what: self.set_aside.append(what))
        self.journal.flush()
        return tasks, updates

    def _build(self) -> None:
        journal, spool, clock = self.journal, self.spool, self.clock

        def keyring() -> Keyring:
            return self.keys

        self.outcomes = Outcomes(
            journal=journal, updates=UpdateBuilder(spool, keyring, clock), monotonic=clock.monotonic, report=self.reports.append
        )
        self.reader = PayloadReader(
            agent_id=self.agent_id,
            journal=journal,
            spool=spool,
            payloads=cast("Payloads", self.bucket),
            keyring=keyring,
            clock=clock,
        )
        self.intake = Intake(agent_id=self.agent_id, journal=journal, reader=self.reader, outcomes=self.outcomes, monotonic=clock.monotonic)
        self.processor = Processor(
            journal=journal,
            spool=spool,
            reader=self.reader,
            outcomes=self.outcomes,
            keyring=keyring,
            clock=clock,
            default_seconds=120.0,
        )

    def admit(self, *messages: str) -> Admitted:
        return self.intake.admit([(text, f"receipt-{place}") for place, text in enumerate(messages)])

    def take(self, *messages: str) -> Admitted:
        taken = self.admit(*messages)
        self.journal.flush()
        return taken

    def answer(self, work: Update | Refusal) -> Update:
        """The answer to a command that does not run; a refusal is recorded, as when it is released."""
        return self.outcomes.refuse(work) if isinstance(work, Refusal) else work

    def refuse(self, *messages: str) -> list[Update]:
        """Take messages, and answer those that cannot run."""
        updates = [self.answer(refusal) for refusal in self.take(*messages).refused]
        self.journal.flush()
        return updates

    def task(self, **fields: Any) -> Task:
        (task,) = self.take(message(**fields)).tasks
        return task

    def process(self, task: Task) -> tuple[Update, Report]:
        """A spooled answer's report comes only when it is settled; then this gives one that says nothing."""
        update = self.processor.process(task, cast("Executor", self.target))
        return update, self.reports[-1] if update.spool is None else Report(update.command_id, "", update.status)

    def run(self, **fields: Any) -> Update:
        return self.process(self.task(**fields))[0]

    def undelivered(self) -> list[Update | Exception]:
        return [update for _, update in self.journal.undelivered()]

    def states(self) -> dict[str, int]:
        return {state: count for state, count in self.journal.counts().items() if count}


def message(payload: object = None, **fields: Any) -> str:
    whole = {
        "commandId": "c-1",
        "targetId": AGENT,
        "action": GDC,
        "createdAt": iso(NOW),
        "expiresAt": iso(NOW + timedelta(minutes=5)),
        "body": {"url": "http://target.example/"} if payload is None else payload,
        "responseBodyUploadUrl": UPLOAD,
    } | fields
    return json.dumps({name: value for name, value in whole.items() if value is not ...})


def sealed(
    request: dict[str, Any] | bytes, ring: Keyring = RING, *, aud: str = AGENT, exp: int = SECONDS + 300, jti: str | None = None
) -> dict[str, str]:
    """A secure command's payload; its `jti` is new where none is given."""
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    return {"jwe": seal_command(text, ring, aud=aud, exp=exp, jti=jti or str(uuid.uuid4()))}


def response(data: bytes, status: int = 200, headers: Headers = (), *, text: bool = True) -> HttpResponse:
    content = Buffer(None)
    content.write(data)
    return HttpResponse(status, headers, content, None, text, "http://target.example/", 12)


def reported(update: Update) -> tuple[str, Any]:
    """Status and body of an embedded update, whose envelope is checked."""
    found = json.loads(update.message)
    assert (found["commandId"], found["targetId"], found["responseBodyDelivery"]) == (update.command_id, AGENT, "embedded")
    assert found["status"] == update.status
    return found["status"], found["body"]


def codes(update: Update) -> tuple[str, str]:
    status, body = reported(update)
    assert "statusCode" not in body
    return status, body["code"]
