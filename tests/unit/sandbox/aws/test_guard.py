"""The guard before the AWS emulator: which call a request is, who may make it, and the form of each service's errors."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from relay_agent.sandbox.asgi import App, Receive, Request, Scope, Send, read_request, respond
from relay_agent.sandbox.aws.credentials import Keys
from relay_agent.sandbox.aws.guard import AwsCall, Guard, identify
from relay_agent.sandbox.faults import Fault, Faults
from tests.unit.sandbox.asgi_calls import Answered, call
from tests.unit.sandbox.scenes import NOW, Time

TARGETS = {"sqs": "AmazonSQS.ReceiveMessage", "logs": "Logs_20140328.PutLogEvents", "s3": ""}


def signed(key: str, token: str | None = None, at: str | None = None, service: str = "sqs") -> dict[str, str]:
    headers = {
        "authorization": f"AWS4-HMAC-SHA256 Credential={key}/20260301/eu-west-1/{service}/aws4_request, Signature=x",
        "x-amz-target": TARGETS[service],
        "x-amz-security-token": token or "",
        "x-amz-date": at or "",
    }
    return {name: value for name, value in headers.items() if value}


class World:
    """A guard before an app that answers what it got."""

    def __init__(self) -> None:
        self.time = Time()
        self.keys, self.faults = Keys(self.time), Faults(lambda: None)
        self.calls: list[tuple[str, bool]] = []
        self.guard: App = Guard(self._app, self.keys, self.faults, self.time, lambda one, done: self.calls.append((one.operation, done)))

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"got " + (await read_request(scope, receive)).body, ())

    def call(self, headers: dict[str, str], **more: Any) -> Answered:
        return call(self.guard, b"body", headers=headers, **more)


@pytest.fixture
def world() -> World:
    return World()


def request(method: str = "POST", headers: dict[str, str] | None = None, query: dict[str, str] | None = None) -> Request:
    return Request(method, "/", "/", query or {}, headers or {})


# --- what is called ---


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (request(headers=signed("AKIA", "t", "20260301T120000Z")), AwsCall("sqs", "ReceiveMessage", "AKIA", "t", "20260301T120000Z")),
        (request(headers=signed("AKIA", service="logs")), AwsCall("logs", "PutLogEvents", "AKIA", None, None)),
        (request("PUT", signed("AKIA", service="s3")), AwsCall("s3", "PutObject", "AKIA", None, None)),
        (
            request("GET", query={"X-Amz-Credential": "AKIA/20260301/x", "X-Amz-Security-Token": "t"}),
            AwsCall("s3", "GetObject", "AKIA", "t", None),
        ),
        (request("HEAD"), AwsCall("s3", "HeadObject", None, None, None)),
        (request("PATCH", {"authorization": "Basic x"}), AwsCall("s3", "PATCH", None, None, None)),
    ],
    ids=["sqs", "logs", "s3", "presigned", "anonymous", "unknown"],
)
def test_a_call_is_known_by_its_target_its_method_and_its_signature(asked: Request, found: AwsCall) -> None:
    assert identify(asked) == found


# --- who may call ---


def test_a_valid_key_passes_with_its_whole_body_and_the_call_is_noted_twice(world: World) -> None:
    issued = world.keys.issue(60)
    found = world.call(signed(issued.access_key_id, issued.session_token))
    assert (found.status, found.body) == (200, b"got body")
    assert world.calls == [("ReceiveMessage", False), ("ReceiveMessage", True)]


@pytest.mark.parametrize(
    ("service", "status", "code"),
    [("sqs", 403, "ExpiredTokenException"), ("logs", 400, "ExpiredTokenException"), ("s3", 400, "<Code>ExpiredToken</Code>")],
)
def test_an_expired_key_is_refused_in_the_service_s_own_form(world: World, service: str, status: int, code: str) -> None:
    issued = world.keys.issue(60)
    world.time.passes(60)
    found = world.call(signed(issued.access_key_id, issued.session_token, service=service))
    assert (found.status, code in found.body.decode()) == (status, True)


@pytest.mark.parametrize(
    ("service", "status", "code"),
    [("sqs", 403, "UnrecognizedClientException"), ("logs", 400, "UnrecognizedClientException"), ("s3", 403, "InvalidAccessKeyId")],
)
def test_an_unknown_key_is_refused(world: World, service: str, status: int, code: str) -> None:
    found = world.call(signed("AKIANOBODY", service=service))
    assert (found.status, code in found.body.decode()) == (status, True)


@pytest.mark.parametrize(("service", "code"), [("sqs", "MissingAuthenticationToken"), ("s3", "AccessDenied")])
def test_a_call_without_a_signature_is_refused(world: World, service: str, code: str) -> None:
    headers = {"x-amz-target": TARGETS[service]} if TARGETS[service] else {}
    found = world.call(headers)
    assert (found.status, code in found.body.decode()) == (403, True)


@pytest.mark.parametrize(
    ("service", "minutes", "refused"), [("sqs", 5, False), ("sqs", 6, True), ("s3", 15, False), ("s3", -16, True), ("logs", -6, True)]
)
def test_a_clock_that_is_off_makes_a_signature_invalid(world: World, service: str, minutes: int, refused: bool) -> None:
    root = world.keys.root
    at = f"{NOW + timedelta(minutes=minutes):%Y%m%dT%H%M%SZ}"
    assert world.call(signed(root.access_key_id, None, at, service)).status == (403 if refused else 200)


def test_sqs_alone_repeats_its_code_in_a_field_of_its_own(world: World) -> None:
    """SDKs prefer it."""
    sqs, logs = world.call(signed("AKIANOBODY")), world.call(signed("AKIANOBODY", service="logs"))
    assert sqs.headers["x-amzn-query-error"] == "InvalidClientTokenId;Sender"
    assert "x-amzn-query-error" not in logs.headers
    assert json.loads(logs.body)["__type"] == "com.amazon.coral.service#UnrecognizedClientException"


# --- faults ---


def test_a_fault_comes_before_every_check_and_has_the_form_of_the_service(world: World) -> None:
    world.faults.inject(Fault("sqs", code="OverLimit", status=403, message="too many <"))
    world.faults.inject(Fault("s3", code="SlowDown", status=503, message="too many <"))
    sqs, s3 = world.call(signed("AKIANOBODY")), world.call({})
    assert (sqs.status, json.loads(sqs.body)["message"]) == (403, "too many <")
    assert (s3.status, b"<Code>SlowDown</Code><Message>too many &lt;</Message>" in s3.body) == (503, True)


def test_a_fault_may_answer_anything_and_one_that_only_hangs_lets_the_call_pass(world: World) -> None:
    world.faults.inject(Fault(status=502, body="<html>", headers={"X-From": "proxy"}))
    world.faults.inject(Fault(hang_seconds=0.01))
    root = signed(world.keys.root.access_key_id)
    first, second = world.call(root), world.call(root)
    assert (first.status, first.body, first.headers["x-from"], second.status) == (502, b"<html>", "proxy", 200)
