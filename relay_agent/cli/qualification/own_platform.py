"""A small platform on loopback for the second agent of a qualification: its REST calls and one queue in each direction.

Owns as much of PROTOCOL §1 and §2 as one agent needs. It is not the sandbox, which is an extra with libraries that the image lacks. It
answers only who has the token or session token that it made, checks no signature, and keeps everything in memory.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import jwt

from relay_agent.cli.qualification.own_target import HOST, QuietHandler, QuietServer
from relay_agent.core.clock import DAY_SECONDS, iso
from relay_agent.core.errors import RelayError
from relay_agent.pipelines.commands import Command, command
from relay_agent.pipelines.encoding import Answer
from relay_agent.protocol.keyring import Keyring

FINAL = frozenset({"SUCCESS", "FAILURE", "REJECTED"})
AGENT = "/v1/data-acquisition/agent/"
ORGANISATION = "qualification"
_LOOK_SECONDS = 0.1
_TOKEN_SECONDS = 365 * DAY_SECONDS
Json = dict[str, Any]


class NoAnswerInTime(RelayError):
    """A command was not answered in time."""


@dataclass(slots=True)
class _Message:
    """A message on the agent's queue."""

    body: str
    visible_at: float = 0.0
    receipt: str = ""


@dataclass(slots=True)
class _Posted:
    """A command as the platform knows it."""

    asked: Command
    status: str = "PENDING"
    body: Any = None
    finals: list[str] = field(default_factory=list)


