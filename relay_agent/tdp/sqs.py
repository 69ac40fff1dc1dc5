"""The calls to SQS: one queue for commands, one for status updates (PROTOCOL §2).

This module owns the calls and their limits. It must not know what a message says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from relay_agent.core.errors import Call, CredentialsExpired, NotThePlatform, QueueUnavailable
from relay_agent.tdp.aws_clients import call_aws, shown_code
from relay_agent.tdp.call_outcomes import Count, count_nothing, count_outcome
from relay_agent.tdp.credentials import PlatformCredentials

BATCH = 10
"""SQS's limit of entries in one batch call."""
WAIT_SECONDS = 20
"""SQS's longest long poll."""
NO_RECEIPT = "no-receipt-that-sqs-has-given"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Received:
    """One message as SQS delivers it; `receipt` is needed to delete it."""

    message_id: str
    body: str
    receipt: str


@dataclass(frozen=True, slots=True)
class SendResult:
    """The outcome of a batch by the messages' indexes: `failed` has (index, AWS code, whether the message itself is at fault)."""

    sent: tuple[int, ...]
    failed: tuple[tuple[int, str, bool], ...]


class Queue:
    """One queue of one client. Any thread may call."""

    def __init__(
        self, client: Any, url: str, credentials: PlatformCredentials, count: Count = count_nothing, endpoint: str | None = None
    ) -> None:
        """`endpoint` is AWS_ENDPOINT_URL if it is set: errors name it."""
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
        """Acknowledge messages; return the indexes of the receipts that SQS no longer accepts.

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
        """Send up to 10 messages, together at most 256 KiB.

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
        # A message in neither list is not confirmed, and so is sent again.
        failed = [(place, *refused.get(place, ("Unconfirmed", False))) for place in range(len(entries)) if place not in sent]
        return SendResult(tuple(place for place in range(len(entries)) if place in sent), tuple(failed))

    def look(self, *, inbound: bool = True) -> None:
        """Check that the queue exists and may be used, without receiving or sending a message.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        call = Call.SQS_LOOK
        try:
            answer = self._call(call, lambda: self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"]))
        except QueueUnavailable as error:
            if not error.denied or not inbound:
                raise
            # A policy may allow only the agent's own calls. This is one of them, and deletes nothing.
            self.delete([NO_RECEIPT])
            return
        if not answer.get("Attributes"):
            raise NotThePlatform(call, "the answer does not describe a queue").at(self._endpoint)

    def _call(self, name: Call, call: Callable[[], T]) -> T:
        """Call, and once more with new credentials if AWS says that they have expired."""
        used = self._credentials.access_key_in_use
        try:
            with count_outcome(self._count, name):
                return self._once(name, call)
        except CredentialsExpired:
            self._credentials.renew(used)
            with count_outcome(self._count, name):
                return self._once(name, call)

    def _once(self, name: Call, call: Callable[[], T]) -> T:
        return call_aws(name, self.url, call, self._endpoint)


def _received(item: Any) -> Received | None:
    """Return one message, None if it has no receipt; without a text it is received as an empty, and so malformed, message."""
    receipt, body = (item.get(name) if isinstance(item, dict) else None for name in ("ReceiptHandle", "Body"))
    if not isinstance(receipt, str):
        return None  # It cannot be acknowledged either, so SQS delivers it again.
    return Received(str(item.get("MessageId", "")), body if isinstance(body, str) else "", receipt)
