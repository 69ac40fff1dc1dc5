"""`relay-agent support-bundle`: everything that support needs, and nothing secret."""

from __future__ import annotations

import json
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, agent_environment, run_once, running
from tests.targets import ByteTarget, reply

CANARY = "canary-6e0f"
KEY = "Q2FuYXJ5LWtleS1vZi0zMi1ieXRlcy1sb25nLS0xMjM="
PARTS = {
    "README.txt",
    "checks.json",
    "status.json",
    "metrics.txt",
    "log.jsonl",
    "malformed.jsonl",
    "configuration.json",
    "commands.json",
    "journal.json",
    "versions.json",
}


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body=CANARY))
        yield running_target


def ask(directory: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return run_once(["support-bundle", *arguments], directory, environment, timeout=60)


def inside(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_of_a_running_agent_it_holds_all_that_support_asks_for_and_lists_it(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    agent = RunningAgent(sandbox, tmp_path)
    with running(agent):
        command = agent.get(target.url("/"))
        reported = ask(tmp_path, agent.environment, "-o", "mine.zip")
    assert (reported.returncode, reported.stderr) == (0, b"")
    parts = inside(tmp_path / "mine.zip")
    assert parts.keys() == PARTS
    assert stat.S_IMODE((tmp_path / "mine.zip").stat().st_mode) == 0o600
    for name in PARTS - {"README.txt"}:
        assert name in reported.stdout.decode()
        assert name in parts["README.txt"]
    assert {check["id"] for check in json.loads(parts["checks.json"])["checks"]} >= {"configuration", "platform", "sqs"}
    assert json.loads(parts["status.json"])["agent"]["id"] == agent.agent_id
    assert "relay_agent_info" in parts["metrics.txt"]
    assert command.id in parts["log.jsonl"]
    assert [one["id"] for one in json.loads(parts["commands.json"])["commands"]] == [command.id]
    assert "journal.db" in json.loads(parts["journal.json"])["files"]
    settings = {one["name"]: one["value"] for one in json.loads(parts["configuration.json"])}
    assert (settings["AGENT_ID"], settings["RELAY_WORKERS"]) == (agent.agent_id, None)
    assert json.loads(parts["versions.json"])["libraries"]["requests"]


def test_nothing_secret_is_in_it(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    secrets = {"SECURE_COMMAND_KEY": KEY, "https_proxy": f"http://user:{CANARY}@127.0.0.1:9"}
    agent = RunningAgent(sandbox, tmp_path, {**secrets, "no_proxy": "*"})
    with running(agent):
        agent.ask(
            {
                "url": target.url(f"/?key={CANARY}"),
                "method": "POST",
                "headers": {"Authorization": CANARY, "Cookie": CANARY},
                "body": CANARY,
            }
        )
        reported = ask(tmp_path, agent.environment, "-o", "mine.zip", "--json")
        token = agent.environment["JWT"]
    everything = "".join(inside(tmp_path / "mine.zip").values()) + reported.stdout.decode() + reported.stderr.decode()
    assert {one["name"] for one in json.loads(reported.stdout)["inside"]} == PARTS - {"README.txt"}
    for secret in (CANARY, KEY, token):
        assert secret not in everything


def test_without_an_agent_and_with_a_wrong_configuration_the_bundle_is_made_too(sandbox: Sandbox, tmp_path: Path) -> None:
    environment = agent_environment(sandbox, "not-there", tmp_path, {"RELAY_WORKERS": "many"})
    reported = ask(tmp_path, environment, "-o", "mine.zip")
    assert reported.returncode == 0
    parts = inside(tmp_path / "mine.zip")
    assert parts.keys() == PARTS
    assert "no agent runs" in parts["status.json"]
    assert "RELAY_WORKERS" in parts["checks.json"]


def test_with_settings_that_are_not_utf_8_the_bundle_holds_what_is_readable_and_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    """An editor of long ago and an umlaut in a comment: the agent refuses it, and support asks for a bundle."""
    given = agent_environment(sandbox, "not-there", tmp_path, {"SECURE_COMMAND_KEY": KEY, "https_proxy": f"http://u:{CANARY}@127.0.0.1:9"})
    (tmp_path / ".env").write_text(
        "# Prüfraum 3\n" + "".join(f"{name}={value}\n" for name, value in given.items() if name not in ("PATH", "HOME", "LANG")),
        encoding="latin-1",
    )
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "here").touch()
    reported = ask(tmp_path, {"PATH": given["PATH"]}, "-o", "mine.zip")
    assert (reported.returncode, reported.stderr) == (0, b"")
    parts = inside(tmp_path / "mine.zip")
    assert parts.keys() == PARTS
    assert "is not UTF-8 text" in parts["checks.json"]
    settings = {one["name"]: one["value"] for one in json.loads(parts["configuration.json"])}
    assert settings[".env"].startswith("is not UTF-8 text")
    assert (settings["AGENT_ID"], settings["JWT"]) == ("not-there", "set (not shown)")
    assert "here" in json.loads(parts["journal.json"])["files"]
    for secret in (CANARY, KEY, given["JWT"]):
        assert secret not in "".join(parts.values()) + reported.stdout.decode()


def test_a_file_that_cannot_be_written_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    environment = agent_environment(sandbox, "not-there", tmp_path)
    reported = ask(tmp_path, environment, "-o", "/proc/nothing/mine.zip")
    assert (reported.returncode, reported.stdout) == (1, b"")
    assert b"/proc/nothing/mine.zip" in reported.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", f"http://u:{CANARY}@127.0.0.1:9/?k={CANARY}"),
        ("API_TARGET", f"https://u:{CANARY}@api.example/?t={CANARY}"),
        ("RELAY_ADMIN_ADDR", f"u:{CANARY}@127.0.0.1:8089"),
        ("AGENT_ID", f"eyJhbGciOiJIUzI1NiJ9.{CANARY}.x"),
        ("JWT_FILE", f"eyJhbGciOiJIUzI1NiJ9.{CANARY}.x"),
        ("SECURE_COMMAND_KEY_FILE", KEY),
    ],
)
def test_a_misplaced_secret_is_in_no_bundle_and_in_no_message(sandbox: Sandbox, tmp_path: Path, name: str, value: str) -> None:
    """A refused setting is when a bundle is made, and a token in the place of its file's name the classic slip."""
    more: dict[str, str | None] = {name: value, **({"JWT": None} if name == "JWT_FILE" else {})}
    environment = agent_environment(sandbox, sandbox.add_agent(), tmp_path, more)
    reported = ask(tmp_path, environment, "-o", "mine.zip")
    run = run_once(["run"], tmp_path, {**environment, "RELAY_WORKERS": "none"}, timeout=60)
    assert (reported.returncode, run.returncode) == (0, 2)
    everything = "".join(inside(tmp_path / "mine.zip").values()) + (reported.stdout + reported.stderr + run.stdout + run.stderr).decode()
    assert CANARY not in everything
    assert KEY not in everything
