"""The two queues: commands in, status updates out (PROTOCOL §2).

This room owns the SQS calls and their limits. It must not know what a message says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from relay_agent.core.errors import Call, CredentialsExpired, NotThePlatform, QueueUnavailable
from relay_agent.tdp.aws_clients import said, shown_code
from relay_agent.tdp.call_outcomes import Count, counted, nobody
from relay_agent.tdp.credentials import PlatformCredentials

BATCH = 10
"""Entries of one SQS batch call."""
WAIT_SECONDS = 20
"""SQS's longest long poll."""

NO_RECEIPT = "no-receipt-that-sqs-has-given"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Received:
    """One message as SQS hands it out."""

    message_id: str
    body: str
    receipt: str


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of a batch: places that SQS has taken, and of the others (place, code, whether it is the message's fault)."""

    sent: tuple[int, ...]
    failed: tuple[tuple[int, str, bool], ...]


class Queue:
    """One queue of one client. Any thread may call."""

    def __init__(self, client: Any, url: str, credentials: PlatformCredentials, count: Count = nobody, endpoint: str | None = None) -> None:
        """`endpoint` is AWS_ENDPOINT_URL, where that stands in AWS's place: an error names it."""
        self.url = url
        self._endpoint = endpoint
        self._client = client
        self._credentials = credentials
        self._count = count

    def receive(self, count: int, wait_seconds: int = WAIT_SECONDS) -> list[Received]:
        """Receive up to `count` (at most 10) messages, waiting up to `wait_seconds` for the first.

        Raises:
            PlatformError: one of its kinds, see errors.
        """

        def receive() -> list[Received]:
            answer = self._client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=min(count, BATCH), WaitTimeSeconds=wait_seconds)
            found = [_received(item) for item in answer.get("Messages", [])[:BATCH]]
            return [message for message in found if message is not None]

        return self._call(Call.SQS_RECEIVE, receive)

    def delete(self, receipts: Sequence[str]) -> list[int]:
        """Acknowledge messages; the places whose receipt SQS no longer takes come back.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        entries = [{"Id": str(place), "ReceiptHandle": receipt} for place, receipt in enumerate(receipts)]

        def delete() -> set[int]:
            answer = self._client.delete_message_batch(QueueUrl=self.url, Entries=entries)
            return {int(item["Id"]) for item in answer.get("Successful", [])}

        deleted = self._call(Call.SQS_DELETE, delete)
        return [place for place in range(len(entries)) if place not in deleted]

    def send(self, messages: Sequence[str]) -> SendResult:
        """Send up to 10 messages of together at most 256 KiB.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        entries = [{"Id": str(place), "MessageBody": message} for place, message in enumerate(messages)]

        def send() -> tuple[set[int], dict[int, tuple[str, bool]]]:
            answer = self._client.send_message_batch(QueueUrl=self.url, Entries=entries)
            sent = {int(item["Id"]) for item in answer.get("Successful", [])}
            return sent, {
                int(item["Id"]): (shown_code(item.get("Code")), bool(item.get("SenderFault"))) for item in answer.get("Failed", [])
            }

        sent, refused = self._call(Call.SQS_SEND, send)
        # What stands in neither list was not confirmed, and so is sent again.
        failed = [(place, *refused.get(place, ("Unconfirmed", False))) for place in range(len(entries)) if place not in sent]
        return SendResult(tuple(place for place in range(len(entries)) if place in sent), tuple(failed))

    def look(self, *, inbound: bool = True) -> None:
        """See that the queue is there and lets us in, without taking a message from it or putting one in.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        call = Call.SQS_LOOK
        try:
            answer = self._call(call, lambda: self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"]))
        except QueueUnavailable as error:
            if not error.denied or not inbound:
                raise
            # A policy may allow no more than the agent's own calls; this is one of them, and deletes nothing.
            self.delete([NO_RECEIPT])
            return
        if not answer.get("Attributes"):
            raise NotThePlatform(call, "the answer says nothing of a queue").at(self._endpoint)

    def _call(self, name: Call, call: Callable[[], T]) -> T:
        """Call, and once more with new credentials where AWS says that they have ended."""
        used = self._credentials.access_key_in_use
        try:
            with counted(self._count, name):
                return self._once(name, call)
        except CredentialsExpired:
            self._credentials.renew(used)
            with counted(self._count, name):
                return self._once(name, call)

    def _once(self, name: Call, call: Callable[[], T]) -> T:
        return said(name, self.url, call, self._endpoint)


def _received(item: Any) -> Received | None:
    """One message; what is none stands in no other's way. One without a text is taken, and acknowledged, as a malformed one."""
    receipt, body = (item.get(name) if isinstance(item, dict) else None for name in ("ReceiptHandle", "Body"))
    if not isinstance(receipt, str):
        return None  # It cannot be acknowledged either: SQS hands it out again.
    return Received(str(item.get("MessageId", "")), body if isinstance(body, str) else "", receipt)
