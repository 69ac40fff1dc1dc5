"""The compose file: the agent with Docker secrets, and the demonstration, which needs no settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget
from tests.image.engine import MARK, Container, docker, fresh_name, image, inspect
from tests.programs import free_ports

COMPOSE = [shutil.which("docker-compose")] if shutil.which("docker-compose") else ["docker", "compose"]


class Project:
    """A compose project of the delivery's compose file."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self.name = fresh_name("compose")
        self._place = place
        self._environment = environment
        # A second file adds the test's label, which the delivered one lacks.
        services = {name: {"labels": [MARK]} for name in ("agent", "sandbox", "target", "sandbox-agent", "sender")}
        volumes = {name: {"labels": [MARK]} for name in ("state", "sandbox")}
        (place / "label.json").write_text(json.dumps({"version": "3.8", "services": services, "volumes": volumes}), encoding="utf-8")

    def call(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Call compose."""
        done = subprocess.run(
            [*COMPOSE, "-p", self.name, "-f", "compose.yml", "-f", "label.json", *arguments],  # type: ignore[list-item]
            cwd=self._place,
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def end(self) -> None:
        """Remove all of it."""
        self.call("--profile", "agent", "--profile", "sandbox", "down", "--volumes", "--timeout", "5", check=False)


@pytest.fixture
def project(delivery: Path, tmp_path: Path) -> Iterator[Project]:
    """A project on ports of its own."""
    names = dict(zip(("SANDBOX_PORT", "SANDBOX_AWS_PORT", "SANDBOX_TARGET_PORT"), map(str, free_ports(3)), strict=True))
    one = Project(delivery, {**names, "CONTAINER_NAME": fresh_name("composed")})
    yield one
    one.end()


def test_up_starts_the_agent_with_its_secrets_as_files(
    project: Project, delivery: Path, sandbox: Sandbox, agent_id: str, settings: dict[str, str], demo_target: DemoTarget
) -> None:
    key = docker("run", "--rm", "--label", MARK, image(), "keygen").stdout
    secrets = delivery / "secrets"
    secrets.mkdir()
    for name, text in (("jwt", settings["JWT"]), ("secure-command-key", key)):
        (secrets / name).write_text(text, encoding="utf-8")
        (secrets / name).chmod(0o400)
        os.chown(secrets / name, 10001, 10001)
    lines = [f"{name}={value}" for name, value in settings.items() if name != "JWT"]
    (delivery / "agent.env").write_text("\n".join([*lines, "JWT=", "SECURE_COMMAND_KEY="]) + "\n", encoding="utf-8")
    project.call("up", "-d")
    name = project.call("ps", "-q").stdout.strip()
    assert "\n" not in name, "only the agent is started"
    container = Container(sandbox, name, agent_id).ready()
    assert container.get(f"{demo_target.http_url}/json").status == "SUCCESS"
    found = inspect(name)
    assert settings["JWT"] not in json.dumps(found) + container.output() and key.strip() not in json.dumps(found)
    host = found["HostConfig"]
    assert (host["NetworkMode"], host["RestartPolicy"]["Name"], host["ReadonlyRootfs"], host["CapDrop"]) == (
        "host",
        "always",
        True,
        ["ALL"],
    )
    assert host["Memory"] == 1 << 30 and found["Config"]["StopTimeout"] == 40
    verified = subprocess.run(
        [delivery / "verify.sh"],
        env={**os.environ, "CONTAINER_NAME": found["Name"].lstrip("/")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout
    project.call("stop")
    assert inspect(name)["State"]["ExitCode"] == 0


def test_the_profile_sandbox_shows_the_main_job_without_any_configuration(project: Project) -> None:
    project.call("--profile", "sandbox", "up", "-d")
    sender = project.call("--profile", "sandbox", "ps", "-q", "sender").stdout.strip()
    assert docker("wait", sender).stdout.strip() == "0"
    reported = docker("logs", sender).stdout
    assert reported.count("HTTP/1.1 200") == 2
    assert "PR-1042" in reported and "Both commands were answered" in reported
    services = set(project.call("--profile", "sandbox", "ps", "--services").stdout.split())
    running = project.call("--profile", "sandbox", "ps", "-q", "agent", check=False).stdout.strip()
    assert {"sandbox", "target", "sandbox-agent", "sender"} <= services and running == ""
