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
_BAD_RECEIPT = ("ReceiptHandleIsInvalid", "InvalidParameterValue")
"""How the codes end by which SQS refuses a receipt: on FIFO queues also one whose message is visible again."""
NO_RECEIPT = "no-receipt-that-sqs-has-given"

T = TypeVar("T")


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Received:
    """One message as SQS delivers it; `receipt` is needed to delete it.

    `lease_until` is when SQS may hand it to another receiver, in seconds of `Clock.boottime`: counted from before it was asked for.
    """

    message_id: str
    body: str
    receipt: str
    lease_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Lease:
    """For how long a received message is this agent's alone: its visibility timeout, in seconds.

    `boottime` is `Clock.boottime`, because the lease also runs out while the machine sleeps.
    """

    seconds: int
    boottime: Callable[[], float]
    earlier_seconds: int = 0
    """The longest that earlier runs used whose messages may still be hidden (`earlier_lease`); 0 if there were none."""

    def end(self) -> float:
        """Return when a lease ends that begins now."""
        return self.boottime() + self.seconds

    def hidden_seconds(self) -> int:
        """Return for how long a receive of this run or of an earlier one may hide a message at most."""
        return hidden_by(max(self.seconds, self.earlier_seconds))


def longest_wait_seconds(lease_seconds: int) -> int:
    """Return how many seconds a receive may wait: the lease counts from before the call, and half of it must be left when messages come."""
    return min(WAIT_SECONDS, lease_seconds // 2)


def hidden_by(lease_seconds: int) -> int:
    """Return for how long a receive may hide a message if its answer is lost.

    SQS may receive at the end of the wait, and the lease begins then.
    """
    return lease_seconds + longest_wait_seconds(lease_seconds)


@dataclass(frozen=True, slots=True)
class Deleted:
    """The outcome of a batch of deletes by the receipts' indexes. What is in neither set may be deleted or not: ask again.

    `refused` are receipts that SQS no longer accepts: the message is visible again, or another receiver has it.
    """

    done: frozenset[int]
    refused: frozenset[int]
    code: str = ""
    """SQS's code for the first entry that is not done, empty if there is none."""


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

    def receive(self, count: int, wait_seconds: int = WAIT_SECONDS, lease: Lease | None = None) -> list[Received]:
        """Receive up to `count` (at most 10) messages, waiting up to `wait_seconds` for the first.

        Without a `lease` the queue's own visibility timeout applies.

        Raises:
            PlatformError: one of its kinds, see errors.
        """

        def receive() -> list[Received]:
            visibility = {} if lease is None else {"VisibilityTimeout": lease.seconds}
            until = 0.0 if lease is None else lease.end()
            answer = self._client.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=min(count, BATCH), WaitTimeSeconds=wait_seconds, **visibility
            )
            found = [_received(item, until) for item in answer.get("Messages", [])[:BATCH]]
            return [message for message in found if message is not None]

        return self._call(Call.SQS_RECEIVE, receive)

    def delete(self, receipts: Sequence[str], still: Callable[[], bool] = _always) -> Deleted:
        """Acknowledge messages. `still` says whether the call may be repeated with new credentials, if AWS refuses the old ones.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        entries = [{"Id": str(place), "ReceiptHandle": receipt} for place, receipt in enumerate(receipts)]

        def delete() -> Deleted:
            answer = self._client.delete_message_batch(QueueUrl=self.url, Entries=entries)
            failed = {int(item["Id"]): item for item in answer.get("Failed", [])}
            done = frozenset(int(item["Id"]) for item in answer.get("Successful", [])) - failed.keys()
            # An entry may also fail inside AWS ("InternalError"): then the message is as it was, and so is the receipt.
            refused = frozenset(place for place, item in failed.items() if shown_code(item.get("Code")).endswith(_BAD_RECEIPT))
            open_ones = [place for place in range(len(entries)) if place not in done]
            code = shown_code(failed.get(open_ones[0], {}).get("Code", "Unconfirmed")) if open_ones else ""
            return Deleted(done, refused, code)

        return self._call(Call.SQS_DELETE, delete, still)

    def give_back(self, receipts: Sequence[str]) -> None:
        """Make SQS deliver received messages again at once.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        entries = [{"Id": str(place), "ReceiptHandle": receipt, "VisibilityTimeout": 0} for place, receipt in enumerate(receipts)]
        self._call(Call.SQS_RETURN, lambda: self._client.change_message_visibility_batch(QueueUrl=self.url, Entries=entries))

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

    def _call(self, name: Call, call: Callable[[], T], still: Callable[[], bool] = _always) -> T:
        """Call; if AWS says that the credentials have expired, call again with new ones, unless it is too late for that by then."""
        used = self._credentials.access_key_in_use
        try:
            with count_outcome(self._count, name):
                return self._once(name, call)
        except CredentialsExpired:
            self._credentials.renew(used)
            if not still():
                raise
            with count_outcome(self._count, name):
                return self._once(name, call)

    def _once(self, name: Call, call: Callable[[], T]) -> T:
        return call_aws(name, self.url, call, self._endpoint)


def _received(item: Any, lease_until: float) -> Received | None:
    """Return one message, None if it has no receipt; without a text it is received as an empty, and so malformed, message."""
    receipt, body = (item.get(name) if isinstance(item, dict) else None for name in ("ReceiptHandle", "Body"))
    if not isinstance(receipt, str) or not receipt.isascii():
        return None  # It cannot be acknowledged either, so SQS delivers it again. (AWS's are Base64.)
    return Received(str(item.get("MessageId", "")), body if isinstance(body, str) else "", receipt, lease_until)