class OwnPlatform:
    """The platform. Use it with `with`. Any thread may call."""

    def __init__(self) -> None:
        self.agent_id = str(uuid.uuid4())
        self.receives = 0
        self.settings: list[str] = []
        """What the agent reported of itself: STARTED, STOPPED."""
        self.bytes_seen: list[bytes] = []
        """Every body that the agent sent: what the platform can read."""
        self.token = jwt.encode({"sub": ORGANISATION, "exp": int(time.time()) + _TOKEN_SECONDS}, secrets.token_bytes(32), algorithm="HS256")
        self.issued = [secrets.token_urlsafe(24) for _ in range(2)]
        """The AWS secret key and session token that the agent gets."""
        self._changed = threading.Condition()
        self._messages: list[_Message] = []
        self._posted: dict[str, _Posted] = {}
        self._open = True
        platform = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = self.body()
                target = self.headers.get("X-Amz-Target", "")
                header, expected = ("X-Amz-Security-Token", platform.issued[1]) if target else ("ts-auth-token", platform.token)
                if self.headers.get(header) != expected:
                    self.answer(401, b"{}")
                    return
                status, found = platform.call(f"{self.command} {self.path}", target.rpartition(".")[2], body)
                self.answer(status, json.dumps(found).encode(), "application/x-amz-json-1.0" if target else "application/json")

            do_GET = do_POST
            do_PUT = do_POST

        self._server = QuietServer(Handler)

    @property
    def url(self) -> str:
        """The address of the REST calls and of the AWS services."""
        return f"http://{HOST}:{self._server.port}"

    # --- the sender's side ---

    def post(self, payload: Mapping[str, Any], seconds: float, keyring: Keyring | None = None) -> str:
        """Put a command on the agent's queue, and return its id."""
        asked = command(payload, self.agent_id, seconds, keyring)
        command_id, now = str(uuid.uuid4()), datetime.now(UTC)
        message = {
            "commandId": command_id,
            "targetId": self.agent_id,
            "action": asked.action,
            "createdAt": iso(now),
            "expiresAt": iso(now + timedelta(seconds=max(seconds, 60.0))),
            "bodyDelivery": "embedded",
            "body": asked.payload,
        }
        with self._changed:
            self._posted[command_id] = _Posted(asked)
            self._messages.append(_Message(json.dumps(message)))
            self._changed.notify_all()
        return command_id

    def answer(self, command_id: str, seconds: float) -> Answer:
        """Wait for a command's answer.

        Raises:
            NoAnswerInTime: there is none.
            BadAnswer, SecureCommandError: it cannot be read.
        """
        posted = self._posted[command_id]
        if not self.wait(lambda: posted.status in FINAL, seconds):
            raise NoAnswerInTime(f"no answer within {seconds:g} s; the command's status is {posted.status}")
        return posted.asked.read({"id": command_id, "status": posted.status, "responseBody": posted.body})

    def exchange(self, payload: Mapping[str, Any], seconds: float, keyring: Keyring | None = None) -> Answer:
        """Post a command and wait for its answer, as `answer` does."""
        return self.answer(self.post(payload, seconds, keyring), seconds)

    def one_final_each(self) -> bool:
        """Return whether exactly one final status arrived for each command."""
        with self._changed:
            return all(len(posted.finals) == 1 for posted in self._posted.values())

    def wait(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds, looked at with every change here and ten times a second; return whether it does."""
        end = time.monotonic() + seconds
        with self._changed:
            while not holds():
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _LOOK_SECONDS))
        return True

    # --- the agent's side ---

    def call(self, call: str, operation: str, body: bytes) -> tuple[int, Json]:
        """Answer one call: an operation of an AWS service, or a REST call."""
        with self._changed:
            self.bytes_seen.append(body)
            if operation:
                return 200, self._aws(operation, json.loads(body or b"{}"))
            found = self._rest(call, body)
            self._changed.notify_all()
        return (404, {"message": "Not Found"}) if found is None else (200, found)

    def _rest(self, call: str, body: bytes) -> Json | None:
        method, _, path = call.partition(" ")
        if path == f"/v1/agents/{self.agent_id}":
            return {"isEnabled": True, "type": "user-defined", "queue": {"enabled": True}}
        if not path.startswith(AGENT):
            return None
        name = path.removeprefix(AGENT)
        if name == "config":
            return {
                "agentId": self.agent_id,
                "agentName": "qualification",
                "orgSlug": ORGANISATION,
                "region": "us-east-1",
                "logGroupName": "/agents/qualification",
                "rpcSourceQueueUrl": f"{self.url}/000000000000/commands.fifo",
                "rpcPlatformQueueUrl": f"{self.url}/000000000000/answers",
            }
        if name == "credentials":
            secret, token = self.issued
            expiration = iso(datetime.now(UTC) + timedelta(hours=1))
            return {"AccessKeyId": "QUALIFICATION", "SecretAccessKey": secret, "SessionToken": token, "Expiration": expiration}
        if name == "status" and method == "PUT":
            self.settings.append(str(json.loads(body).get("statusSetting", "STARTED")))
        return {"agentName": "qualification", "message": "OK"}

    def _aws(self, operation: str, asked: Json) -> Json:
        if operation == "ReceiveMessage":
            return self._receive(asked)
        entries: list[Json] = asked.get("Entries", [])
        if operation == "DeleteMessageBatch":
            receipts = {entry["ReceiptHandle"] for entry in entries}
            self._messages = [message for message in self._messages if message.receipt not in receipts]
        elif operation == "ChangeMessageVisibilityBatch":
            for message in self._messages:
                message.visible_at = 0.0 if message.receipt in {entry["ReceiptHandle"] for entry in entries} else message.visible_at
        elif operation == "SendMessageBatch":
            for entry in entries:
                self._update(json.loads(entry["MessageBody"]))
        elif operation == "GetQueueAttributes":
            return {"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:000000000000:commands.fifo"}}
        self._changed.notify_all()
        return {"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []} if entries else {}

    def _receive(self, asked: Json) -> Json:
        """Answer a long poll; the condition's lock is given up while it waits."""
        self.receives += 1
        self._changed.notify_all()
        end = time.monotonic() + float(asked.get("WaitTimeSeconds", 0))
        while True:
            now = time.monotonic()
            ready = [message for message in self._messages if message.visible_at <= now][: int(asked.get("MaxNumberOfMessages", 1))]
            if ready or now >= end or not self._open:
                break
            self._changed.wait(min(end - now, _LOOK_SECONDS))
        for message in ready:
            message.visible_at, message.receipt = now + float(asked.get("VisibilityTimeout", 30)), str(uuid.uuid4())
        return {"Messages": [{"MessageId": one.receipt, "ReceiptHandle": one.receipt, "Body": one.body} for one in ready]} if ready else {}

    def _update(self, update: Json) -> None:
        """Take a status update; the first final one counts."""
        posted, status = self._posted.get(update["commandId"]), str(update["status"])
        if posted is None:
            return
        if status in FINAL:
            posted.finals.append(status)
        if posted.status not in FINAL:
            posted.status, posted.body = status, update.get("body")

    def __enter__(self) -> Self:
        self._server.begin()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._server.end()
