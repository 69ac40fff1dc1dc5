"""`relay-agent qualify` beside a running agent and without one: every line, what it leaves behind, and no secret in a report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_agent.cli.qualification.lines import REQUIREMENTS
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, agent_environment, page, run_once, running
from tests.syslog_receiver import SyslogReceiver
from tests.target_proxies import HttpProxy
from tests.targets import ByteTarget, reply, seen

pytestmark = pytest.mark.timeout(200)
CANARY = "canary-51ab"
KEY = "Q2FuYXJ5LWtleS1vZi0zMi1ieXRlcy1sb25nLS0xMjM="
SECONDS = 180.0
DEVELOPMENT = "IQ-05"
"""The tests run from a directory of sources, whose files have no checksums. Those of an image are compared in tests/image."""


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


def qualify(directory: Path, environment: dict[str, str], *arguments: str) -> tuple[subprocess.CompletedProcess[bytes], dict[str, Any]]:
    """Run it; what it printed, and the lines of the JSON file by number."""
    done = run_once(["qualify", "-o", "reports", *arguments], directory, environment, timeout=SECONDS)
    (data,) = (directory / "reports").glob("*.json")
    return done, {line["number"]: line for line in json.loads(data.read_text(encoding="utf-8"))["lines"]}


def results(lines: dict[str, Any], result: str) -> list[str]:
    return [number for number, line in lines.items() if line["result"] == result]


def test_the_running_agent_and_a_second_one_pass_every_line_of_the_report(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rule]]\nname = "loopback"\naction = "allow"\nhosts = ["127.0.0.0/8"]\n', encoding="utf-8")
    receiver = SyslogReceiver("tcp")
    environment: dict[str, str | None] = {"SECURE_COMMAND_KEY": KEY, "RELAY_POLICY_FILE": str(policy), "RELAY_LOG_SYSLOG": receiver.url}
    agent = RunningAgent(sandbox, tmp_path / "agent", environment)
    with receiver, running(agent):
        before = {path.name for path in (tmp_path / "agent/state").iterdir()}
        started = json.loads(page(agent, "/status.json")[1])["started"]
        done, lines = qualify(tmp_path / "agent", agent.environment, "--target", target.url("/"))
        assert json.loads(page(agent, "/status.json")[1])["started"] == started
        assert {path.name for path in (tmp_path / "agent/state").iterdir()} == before
        assert agent.stop() == 0
    assert done.stderr == b""
    assert {number.partition(".")[0] for number in lines} == set(REQUIREMENTS)
    assert {number: lines[number] for number in results(lines, "fail")} == {}
    assert (results(lines, "not run"), results(lines, "not applicable"), done.returncode) == ([DEVELOPMENT], [], 1)
    commands = [command for command in sandbox.commands.all() if command.target_id == agent.agent_id]
    assert [command.payload["method"] for command in commands] == ["POST", "HEAD"]
    assert {command.status for command in commands} == {"SUCCESS"}
    assert seen(target) == {"HEAD /": 2}  # One is of the check, one of the running agent.
    assert len(agent.events("command")) == 2


def test_without_a_running_agent_nothing_is_posted_and_the_report_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    environment = agent_environment(sandbox, sandbox.add_agent(), tmp_path)
    done, lines = qualify(tmp_path, environment)
    assert done.returncode == 1
    assert set(results(lines, "fail")) == {"IQ-09", "OQ-15"}
    assert set(results(lines, "not run")) == {DEVELOPMENT, "IQ-10", "IQ-11", "OQ-16", "OQ-18", "OQ-19"}
    assert not (tmp_path / "state").exists()
    assert [command for command in sandbox.commands.all() if command.target_id == environment["AGENT_ID"]] == []


@pytest.mark.parametrize("broken", [{}, {"RELAY_WORKERS": "many"}], ids=["valid", "invalid"])
def test_no_secret_is_in_any_form_of_the_report(sandbox: Sandbox, tmp_path: Path, target: ByteTarget, broken: dict[str, str]) -> None:
    (tmp_path / "header").write_text(f"{CANARY}-header", encoding="utf-8")
    policy = tmp_path / "policy.toml"
    table = '[[target]]\nhosts = ["127.0.0.1"]\nheaders = { X-Key = { file = "header" } }\n'
    policy.write_text(f'default = "allow"\n{table}', encoding="utf-8")
    with HttpProxy(auth=("lab", "right")) as proxy:
        settings = {
            "SECURE_COMMAND_KEY": KEY,
            "RELAY_POLICY_FILE": str(policy),
            "RELAY_TARGET_PROXY": proxy.url(("lab", f"{CANARY}-proxy/@:")),
            "no_proxy": "127.0.0.1",
        }
        agent = RunningAgent(sandbox, tmp_path / "agent", dict(settings))
        with running(agent):
            urls = [target.url(f"/?token={CANARY}-query", userinfo=f"user:{CANARY}-basic"), f"nonsense {CANARY}-nonsense"]
            given = [part for url in urls for part in ("--target", url)]
            done, lines = qualify(tmp_path / "agent", {**agent.environment, **broken}, "--json", *given)
    written = [path.read_text(encoding="utf-8") for path in (tmp_path / "agent/reports").iterdir()]
    output = "\n".join([done.stdout.decode(), done.stderr.decode(), *written])
    assert len(written) == 2 and set(lines) == {line["number"] for line in json.loads(done.stdout)["lines"]}
    token = agent.environment["JWT"]
    for secret in (CANARY, KEY, token, token.rpartition(".")[2]):
        assert secret not in output
    assert "Traceback" not in output
