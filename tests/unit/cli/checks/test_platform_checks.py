"""What the platform's answers mean for an agent, check by check; a server on this machine answers in the place of API and AWS.

`check` against a whole platform is tested in `tests/integration/test_check_command.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from relay_agent.cli.checks.platform_checks import CLOCK_ERROR_SECONDS, CLOCK_WARNING_SECONDS, PlatformChecks
from relay_agent.cli.checks.result import Check, Status
from relay_agent.core.clock import Clock
from relay_agent.core.failures import Cause
from relay_agent.diagnostics.platform_causes import (
    AGENT_DISABLED,
    NO_LOG_GROUP_NAMED,
    NO_QUEUE,
    NOT_USER_DEFINED,
    QUEUE_DISABLED,
)
from tests.targets import closed_port
from tests.unit.cli.checks.scenes import REQUIRED, settings
from tests.unit.tdp.scenes import Server, handler

ALL = {
    "type": "user-defined",
    "isEnabled": True,
    "queue": {"enabled": True},
    "agentName": "a",
    "region": "eu-west-1",
    "logGroupName": "lab",
    "rpcSourceQueueUrl": "https://sqs.eu-west-1.amazonaws.com/1/in.fifo",
    "rpcPlatformQueueUrl": "https://sqs.eu-west-1.amazonaws.com/1/out",
    "AccessKeyId": "AKIA",
    "SecretAccessKey": "canary-secret",
    "SessionToken": "canary-token",
    "Expiration": "2999-01-01T00:00:00Z",
    "Attributes": {"QueueArn": "arn:aws:sqs:eu-west-1:1:in.fifo"},
    "logStreams": [],
}
"""The answer to every call: each reads its own fields of it."""


@pytest.fixture
def server(environment: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()
    found.answer(ALL)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(found)) as listening:
        found.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield found
        listening.shutdown()
        thread.join(5)


Make = Callable[..., PlatformChecks]


@pytest.fixture
def checks(server: Server) -> Make:
    def make(off: float = 0.0, **more: Any) -> PlatformChecks:
        """The checks of an agent whose clock is `off` seconds ahead."""
        clock = Clock(now=lambda: datetime.now(UTC) + timedelta(seconds=off))
        return PlatformChecks(settings(API_TARGET=server.url, AWS_ENDPOINT_URL=server.url), clock=clock, seconds=5.0, **more)

    return make


def judged(check: Check) -> tuple[str, Status, str | None]:
    return check.id, check.status, check.cause


def expected(cause: Cause, status: Status, check_id: str | None = None) -> tuple[str, Status, str | None]:
    return check_id or cause.id, status, cause.cause


def test_a_platform_in_order_passes_every_check(checks: Make) -> None:
    made = checks()
    found = [
        getattr(made, name)() for name in ("platform", "clock", "access", "agent", "enabled", "queue", "credentials", "sqs", "cloudwatch")
    ]
    assert {check.id: check.status for check in found} == dict.fromkeys(
        ("platform", "clock", "access", "agent", "enabled", "queue", "credentials", "sqs", "cloudwatch"), Status.OK
    )


def test_nothing_is_received_deleted_sent_or_reported(checks: Make, server: Server) -> None:
    made = checks()
    for check in (made.platform, made.credentials, made.sqs, made.cloudwatch):
        check()
    assert {seen.headers.get("x-amz-target", seen.path) for seen in server.seen} == {
        f"/v1/agents/{REQUIRED['AGENT_ID']}",
        "/v1/data-acquisition/agent/config",
        "/v1/data-acquisition/agent/credentials",
        "AmazonSQS.GetQueueAttributes",
        "Logs_20140328.DescribeLogStreams",
    }


def test_temporary_credentials_are_handed_on_before_they_are_used(checks: Make) -> None:
    told: list[tuple[str, ...]] = []
    found = checks(seen_secrets=lambda *secrets: told.append(secrets)).credentials()
    assert told == [("canary-secret", "canary-token")]
    assert "canary" not in str(found)


# --- the platform and the clock ---


def test_a_platform_that_cannot_be_reached_names_the_stage_and_the_address(environment: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    found = PlatformChecks(settings(API_TARGET=url)).platform()
    assert (found.id, found.status, found.summary.startswith(f"{url}: connect: ")) == ("platform", Status.ERROR, True)


@pytest.mark.parametrize("status", [401, 403, 404, 400])
def test_a_platform_that_refuses_can_be_reached(checks: Make, server: Server, status: int) -> None:
    server.answer({"statusCode": status}, status)
    assert checks().platform().status is Status.OK


@pytest.mark.parametrize(("body", "status"), [({}, 200), (b"<html>", 200), ({}, 500), ({}, 302)], ids=["no agent", "page", "500", "302"])
def test_what_does_not_describe_an_agent_is_not_the_platform(checks: Make, server: Server, body: Any, status: int) -> None:
    server.answer(body, status)
    found = checks().platform()
    assert (found.id, found.status) == ("platform", Status.ERROR)


@pytest.mark.parametrize(
    ("off", "status", "words"),
    [
        (0.0, Status.OK, "agrees"),
        (CLOCK_WARNING_SECONDS + 10, Status.WARNING, "ahead of"),
        (-CLOCK_WARNING_SECONDS - 10, Status.WARNING, "behind"),
        (CLOCK_ERROR_SECONDS + 10, Status.ERROR, "ahead of"),
        (-CLOCK_ERROR_SECONDS - 10, Status.ERROR, "behind"),
    ],
)
def test_the_clock_is_compared_with_the_answer_s_date(checks: Make, off: float, status: Status, words: str) -> None:
    made = checks(off)
    made.platform()
    found = made.clock()
    assert (found.status, words in found.summary) == (status, True)


def test_a_clock_that_could_not_be_compared_is_no_problem(checks: Make) -> None:
    assert "not compared" in checks().clock().summary


# --- the agent ---


@pytest.mark.parametrize(
    ("status", "access", "agent"),
    [(200, Status.OK, Status.OK), (401, Status.ERROR, Status.ERROR), (403, Status.ERROR, Status.ERROR), (404, Status.OK, Status.ERROR)],
)
def test_a_refusal_is_of_the_token_or_of_the_agent(checks: Make, server: Server, status: int, access: Status, agent: Status) -> None:
    server.answer(ALL if status == 200 else {"statusCode": status}, status)
    made = checks()
    made.platform()
    assert (made.access().id, made.access().status, made.agent().id, made.agent().status) == ("access", access, "agent", agent)


def test_an_agent_of_another_type_is_an_error_that_names_its_type(checks: Make, server: Server) -> None:
    server.answer(ALL | {"type": "file-log" * 20})
    made = checks()
    made.platform()
    assert judged(made.agent()) == expected(NOT_USER_DEFINED.about(kind=("file-log" * 20)[:40]), Status.ERROR)


@pytest.mark.parametrize(
    ("answer", "enabled", "queue"),
    [
        ({"isEnabled": False}, expected(AGENT_DISABLED, Status.ERROR), ("queue", Status.OK, None)),
        ({"queue": {"enabled": False}}, ("enabled", Status.OK, None), expected(QUEUE_DISABLED, Status.ERROR)),
        ({"isEnabled": None, "queue": None}, ("enabled", Status.OK, None), ("queue", Status.OK, None)),
    ],
    ids=["agent", "queue", "unknown"],
)
def test_only_what_the_platform_says_is_disabled_is_an_error(checks: Make, server: Server, answer: Any, enabled: Any, queue: Any) -> None:
    server.answer(ALL | answer)
    made = checks()
    made.platform()
    assert (judged(made.enabled()), judged(made.queue())) == (enabled, queue)
    assert ("does not report" in made.enabled().summary) == (answer.get("isEnabled", True) is None)


# --- AWS ---


@pytest.mark.parametrize(
    ("missing", "cause"), [("rpcSourceQueueUrl", QUEUE_DISABLED), ("rpcPlatformQueueUrl", NO_QUEUE)], ids=["commands", "answers"]
)
def test_a_queue_that_the_platform_does_not_name_is_an_error(checks: Make, server: Server, missing: str, cause: Cause) -> None:
    server.answer({name: value for name, value in ALL.items() if name != missing})
    made = checks()
    assert made.credentials().status is Status.OK
    assert judged(made.sqs()) == expected(cause, Status.ERROR, "sqs")


def test_a_configuration_that_is_refused_is_an_error_of_the_credentials(checks: Make, server: Server) -> None:
    server.answer({}, 403)
    found = checks().credentials()
    assert (found.id, found.status) == ("credentials", Status.ERROR)


def test_queues_that_do_not_answer_are_both_named_with_the_endpoint(checks: Make, server: Server) -> None:
    made = checks()
    made.credentials()
    server.answer({"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "x"}, 400)
    found = made.sqs()
    assert (found.id, found.status) == ("sqs", Status.ERROR)
    assert all(
        words in found.summary for words in ("the queue for commands: ", "the queue for answers: ", f"AWS_ENDPOINT_URL {server.url}")
    )


def test_a_log_group_that_is_missing_or_refused_is_never_more_than_a_warning(checks: Make, server: Server) -> None:
    made = checks()
    made.credentials()
    server.answer({"__type": "ResourceNotFoundException", "message": "x"}, 400)
    found = made.cloudwatch()
    assert (found.id, found.status, "log group lab" in found.summary) == ("cloudwatch", Status.WARNING, True)
    server.answer(ALL | {"logGroupName": None})
    other = checks()
    other.credentials()
    assert judged(other.cloudwatch()) == expected(NO_LOG_GROUP_NAMED, Status.WARNING)
