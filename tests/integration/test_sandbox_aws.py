"""The sandbox's AWS side: credentials that are checked, queues, payloads through S3, logs (PROTOCOL §2).

Through real AWS clients and plain HTTP, without an agent.
"""

from __future__ import annotations

import gzip
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from relay_agent.sandbox.aws.credentials import Credentials
from relay_agent.sandbox.server import Sandbox
from tests.integration.sandbox_calls import REQUEST, agent_call, aws, config, receive, report

CALLS: dict[str, Any] = {
    "sqs": lambda client: client.list_queues(),
    "logs": lambda client: client.describe_log_groups(),
    "s3": lambda client: client.list_buckets(),
}
EXPIRED = {"sqs": "ExpiredToken", "logs": "ExpiredTokenException", "s3": "ExpiredToken"}
UNKNOWN = {"sqs": "InvalidClientTokenId", "logs": "UnrecognizedClientException", "s3": "InvalidAccessKeyId"}
WRONG_TOKEN = {"sqs": "InvalidClientTokenId", "logs": "UnrecognizedClientException", "s3": "InvalidToken"}
GZIP_JSON = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


def refusal(sandbox: Sandbox, service: str, credentials: Credentials) -> str:
    with aws(sandbox, service, credentials) as client, pytest.raises(ClientError) as caught:
        CALLS[service](client)
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize("service", CALLS)
def test_issued_credentials_are_good_until_they_expire(sandbox: Sandbox, agent_id: str, service: str) -> None:
    given = agent_call(sandbox, "POST", "credentials", agent_id).json()
    credentials = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    with aws(sandbox, service, credentials) as client:
        CALLS[service](client)
        sandbox.expire_credentials()
        with pytest.raises(ClientError) as caught:
            CALLS[service](client)
    assert caught.value.response["Error"]["Code"] == EXPIRED[service]
    with aws(sandbox, service) as client:
        CALLS[service](client)


@pytest.mark.parametrize("service", CALLS)
def test_credentials_expire_by_themselves(sandbox: Sandbox, service: str) -> None:
    assert refusal(sandbox, service, sandbox.credentials(lifetime_seconds=0)) == EXPIRED[service]


@pytest.mark.parametrize("service", CALLS)
def test_an_unknown_key_is_refused(sandbox: Sandbox, service: str) -> None:
    assert refusal(sandbox, service, Credentials("AKIAUNKNOWN", "secret")) == UNKNOWN[service]


@pytest.mark.parametrize("service", CALLS)
def test_a_key_with_another_keys_token_is_refused(sandbox: Sandbox, service: str) -> None:
    one, other = sandbox.credentials(), sandbox.credentials()
    assert refusal(sandbox, service, Credentials(one.access_key_id, "secret", other.session_token)) == WRONG_TOKEN[service]


@pytest.mark.parametrize("service, code", [("sqs", "SignatureDoesNotMatch"), ("s3", "RequestTimeTooSkewed")])
def test_a_clock_that_is_far_off_is_refused(sandbox: Sandbox, service: str, code: str) -> None:
    credentials = sandbox.credentials()
    sandbox.clock_offset = timedelta(minutes=20)
    try:
        assert refusal(sandbox, service, credentials) == code
    finally:
        sandbox.clock_offset = timedelta()


def test_a_call_without_credentials_is_refused(sandbox: Sandbox) -> None:
    answer = requests.post(sandbox.aws_endpoint, headers={"x-amz-target": "AmazonSQS.ListQueues"}, data="{}", timeout=5)
    assert (answer.status_code, answer.headers["x-amzn-query-error"]) == (403, "MissingAuthenticationToken;Sender")
    for path in ("/", "/_ministack/reset", "/_localstack/health"):
        answer = requests.get(sandbox.aws_endpoint + path, timeout=5)
        assert (answer.status_code, "AccessDenied" in answer.text) == (403, True)


def test_one_group_holds_all_commands_of_an_agent(sandbox: Sandbox, agent_id: str) -> None:
    sandbox.create_command(agent_id, REQUEST)
    url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    with aws(sandbox, "sqs") as sqs:
        assert len(sqs.receive_message(QueueUrl=url)["Messages"]) == 1
        sandbox.create_command(agent_id, REQUEST)
        assert "Messages" not in sqs.receive_message(QueueUrl=url)
    assert sandbox.queue_depth(agent_id) == (1, 1)


def test_any_text_can_be_put_on_an_agents_queue(sandbox: Sandbox, agent_id: str) -> None:
    sandbox.send_raw(agent_id, "no json", group="one")
    sandbox.send_raw(agent_id, "no json", group="two")
    url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    with aws(sandbox, "sqs") as sqs:
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["MessageGroupId"])["Messages"]
    assert [(message["Body"], message["Attributes"]["MessageGroupId"]) for message in messages] == [("no json", "one"), ("no json", "two")]


