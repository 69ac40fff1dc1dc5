"""Changes while an agent runs: its queue, its log group, its credentials, all adopted without a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import ThreadedAgent, body, running, wait_until
from tests.integration.sandbox_calls import aws, config
from tests.targets import ByteTarget, reply

QUICK: dict[str, str | None] = {"RELAY_CONFIG_REFRESH_SECONDS": "1"}


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        running_target.on("/large", reply(200, [("Content-Type", "text/plain")], "a" * 300_000))
        yield running_target


@pytest.mark.parametrize("deleted", [False, True])
def test_a_moved_queue_is_taken_over_without_a_restart(sandbox: Sandbox, tmp_path: Path, target: ByteTarget, deleted: bool) -> None:
    with running(ThreadedAgent(sandbox, tmp_path, QUICK)) as agent:
        assert agent.get(target.url("/")).status == "SUCCESS"
        sandbox.move_queue(agent.agent_id, delete=deleted)
        assert agent.ask({"url": target.url("/")}, timeout=5).status == "SUCCESS"
        agent.wait_log("config-changed")
        assert sandbox.settings(agent.agent_id) == ["STARTED"]


def test_a_changed_log_group_is_taken_over_without_a_restart(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path, QUICK)) as agent:
        other = {**config(sandbox, agent.agent_id), "logGroupName": f"/moved/{agent.agent_id}"}
        changed = Fault("rest", "agent/config", contains=agent.agent_id, status=200, body=json.dumps(other), count=None)
        with aws(sandbox, "logs") as logs, sandbox.inject(changed):
            logs.create_log_group(logGroupName=other["logGroupName"])
            agent.wait_log("config-changed")
            assert agent.stop() == 0
            events = logs.filter_log_events(logGroupName=other["logGroupName"])["events"]
    assert json.loads(events[-1]["message"])["event"] == "agent-stopped"


def test_a_changed_name_alone_disturbs_nothing(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with running(ThreadedAgent(sandbox, tmp_path, QUICK)) as agent:
        sandbox.agents.all()[-1].name = "another name"
        agent.wait_log("config-changed")
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert agent.events("poll-failed") == []


def test_credentials_are_renewed_before_they_expire(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    sandbox.credentials_lifetime = 2.0
    try:
        with running(ThreadedAgent(sandbox, tmp_path)) as agent:
            wait_until(sandbox, lambda: agent.calls().count(("POST", "credentials")) >= 2)
            assert agent.get(target.url("/")).status == "SUCCESS"
            assert agent.get(target.url("/large")).status == "SUCCESS"
            assert {line["event"] for line in agent.logs} == {"agent-starting", "agent-ready", "command"}
    finally:
        sandbox.credentials_lifetime = 3600.0


def test_credentials_that_aws_calls_expired_are_renewed_at_once(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        for turn in (1, 2):
            assert agent.get(target.url("/")).status == "SUCCESS"
            sandbox.expire_credentials()
            assert agent.ask({"url": target.url("/")}, timeout=5).status == "SUCCESS"
            assert agent.calls().count(("POST", "credentials")) == turn + 1
        assert agent.events("send-failed") == []
        assert agent.events("poll-failed") == []
        sandbox.expire_credentials()
        assert agent.stop() == 0
    assert json.loads(sandbox.log_events(agent.agent_id)[-1]["message"])["event"] == "agent-stopped"


def test_an_upload_that_s3_cannot_take_now_is_tried_again(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        with sandbox.inject(Fault("s3", "PutObject", contains="responses/", status=503, code="SlowDown")):
            command = agent.get(target.url("/large"))
        agent.wait_log("upload-failed")
        assert (command.status, len(body(command)["body"])) == ("SUCCESS", 300_000)


def test_an_upload_that_hangs_holds_up_no_other_answer(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        with sandbox.inject(Fault("s3", "PutObject", contains="responses/", hang_seconds=60.0)) as hanging:
            large = agent.create({"url": target.url("/large")})
            wait_until(sandbox, lambda: hanging.hits == 1)
            assert agent.ask({"url": target.url("/")}, timeout=5).status == "SUCCESS"
            assert not large.final
        assert sandbox.wait_final(large.id).status == "SUCCESS"


def test_heartbeats_go_on_while_targets_hang(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    gate = target.gate()
    target.on("/hanging", lambda conn, _: (conn.wait(gate), conn.respond(200)))
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_HEARTBEAT_SECONDS": "1", "RELAY_WORKERS": "2"})) as agent:
        commands = [agent.create({"url": target.url("/hanging")}) for _ in range(4)]
        gate.wait_reached()
        beats = len(sandbox.heartbeats(agent.agent_id))
        wait_until(sandbox, lambda: len(sandbox.heartbeats(agent.agent_id)) >= beats + 2)
        gate.release()
        assert [sandbox.wait_final(command.id).status for command in commands] == ["SUCCESS"] * 4
