"""`relay-agent sandbox` in a terminal: what a real process prints, writes and returns, with real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from relay_agent.sandbox.cli import sandbox_command

RUN = [sys.executable, "-c", "from relay_agent.sandbox.cli import sandbox_command; sandbox_command()"]


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The command, once it has printed the environment."""
    with subprocess.Popen([*RUN, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(6)]
            yield process, dict(line.split("=", 1) for line in lines)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_the_environment_and_ends_with_0_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "sandbox.env"
    with running("--port", "0", "--aws-port", "0", "--env-file", str(file)) as (process, environment):
        assert set(environment) == {"API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT", "AWS_ENDPOINT_URL", "no_proxy"}
        assert dict(line.split("=", 1) for line in file.read_text().splitlines()) == environment
        assert file.stat().st_mode & 0o777 == 0o600
        headers = {"ts-auth-token": environment["JWT"], "x-org-slug": environment["ORG_SLUG"]}
        url = f"{environment['API_TARGET']}/v1/agents/{environment['AGENT_ID']}"
        assert requests.get(url, headers=headers, timeout=5).json()["id"] == environment["AGENT_ID"]
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert f"Sandbox: {environment['API_TARGET']}/" in errors
        assert "Traceback" not in errors


def test_an_env_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.env"
    file.write_text("old")
    file.chmod(0o644)
    with running("--port", "0", "--aws-port", "0", "--env-file", str(file)):
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("option, other", [("--port", "--aws-port"), ("--aws-port", "--port")])
def test_a_taken_port_is_one_line_with_the_cure_and_1(option: str, other: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(sandbox_command, [option, port, other, "0"])
    assert result.exit_code == 1
    assert f"port {port} cannot be used" in result.stderr
    assert f"choose another with {option}" in result.stderr


def test_an_env_file_that_cannot_be_written_is_one_line_and_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(sandbox_command, ["--port", "0", "--aws-port", "0", "--env-file", str(tmp_path / "none" / "x.env")])
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_help_shows_an_example_and_needs_no_configuration() -> None:
    result = CliRunner(env=dict.fromkeys(os.environ)).invoke(sandbox_command, ["--help"])
    assert result.exit_code == 0
    assert "relay-agent sandbox --env-file sandbox.env" in result.output


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_rate_limit_of_the_help_can_be_copied() -> None:
    text = CliRunner().invoke(sandbox_command, ["--help"]).output
    example = text[text.index("curl ") : text.index("Fields:")]
    with running("--port", "0", "--aws-port", "0") as (_, environment):
        local = example.replace("http://127.0.0.1:8088", environment["API_TARGET"])
        answer = subprocess.run(["sh", "-c", local], capture_output=True, text=True, timeout=10, check=True)
        assert set(json.loads(answer.stdout)) == {"id"}
        headers = {"ts-auth-token": environment["JWT"], "x-org-slug": environment["ORG_SLUG"]}
        body = {"agentId": environment["AGENT_ID"], "agentVersion": "v0.1.0"}
        url = f"{environment['API_TARGET']}/v1/data-acquisition/agent/status"
        beat = requests.post(url, json=body, headers=headers, timeout=5)
    assert (beat.status_code, beat.headers["retry-after"]) == (429, "5")


def test_an_invalid_agent_id_is_an_error() -> None:
    assert CliRunner().invoke(sandbox_command, ["--agent-id", "mine"]).exit_code == 2
