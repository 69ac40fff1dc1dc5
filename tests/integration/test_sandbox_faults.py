"""Faults on demand, on every side of the sandbox: each affects the call it names, as often as it says, and ends when released."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.exceptions import ConnectionClosedError as BotoConnectionClosed

from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from tests.integration.sandbox_calls import REQUEST, agent_call, aws, config, receive, report


def test_a_rate_limit_happens_as_often_as_it_says(sandbox: Sandbox, agent_id: str) -> None:
    fault = Fault("rest", "agent/config", contains=agent_id, count=2, status=429, headers={"Retry-After": "3"}, body='{"statusCode": 429}')
    with sandbox.inject(fault) as handle:
        answers = [agent_call(sandbox, "POST", "config", agent_id) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "3"
    assert handle.hits == 2


def test_a_fault_names_method_and_path(sandbox: Sandbox, agent_id: str) -> None:
    with sandbox.inject(Fault("rest", "PUT /v1/data-acquisition/agent/status", contains=agent_id, status=503)):
        assert agent_call(sandbox, "POST", "status", agent_id).status_code == 200
        assert agent_call(sandbox, "PUT", "status", agent_id).status_code == 503


def test_a_fault_can_let_calls_through_first(sandbox: Sandbox, agent_id: str) -> None:
    with sandbox.inject(Fault("rest", "agent/status", contains=agent_id, skip=1, status=500)):
        assert [agent_call(sandbox, "POST", "status", agent_id).status_code for _ in range(3)] == [200, 500, 200]


def test_a_call_may_answer_html_with_200(sandbox: Sandbox, agent_id: str) -> None:
    fault = Fault("rest", "agent/config", contains=agent_id, status=200, body="<html>Log in</html>", headers={"content-type": "text/html"})
    with sandbox.inject(fault):
        assert agent_call(sandbox, "POST", "config", agent_id).text == "<html>Log in</html>"


def test_a_connection_may_close_without_an_answer(sandbox: Sandbox, agent_id: str) -> None:
    with sandbox.inject(Fault("rest", "agent/config", contains=agent_id, close=True)), pytest.raises(requests.ConnectionError):
        agent_call(sandbox, "POST", "config", agent_id)
    assert agent_call(sandbox, "POST", "config", agent_id).status_code == 200


def test_a_call_hangs_until_it_is_released(sandbox: Sandbox, agent_id: str) -> None:
    handle = sandbox.inject(Fault("rest", "agent/config", contains=agent_id, hang_seconds=FOREVER))
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(agent_call, sandbox, "POST", "config", agent_id)
        sandbox.wait(lambda: handle.hits == 1)
        assert not hanging.done()
        handle.release()
        assert hanging.result(10).status_code == 200


def test_a_call_may_only_be_late(sandbox: Sandbox, agent_id: str) -> None:
    with sandbox.inject(Fault("rest", "agent/config", contains=agent_id, hang_seconds=0.2)):
        assert agent_call(sandbox, "POST", "config", agent_id).elapsed.total_seconds() >= 0.2


def test_an_aws_operation_fails_with_a_code_of_choice(sandbox: Sandbox, agent_id: str) -> None:
    url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    fault = Fault("sqs", "ReceiveMessage", contains=agent_id, status=403, code="AccessDenied", message="no")
    with sandbox.inject(fault), aws(sandbox, "sqs") as sqs:
        sqs.get_queue_attributes(QueueUrl=url)
        with pytest.raises(ClientError) as caught:
            sqs.receive_message(QueueUrl=url)
        assert caught.value.response["Error"] == {
            "Code": "AccessDenied",
            "Message": "no",
            "Type": "Sender",
            "QueryErrorCode": "AccessDenied",
        }
        sqs.receive_message(QueueUrl=url)


def test_an_upload_to_s3_may_fail(sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    url = receive(sandbox, agent_id)[0]["responseBodyUploadUrl"]
    with sandbox.inject(Fault("s3", "PutObject", contains=command_id, status=503, code="SlowDown")):
        answer = requests.put(url, data=b"x", headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}, timeout=5)
    assert (answer.status_code, "<Code>SlowDown</Code>" in answer.text) == (503, True)


def test_logs_may_be_unreachable(sandbox: Sandbox, agent_id: str) -> None:
    group = config(sandbox, agent_id)["logGroupName"]
    with (
        sandbox.inject(Fault("logs", contains=agent_id, close=True, count=None)),
        aws(sandbox, "logs") as logs,
        pytest.raises((BotoConnectionClosed, EndpointConnectionError)),
    ):
        logs.create_log_stream(logGroupName=group, logStreamName="one")


def test_a_fault_does_not_keep_the_platform_from_its_own_work(sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    report(sandbox, agent_id, command_id, "PROCESSING")
    with sandbox.inject(Fault("sqs", "ReceiveMessage", count=None, status=500)):
        report(sandbox, agent_id, command_id, "SUCCESS")
        assert sandbox.wait_final(command_id).status == "SUCCESS"


def test_a_wait_that_is_in_vain_fails_loudly(sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    with pytest.raises(TimeoutError, match="still PENDING"):
        sandbox.wait_final(command_id, timeout=0.05)
    with pytest.raises(TimeoutError, match="did not hold"):
        sandbox.wait(lambda: False, timeout=0.05)


def test_a_wait_ends_with_the_change_that_it_waits_for(sandbox: Sandbox, agent_id: str) -> None:
    beating = threading.Thread(target=agent_call, args=(sandbox, "POST", "status", agent_id))
    beating.start()
    sandbox.wait(lambda: len(sandbox.heartbeats(agent_id)) == 1)
    beating.join()
