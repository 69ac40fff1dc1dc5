"""Log lines reach a real CloudWatch Logs endpoint, over HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config

from relay_agent.agent.log_shipper import LogShipper, LogStream, stream_name
from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.rest.agent_routes import log_group
from relay_agent.sandbox.server import Sandbox
from relay_agent.telemetry.log_buffer import LogBuffer
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Any]:
    keys = sandbox.credentials()
    made = boto3.session.Session().client(
        "logs",
        endpoint_url=sandbox.aws_endpoint,
        region_name=sandbox.region,
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        aws_session_token=keys.session_token,
        config=Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1}),
    )
    yield made
    made.close()


def test_each_line_arrives_as_it_stood_on_stdout_also_after_a_refusal(sandbox: Sandbox, agent_id: str, client: Any) -> None:
    stdout, buffer = io.StringIO(), LogBuffer()
    logs = Logs("info", Redactor(["a-secret-value"]), buffer, stdout)
    ready: list[Any] = []
    group, name = log_group(sandbox.org_slug, agent_id), stream_name(agent_id, datetime.now(UTC))
    stream = LogStream(lambda: ready[0] if ready else None, lambda: group, name)
    shipper = LogShipper(buffer, stream, logs.logger, logs.local)
    logs.logger.info("early", reason="before init")
    shipper.step()
    ready.append(client)
    with sandbox.inject(
        Fault(service="logs", operation="PutLogEvents", contains=agent_id, code="ThrottlingException", status=400)
    ) as fault:
        shipper.step()
        assert fault.hits == 1
    logs.logger.info("late", reason="a-secret-value ä")
    assert shipper.flush(10)
    events = sandbox.log_events(agent_id)
    assert {event["logStreamName"] for event in events} == {name}
    messages = [event["message"] for event in events]
    assert [json.loads(message)["event"] for message in messages] == ["early", "late"]
    assert set(messages) < set(stdout.getvalue().splitlines())
    assert [json.loads(line)["event"] for line in stdout.getvalue().splitlines()] == [
        "early",
        "log-delivery-failed",
        "late",
        "log-delivery-recovered",
    ]


def test_a_second_shipper_of_the_same_start_uses_the_same_stream(sandbox: Sandbox, agent_id: str, client: Any) -> None:
    logs = Logs("info", Redactor(), None, io.StringIO())
    group, name = log_group(sandbox.org_slug, agent_id), stream_name(agent_id, datetime.now(UTC))
    for text in ("one", "two"):
        buffer = LogBuffer()
        buffer.accept(int(datetime.now(UTC).timestamp() * 1000), text)
        assert LogShipper(buffer, LogStream(lambda: client, lambda: group, name), logs.logger, logs.local).flush(10)
    assert sorted(event["message"] for event in sandbox.log_events(agent_id)) == ["one", "two"]
