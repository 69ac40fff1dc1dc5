"""What a start does after a kill: receipts, redelivered messages, requests that were never sent, expired upload URLs.

With real processes that die at a fault point. The outcome for each point is tested in `test_kill_points`.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from relay_agent.core.failpoints import Point
from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, answers, body, finals, wait_until
from tests.integration.sandbox_calls import aws, config
from tests.targets import ByteTarget, reply

UNARMED: dict[str, str | None] = {"RELAY_FAULT_POINT": None}


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


def armed(sandbox: Sandbox, directory: Path, point: Point, times: int = 1) -> RunningAgent:
    return RunningAgent(sandbox, directory, {"RELAY_WORKERS": "2", "RELAY_FAULT_POINT": f"{point}:{times}"})


def died(agent: RunningAgent) -> bool:
    return agent.wait() == -signal.SIGKILL


# --- receipts and repeated messages ---


def test_unacknowledged_commands_of_the_last_run_are_acknowledged_before_anything_is_received(tmp_path: Path, target: ByteTarget) -> None:
    """The queue would hand the message out again after ten minutes only: it is the old receipt that empties it."""
    with Sandbox(visibility_timeout=600) as sandbox, armed(sandbox, tmp_path, Point.AFTER_COMMIT) as agent:
        command = agent.create({"method": "POST", "url": target.url("/")})
        assert died(agent)
        assert sandbox.queue_depth(agent.agent_id) == (0, 1)
        before = len(sandbox.aws_calls)
        agent.start(UNARMED)
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        calls = [call.operation for call in list(sandbox.aws_calls)[before:] if call.operation in ("DeleteMessageBatch", "ReceiveMessage")]
        assert calls[0] == "DeleteMessageBatch"
        assert agent.stop() == 0
    assert len(target.requests) == 1


def test_where_the_receipt_is_no_longer_valid_the_message_is_recognised_by_its_id(
    forgetful: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    sandbox = forgetful
    with armed(sandbox, tmp_path, Point.AFTER_COMMIT) as agent:
        command = agent.create({"method": "POST", "url": target.url("/")})
        assert died(agent)
        with aws(sandbox, "sqs") as sqs:
            # Delivered again: from now on SQS accepts only the newer receipt.
            queue = config(sandbox, agent.agent_id)["rpcSourceQueueUrl"]
            assert len(sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10)["Messages"]) == 1
        agent.start(UNARMED)
        agent.wait_log("ack-refused", messages=1)
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        assert agent.stop() == 0
    assert len(target.requests) == 1
    assert finals(command) == ["SUCCESS"]


@pytest.mark.parametrize("point", [Point.AFTER_COMMIT, Point.DELIVERED])
def test_the_same_id_with_another_body_is_logged_and_answered_once_only(
    forgetful: Sandbox, tmp_path: Path, target: ByteTarget, point: Point
) -> None:
    """Whether the first was not yet run when the agent died, or answered already."""
    sandbox = forgetful
    target.on("/other", reply(body="other"))
    with armed(sandbox, tmp_path, point) as agent:
        command = agent.create({"method": "POST", "url": target.url("/")})
        assert died(agent)
        other = command.request_json() | {"body": {"method": "POST", "url": target.url("/other")}, "bodyDelivery": "embedded"}
        sandbox.send_raw(agent.agent_id, json.dumps(other))
        agent.start(UNARMED)
        agent.wait_log("odd-message")
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        assert agent.stop() == 0
    assert [request.target for request in target.requests] == ["/"]
    assert (finals(command), body(command)["body"]) == (["SUCCESS"], "here")


# --- requests that were never sent ---


class _Lims(BaseHTTPRequestHandler):
    """A target whose port can be had before it listens."""

    def do_POST(self) -> None:
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def sleeping() -> Iterator[HTTPServer]:
    """A target that has its port and does not listen yet: connections are refused."""
    server = HTTPServer(("127.0.0.1", 0), _Lims, bind_and_activate=False)
    server.server_bind()
    yield server
    server.server_close()


def test_a_post_whose_connection_was_refused_was_never_sent_and_runs_after_the_next_start(
    forgetful: Sandbox, tmp_path: Path, sleeping: HTTPServer
) -> None:
    with armed(forgetful, tmp_path, Point.ANSWERED) as agent:
        command = agent.create({"method": "POST", "url": f"http://127.0.0.1:{sleeping.server_port}/", "body": "x"})
        assert died(agent)
        sleeping.server_activate()
        serving = threading.Thread(target=sleeping.handle_request)
        serving.start()
        agent.start(UNARMED)
        assert forgetful.wait_final(command.id).status == "SUCCESS"
        assert body(command)["statusCode"] == 201
        assert agent.stop() == 0
        serving.join(5)
    assert finals(command) == ["SUCCESS"]


def test_a_post_whose_host_has_no_address_was_never_sent_and_is_tried_after_the_next_start(forgetful: Sandbox, tmp_path: Path) -> None:
    with armed(forgetful, tmp_path, Point.ANSWERED) as agent:
        command = agent.create({"method": "POST", "url": "http://nowhere.invalid/", "body": "x"})
        assert died(agent)
        agent.start(UNARMED)
        assert body(forgetful.wait_final(command.id))["code"] == "ENOTFOUND"
        assert agent.stop() == 0
    assert finals(command) == ["FAILURE"]


def test_a_put_that_was_sent_and_whose_body_cannot_be_fetched_again_has_an_unknown_outcome(tmp_path: Path, target: ByteTarget) -> None:
    """Its command came by a URL that has died since: it cannot run again, and that its first run was sent must not be denied."""
    with Sandbox(visibility_timeout=2, url_lifetime=2) as sandbox, armed(sandbox, tmp_path, Point.SENT) as agent:
        agent.ready()  # it must download the body before the URL expires
        command = agent.create({"method": "PUT", "url": target.url("/"), "body": "x"}, delivery="referenced")
        assert died(agent)
        target.wait_requests(1)
        wait_until(sandbox, lambda: sandbox.now() > command.created_at + timedelta(seconds=3))
        agent.start(UNARMED)
        assert body(sandbox.wait_final(command.id))["code"] == "EINTERRUPTED"
        assert agent.stop() == 0
    assert len(target.requests) == 1


# --- answers with repeated kills ---


def test_an_answer_is_sent_unchanged_however_often_the_agent_is_killed(forgetful: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    target.on("/large", reply(201, body="x" * 400_000))
    deaths = (Point.RECORDED, Point.UPLOADED, Point.SETTLED, Point.ANSWER_SENT)
    with armed(forgetful, tmp_path, deaths[0]) as agent:
        command = agent.create({"method": "POST", "url": target.url("/large")})
        for point in deaths[1:]:
            assert died(agent)
            assert not command.final
            agent.start({"RELAY_FAULT_POINT": point})
        assert died(agent)
        agent.start(UNARMED).ready()
        wait_until(forgetful, lambda: len(finals(command)) == 2)
        assert agent.stop() == 0
    assert (finals(command), len(answers(command))) == (["SUCCESS", "SUCCESS"], 1)
    assert (body(command)["statusCode"], len(body(command)["body"])) == (201, 400_000)
    assert len(target.requests) == 1
    assert list((tmp_path / "state" / "spool").iterdir()) == []


# --- expired upload URLs ---


def test_an_answer_with_an_expired_upload_url_is_sent_without_its_body_and_a_small_one_complete(tmp_path: Path, target: ByteTarget) -> None:
    target.on("/large", reply(201, [("X-Sample", "7")], "x" * 400_000))
    unavailable = {"count": None, "status": 503, "code": "ServiceUnavailable"}
    with Sandbox(visibility_timeout=2, url_lifetime=1) as sandbox, armed(sandbox, tmp_path, Point.RECORDED, 2) as agent:
        with (
            sandbox.inject(Fault("sqs", "SendMessageBatch", **unavailable)),  # type: ignore[arg-type]
            sandbox.inject(Fault("s3", "PutObject", **unavailable)),  # type: ignore[arg-type]
        ):
            large = agent.create({"method": "POST", "url": target.url("/large")})
            small = agent.create({"method": "POST", "url": target.url("/")})
            assert died(agent)
        wait_until(sandbox, lambda: sandbox.now() > small.created_at + timedelta(seconds=2))
        agent.start(UNARMED)
        answer = body(sandbox.wait_final(large.id))
        assert (large.status, answer["code"], answer["statusCode"]) == ("FAILURE", "ERESPONSETOOLARGE", 201)
        assert {"X-Sample": "7"} in answer["headers"]
        assert "expired" in answer["message"]
        assert answer.get("body") is None
        assert (sandbox.wait_final(small.id).status, body(small)["body"]) == ("SUCCESS", "here")
        assert agent.stop() == 0
    assert sorted(request.target for request in target.requests) == ["/", "/large"]
    assert (finals(large), finals(small)) == (["FAILURE"], ["SUCCESS"])
    assert list((tmp_path / "state" / "spool").iterdir()) == []
