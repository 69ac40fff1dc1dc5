"""The bench's bare SQS behaves towards boto3 as SQS does, where the agent and the floors rely on it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests

from tests.bench.places import AGENT_ID, INBOUND, LOG_GROUP, OUTBOUND, REGION
from tests.bench.processes import BareSqs, bare_sqs

KEYS = {"region_name": REGION, "aws_access_key_id": "key", "aws_secret_access_key": "secret"}


@pytest.fixture
def platform() -> Iterator[BareSqs]:
    with bare_sqs() as started:
        yield started


@pytest.fixture
def sqs(platform: BareSqs) -> Iterator[Any]:
    client = boto3.client("sqs", endpoint_url=platform.url, **KEYS)
    yield client
    client.close()


def load(platform: BareSqs, *commands: tuple[str, str], **more: Any) -> None:
    platform.load([{"id": name, "body": json.dumps({"commandId": name}), "group": group, **more} for name, group in commands])


def receive(sqs: Any, platform: BareSqs, **options: Any) -> list[tuple[str, str]]:
    """The ids and receipts of what is there."""
    answer = sqs.receive_message(QueueUrl=platform.queue_url(INBOUND), **{"MaxNumberOfMessages": 10, "WaitTimeSeconds": 0, **options})
    return [(json.loads(message["Body"])["commandId"], message["ReceiptHandle"]) for message in answer.get("Messages", [])]


def ids(found: list[tuple[str, str]]) -> list[str]:
    return [name for name, _ in found]


def delete(sqs: Any, platform: BareSqs, receipts: list[str]) -> Any:
    entries = [{"Id": str(place), "ReceiptHandle": receipt} for place, receipt in enumerate(receipts)]
    return sqs.delete_message_batch(QueueUrl=platform.queue_url(INBOUND), Entries=entries)


def test_a_group_is_handed_out_in_order_and_is_locked_while_one_of_its_messages_is_in_flight(platform: BareSqs, sqs: Any) -> None:
    load(platform, *((f"a{number}", "a") for number in range(12)))
    first = receive(sqs, platform)
    assert ids(first) == [f"a{number}" for number in range(10)]
    assert receive(sqs, platform) == []
    delete(sqs, platform, [receipt for _, receipt in first[:9]])
    assert receive(sqs, platform) == []
    sqs.delete_message(QueueUrl=platform.queue_url(INBOUND), ReceiptHandle=first[9][1])
    assert ids(receive(sqs, platform)) == ["a10", "a11"]


def test_a_locked_group_holds_up_no_other(platform: BareSqs, sqs: Any) -> None:
    load(platform, ("a0", "a"), ("a1", "a"), ("b0", "b"))
    assert ids(receive(sqs, platform, MaxNumberOfMessages=1)) == ["a0"]
    assert ids(receive(sqs, platform)) == ["b0"]


def test_a_long_poll_is_answered_as_soon_as_something_comes(platform: BareSqs, sqs: Any) -> None:
    load(platform, ("a0", "a"), after=0.3)
    assert receive(sqs, platform) == []
    assert ids(receive(sqs, platform, WaitTimeSeconds=10)) == ["a0"]


def test_a_long_poll_ends_empty_when_its_time_is_over(platform: BareSqs, sqs: Any) -> None:
    assert receive(sqs, platform, WaitTimeSeconds=1) == []


def test_what_is_not_deleted_comes_back_when_its_visibility_timeout_is_over(platform: BareSqs, sqs: Any) -> None:
    load(platform, ("a0", "a"), ("a1", "a"))
    assert ids(receive(sqs, platform, VisibilityTimeout=1)) == ["a0", "a1"]
    assert ids(receive(sqs, platform, WaitTimeSeconds=10)) == ["a0", "a1"]


def test_what_is_given_back_comes_first_again(platform: BareSqs, sqs: Any) -> None:
    load(platform, ("a0", "a"), ("a1", "a"))
    ((_, receipt),) = receive(sqs, platform, MaxNumberOfMessages=1)
    entry = {"Id": "0", "ReceiptHandle": receipt, "VisibilityTimeout": 0}
    answer = sqs.change_message_visibility_batch(QueueUrl=platform.queue_url(INBOUND), Entries=[entry])
    assert answer["Successful"] == [{"Id": "0"}]
    ((_, receipt),) = receive(sqs, platform, MaxNumberOfMessages=1)
    sqs.change_message_visibility(QueueUrl=platform.queue_url(INBOUND), ReceiptHandle=receipt, VisibilityTimeout=0)
    assert ids(receive(sqs, platform)) == ["a0", "a1"]
    assert platform.report()["commands"]["a0"]["handed"] == sorted(platform.report()["commands"]["a0"]["handed"])
    assert len(platform.report()["commands"]["a0"]["handed"]) == 3


def test_a_receipt_that_was_used_is_refused(platform: BareSqs, sqs: Any) -> None:
    load(platform, ("a0", "a"))
    ((_, receipt),) = receive(sqs, platform)
    assert [item["Id"] for item in delete(sqs, platform, [receipt, "unknown"])["Failed"]] == ["1"]
    assert [item["Id"] for item in delete(sqs, platform, [receipt])["Failed"]] == ["0"]


def test_a_sent_message_is_confirmed_with_its_digest_and_an_update_is_an_answer_only_if_it_is_final(platform: BareSqs, sqs: Any) -> None:
    load(platform, ("a0", "a"), ("a1", "a"))
    receive(sqs, platform)
    texts = [json.dumps({"commandId": name, "status": status}) for name, status in (("a0", "PROCESSING"), ("a1", "SUCCESS"))]
    entries = [{"Id": str(place), "MessageBody": text} for place, text in enumerate(texts)]
    sent = sqs.send_message_batch(QueueUrl=platform.queue_url(OUTBOUND), Entries=entries)["Successful"]
    assert [item["MD5OfMessageBody"] for item in sent] == [hashlib.md5(text.encode()).hexdigest() for text in texts]
    assert platform.wait(0)["answered"] == 1
    sqs.send_message(QueueUrl=platform.queue_url(OUTBOUND), MessageBody=texts[0].replace("PROCESSING", "FAILURE"))
    assert platform.wait(5) == {"answered": 2, "expected": 2, "flying": 2, "log_events": 0}
    found = platform.report()
    assert found["commands"]["a0"]["answered"] > found["commands"]["a0"]["handed"][0]
    assert [json.loads(text)["status"] for _, text in found["commands"]["a0"]["updates"]] == ["PROCESSING", "FAILURE"]
    assert found["calls"] == {"ReceiveMessage": 1, "SendMessageBatch": 1, "SendMessage": 1}


def test_one_at_a_time_the_next_is_released_after_the_last_one_s_answer(platform: BareSqs, sqs: Any) -> None:
    platform.load([{"id": name, "body": json.dumps({"commandId": name}), "group": "a"} for name in ("a0", "a1")], pause=0.1)
    ((name, receipt),) = receive(sqs, platform)
    delete(sqs, platform, [receipt])
    assert receive(sqs, platform) == []
    sqs.send_message(QueueUrl=platform.queue_url(OUTBOUND), MessageBody=json.dumps({"commandId": name, "status": "SUCCESS"}))
    assert ids(receive(sqs, platform, WaitTimeSeconds=10)) == ["a1"]


def test_a_message_can_be_sent_to_the_inbound_queue_too(platform: BareSqs, sqs: Any) -> None:
    url = platform.queue_url(INBOUND)
    sqs.send_message(QueueUrl=url, MessageBody='{"commandId": "x"}', MessageGroupId="g", MessageDeduplicationId="x")
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]["ApproximateNumberOfMessages"] == "1"
    assert ids(receive(sqs, platform)) == ["x"]


def test_a_receive_whose_client_has_gone_takes_no_message(platform: BareSqs, sqs: Any) -> None:
    body = json.dumps({"QueueUrl": platform.queue_url(INBOUND), "WaitTimeSeconds": 20})
    with pytest.raises(requests.Timeout), requests.Session() as session:
        session.post(platform.url, data=body, headers={"X-Amz-Target": "AmazonSQS.ReceiveMessage"}, timeout=0.2)
    load(platform, ("a0", "a"), after=0.3)
    assert ids(receive(sqs, platform, WaitTimeSeconds=10)) == ["a0"]


def test_an_operation_that_it_does_not_know_is_refused(platform: BareSqs, sqs: Any) -> None:
    with pytest.raises(sqs.exceptions.ClientError, match="CreateQueue"):
        sqs.create_queue(QueueName="more")


def test_log_lines_are_counted(platform: BareSqs) -> None:
    logs: Any = boto3.client("logs", endpoint_url=platform.url, **KEYS)
    events = [{"timestamp": number, "message": json.dumps({"timestamp": number})} for number in range(3)]
    logs.put_log_events(logGroupName=LOG_GROUP, logStreamName="s", logEvents=events)
    logs.close()
    assert platform.wait(0)["log_events"] == 3


def test_large_answers_are_kept_and_payloads_given_out(platform: BareSqs) -> None:
    url = platform.put_blob("x.json", b"payload")
    with requests.Session() as session:
        assert session.get(url, timeout=5).content == b"payload"
        session.put(f"{platform.url}/s3/answer", data=iter([b"in ", b"chunks"]), timeout=5).raise_for_status()
        config = session.post(f"{platform.url}/v1/data-acquisition/agent/config", json={"agentId": AGENT_ID}, timeout=5).json()
    assert platform.upload("answer") == b"in chunks"
    assert config["rpcSourceQueueUrl"] == platform.queue_url(INBOUND)


def test_many_receivers_get_each_message_once(platform: BareSqs, sqs: Any) -> None:
    load(platform, *((f"{number}", f"g{number}") for number in range(40)))
    found: list[str] = []

    def drain() -> None:
        while batch := receive(sqs, platform):
            found.extend(ids(batch))

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found, key=int) == [str(number) for number in range(40)]
