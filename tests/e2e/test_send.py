"""`relay-agent send` as a person calls it, answered by a real agent: each option and exit code."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, agent_environment, run_once, running
from tests.targets import ByteTarget, closed_port, redirect, reply

KEY = secrets.token_bytes(32)


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    key: dict[str, str | None] = {"SECURE_COMMAND_KEY": base64.b64encode(KEY).decode()}
    with running(RunningAgent(sandbox, tmp_path_factory.mktemp("agent"), key)) as started:
        yield started


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(200, [("Content-Type", "text/plain"), ("X-One", "1")], "hello\n"))
        running_target.on("/moved", redirect(302, "/"))
        running_target.on("/missing", reply(404, body="nothing here"))
        running_target.on("/binary", reply(200, [("Content-Type", "application/octet-stream")], bytes(range(256)) * 2000))
        yield running_target


def send(agent: RunningAgent, directory: Path, *arguments: str, stdin: bytes = b"", key: bytes | None = None) -> CompletedProcess[bytes]:
    more: dict[str, str | None] = {"SECURE_COMMAND_KEY": key.hex()} if key else {}
    return run_once(["send", *arguments], directory, agent_environment(agent.sandbox, agent.agent_id, directory, more), stdin)


def test_a_get_prints_the_body_and_exits_0(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    done = send(agent, tmp_path, target.url("/moved"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_method_headers_data_and_include_do_what_curls_do(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    done = send(agent, tmp_path, "-X", "PATCH", "-H", "X-Two: a", "-H", "X-Two: b", "-d", '{"id": 7}', "-i", target.url("/?q=%2F"))
    assert done.returncode == 0
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-One: 1" in head
    assert content == b"hello\n"
    seen = target.last
    assert (seen.method, seen.target, seen.body) == ("PATCH", "/?q=%2F", b'{"id": 7}')
    assert seen.get_all("X-Two") == ["a", "b"]


def test_data_from_a_file_or_stdin_is_sent_as_it_is(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    data = bytes(range(256))
    (tmp_path / "data").write_bytes(data)
    for argument in ("@data", "@-"):
        assert send(agent, tmp_path, "-d", argument, target.url("/"), stdin=data).returncode == 0
        assert (target.last.method, target.last.body) == ("POST", data)


def test_a_binary_download_goes_to_a_file_byte_for_byte(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    done = send(agent, tmp_path, "-o", "out.bin", target.url("/binary"))
    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "out.bin").read_bytes() == bytes(range(256)) * 2000


def test_an_http_error_prints_the_body_and_exits_22(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    done = send(agent, tmp_path, target.url("/missing"))
    assert (done.returncode, done.stdout) == (22, b"nothing here")
    assert b"404" in done.stderr


def test_a_target_out_of_reach_exits_1_and_says_why(agent: RunningAgent, tmp_path: Path) -> None:
    done = send(agent, tmp_path, f"http://127.0.0.1:{closed_port()}/")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"ECONNREFUSED" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_timeout_is_the_commands_own(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    target.on("/hang", lambda conn, _: conn.hang(10))
    done = send(agent, tmp_path, "--timeout", "0.5", target.url("/hang"))
    assert done.returncode == 1
    assert b"ETIMEDOUT" in done.stderr


def test_a_secure_command_shows_the_platform_neither_request_nor_answer(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    done = send(agent, tmp_path, "--secure", "-d", "canary-request", target.url("/"), key=KEY)
    assert (done.returncode, done.stdout) == (0, b"hello\n")
    assert target.last.body == b"canary-request"
    command = agent.sandbox.commands.all()[-1]
    kept = str(command.to_json())
    assert not any(text in kept for text in ("canary-request", "hello", "127.0.0.1"))
    assert isinstance(command.response_body, dict)
    assert set(command.response_body) == {"statusCode", "jwe"}


def test_a_secure_command_with_another_key_exits_1(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    done = send(agent, tmp_path, "--secure", target.url("/"), key=secrets.token_bytes(32))
    assert done.returncode == 1
    assert b"EDECRYPT" in done.stderr


def test_keygen_encrypt_and_decrypt_work_together(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    bare = {"PATH": agent_environment(agent.sandbox, "", tmp_path)["PATH"]}
    key = run_once(["keygen"], tmp_path, bare)
    assert key.returncode == 0
    environment = {**bare, "SECURE_COMMAND_KEY": key.stdout.decode().strip(), "AGENT_ID": agent.agent_id}
    sealed = run_once(["encrypt"], tmp_path, environment, b'{"url": "http://lims.lab.example/"}')
    assert sealed.returncode == 0
    opened = run_once(["decrypt"], tmp_path, environment, sealed.stdout)
    assert (opened.returncode, opened.stdout.strip()) == (0, b'{"url": "http://lims.lab.example/"}')


def test_a_token_of_another_organisation_exits_1_and_says_so(agent: RunningAgent, target: ByteTarget, tmp_path: Path) -> None:
    environment = agent_environment(agent.sandbox, agent.agent_id, tmp_path, {"JWT": agent.sandbox.issue_jwt(600, "another-org")})
    done = run_once(["send", target.url("/")], tmp_path, environment)
    assert done.returncode == 1
    assert b"do not belong together" in done.stderr
