"""Sending commands to an agent's queue, and receiving status updates from the platform's queue.

This module owns the messages of PROTOCOL §2 on the platform's side. It must not validate requests or keep commands.
Everything here runs on the thread `sandbox-loop`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import secrets
import uuid
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from relay_agent.protocol.messages import MESSAGE_LIMIT, UPLOAD_HEADERS
from relay_agent.sandbox.agents import Agent
from relay_agent.sandbox.aws.emulator import Backend, BackendError
from relay_agent.sandbox.commands import Command, Commands
from relay_agent.sandbox.forms import Json

# Characters that JSON need not escape and SQS rejects (PROTOCOL §2).
_FORBIDDEN = re.compile("[\ud800-\udfff\ufffe\uffff]")


class Delivery:
    """The platform's side of the queues."""

    def __init__(
        self, backend: Backend, commands: Commands, endpoint: str, visibility_timeout: int, url_seconds: int, now: Callable[[], datetime]
    ) -> None:
        self._backend = backend
        self._commands = commands
        self._endpoint = endpoint
        self._visibility_timeout = visibility_timeout
        self._url_seconds = url_seconds
        self._now = now
        name = f"sandbox-{secrets.token_hex(6)}"
        self.bucket = name
        self._queue_name = f"onprem-{name}-command-service-inbound"
        self.queue_url = ""
        self._arrived = asyncio.Event()
        self._created = asyncio.Event()
        self.unmatched_updates: list[str] = []

    async def open(self) -> None:
        """Create the platform's queue and bucket."""
        await self._backend.create_bucket(self.bucket)
        self.queue_url = await self._create_queue(self._queue_name, {})

    async def open_agent(self, agent: Agent, log_group: str) -> None:
        """Create an agent's queue and log group."""
        await self.move_queue(agent)
        await self._backend.call("logs", "CreateLogGroup", logGroupName=log_group)

    async def move_queue(self, agent: Agent) -> str:
        """Give an agent a new queue, and return the URL of the old one, which stays."""
        old = agent.queue_url
        name = f"onprem-{agent.id}{f'-{agent.queue_moves}' if agent.queue_moves else ''}.fifo"
        agent.queue_url = await self._create_queue(name, {"FifoQueue": "true", "VisibilityTimeout": str(self._visibility_timeout)})
        agent.queue_moves += 1
        return old

    async def delete_queue(self, queue_url: str) -> None:
        """Delete a queue and its messages."""
        await self._backend.call("sqs", "DeleteQueue", QueueUrl=queue_url)

    async def purge(self, agent: Agent) -> None:
        """Empty an agent's queue."""
        await self._backend.call("sqs", "PurgeQueue", QueueUrl=agent.queue_url)

    async def _create_queue(self, name: str, attributes: dict[str, str]) -> str:
        created = await self._backend.call("sqs", "CreateQueue", QueueName=name, Attributes=attributes)
        return f"{self._endpoint}{urlsplit(created['QueueUrl']).path}"

    def arrived(self) -> None:
        """Wake `consume`: a message was sent to a queue."""
        self._arrived.set()

    async def send(self, command: Command, agent: Agent) -> None:
        """Put a command on its agent's queue: PENDING, or ERROR if the queue refuses it."""
        text = await self._message(command)
        # Before the send, since the agent may answer before this coroutine continues.
        self._commands.move(command, "PENDING", "Status update to PENDING")
        self._created.set()
        try:
            await self.send_text(agent, text, command.group or agent.id, command.id)
        except BackendError as error:
            self._commands.move(command, "ERROR", f"The queue did not accept the command: {error.code}")

    async def send_text(self, agent: Agent, text: str, group: str, deduplication_id: str | None = None) -> None:
        """Put any text on an agent's queue."""
        await self._backend.call(
            "sqs",
            "SendMessage",
            QueueUrl=agent.queue_url,
            MessageBody=text,
            MessageGroupId=group,
            MessageDeduplicationId=deduplication_id or str(uuid.uuid4()),
        )

    async def _message(self, command: Command) -> str:
        upload_url = self._backend.presign("PUT", self.bucket, _response_key(command.id), self._url_seconds, dict(UPLOAD_HEADERS))
        message = command.request_json() | {"bodyDelivery": "embedded", "responseBodyUploadUrl": upload_url}
        text = _dumps(message)
        if command.delivery == "referenced" or (command.delivery is None and len(text.encode()) > MESSAGE_LIMIT):
            command.delivery = "referenced"
            key = f"commands/{command.id}.json"
            await self._store(key, _dumps(command.payload).encode())
            url = self._backend.presign("GET", self.bucket, key, self._url_seconds)
            text = _dumps(message | {"body": None, "bodyDelivery": "referenced", "bodyUrl": url})
        command.delivery = command.delivery or "embedded"
        return text

    async def _store(self, key: str, body: bytes) -> None:
        headers = {"content-type": "application/json"}
        if len(body) > MESSAGE_LIMIT:
            body, headers = gzip.compress(body, 1), headers | {"content-encoding": "gzip"}
        await self._backend.put_object(self.bucket, key, body, headers)

    async def consume(self) -> None:
        """Receive updates from the platform's queue after each `arrived`, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while await self._consume_batch():
                pass

    async def _consume_batch(self) -> bool:
        batch = await self._backend.call("sqs", "ReceiveMessage", QueueUrl=self.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=0)
        messages: list[dict[str, Any]] = batch.get("Messages", [])
        for message in messages:
            await self._take(message["Body"])
        if messages:
            entries = [{"Id": str(place), "ReceiptHandle": message["ReceiptHandle"]} for place, message in enumerate(messages)]
            await self._backend.call("sqs", "DeleteMessageBatch", QueueUrl=self.queue_url, Entries=entries)
        return bool(messages)

    async def _take(self, text: str) -> None:
        try:
            update = json.loads(text)
        except (ValueError, RecursionError):
            update = None
        command = self._commands.get(update.get("commandId")) if isinstance(update, dict) else None
        if command is None:
            self.unmatched_updates.append(text)
            self._commands.touch()
            return
        body = update.get("body")
        if update.get("responseBodyDelivery") == "referenced":
            body = await self._fetch(command.id)
        self._commands.report(command, str(update.get("status")), body, text)

    async def _fetch(self, command_id: str) -> object:
        try:
            answer = await self._backend.get_object(self.bucket, _response_key(command_id))
            packed = answer.headers.get("content-encoding") == "gzip"
            body: object = json.loads(gzip.decompress(answer.body) if packed else answer.body)
        except (BackendError, OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
            return {"message": f"The platform could not read the response's upload: {type(error).__name__}"}
        return body

    async def expire(self) -> None:
        """Expire commands in time, until cancelled."""
        while True:
            self._created.clear()
            upcoming = self._commands.expire()
            wait = max(0.0, (upcoming - self._now()).total_seconds()) if upcoming else None
            try:
                await asyncio.wait_for(self._created.wait(), wait)
            except TimeoutError:
                continue


def _response_key(command_id: str) -> str:
    return f"responses/{command_id}.json"


def _dumps(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return json.dumps(value, separators=(",", ":")) if _FORBIDDEN.search(text) else text
