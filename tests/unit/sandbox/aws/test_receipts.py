"""A receipt may be used until its message's visibility ends, as SQS's FIFO queues have it; ministack accepts it for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay_agent.sandbox.asgi import Receive, Scope, Send, read_request, respond
from relay_agent.sandbox.aws.receipts import Receipts
from tests.unit.sandbox.asgi_calls import call

DEFAULT_SECONDS = 600


class Queue:
    """An emulator that hands out a new receipt at each receive, and lets each message be deleted once."""

    def __init__(self) -> None:
        self.time = 0.0
        self.given = 0
        self.deleted: set[str] = set()
        self.app = Receipts(self._app, DEFAULT_SECONDS, lambda: self.time)

    def receive(self, **params: Any) -> str:
        (message,) = self.sqs("ReceiveMessage", **params)["Messages"]
        return str(message["ReceiptHandle"])

    def delete(self, *receipts: str) -> dict[str, list[str]]:
        """Delete in a batch; return the receipts by result."""
        entries = [{"Id": str(place), "ReceiptHandle": receipt} for place, receipt in enumerate(receipts)]
        answer = self.sqs("DeleteMessageBatch", Entries=entries)
        return {kind: sorted(receipts[int(entry["Id"])] for entry in answer[kind]) for kind in ("Successful", "Failed")}

    def sqs(self, operation: str, **params: Any) -> Any:
        answer = call(self.app, json.dumps(params).encode(), headers={"x-amz-target": f"AmazonSQS.{operation}"})
        return json.loads(answer.body) if answer.status == 200 else answer

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(scope, receive)
        params = json.loads(request.body)
        operation = request.headers["x-amz-target"].partition(".")[2]
        found: dict[str, Any] = {}
        if operation == "ReceiveMessage":
            self.given += 1
            found = {"Messages": [{"ReceiptHandle": f"r{self.given}"}]}
        elif operation == "DeleteMessageBatch":
            good = [entry["Id"] for entry in params["Entries"] if entry["ReceiptHandle"] not in self.deleted]
            self.deleted |= {entry["ReceiptHandle"] for entry in params["Entries"]}
            found = {"Successful": [{"Id": entry} for entry in good], "Failed": []}
        await respond(send, 200, json.dumps(found).encode(), ())


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.mark.parametrize(("params", "seconds"), [({}, DEFAULT_SECONDS), ({"VisibilityTimeout": 30}, 30)], ids=["queue", "receive"])
def test_a_receipt_is_valid_for_the_visibility_timeout_of_its_receive_or_else_of_the_queue(
    queue: Queue, params: dict[str, int], seconds: float
) -> None:
    receipt = queue.receive(**params)
    queue.time = seconds - 0.1
    assert queue.delete(receipt)["Successful"] == [receipt]
    receipt = queue.receive(**params)
    queue.time += seconds
    assert queue.delete(receipt)["Failed"] == [receipt]


def test_only_the_expired_receipts_of_a_batch_are_refused(queue: Queue) -> None:
    old = queue.receive(VisibilityTimeout=5)
    queue.time = 5
    new = queue.receive()
    assert queue.delete(old, new, "unknown") == {"Successful": [new, "unknown"], "Failed": [old]}
    assert old not in queue.deleted


def test_the_single_delete_of_an_expired_receipt_is_an_error(queue: Queue) -> None:
    receipt = queue.receive(VisibilityTimeout=0)
    answer = queue.sqs("DeleteMessage", ReceiptHandle=receipt)
    assert (answer.status, answer.headers["x-amzn-query-error"]) == (400, "InvalidParameterValue;Sender")
    assert b"The receipt handle has expired" in answer.body


def test_a_message_may_be_deleted_again_while_its_receipt_is_valid(queue: Queue) -> None:
    batch, single = queue.receive(), queue.receive()
    queue.sqs("DeleteMessage", ReceiptHandle=single)
    for _ in range(2):
        assert queue.delete(batch)["Successful"] == [batch]
        assert queue.sqs("DeleteMessage", ReceiptHandle=single) == {}
    queue.time = DEFAULT_SECONDS
    assert queue.delete(batch)["Failed"] == [batch]


def test_a_changed_visibility_moves_the_end_but_revives_no_receipt(queue: Queue) -> None:
    kept, gone = queue.receive(VisibilityTimeout=10), queue.receive(VisibilityTimeout=5)
    queue.time = 6
    entries = [{"Id": receipt, "ReceiptHandle": receipt, "VisibilityTimeout": 100} for receipt in (kept, gone)]
    queue.sqs("ChangeMessageVisibilityBatch", Entries=entries)
    queue.time = 50
    assert queue.delete(kept, gone) == {"Successful": [kept], "Failed": [gone]}


def test_a_message_that_is_given_back_cannot_be_deleted(queue: Queue) -> None:
    receipt = queue.receive()
    queue.sqs("ChangeMessageVisibility", ReceiptHandle=receipt, VisibilityTimeout=0)
    assert queue.delete(receipt)["Failed"] == [receipt]
