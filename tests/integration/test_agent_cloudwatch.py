"""A CloudWatch that is slow, hangs, throttles or refuses delays neither commands nor the stop (docs/logs.md).

With a running agent. The shipper's own rules are tested in `tests/unit/agent/test_log_shipper.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import ThreadedAgent, agent_environment, page, run_once, running, wait_until
from tests.integration.sandbox_calls import aws
from tests.targets import ByteTarget, reply

COMMANDS = 10
QUICK_MS = 1000
SICK: dict[str, dict[str, Any]] = {
    "slow": {"hang_seconds": 1.0},
    "hangs": {"hang_seconds": FOREVER},
    "closes": {"close": True},
    "throttles": {"status": 400, "code": "ThrottlingException"},
    "refuses": {"status": 400, "code": "AccessDeniedException"},
    "unwell": {"status": 503, "code": "ServiceUnavailableException"},
}


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


@pytest.mark.parametrize("kind", SICK)
def test_no_command_waits_for_cloudwatch_and_no_line_is_lost(sandbox: Sandbox, tmp_path: Path, target: ByteTarget, kind: str) -> None:
    agent_id = sandbox.add_agent()
    with (
        sandbox.inject(Fault("logs", contains=agent_id, count=None, **SICK[kind])) as fault,
        running(ThreadedAgent(sandbox, tmp_path, agent_id=agent_id)) as agent,
    ):
        wait_until(sandbox, lambda: fault.hits >= 1)
        asked = [agent.create({"url": target.url("/")}) for _ in range(COMMANDS)]
        for command in asked:
            assert sandbox.wait_final(command.id, 5.0).status == "SUCCESS"
        wait_until(sandbox, lambda: len(agent.events("command")) == COMMANDS)
        assert [line["totalMs"] for line in agent.events("command") if line["totalMs"] > QUICK_MS] == []
        fault.release()
        assert agent.stop() == 0
        lines = [line for line in agent.lines.raw if "log-delivery" not in line]
    assert [event["message"] for event in sandbox.log_events(agent_id)] == lines


WORDS = {
    "closes": "was closed by Amazon CloudWatch Logs",
    "throttles": "limits the rate of calls",
    "refuses": "an AWS (IAM) policy does not let this agent write to its log group",
    "unwell": "answers with a server error (AWS says ServiceUnavailableException)",
}


@pytest.mark.parametrize("kind", WORDS)
def test_log_page_and_check_name_the_same_cause_and_cure(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    agent_id = sandbox.add_agent()
    with (
        sandbox.inject(Fault("logs", contains=agent_id, count=None, **SICK[kind])),
        running(ThreadedAgent(sandbox, tmp_path, agent_id=agent_id)) as agent,
    ):
        line = agent.wait_log("log-delivery-failed")
        (warning,) = [one for one in json.loads(page(agent, "/status.json")[1])["warnings"] if one["check"] == "cloudwatch"]
        done = run_once(["check", "--json"], tmp_path, agent_environment(sandbox, agent_id, tmp_path))
        (check,) = [one for one in json.loads(done.stdout)["checks"] if one["id"] == "cloudwatch"]
    assert WORDS[kind] in line["cause"]
    assert {(one["cause"], one["cure"]) for one in (line, warning, check)} == {(line["cause"], line["cure"])}
    assert "Exception" not in line["reason"] or line["reason"].startswith("AWS says ")


@pytest.mark.parametrize("kind", ["hangs", "refuses"])
def test_a_stop_does_not_wait_out_its_drain_for_cloudwatch(sandbox: Sandbox, tmp_path: Path, target: ByteTarget, kind: str) -> None:
    agent_id = sandbox.add_agent()
    with (
        sandbox.inject(Fault("logs", contains=agent_id, count=None, **SICK[kind])) as fault,
        running(ThreadedAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "60"}, agent_id)) as agent,
    ):
        agent.ask_until_logged({"url": target.url("/")})
        wait_until(sandbox, lambda: fault.hits >= 1)
        assert agent.stop() == 0
        assert agent.logs[-1]["event"] in ("agent-stopped", "log-delivery-failed")


def test_a_deleted_log_stream_is_created_again_and_no_line_is_lost(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    agent_id = sandbox.add_agent()
    with running(ThreadedAgent(sandbox, tmp_path, agent_id=agent_id)) as agent, aws(sandbox, "logs") as logs:
        wait_until(sandbox, lambda: len(sandbox.log_events(agent_id)) >= 1)
        stream = sandbox.log_events(agent_id)[0]["logStreamName"]
        group = agent.agent.platform.client.log_group()
        logs.delete_log_stream(logGroupName=group, logStreamName=stream)
        agent.ask_until_logged({"url": target.url("/")})
        wait_until(sandbox, lambda: any('"command"' in event["message"] for event in sandbox.log_events(agent_id)))
        assert agent.stop() == 0
    events = sandbox.log_events(agent_id)
    assert {event["logStreamName"] for event in events} == {stream}
    assert json.loads(events[-1]["message"])["event"] == "agent-stopped"
