"""A platform that costs next to nothing: SQS, CloudWatch Logs, S3 and the REST calls of an agent, in one asyncio process.

`python -m tests.bench.bare_sqs` prints its port. It owns the queues, the count of calls and each command's times. It checks no signature
and judges no answer: `checking` does that afterwards, from the report. Everything runs on one thread, and whatever can be prepared is
prepared before the commands are released, so that a contender is measured and not its platform.

Inbound queues are FIFO: while a message of a group is in flight, SQS hands out no other of that group.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from tests.bench.places import AGENT_ID, INBOUND, LOG_GROUP, ORG_SLUG, REGION

MOST_MESSAGES = 10
DEFAULT_LEASE_SECONDS = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:\s*100-continue", re.IGNORECASE)
_TARGET = re.compile(rb"\r\nx-amz-target:\s*([\w.]+)", re.IGNORECASE)
_COMMAND = re.compile(r'"commandId"\s*:\s*"([^"]+)"')
_STATUS = re.compile(r'"status"\s*:\s*"([A-Z]+)"')
_EMPTY = b"{}"
_CONNECTOR = {
    "name": "bench",
    "orgSlug": ORG_SLUG,
    "artifact": {"namespace": "common", "slug": "bench", "version": "v1.0.0"},
    "hostType": "standalone",
    "health": "HEALTHY",
    "operatingStatus": "RUNNING",
    "networkStatus": "ONLINE",
    "updatedAt": "2026-01-01T00:00:00.000Z",
    "createdAt": "2026-01-01T00:00:00.000Z",
    "config": {},
}
"""An agent as the vendor's SDK sees it."""

Json = dict[str, Any]


@dataclass(slots=True, eq=False)
class Message:
    """One message of an inbound queue. `json` is its form in an answer to ReceiveMessage, up to the receipt."""

    command_id: str
    group: str
    json: str
    receipts: int = 0


@dataclass(slots=True)
class Record:
    """When a command was handed out, each time, and each status update that came for it: (moment, text)."""

    handed: list[float] = field(default_factory=list)
    updates: list[tuple[float, str]] = field(default_factory=list)
    answered: float | None = None


class Waiter:
    """An open ReceiveMessage."""

    __slots__ = ("answer", "lease", "most", "timer")

    def __init__(self, answer: Callable[[bytes], None], most: int, lease: float) -> None:
        self.answer = answer
        self.most = most
        self.lease = lease
        self.timer: asyncio.TimerHandle | None = None