@pytest.mark.parametrize("size, encoding", [(10, None), (400_000, "gzip")])
def test_a_referenced_body_is_fetched_by_its_url_alone(sandbox: Sandbox, agent_id: str, size: int, encoding: str | None) -> None:
    payload = {"url": "http://x", "body": "ü" * size}
    command_id = sandbox.create_command(agent_id, payload, delivery="referenced")
    [message] = receive(sandbox, agent_id)
    assert (message["body"], message["bodyDelivery"]) == (None, "referenced")
    answer = requests.get(message["bodyUrl"], timeout=5)
    assert answer.json() == payload
    assert answer.headers.get("content-encoding") == encoding
    assert sandbox.command(command_id).to_json()["requestPayloadDelivery"] == "referenced"


def test_a_body_over_the_queues_limit_is_sent_by_reference_automatically(sandbox: Sandbox, agent_id: str) -> None:
    sandbox.create_command(agent_id, {"url": "http://x", "body": "x" * 262_144})
    assert receive(sandbox, agent_id)[0]["bodyDelivery"] == "referenced"


def test_characters_that_sqs_does_not_take_reach_the_agent(sandbox: Sandbox, agent_id: str) -> None:
    payload = {"body": "ü \u0000 \uffff \ud800 \x1f"}
    sandbox.create_command(agent_id, payload)
    assert receive(sandbox, agent_id)[0]["body"] == payload


def test_an_uploaded_response_becomes_the_commands_response(sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    [message] = receive(sandbox, agent_id)
    body = {"statusCode": 200, "body": "x" * 300_000}
    answer = requests.put(message["responseBodyUploadUrl"], data=gzip.compress(json.dumps(body).encode()), headers=GZIP_JSON, timeout=5)
    assert answer.status_code == 200
    report(sandbox, agent_id, command_id, "SUCCESS", responseBodyDelivery="referenced")
    assert sandbox.wait_final(command_id).response_body == body


@pytest.mark.parametrize(
    "upload",
    [b"no gzip", gzip.compress(b"no json"), gzip.compress(b"{}")[:-4], gzip.compress(b"{}")[:10] + b"\xff" * 20],
    ids=range(4),
)
def test_an_upload_that_cannot_be_read_is_reported(sandbox: Sandbox, agent_id: str, upload: bytes) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    requests.put(receive(sandbox, agent_id)[0]["responseBodyUploadUrl"], data=upload, headers=GZIP_JSON, timeout=5)
    report(sandbox, agent_id, command_id, "SUCCESS", responseBodyDelivery="referenced")
    assert "could not read" in str(sandbox.wait_final(command_id).response_body)


def test_a_response_that_was_never_uploaded_is_reported_as_missing(sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    report(sandbox, agent_id, command_id, "SUCCESS", responseBodyDelivery="referenced")
    assert "could not read" in str(sandbox.wait_final(command_id).response_body)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain", "Content-Encoding": "gzip"}])
def test_an_upload_with_other_headers_than_agreed_is_refused(sandbox: Sandbox, agent_id: str, headers: dict[str, str]) -> None:
    sandbox.create_command(agent_id, REQUEST)
    url = receive(sandbox, agent_id)[0]["responseBodyUploadUrl"]
    answer = requests.put(url, data=b"x", headers=headers, timeout=5)
    assert (answer.status_code, "SignatureDoesNotMatch" in answer.text) == (403, True)


def test_a_presigned_url_ends(sandbox: Sandbox) -> None:
    url = sandbox.presign("GET", "commands/none.json", seconds=-60)
    answer = requests.get(url, timeout=5)
    assert (answer.status_code, "Request has expired" in answer.text) == (403, True)


def test_a_presigned_url_dies_with_the_credentials_that_signed_it(sandbox: Sandbox) -> None:
    with aws(sandbox, "s3", sandbox.credentials(lifetime_seconds=0)) as s3:
        url = s3.generate_presigned_url("get_object", Params={"Bucket": "any", "Key": "any"})
    assert "<Code>ExpiredToken</Code>" in requests.get(url, timeout=5).text


def test_log_events_are_kept_for_the_agent(sandbox: Sandbox, agent_id: str) -> None:
    group = config(sandbox, agent_id)["logGroupName"]
    now = int(sandbox.now().timestamp() * 1000)
    with aws(sandbox, "logs") as logs:
        logs.create_log_stream(logGroupName=group, logStreamName="one")
        logs.put_log_events(logGroupName=group, logStreamName="one", logEvents=[{"timestamp": now, "message": "hello"}])
    assert [(event["logStreamName"], event["message"]) for event in sandbox.log_events(agent_id)] == [("one", "hello")]


def test_a_long_poll_ends_when_a_message_comes_and_when_its_time_is_over(sandbox: Sandbox, agent_id: str) -> None:
    url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    with aws(sandbox, "sqs") as sqs, ThreadPoolExecutor(1) as pool:
        polling = pool.submit(sqs.receive_message, QueueUrl=url, WaitTimeSeconds=20)
        sandbox.wait(lambda: sandbox.under_way["ReceiveMessage"] == 1)
        sandbox.create_command(agent_id, REQUEST)
        assert len(polling.result(5)["Messages"]) == 1
        assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)


def test_a_deleted_message_frees_its_group_for_a_waiting_poll(sandbox: Sandbox, agent_id: str) -> None:
    first, second = sandbox.create_command(agent_id, REQUEST), sandbox.create_command(agent_id, REQUEST)
    url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    with aws(sandbox, "sqs") as sqs, ThreadPoolExecutor(1) as pool:
        [message] = sqs.receive_message(QueueUrl=url)["Messages"]
        polling = pool.submit(sqs.receive_message, QueueUrl=url, WaitTimeSeconds=20)
        sandbox.wait(lambda: sandbox.under_way["ReceiveMessage"] == 1)
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        [freed] = polling.result(5)["Messages"]
    assert [json.loads(each["Body"])["commandId"] for each in (message, freed)] == [first, second]


def test_a_long_poll_whose_client_left_swallows_no_message(sandbox: Sandbox, agent_id: str) -> None:
    url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    with aws(sandbox, "sqs", read_timeout=0.5) as leaving, pytest.raises(Exception, match="timeout"):
        leaving.receive_message(QueueUrl=url, WaitTimeSeconds=20)
    sandbox.wait(lambda: sandbox.under_way["ReceiveMessage"] == 0)
    command_id = sandbox.create_command(agent_id, REQUEST)
    assert [message["commandId"] for message in receive(sandbox, agent_id, wait=5)] == [command_id]


def test_a_stop_ends_long_polls_and_joins_every_thread() -> None:
    before = set(threading.enumerate())
    outcome: list[str] = []
    with Sandbox() as other, aws(other, "sqs") as sqs:
        url = config(other, other.agent_id)["rpcSourceQueueUrl"]

        def poll() -> None:
            try:
                sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)
            except Exception as error:
                outcome.append(type(error).__name__)

        polling = threading.Thread(target=poll)
        polling.start()
        other.wait(lambda: other.under_way["ReceiveMessage"] == 1)
        other.stop()
        polling.join(5)
        assert outcome
    assert set(threading.enumerate()) <= before


