"""Commands that an administrator runs inside the container."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget
from tests.image.conftest import Start
from tests.image.engine import CONFINED, DIST, MARK, Container, docker, image, wait_until


@pytest.fixture
def agent(started: Start) -> Container:
    """An agent that is ready."""
    return started().ready()


def test_status_and_check_say_that_all_is_well(agent: Container) -> None:
    wait_until(lambda: agent.exec("relay-agent", "status", check=False).returncode == 0, "ready")
    report = json.loads(agent.exec("relay-agent", "check", "--json").stdout)["checks"]
    assert {check["id"]: check["status"] for check in report if check["status"] == "error"} == {}


def test_commands_explain_and_send_work_in_it(agent: Container, demo_target: DemoTarget, sandbox: Sandbox) -> None:
    sent = agent.exec("relay-agent", "send", "-i", f"{demo_target.http_url}/json")
    assert sent.stdout.startswith("HTTP/1.1 200")
    listed = json.loads(agent.exec("relay-agent", "commands", "--json").stdout)["commands"]
    assert [command["status"] for command in listed] == ["SUCCESS"]
    assert agent.exec("relay-agent", "commands", "show", listed[0]["id"]).returncode == 0
    explained = agent.exec("relay-agent", "explain", f"{demo_target.http_url}/json", "--json")
    assert json.loads(explained.stdout)["verdict"] == "allow"


def test_the_support_bundle_is_written_to_tmp_and_holds_no_secret(agent: Container, settings: dict[str, str]) -> None:
    agent.exec("relay-agent", "support-bundle", "-o", "/tmp/support.zip")
    names = agent.exec("unzip", "-l", "/tmp/support.zip").stdout
    assert "status" in names
    assert settings["JWT"] not in agent.exec("unzip", "-p", "/tmp/support.zip").stdout


def test_the_image_is_qualified_in_it_with_every_file_as_delivered(agent: Container) -> None:
    done = agent.exec("relay-agent", "qualify", "-o", "/tmp/report", "--json", check=False)
    lines = {line["number"]: line for line in json.loads(done.stdout)["lines"]}
    assert {number: line for number, line in lines.items() if line["result"] in ("fail", "not run")} == {}
    assert done.returncode == 0
    delivered = hashlib.sha256(next(DIST.glob("ts-agent-http-relay-v*.manifest.sha256")).read_bytes()).hexdigest()
    assert delivered in lines["IQ-05"]["remark"]
    assert delivered in (DIST / "SHA256SUMS").read_text(encoding="utf-8")
    listed = agent.exec("sh", "-c", "cd / && sha256sum -c /usr/share/relay-agent/manifest.sha256 | grep -v ': OK$'", check=False)
    assert listed.stdout == ""


def test_keys_are_made_and_messages_sealed_and_opened_in_it(started: Start) -> None:
    made = docker("run", "--rm", "--label", MARK, image(), "keygen")
    key = made.stdout.strip()
    assert len(key) >= 43
    agent = started(environment={"SECURE_COMMAND_KEY": key}).ready()
    request = '{"method": "GET", "url": "http://lims.lab.example/"}'
    sealed = agent.exec("relay-agent", "encrypt", text_in=request).stdout
    opened = agent.exec("relay-agent", "decrypt", text_in=sealed).stdout
    assert json.loads(opened)["url"] == "http://lims.lab.example/"


def test_every_command_has_its_help(agent: Container) -> None:
    listed = agent.exec("relay-agent", "--help").stdout
    names = re.findall(r"^  ([a-z-]+) {2,}", listed.partition("Commands:")[2], flags=re.MULTILINE)
    assert {"run", "check", "explain", "status", "commands", "support-bundle", "send", "keygen", "encrypt", "decrypt", "sandbox"} <= set(
        names
    )
    script = "; ".join(f"relay-agent {name} --help >/dev/null || echo {name}" for name in names if name != "sandbox")
    assert agent.exec("sh", "-c", script).stdout == ""


def test_the_tools_for_looking_at_the_network_work_without_capabilities(agent: Container, sandbox: Sandbox) -> None:
    port = sandbox.api_target.rpartition(":")[2]
    assert "<html" in agent.exec("wget", "-q", "-O", "-", f"{sandbox.api_target}/").stdout.lower()
    assert agent.exec("sh", "-c", f"echo | nc -w 2 127.0.0.1 {port}", check=False).returncode == 0
    assert agent.exec("sh", "-c", "nc -w 2 127.0.0.1 1", check=False).returncode != 0
    assert "Usage: nslookup" in agent.exec("sh", "-c", "nslookup --help 2>&1", check=False).stdout
    # Who may ping is set by the host with --net=host, and by the engine otherwise.
    lowest, highest = (int(group) for group in agent.exec("cat", "/proc/sys/net/ipv4/ping_group_range").stdout.split())
    pinged = agent.exec("ping", "-c", "1", "-W", "2", "127.0.0.1", check=False)
    if lowest <= 10001 <= highest:
        assert "1 received" in pinged.stdout
    else:
        assert pinged.returncode != 0 and "Operation not permitted" in pinged.stderr
    done = docker("run", "--rm", "--label", MARK, *CONFINED[1:], "--entrypoint", "ping", image(), "-c", "1", "-W", "2", "127.0.0.1")
    assert "1 received" in done.stdout


def test_without_settings_it_says_what_is_missing_and_exits_with_2() -> None:
    for command in ("run", "check"):
        done = docker("run", "--rm", "--label", MARK, image(), command, check=False)
        reported = done.stdout + done.stderr
        assert done.returncode == 2
        for name in ("API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT"):
            assert name in reported
        # A container has only one of the files with settings.
        assert "agent.env" in reported and ".env.example" not in reported
