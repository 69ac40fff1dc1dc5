"""What an agent logs: the same lines on stdout and in CloudWatch, one per command, and no secret in any (docs/logs.md).

Lines of a real process. The rules of the redaction are in its unit tests.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import SECURE_REQUEST, RunningAgent, running
from tests.target_proxies import HttpProxy
from tests.targets import ByteTarget, closed_port, raw, reply


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


def test_cloudwatch_gets_the_lines_of_stdout_those_before_init_too(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    agent_id = sandbox.add_agent()
    unwell = Fault("rest", "agent/config", contains=agent_id, status=503)
    with sandbox.inject(unwell), running(RunningAgent(sandbox, tmp_path, agent_id=agent_id)) as agent:
        agent.ask_until_logged({"url": target.url("/")})
        sandbox.send_raw(agent_id, "no json")
        agent.wait_log("odd-message")
        assert agent.stop() == 0
        lines = list(agent.lines.raw)
    events = sandbox.log_events(agent_id)
    assert [event["message"] for event in events] == lines
    assert [json.loads(line)["event"] for line in lines] == [
        "agent-starting",
        "platform-failed",
        "platform-recovered",
        "agent-ready",
        "command",
        "odd-message",
        "agent-stopping",
        "summary",
        "agent-stopped",
    ]
    assert len({event["logStreamName"] for event in events}) == 1
    assert events[0]["logStreamName"].startswith(agent_id)


def test_lines_wait_while_cloudwatch_is_out_of_reach(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    agent_id = sandbox.add_agent()
    with (
        sandbox.inject(Fault("logs", contains=agent_id, close=True, count=None)) as fault,
        running(RunningAgent(sandbox, tmp_path, agent_id=agent_id)) as agent,
    ):
        agent.get(target.url("/"))
        agent.wait_log("log-delivery-failed")
        fault.release()
        assert agent.stop() == 0
        lines = [line for line in agent.lines.raw if "log-delivery" not in line]
    assert [event["message"] for event in sandbox.log_events(agent_id)] == lines


def test_a_command_is_one_line_of_at_most_500_bytes(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    target.on("*", reply(body="x" * 321))
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        agent.ask_until_logged({"method": "POST", "url": target.url("/" + "p" * 5000), "body": "12345"})
        agent.ask_until_logged({"method": "M" * 3000, "url": target.url("/")})
        agent.ask_until_logged({"url": target.url("/")}, "Action." + "é" * 3000)
        agent.ask_until_logged({"url": f"http://{'.'.join(['a' * 60] * 4)}.example/"})
        first = agent.events("command")[0]
        assert [len(line) + 1 for line in agent.lines.raw if '"event":"command"' in line and len(line) + 1 > 500] == []
        assert len(agent.events("command")) == 4
    assert {name: first[name] for name in ("method", "host", "port", "status", "statusCode", "bytesIn", "bytesOut")} == {
        "method": "POST",
        "host": "127.0.0.1",
        "port": target.port,
        "status": "SUCCESS",
        "statusCode": 200,
        "bytesIn": 321,
        "bytesOut": 5,
    }
    assert {"id", "action", "queuedMs", "targetMs", "totalMs"} <= set(first)


def test_the_stop_sums_up_what_was_done_since_the_start(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    target.on("/summed", reply(body="x"))
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        agent.ask_until_logged({"url": target.url("/summed")})
        agent.ask_until_logged({"url": f"http://127.0.0.1:{closed_port()}/"})
        assert agent.stop() == 0
        (line,) = agent.events("summary")
    assert agent.lines.raw.index(next(raw_line for raw_line in agent.lines.raw if '"summary"' in raw_line)) == len(agent.lines.raw) - 2
    assert {name: line[name] for name in ("commands", "answers", "finished", "lines_dropped", "queued", "running")} == {
        "commands": 2,
        "answers": 2,
        "finished": {"SUCCESS": 1, "FAILURE": 1},
        "lines_dropped": 0,
        "queued": 0,
        "running": 0,
    }
    assert (line["heartbeats"], line["config_refreshes"], line["credential_refreshes"]) == (1, 1, 1)
    assert line["polls"] >= 2
    assert line["journal"] == {"admitted": 0, "started": 0, "finished": 0, "delivered": 2}


def test_a_variable_that_is_no_setting_is_named_at_the_start_without_its_value(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RELAY_DRAIN=canary-in-env-file\n")
    with running(RunningAgent(sandbox, tmp_path, {"RELAY_WORKER": "canary-in-environment", "RELAY_XYZ": "1"})) as agent:
        found = [(line["name"], line["nearest"]) for line in agent.events("unknown-setting")]
        assert found == [("RELAY_DRAIN", "RELAY_DRAIN_SECONDS"), ("RELAY_WORKER", "RELAY_WORKERS"), ("RELAY_XYZ", None)]
        assert not any("canary" in line for line in agent.lines.raw)


# --- canaries ---


def test_no_secret_stands_in_any_line_event_or_failure(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    marks = {
        name: f"canary{secrets.token_hex(8)}"
        for name in ("query", "password", "authorization", "cookie", "body", "signature", "proxy", "answer")
    }
    key = secrets.token_bytes(32)
    target.on("/odd", reply(500, [("Set-Cookie", marks["cookie"]), ("WWW-Authenticate", marks["answer"])], marks["answer"]))
    target.on("/broken", raw(f"{marks['answer']} is no HTTP\r\n\r\n".encode()))
    target.on("/elsewhere", reply(302, [("Location", f"http://127.0.0.1:{closed_port()}/?token={marks['query']}")]))
    target.on("/bucket", reply(403, body=marks["answer"]))
    port = urlsplit(target.url("/")).port
    with HttpProxy() as proxy:
        environment: dict[str, str | None] = {
            "RELAY_LOG_LEVEL": "debug",
            "SECURE_COMMAND_KEY": key.hex(),
            "RELAY_TARGET_PROXY": f"http://user:{marks['proxy']}@127.0.0.1:{proxy.port}",
        }
        with running(RunningAgent(sandbox, tmp_path, environment)) as agent:
            hot = {
                "method": "POST",
                "headers": [{"Authorization": marks["authorization"]}, {"Cookie": marks["cookie"]}],
                "body": {"mode": "raw", "raw": marks["body"]},
            }
            for path in ("/odd", "/broken", "/elsewhere"):
                agent.ask({**hot, "url": f"http://user:{marks['password']}@localhost:{port}{path}?token={marks['query']}"})
            agent.ask({**hot, "url": f"http://user:{marks['password']}@127.0.0.1:{closed_port()}/?token={marks['query']}"})
            agent.ask({**hot, "url": f"http://user:{marks['password']}@nowhere.invalid/?token={marks['query']}"})
            agent.ask({**hot, "url": f"http://user:{marks['password']}@[::1/?token={marks['query']}"})
            agent.ask({**hot, "url": target.url("/"), "timeout": marks["body"]})
            agent.ask({"jwe": marks["body"]}, SECURE_REQUEST)
            reference = {
                "commandId": secrets.token_hex(8),
                "action": "TetraScience.Connector.gdc.HttpRequest",
                "bodyDelivery": "referenced",
            }
            sandbox.send_raw(
                agent.agent_id, json.dumps({**reference, "bodyUrl": target.url(f"/bucket?X-Amz-Signature={marks['signature']}")})
            )
            sandbox.send_raw(agent.agent_id, f'{{"commandId": 7, "body": "{marks["body"]}"')
            with sandbox.inject(
                Fault("s3", "PutObject", contains="responses/", status=403, code="AccessDenied", message=marks["signature"])
            ):
                target.on("/large", reply(200, [("Content-Type", "text/plain")], "a" * 300_000))
                agent.ask({"url": target.url("/large")})
            with sandbox.inject(
                Fault("sqs", "SendMessageBatch", contains=agent.agent_id, status=403, code="AccessDenied", message=marks["signature"])
            ):
                agent.get(target.url("/"))
            assert agent.stop() == 0
            said = [*agent.lines.raw, agent.errors]
    said += [event["message"] for event in sandbox.log_events(agent.agent_id)]
    forbidden = {
        **marks,
        "jwt": sandbox.jwt,
        "jwt signature": sandbox.jwt.rpartition(".")[2],
        "key": key.hex(),
        "key64": base64.b64encode(key).decode(),
    }
    forbidden["basic"] = base64.b64encode(f"user:{marks['password']}".encode()).decode()
    forbidden["presigned"] = "X-Amz-Signature="
    assert {name for name, secret in forbidden.items() for line in said if secret in line} == set()
    commands = [command for command in sandbox.commands.all() if command.target_id == agent.agent_id]
    assert len(commands) == 10
    echoed = {
        name
        for name in ("password", "authorization", "body", "proxy", "signature")
        for command in commands
        for text in command.updates
        if marks[name] in text
    }
    assert echoed == set()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert len(kept) > 0