# --- receipts that expire, as those of FIFO queues do ---


def _in_flight(sandbox: Sandbox, agent_id: str, sqs: Any, **params: Any) -> tuple[str, str]:
    """Return the queue's URL and the receipt of a message that was received."""
    agent_call(sandbox, "GET", "", agent_id)
    url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="{}", MessageGroupId="g", MessageDeduplicationId="d")
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2, **params)["Messages"]
    return url, message["ReceiptHandle"]


def test_a_message_whose_visibility_has_ended_cannot_be_deleted(sandbox: Sandbox, agent_id: str) -> None:
    with aws(sandbox, "sqs") as sqs:
        url, receipt = _in_flight(sandbox, agent_id, sqs, VisibilityTimeout=0)
        with pytest.raises(ClientError, match="The receipt handle has expired") as caught:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=receipt)
        assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"
        (again,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2)["Messages"]
        answer = sqs.delete_message_batch(
            QueueUrl=url,
            Entries=[{"Id": "old", "ReceiptHandle": receipt}, {"Id": "new", "ReceiptHandle": again["ReceiptHandle"]}],
        )
    assert [entry["Id"] for entry in answer["Successful"]] == ["new"]
    assert [(entry["Id"], entry["Code"], entry["SenderFault"]) for entry in answer["Failed"]] == [("old", "ReceiptHandleIsInvalid", True)]


def test_a_message_that_is_given_back_is_received_at_once_and_its_old_receipt_is_refused(sandbox: Sandbox, agent_id: str) -> None:
    with aws(sandbox, "sqs") as sqs:
        url, receipt = _in_flight(sandbox, agent_id, sqs)
        sqs.change_message_visibility_batch(QueueUrl=url, Entries=[{"Id": "0", "ReceiptHandle": receipt, "VisibilityTimeout": 0}])
        with pytest.raises(ClientError, match="The receipt handle has expired"):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=receipt)
        assert len(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2)["Messages"]) == 1


def test_a_message_may_be_deleted_twice_while_its_receipt_is_valid(sandbox: Sandbox, agent_id: str) -> None:
    with aws(sandbox, "sqs") as sqs:
        url, receipt = _in_flight(sandbox, agent_id, sqs, VisibilityTimeout=30)
        for _ in range(2):
            answer = sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "0", "ReceiptHandle": receipt}])
            assert not answer.get("Failed")