class Inbound:
    """The FIFO queue that an agent receives from."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handed_out: Callable[[str, float], None]) -> None:
        self._loop = loop
        self._handed_out = handed_out
        self._groups: dict[str, deque[Message]] = {}
        self._locked: Counter[str] = Counter()
        self._ready: deque[str] = deque()
        self._flying: dict[str, Message] = {}
        self._waiters: deque[Waiter] = deque()
        self._number = 0

    def put(self, messages: list[Message]) -> None:
        """Add messages, then hand out what somebody waits for."""
        for message in messages:
            waiting = self._groups.setdefault(message.group, deque())
            waiting.append(message)
            if len(waiting) == 1 and not self._locked[message.group]:
                self._ready.append(message.group)
        self._wake()

    def receive(self, answer: Callable[[bytes], None], most: int, wait_seconds: float, lease_seconds: float) -> Waiter | None:
        """Answer at once with what there is; otherwise when something comes or the time is over."""
        if self._ready:
            self._hand_out(answer, most, lease_seconds)
            return None
        if wait_seconds <= 0:
            answer(_EMPTY)
            return None
        waiter = Waiter(answer, most, lease_seconds)
        waiter.timer = self._loop.call_later(wait_seconds, self._give_up, waiter)
        self._waiters.append(waiter)
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """Drop an open receive whose client has gone."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if waiter.timer is not None:
            waiter.timer.cancel()

    def delete(self, receipt: str) -> bool:
        """Remove a message that is in flight."""
        message = self._flying.pop(receipt, None)
        if message is not None:
            self._unlock(message.group)
        return message is not None

    def give_back(self, receipt: str) -> bool:
        """Make a message that is in flight visible again, before the others of its group."""
        message = self._flying.pop(receipt, None)
        if message is None:
            return False
        self._groups[message.group].appendleft(message)
        self._unlock(message.group)
        return True

    def sizes(self) -> tuple[int, int]:
        """Return how many messages wait and how many are in flight."""
        return sum(map(len, self._groups.values())), len(self._flying)

    def _unlock(self, group: str) -> None:
        self._locked[group] -= 1
        if not self._locked[group]:
            del self._locked[group]
            if self._groups[group]:
                self._ready.append(group)
                self._wake()

    def _wake(self) -> None:
        while self._ready and self._waiters:
            waiter = self._waiters.popleft()
            if waiter.timer is not None:
                waiter.timer.cancel()
            self._hand_out(waiter.answer, waiter.most, waiter.lease)

    def _give_up(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            waiter.answer(_EMPTY)

    def _hand_out(self, answer: Callable[[bytes], None], most: int, lease_seconds: float) -> None:
        taken: list[str] = []
        parts: list[str] = []
        now = time.monotonic()
        while self._ready and len(parts) < most:
            group = self._ready.popleft()
            waiting = self._groups[group]
            while waiting and len(parts) < most:
                message = waiting.popleft()
                self._number += 1
                message.receipts += 1
                receipt = f"r{self._number}"
                self._flying[receipt] = message
                self._locked[group] += 1
                taken.append(receipt)
                parts.append(f'{message.json}"{receipt}"}}')
                self._handed_out(message.command_id, now)
        self._loop.call_later(lease_seconds, self._expire, taken)
        answer(f'{{"Messages":[{",".join(parts)}]}}'.encode())

    def _expire(self, receipts: list[str]) -> None:
        for receipt in reversed(receipts):
            self.give_back(receipt)


class Platform:
    """The platform's state: the queue, the outcome of each command, what was called how often, and what was uploaded."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.url = ""
        self.inbound = Inbound(loop, self._handed_out)
        self.outbound: list[str] = []
        self.records: dict[str, Record] = {}
        self.calls: Counter[str] = Counter()
        self.first_poll: float | None = None
        self.log_events = 0
        self.log_bytes = 0
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self._expected = 0
        self._answered = 0
        self._released = 0.0
        self._chain: deque[Message] = deque()
        self._pause = 0.0
        self._waiting: list[Callable[[], None]] = []
        self._numbers = 0

    # --- SQS ---

    def receive(self, body: Json, answer: Callable[[bytes], None]) -> Waiter | None:
        """`ReceiveMessage`."""
        if self.first_poll is None:
            self.first_poll = time.monotonic()
        most = min(int(body.get("MaxNumberOfMessages", 1)), MOST_MESSAGES)
        lease = float(body.get("VisibilityTimeout", DEFAULT_LEASE_SECONDS))
        return self.inbound.receive(answer, most, float(body.get("WaitTimeSeconds", 0)), lease)

    def send(self, entry: Json, inbound: bool) -> Json:
        """One message of `SendMessage` or `SendMessageBatch`."""
        text: str = entry["MessageBody"]
        self._numbers += 1
        sent: Json = {"MessageId": f"m{self._numbers}", "MD5OfMessageBody": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}
        if inbound:
            found = _COMMAND.search(text)
            self.inbound.put([self._message(found[1] if found else "", text, entry.get("MessageGroupId", ""))])
            return sent | {"SequenceNumber": str(self._numbers)}
        self._updated(text)
        return sent

    def _updated(self, text: str) -> None:
        now = time.monotonic()
        command, status = _COMMAND.search(text), _STATUS.search(text)
        record = self.records.get(command[1]) if command else None
        if record is None:
            self.outbound.append(text)
            return
        record.updates.append((now, text))
        if record.answered is None and status is not None and status[1] != "PROCESSING":
            record.answered = now
            self._answered += 1
            if self._chain:
                self._loop.call_later(self._pause, self._release_next)
            if self._answered >= self._expected:
                self._tell()

    def _handed_out(self, command_id: str, now: float) -> None:
        record = self.records.get(command_id)
        if record is not None:
            record.handed.append(now)

    # --- the bench's own calls ---

    def load(self, body: Json) -> None:
        """Take commands: released at once, each after its own `after` seconds, or (`pause`) each so long after the last one's answer."""
        messages = [self._message(each["id"], each["body"], each["group"]) for each in body["messages"]]
        self.records = {message.command_id: Record() for message in messages}
        self.calls.clear()
        self.log_events = self.log_bytes = 0
        self.uploads.clear()
        self.outbound.clear()
        self._expected, self._answered = len(messages), 0
        self._chain.clear()
        self._released = time.monotonic()
        if body.get("pause") is not None:
            self._pause = body["pause"]
            self._chain.extend(messages)
            self._release_next()
        elif any("after" in each for each in body["messages"]):
            for each, message in zip(body["messages"], messages, strict=True):
                self._loop.call_later(each["after"], self.inbound.put, [message])
        else:
            self.inbound.put(messages)

    def wait(self, seconds: float, answer: Callable[[bytes], None]) -> None:
        """Answer when every command is answered, or the time is over."""
        if self._answered >= self._expected:
            answer(self._progress())
            return

        def once() -> None:
            if once in self._waiting:
                self._waiting.remove(once)
                timer.cancel()
                answer(self._progress())

        timer = self._loop.call_later(seconds, once)
        self._waiting.append(once)

    def report(self) -> Json:
        """Return the outcome of the last commands."""
        waiting, flying = self.inbound.sizes()
        return {
            "released": self._released,
            "commands": {
                name: {"handed": record.handed, "answered": record.answered, "updates": record.updates}
                for name, record in self.records.items()
            },
            "calls": dict(self.calls),
            "first_poll": self.first_poll,
            "log_events": self.log_events,
            "log_bytes": self.log_bytes,
            "waiting": waiting,
            "flying": flying,
            "unmatched": self.outbound,
        }

    def _release_next(self) -> None:
        if self._chain:
            self.inbound.put([self._chain.popleft()])

    def _tell(self) -> None:
        for once in list(self._waiting):
            once()

    def _progress(self) -> bytes:
        _, flying = self.inbound.sizes()
        progress = {"answered": self._answered, "expected": self._expected, "flying": flying, "log_events": self.log_events}
        return json.dumps(progress).encode()

    def _message(self, command_id: str, text: str, group: str) -> Message:
        self._numbers += 1
        shown = {
            "MessageId": f"m{self._numbers}",
            "MD5OfBody": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
            "Body": text,
            "Attributes": {"MessageGroupId": group, "SequenceNumber": str(self._numbers)},
        }
        return Message(command_id, group, f'{json.dumps(shown)[:-1]}, "ReceiptHandle": ')


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered before the next is read."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._data = bytearray()
        self._transport: Any = None
        self._need = 0
        self._busy = False
        self._waiter: Waiter | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None:
            self._platform.inbound.forget(self._waiter)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._data += data
        if len(self._data) >= self._need and not self._busy:
            self._next()

    def _next(self) -> None:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[:end])
        start = end + 4
        if _CHUNKED.search(head):
            body = self._chunks(start)
            if body is None:
                return
        else:
            found = _LENGTH.search(head)
            self._need = start + (int(found[1]) if found else 0)
            if len(self._data) < self._need:
                if _EXPECT.search(head) and len(self._data) == start:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = bytes(self._data[start : self._need])
            del self._data[: self._need]
        self._need = 0
        self._busy = True
        method, path, _ = head[: head.find(b"\r\n")].split(b" ", 2)
        try:
            self._handle(method.decode(), path.decode(), head, body)
        except (KeyError, ValueError, TypeError) as error:
            self._refuse(f"{type(error).__name__}: {error}")

    def _chunks(self, start: int) -> bytes | None:
        """Return a chunked body, None if it is not complete yet."""
        parts = []
        place = start
        while True:
            line = self._data.find(b"\r\n", place)
            if line < 0:
                return None
            size = int(bytes(self._data[place:line]).partition(b";")[0], 16)
            place = line + 2 + size + 2
            if len(self._data) < place:
                return None
            if size == 0:
                del self._data[:place]
                return b"".join(parts)
            parts.append(bytes(self._data[line + 2 : line + 2 + size]))

    def _handle(self, method: str, path: str, head: bytes, body: bytes) -> None:
        target = _TARGET.search(head)
        if target is not None:
            service, _, operation = target[1].decode().partition(".")
            self._platform.calls[operation] += 1
            (self._sqs if service == "AmazonSQS" else self._logs)(operation, body)
        elif path.startswith("/bench/"):
            self._bench(path, body)
        elif path.startswith("/s3/"):
            self._s3(method, path, body)
        else:
            self._rest(method, urlsplit(path).path)

    def _sqs(self, operation: str, body: bytes) -> None:
        given = json.loads(body)
        platform = self._platform
        inbound = given["QueueUrl"].endswith(INBOUND)
        if operation == "ReceiveMessage":
            if not inbound:
                self._reply(_EMPTY)
                return
            self._waiter = platform.receive(given, self._received)
            return
        if operation == "DeleteMessage":
            platform.inbound.delete(given["ReceiptHandle"])
            answer: Json = {}
        elif operation == "DeleteMessageBatch":
            answer = self._each(given, lambda entry: platform.inbound.delete(entry["ReceiptHandle"]))
        elif operation == "SendMessage":
            answer = platform.send(given, inbound)
        elif operation == "SendMessageBatch":
            answer = {"Successful": [{"Id": entry["Id"], **platform.send(entry, inbound)} for entry in given["Entries"]]}
        elif operation == "ChangeMessageVisibility":
            self._change(given)
            answer = {}
        elif operation == "ChangeMessageVisibilityBatch":
            answer = self._each(given, self._change)
        elif operation == "GetQueueAttributes":
            waiting, flying = platform.inbound.sizes()
            arn = f"arn:aws:sqs:{REGION}:000000000000:{given['QueueUrl'].rpartition('/')[2]}"
            numbers = {"ApproximateNumberOfMessages": str(waiting), "ApproximateNumberOfMessagesNotVisible": str(flying)}
            answer = {"Attributes": {"QueueArn": arn, "VisibilityTimeout": "30", **numbers}}
        elif operation == "GetQueueUrl":
            answer = {"QueueUrl": f"{platform.url}/000000000000/{given['QueueName']}"}
        else:
            self._refuse(operation)
            return
        self._reply(json.dumps(answer).encode())

    def _change(self, entry: Json) -> bool:
        """Give a message back; a longer lease changes nothing here, since no command of the bench outlives its first."""
        return bool(entry["VisibilityTimeout"]) or self._platform.inbound.give_back(entry["ReceiptHandle"])

    def _each(self, given: Json, action: Callable[[Json], bool]) -> Json:
        done, failed = [], []
        for entry in given["Entries"]:
            if action(entry):
                done.append({"Id": entry["Id"]})
            else:
                failed.append({"Id": entry["Id"], "SenderFault": True, "Code": "ReceiptHandleIsInvalid"})
        return {"Successful": done, **({"Failed": failed} if failed else {})}

    def _received(self, answer: bytes) -> None:
        self._waiter = None
        self._reply(answer)

    def _logs(self, operation: str, body: bytes) -> None:
        if operation == "PutLogEvents":
            # Counted, not parsed: a line's own quotes are escaped.
            self._platform.log_events += body.count(b'"timestamp":')
            self._platform.log_bytes += len(body)
        self._reply(b'{"nextSequenceToken":"0","logStreams":[],"logGroups":[]}')

    def _s3(self, method: str, path: str, body: bytes) -> None:
        name = path[4:].partition("?")[0]
        self._platform.calls[f"S3 {method}"] += 1
        if method == "PUT":
            self._platform.uploads[name] = body
            self._reply(b"", "text/plain")
        else:
            self._reply(self._platform.blobs[name])

    def _rest(self, method: str, path: str) -> None:
        platform = self._platform
        what = path.rpartition("/")[2]
        platform.calls[f"REST {method} {what}"] += 1
        if what == "config":
            answer: Json = {
                "orgSlug": ORG_SLUG,
                "integrationId": "7d1c3e5a-0d8f-4a0e-9a51-3b8f8f1c2d10",
                "agentId": AGENT_ID,
                "agentName": "bench",
                "region": REGION,
                "bucket": "bench",
                "streamBucket": "bench-stream",
                "backupBucket": "bench-backup",
                "kmsKey": "alias/bench",
                "integrationType": "user_defined",
                "metadata": {},
                "tags": [],
                "logGroupName": LOG_GROUP,
                "rpcSourceQueueUrl": f"{platform.url}/000000000000/{INBOUND}",
                "rpcPlatformQueueUrl": f"{platform.url}/000000000000/answers",
            }
        elif what == "credentials":
            expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            answer = {"AccessKeyId": "AKIABENCH", "SecretAccessKey": "bench", "SessionToken": "bench", "Expiration": expiry}
            # What the vendor's SDK asks for has other names.
            answer |= {"accessKeyId": "AKIABENCH", "secretAccessKey": "bench", "sessionToken": "bench", "expirationDate": expiry}
        elif what == "status":
            answer = {"agentName": "bench"}
        elif what == AGENT_ID:
            answer = {"id": AGENT_ID, "isEnabled": True, "type": "user-defined", "queue": {"enabled": True}}
            answer |= _CONNECTOR | {"commandQueue": f"{platform.url}/000000000000/{INBOUND}"}
        elif what == "data":
            answer = {"values": []}
        else:
            answer = {"message": "OK"}
        self._reply(json.dumps(answer).encode(), "application/json")

    def _bench(self, path: str, body: bytes) -> None:
        platform = self._platform
        parts = urlsplit(path)
        what, _, name = parts.path[len("/bench/") :].partition("/")
        if what == "load":
            platform.load(json.loads(body))
            self._reply(_EMPTY)
        elif what == "wait":
            platform.wait(float(parts.query or 0), self._reply)
        elif what == "blob":
            platform.blobs[name] = body
            self._reply(_EMPTY)
        elif what == "upload":
            self._reply(platform.uploads.get(name, b""))
        else:
            self._reply(json.dumps(platform.report()).encode())

    def _refuse(self, what: str) -> None:
        body = json.dumps({"__type": "com.amazonaws.sqs#InvalidAction", "message": what}).encode()
        self._reply(body, status=b"400 Bad Request")

    def _reply(self, body: bytes, content_type: str = "application/x-amz-json-1.0", status: bytes = b"200 OK") -> None:
        self._busy = False
        if self._transport is None:
            return
        head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (status, content_type.encode(), len(body))
        self._transport.write(head + body)
        if self._data:
            self._next()


async def serve() -> None:
    """Serve until SIGTERM; the port stands on stdout."""
    loop = asyncio.get_running_loop()
    platform = Platform(loop)
    server = await loop.create_server(lambda: Connection(platform), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    platform.url = f"http://127.0.0.1:{port}"
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    print(port, flush=True)
    await stop.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(serve()))
