"""The prepared calls to SQS say and understand what botocore's own do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from relay_agent.tdp.aws_clients import Aws
from relay_agent.tdp.platform_http import PlatformHttp
from tests.unit.tdp.scenes import Seen, Server, Source

URL = "https://sqs.eu-west-1.amazonaws.com/1/q.fifo"
CALLS: dict[str, dict[str, Any]] = {
    "receive_message": {"QueueUrl": URL, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20, "VisibilityTimeout": 60},
    "delete_message_batch": {"QueueUrl": URL, "Entries": [{"Id": "0", "ReceiptHandle": "r+/="}]},
    "send_message_batch": {"QueueUrl": URL, "Entries": [{"Id": "0", "MessageBody": 'é "\\\n 🧪'}]},
}
ANSWERS: dict[str, dict[str, Any]] = {
    "receive_message": {"Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Body": "é", "MD5OfBody": "x"}]},
    "delete_message_batch": {"Successful": [{"Id": "0"}], "Failed": []},
    "send_message_batch": {"Successful": [], "Failed": [{"Id": "0", "Code": "InvalidMessageContents", "SenderFault": True}]},
}
SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=\S+/(eu-west-1/sqs/aws4_request), SignedHeaders=(\S+), Signature=[0-9a-f]{64}")


@pytest.fixture
def both(server: Server, http: PlatformHttp) -> list[Any]:
    """The prepared client, and botocore's behind it."""
    prepared = Aws(http, Source().credentials, server.url).client("sqs", "eu-west-1")
    return [prepared, prepared._client]


def said(seen: Seen) -> tuple[object, ...]:
    """What matters of a request: its text and time differ."""
    signed = SIGNED.fullmatch(seen.headers["authorization"])
    assert signed
    names = ("content-type", "x-amz-target", "x-amzn-query-mode", "x-amz-security-token", "host")
    return seen.method, seen.path, seen.json(), {name: seen.headers[name] for name in names}, signed[1], set(signed[2].split(";"))


def asked(clients: list[Any], name: str, ask: Callable[[Callable[[], Any]], object]) -> list[object]:
    return [ask(lambda client=client: getattr(client, name)(**CALLS[name])) for client in clients]  # type: ignore[misc]


@pytest.mark.parametrize("name", CALLS)
def test_a_call_asks_and_understands_what_botocore_s_does(server: Server, both: list[Any], name: str) -> None:
    server.answer(ANSWERS[name] | {"Unknown": None})
    ours, theirs = asked(both, name, lambda call: call())
    del theirs["ResponseMetadata"]  # type: ignore[attr-defined]
    assert ours == theirs == ANSWERS[name]
    first, second = map(said, server.seen)
    assert first == second


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (
            400,
            {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no"},
            {"x-amzn-query-error": "AWS.SimpleQueueService.NonExistentQueue;Sender"},
        ),
        (403, {"__type": "com.amazon.coral.service#ExpiredTokenException", "message": "no"}, {}),
        (400, {"__type": "com.amazonaws.sqs#ReceiptHandleIsInvalid", "message": "no"}, {}),
        (503, b"<html>busy</html>", {}),
        (500, b"", {}),
    ],
)
@pytest.mark.parametrize("name", CALLS)
def test_an_error_has_the_code_and_status_that_botocore_s_has(
    server: Server, both: list[Any], name: str, status: int, body: object, headers: dict[str, str]
) -> None:
    server.answer(body, status)
    server.headers = headers

    def refusal(call: Callable[[], Any]) -> object:
        with pytest.raises(ClientError) as caught:
            call()
        found = caught.value.response
        return found["Error"]["Code"], found["ResponseMetadata"]["HTTPStatusCode"]

    ours, theirs = asked(both, name, refusal)
    assert ours == theirs


def test_what_is_not_prepared_is_botocore_s(server: Server, both: list[Any]) -> None:
    server.answer({"Attributes": {"QueueArn": "arn"}})
    assert both[0].get_queue_attributes(QueueUrl=URL, AttributeNames=["QueueArn"])["Attributes"] == {"QueueArn": "arn"}
