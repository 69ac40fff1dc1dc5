"""Control of a running sandbox over HTTP, as with curl: faults, and the expiry of credentials.

A request has its effect, a wrong one is refused by name, and no other site's page may send one.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.integration.sandbox_calls import agent_call, aws, config


def control(sandbox: Sandbox, method: str, path: str, **options: Any) -> requests.Response:
    return requests.request(method, f"{sandbox.api_target}/sandbox/{path}", timeout=10, **options)


def inject(sandbox: Sandbox, **fields: Any) -> str:
    answer = control(sandbox, "POST", "faults", json=fields)
    assert answer.status_code == 200, answer.text
    fault_id: str = answer.json()["id"]
    return fault_id


def listed(sandbox: Sandbox, fault_id: str) -> dict[str, Any] | None:
    faults = control(sandbox, "GET", "faults").json()["faults"]
    return next((fault for fault in faults if fault["id"] == fault_id), None)


def test_a_rate_limit_is_injected_counted_and_ended(sandbox: Sandbox, agent_id: str) -> None:
    limit = {"service": "rest", "operation": "agent/status", "contains": agent_id, "count": 2, "status": 429}
    fault_id = inject(sandbox, **limit, headers={"Retry-After": "5"}, body="slow down")
    answers = [agent_call(sandbox, "POST", "status", agent_id) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert (answers[0].headers["retry-after"], answers[0].text) == ("5", "slow down")
    shown = listed(sandbox, fault_id)
    assert shown is not None
    assert shown.items() >= {**limit, "id": fault_id, "hits": 2, "spent": True, "headers": {"Retry-After": "5"}}.items()
    assert control(sandbox, "DELETE", f"faults/{fault_id}").json()["hits"] == 2
    assert listed(sandbox, fault_id) is None


def test_a_call_that_hangs_forever_goes_on_when_its_fault_is_ended(sandbox: Sandbox, agent_id: str) -> None:
    fault_id = inject(sandbox, service="rest", operation="agent/config", contains=agent_id, hang_seconds="forever", count=None)
    [handle] = [handle for handle in sandbox.faults.all() if handle.id == fault_id]
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(agent_call, sandbox, "POST", "config", agent_id)
        sandbox.wait(lambda: handle.hits == 1)
        shown = listed(sandbox, fault_id)
        control(sandbox, "DELETE", f"faults/{fault_id}")
        assert hanging.result(10).status_code == 200
    assert shown is not None
    assert (shown["hang_seconds"], shown["count"]) == ("forever", None)


def test_an_aws_error_is_injected(sandbox: Sandbox, agent_id: str) -> None:
    fault_id = inject(sandbox, service="sqs", operation="ReceiveMessage", contains=agent_id, code="OverLimit", message="too many")
    url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    with aws(sandbox, "sqs") as sqs, pytest.raises(ClientError, match=r"OverLimit.*too many"):
        sqs.receive_message(QueueUrl=url)
    control(sandbox, "DELETE", f"faults/{fault_id}")


def test_every_fault_can_be_ended_at_once_and_none_affects_the_control_calls() -> None:
    with Sandbox() as sandbox:
        handle = sandbox.inject(Fault(count=None, status=500, body=b"\xff"))
        fault_id = inject(sandbox, service="rest", operation="DELETE", close=True)
        assert agent_call(sandbox, "POST", "status", sandbox.agent_id).status_code == 500
        ended = control(sandbox, "DELETE", "faults").json()["faults"]
        assert [(fault["id"], fault["hits"]) for fault in ended] == [(handle.id, 1), (fault_id, 0)]
        assert control(sandbox, "GET", "faults").json() == {"faults": []}
        assert agent_call(sandbox, "POST", "status", sandbox.agent_id).status_code == 200


def test_credentials_are_ended() -> None:
    with Sandbox() as sandbox, aws(sandbox, "sqs") as sqs:
        url = config(sandbox, sandbox.agent_id)["rpcSourceQueueUrl"]
        sqs.get_queue_attributes(QueueUrl=url)
        assert control(sandbox, "POST", "credentials/expire").status_code == 200
        with pytest.raises(ClientError, match="ExpiredToken"):
            sqs.get_queue_attributes(QueueUrl=url)


@pytest.mark.parametrize(
    "fields, problem",
    [
        ({"status": 500, "opration": "agent/config"}, "opration is not a field of a fault"),
        ({"status": 500, "service": "rpc"}, "service must be one of rest, sqs, s3, logs"),
        ({"status": 500, "operation": 1}, "operation must be a string"),
        ({"status": 500, "contains": None}, "contains must be a string"),
        ({"status": 500, "count": 0}, "count must be a whole number from 1"),
        ({"status": 500, "count": True}, "count must be a whole number from 1"),
        ({"status": 500, "skip": -1}, "skip must be a whole number from 0"),
        ({"hang_seconds": -1}, "hang_seconds must be a number"),
        ({"hang_seconds": "long"}, "hang_seconds must be a number"),
        ({"hang_seconds": float("nan")}, "hang_seconds must be a number"),
        ({"hang_seconds": 10**400}, "hang_seconds must be a number"),
        ({"close": "yes"}, "close must be a boolean"),
        ({"status": 100}, "status must be a status from 200 to 599"),
        ({"status": 429.0}, "status must be a status from 200 to 599"),
        ({"status": 500, "body": {"a": 1}}, "body must be a string"),
        ({"status": 500, "body": "\ud800"}, "body must be a string"),
        ({"status": 500, "headers": {"Retry-After": 5}}, "headers must be an object of strings"),
        ({"status": 500, "headers": {"X": "a\r\nY: b"}}, "headers must be an object of strings"),
        ({"status": 500, "headers": {"Content-Length": "9"}}, "headers must be an object of strings"),
        ({"status": 204, "body": "x"}, "body must be empty with status 204"),
        ({"close": True, "body": "x"}, "body and headers need a status"),
        ({"service": "sqs", "code": "a b"}, "code must be an error code"),
        ({"service": "rest", "status": 500, "code": "SlowDown"}, "code is an AWS error's"),
        ({"service": "rest"}, "one of hang_seconds, close, status and code is required"),
    ],
)
def test_a_fault_that_is_wrong_is_400_in_the_platforms_form(sandbox: Sandbox, fields: dict[str, Any], problem: str) -> None:
    # Not json=: requests refuses NaN, which a careless program may send.
    answer = control(sandbox, "POST", "faults", data=json.dumps(fields), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["statusCode"], answer.json()["error"]) == (400, 400, "Bad Request")
    assert problem in answer.json()["validation"][0]["message"]


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_body_that_is_no_object_is_400(sandbox: Sandbox, text: str) -> None:
    answer = control(sandbox, "POST", "faults", data=text, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["message"]) == (400, "Error validating payload")


@pytest.mark.parametrize("method, path", [("DELETE", "faults/none"), ("GET", "none")])
def test_what_is_not_there_is_404_in_the_platforms_form(sandbox: Sandbox, method: str, path: str) -> None:
    answer = control(sandbox, method, path)
    assert (answer.status_code, answer.json()["statusCode"]) == (404, 404)


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "rebound.example"}, 403),
        ({"Content-Type": "text/plain"}, 400),
    ],
)
def test_a_page_of_another_site_is_refused(sandbox: Sandbox, headers: dict[str, str], status: int) -> None:
    before = len(sandbox.faults.all())
    answer = control(sandbox, "POST", "faults", data='{"status": 500}', headers={"Content-Type": "application/json", **headers})
    assert (answer.status_code, answer.json()["statusCode"]) == (status, status)
    assert len(sandbox.faults.all()) == before


def test_credentials_stay_when_another_site_asks(sandbox: Sandbox) -> None:
    assert control(sandbox, "POST", "credentials/expire", headers={"Origin": "http://elsewhere.example"}).status_code == 403
