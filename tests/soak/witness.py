"""What SQS did with each command's message: to whom it was handed out, and whose delete was carried out.

Looks at the calls between the sandbox's guard and its queues, on the sandbox's thread; any thread may read. It changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from time import monotonic
from typing import Any
from unittest import mock

from relay_agent.sandbox import server
from relay_agent.sandbox.asgi import App, HeldAnswer, Receive, Request, Scope, Send, json_object, read_request, replay
from relay_agent.sandbox.aws.receipts import Receipts
from relay_agent.sandbox.server import Sandbox


@dataclass(frozen=True, slots=True)
class Event:
    """A message was handed out or deleted: by the agent that calls SQS at this port, at a monotonic time."""

    port: int
    at: float


class Witness:
    """All that was seen, by the commands' ids."""

    def __init__(self) -> None:
        self.handed_out: defaultdict[str, list[Event]] = defaultdict(list)
        self.deleted: defaultdict[str, list[Event]] = defaultdict(list)
        self.refused: Counter[int] = Counter()
        self._commands: dict[str, str] = {}

    def note(self, request: Request, answer: dict[str, Any]) -> None:
        """Take a call and its answer."""
        operation, event = request.headers["x-amz-target"].partition(".")[2], Event(_port(request), monotonic())
        if operation == "ReceiveMessage":
            for message in answer.get("Messages", []):
                command_id = self._commands[message["ReceiptHandle"]] = str(json.loads(message["Body"]).get("commandId"))
                self.handed_out[command_id].append(event)
        elif operation == "DeleteMessageBatch":
            receipts = {entry["Id"]: entry["ReceiptHandle"] for entry in json_object(request.body).get("Entries", [])}
            for entry in answer.get("Successful", []):
                command_id = self._commands.get(receipts[entry["Id"]], "")
                self.deleted[command_id].append(event)
            self.refused[event.port] += len(answer.get("Failed", []))


class WitnessedSandbox(Sandbox):
    """A sandbox with a witness before its queues."""

    def __init__(self, visibility_timeout: int) -> None:
        self.witness = Witness()
        super().__init__(visibility_timeout=visibility_timeout)

    def start(self) -> Sandbox:
        """Listen, with the witness in place."""

        def witnessed(app: App, default_seconds: float) -> App:
            return _Watched(Receipts(app, default_seconds), self.witness)

        with mock.patch.object(server, "Receipts", witnessed):
            return super().start()


class _Watched:
    """An ASGI app around the receipts'."""

    def __init__(self, app: App, witness: Witness) -> None:
        self._app = app
        self._witness = witness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(scope, receive)
        if not request.headers.get("x-amz-target", "").startswith("AmazonSQS"):
            await self._app(scope, replay(request.body), send)
            return
        answer = HeldAnswer()
        await self._app(scope, replay(request.body), answer)
        if answer.status == 200:
            self._witness.note(request, answer.json())
        await answer.pass_on(send)


def _port(request: Request) -> int:
    return int(request.headers.get("host", "").rpartition(":")[2] or 0)
