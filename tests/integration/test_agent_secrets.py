"""Secrets given as files (docs/operations.md, "Files"): a changed file takes effect without a restart, and its short absence does no harm.

How a file is read is tested with `config.secrets`.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwe
from joserfc.jwk import OctKey

from relay_agent.diagnostics.local_causes import TOKEN_EXPIRED, TOKEN_UNUSABLE
from relay_agent.sandbox.rest.agent_routes import Tokens
from relay_agent.sandbox.server import Sandbox
from tests.agents import SECURE_REQUEST, ThreadedAgent, body, page, running, wait_until
from tests.targets import ByteTarget, reply

LONG = 100 * 24 * 3600.0
"""Lifetime in seconds of a token whose end is not worth a line yet."""
QUICK: dict[str, str | None] = {"RELAY_HEARTBEAT_SECONDS": "1", "RELAY_CONFIG_REFRESH_SECONDS": "1"}


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


class Calls:
    """The tokens with which the platform was called, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[str | None] = []
        check = Tokens.check

        def checked(tokens: Tokens, token: str | None, org_slug: str | None) -> None:
            self.tokens.append(token)
            check(tokens, token, org_slug)

        monkeypatch.setattr(Tokens, "check", checked)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def replace(path: Path, text: str) -> None:
    """Put another file in its place, as an editor, Docker or Kubernetes does."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


def with_token(file: Path) -> dict[str, str | None]:
    return {**QUICK, "JWT": None, "JWT_FILE": str(file)}


def test_another_token_in_the_file_is_used_from_the_next_call_on(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, calls: Calls
) -> None:
    file = tmp_path / "jwt"
    first, second = sandbox.issue_jwt(LONG), sandbox.issue_jwt(2 * LONG)
    file.write_text(first)
    with running(ThreadedAgent(sandbox, tmp_path, with_token(file))) as agent:
        assert set(calls.tokens) == {first}
        replace(file, second)
        seen = len(calls.tokens)
        wait_until(sandbox, lambda: calls.tokens[seen:].count(second) >= 3)
        after = calls.tokens[calls.tokens.index(second) :]
        assert set(after) == {second}
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert {line["event"] for line in agent.logs} == {"agent-starting", "agent-ready", "command"}
        assert not any(token in line for token in (first, second) for line in agent.lines.raw)


def test_a_token_refused_in_service_and_put_right_heals_without_a_restart(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    file = tmp_path / "jwt"
    file.write_text(sandbox.issue_jwt(1000))
    with running(ThreadedAgent(sandbox, tmp_path, with_token(file))) as agent:
        replace(file, sandbox.issue_jwt(1000, "another-org"))
        assert "ORG_SLUG and JWT" in agent.wait_log("platform-failed")["cause"]
        agent.wait_log("heartbeat-failed")
        replace(file, sandbox.issue_jwt(2000))
        agent.wait_log("platform-recovered")
        agent.wait_log("heartbeat-recovered")
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert sandbox.settings(agent.agent_id) == ["STARTED"]


def test_files_that_are_gone_or_empty_for_a_moment_do_no_harm(sandbox: Sandbox, tmp_path: Path, target: ByteTarget, calls: Calls) -> None:
    token, key = tmp_path / "jwt", tmp_path / "key"
    secret, first = secrets.token_bytes(32), sandbox.issue_jwt(LONG)
    token.write_text(first)
    key.write_text(secret.hex())
    settings = {**with_token(token), "SECURE_COMMAND_KEY_FILE": str(key)}
    with running(ThreadedAgent(sandbox, tmp_path, settings)) as agent:
        for spoil in (Path.unlink, lambda path: path.write_text("")):
            for file in (token, key):
                spoil(file)
            beats = len(sandbox.heartbeats(agent.agent_id))
            wait_until(sandbox, lambda beats=beats: len(sandbox.heartbeats(agent.agent_id)) >= beats + 2)  # type: ignore[misc]
            assert ask_sealed(agent, target.url("/"), secret) == "here"
        second = sandbox.issue_jwt(2 * LONG)
        replace(token, second)
        wait_until(sandbox, lambda: second in calls.tokens)
        # An absence of three checks is logged, and so is the return.
        assert {line["event"] for line in agent.logs} - {"secret-gone", "secret-back"} == {"agent-starting", "agent-ready", "command"}


def test_a_file_without_a_token_leaves_the_old_token_in_use_and_log_and_page_report_it(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, calls: Calls
) -> None:
    file, first = tmp_path / "jwt", sandbox.issue_jwt(1000)
    file.write_text(first)
    with running(ThreadedAgent(sandbox, tmp_path, with_token(file))) as agent:
        for garbage in ("garbage", first[:40]):
            replace(file, garbage)
            beats = len(sandbox.heartbeats(agent.agent_id))
            wait_until(sandbox, lambda beats=beats: len(sandbox.heartbeats(agent.agent_id)) >= beats + 2)  # type: ignore[misc]
            assert "does not contain a JSON Web Token" in page(agent, "/")[1]
        said = agent.events("token-unusable")
        assert {(line["cause"], line["cure"]) for line in said} == {(TOKEN_UNUSABLE.cause, TOKEN_UNUSABLE.cure)}
        assert len(said) == 2, "one line for each new content"
        second = sandbox.issue_jwt(2000)
        replace(file, second)
        wait_until(sandbox, lambda: second in calls.tokens)
        assert set(calls.tokens) <= {first, second}
        assert "does not contain a JSON Web Token" not in page(agent, "/")[1]
        assert len(agent.events("token-usable")) == 1
        replace(file, "garbage")
        wait_until(sandbox, lambda: len(agent.events("token-unusable")) == 3)


def test_a_token_that_ends_in_service_is_named_in_every_line_and_on_the_page_with_its_end_and_the_cure(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    file = tmp_path / "jwt"
    file.write_text(sandbox.issue_jwt(8))
    with running(ThreadedAgent(sandbox, tmp_path, with_token(file))) as agent:
        agent.wait_log("platform-failed", 40)
        agent.wait_log("heartbeat-failed")
        wait_until(sandbox, lambda: "the JWT expired on" in page(agent, "/status.json")[1])
        status = json.loads(page(agent, "/status.json")[1])
        reported = [line for line in agent.logs if line["event"] in ("platform-failed", "heartbeat-failed")]
        said = [*status["problems"], *status["warnings"], *reported]
        assert {one["cause"] for one in said} == {said[0]["cause"]}
        assert re.fullmatch(r"the JWT expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC, according to this machine's clock", said[0]["cause"])
        assert {one["cure"] for one in said} == {TOKEN_EXPIRED.cure}
        assert all("the JWT has expired" in line["reason"] for line in reported)
        replace(file, sandbox.issue_jwt(2000))
        agent.wait_log("platform-recovered")


def ask_sealed(agent: ThreadedAgent, url: str, key: bytes) -> Any:
    """What a secure command, sealed with that key, is answered: the target's body, or the failure's code."""
    text = json.dumps({"method": "GET", "url": url}).encode()
    header = {"alg": "dir", "enc": "A256GCM", "aud": agent.agent_id, "exp": int(time.time()) + 60, "jti": secrets.token_hex(8)}
    registry = jwe.JWERegistry(strict_check_header=False)
    sealed = jwe.encrypt_compact(header, text, OctKey.import_key(key), registry=registry)
    command = agent.ask({"jwe": sealed}, SECURE_REQUEST)
    answer = body(command)
    return answer["body"] if command.status == "SUCCESS" else answer["code"]


def test_another_key_in_the_file_opens_the_next_command(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    first, second = secrets.token_bytes(32), secrets.token_bytes(32)
    file = tmp_path / "key"
    file.write_text(first.hex())
    with running(ThreadedAgent(sandbox, tmp_path, {"SECURE_COMMAND_KEY_FILE": str(file)})) as agent:
        assert ask_sealed(agent, target.url("/"), first) == "here"
        assert ask_sealed(agent, target.url("/"), second) == "EDECRYPT"
        replace(file, f"{base64.b64encode(second).decode()},{first.hex()}\n")
        assert [ask_sealed(agent, target.url("/"), key) for key in (second, first)] == ["here", "here"]
        replace(file, second.hex())
        assert [ask_sealed(agent, target.url("/"), key) for key in (second, first)] == ["here", "EDECRYPT"]


def test_a_file_without_a_key_leaves_the_old_key_in_use_and_is_logged_once(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    first, second = secrets.token_bytes(32), secrets.token_bytes(32)
    file = tmp_path / "key"
    file.write_text(first.hex())
    with running(ThreadedAgent(sandbox, tmp_path, {"SECURE_COMMAND_KEY_FILE": str(file)})) as agent:
        replace(file, second.hex()[:40])
        assert [ask_sealed(agent, target.url("/"), first) for _ in range(2)] == ["here", "here"]
        (line,) = agent.events("secure-key-unusable")
        assert "keygen" in line["cure"] and second.hex()[:20] not in json.dumps(line)
        replace(file, second.hex())
        assert ask_sealed(agent, target.url("/"), second) == "here"
        assert len(agent.events("secure-key-usable")) == 1
