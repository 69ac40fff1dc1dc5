"""Long polls end as soon as a message arrives, as SQS's do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from relay_agent.sandbox.asgi import Receive, Scope, Send, read_request, replay, respond
from relay_agent.sandbox.aws.long_poll import LongPoll
from tests.unit.sandbox.asgi_calls import Answered, call, scope

RECEIVE, SEND = {"x-amz-target": "AmazonSQS.ReceiveMessage"}, {"x-amz-target": "AmazonSQS.SendMessage"}


class Queue:
    """An emulator of one queue, which never waits itself."""

    def __init__(self, status: int = 200) -> None:
        self.messages: list[str] = []
        self.asked: list[Any] = []
        self.status = status
        self.polled = asyncio.Event()
        self.app = LongPoll(self._app)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(scope, receive)
        body = json.loads(request.body or b"{}")
        self.asked.append(body)
        if request.headers.get("x-amz-target") == SEND["x-amz-target"]:
            self.messages.append(body["MessageBody"])
        self.polled.set()
        found, self.messages = ([], self.messages) if "MessageBody" in body else (self.messages, [])
        await respond(send, self.status, json.dumps({"Messages": found} if found else {}).encode(), ())


def test_a_poll_that_waits_gets_a_message_when_it_is_sent() -> None:
    async def run() -> Answered:
        queue, answered = Queue(), Answered()
        body = json.dumps({"WaitTimeSeconds": 20, "QueueUrl": "q"}).encode()
        polling = asyncio.create_task(queue.app(scope(headers=RECEIVE), replay(body), answered.send))
        await asyncio.wait_for(queue.polled.wait(), 10)
        await queue.app(scope(headers=SEND), replay(json.dumps({"MessageBody": "m"}).encode()), Answered().send)
        await asyncio.wait_for(polling, 10)
        return answered

    assert json.loads(asyncio.run(run()).body) == {"Messages": ["m"]}


def test_a_poll_that_does_not_wait_is_answered_at_once_and_asks_once() -> None:
    queue = Queue()
    for params in ({}, {"WaitTimeSeconds": 0}, {"WaitTimeSeconds": "long"}):
        assert json.loads(call(queue.app, json.dumps(params).encode(), headers=RECEIVE).body) == {}
    assert [asked["WaitTimeSeconds"] for asked in queue.asked] == [0, 0, 0]


def test_an_error_ends_a_poll_at_once() -> None:
    queue = Queue(status=400)
    assert call(queue.app, b'{"WaitTimeSeconds": 20}', headers=RECEIVE).status == 400
    assert len(queue.asked) == 1


def test_any_other_call_passes_unchanged() -> None:
    queue = Queue()
    call(queue.app, b'{"MessageBody": "m", "WaitTimeSeconds": 5}', headers=SEND)
    call(queue.app, b'{"WaitTimeSeconds": 5}', headers={"x-amz-target": "Logs_20140328.PutLogEvents"})
    assert [asked["WaitTimeSeconds"] for asked in queue.asked] == [5, 5]
