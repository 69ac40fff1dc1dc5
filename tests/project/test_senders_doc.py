"""docs/senders.md and the README's *Use requests*: every block runs, and every code and name is the code's.

What a sample with a JOSE library must not take for an answer is in the matrix of secure commands, for the one in Python.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from requests import exceptions as failures

import relay_agent.pipelines
import relay_agent.pipelines.testing
from relay_agent.core.failures import Code
from relay_agent.pipelines.encoding import Answer
from relay_agent.pipelines.testing import LocalAgent
from relay_agent.protocol import requests as requests_protocol
from relay_agent.protocol.jwe import open_command, seal_answer
from relay_agent.protocol.keyring import Keyring
from tests.pages import README, ROOT, SENDERS, blocks, names, rows, section

AGENT_ID = "9b9f275c-a60d-454f-8c6c-1ea094e3fd38"
LIMS = "https://lims.lab.example"
BLOCKS = blocks(SENDERS, "python")
PYTEST = [block for block in BLOCKS if "def test_" in block]
SAMPLES = [block for block in BLOCKS if "run_cmd" in block or "joserfc" in block]
SESSIONS = [block for block in BLOCKS if block not in PYTEST and block not in SAMPLES]


class Context:
    """A task script's context, as far as the samples need it."""

    def __init__(self) -> None:
        self.command: dict[str, Any] = {}

    def run_cmd(self, **command: Any) -> dict[str, Any]:
        self.command = command
        return {"statusCode": 200, "body": "fine"}


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LocalAgent:
    """An agent with answers for the samples, in the place of every client that they make."""
    answers = {f"{LIMS}/api/{name}": (200, {"id": 7}) for name in ("samples", "results", "slow")}
    made = LocalAgent(answers={**answers, f"{LIMS}/export.csv": (200, "a,b\n" * 1_000_000)})
    for name in ("ContextClient", "CommandClient"):
        monkeypatch.setattr(relay_agent.pipelines, name, lambda *_arguments: made, raising=False)
    monkeypatch.setenv("JWT", "a.b.c")
    monkeypatch.setenv("SECURE_COMMAND_KEY", secrets.token_hex(32))
    monkeypatch.chdir(tmp_path)
    return made


def test_every_session_of_the_page_works_in_the_order_of_the_page(agent: LocalAgent, tmp_path: Path) -> None:
    scope: dict[str, Any] = {"context": Context(), "agent_id": AGENT_ID}
    assert len(SESSIONS) >= 8
    for block in SESSIONS:
        exec(block, scope)
        if isinstance(scope.get("session"), requests.Session):
            assert scope["session"].get(f"{LIMS}/api/samples").json() == {"id": 7}, block
    assert (tmp_path / "export.csv").read_text() == "a,b\n" * 1_000_000
    assert scope["samples"] == {"id": 7}


def test_the_readmes_session_works(agent: LocalAgent) -> None:
    (block,) = blocks(section(README, "Use requests"), "python")
    scope: dict[str, Any] = {"context": Context(), **dict.fromkeys(("agent_id", "api_target", "org_slug", "jwt"), "x")}
    exec(block, scope)
    assert scope["samples"] == {"id": 7} and [request["method"] for request in agent.requests] == ["GET", "POST"]


def test_the_readmes_two_lines_make_a_secure_session(agent: LocalAgent) -> None:
    (block,) = blocks(section(README, "Secure commands"), "python")
    assert len(block.splitlines()) == 2
    scope: dict[str, Any] = {"os": os, "client": agent, "Keyring": Keyring, "relay_session": relay_agent.pipelines.relay_session}
    exec(block, scope)
    scope["session"].get(f"{LIMS}/api/samples")
    assert agent.requests[0]["encrypt_response"] is True


def test_the_readmes_section_is_one_screen() -> None:
    assert len(section(README, "Use requests").splitlines()) <= 25


@pytest.mark.parametrize("block", PYTEST, ids=range(len(PYTEST)))
def test_the_samples_of_tests_pass(block: str, tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(block)
    arguments = ["-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_sample_for_an_older_python_sends_what_the_agent_understands(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context()
    (block,) = [block for block in SAMPLES if "run_cmd" in block]
    exec(block, {"context": context, "agent_id": AGENT_ID})
    request = requests_protocol.decode_request(context.command["payload"])
    assert (request.method, request.timeout, request.warnings) == ("GET", 30.0, ())
    assert 60 <= context.command["ttl_sec"] <= 900 and capsys.readouterr().out == "200 fine\n"


# --- the table of failures ---


def exception_of(code: str) -> str:
    """The name of the exception that a code becomes."""
    from relay_agent.pipelines import relay_session

    class Failing:
        def exchange(self, payload: Any, *, timeout_seconds: float, keyring: Any = None) -> Answer:
            return Answer("c", code, {"code": code, "message": "words"})

    with relay_session(Failing()) as session, pytest.raises(failures.RequestException) as caught:
        session.get(f"{LIMS}/")
    return type(caught.value).__name__


def test_the_table_of_failures_is_what_is_raised() -> None:
    table = rows(section(SENDERS, "Failures"), "exception of requests")
    known = {*Code, "UNSENT", "EXPIRED", "PURGED", "ERROR"}
    for code in known:
        listed = {name for row in table if code in names(row[1]) for name in names(row[0])}
        assert {name.partition(" ")[0] for name in listed} & {exception_of(code)}, code


def test_the_page_names_every_public_name() -> None:
    for name in [*relay_agent.pipelines.__all__, "LocalAgent", "SandboxContext", "RelayTransport", "AsyncRelayTransport"]:
        assert name in SENDERS + README or name in ("Answer", "NoAnswer"), name


def test_both_pages_are_linked_from_the_readmes_first_screen() -> None:
    first = "\n".join(README.splitlines()[:28])
    assert "(#use-requests)" in first and "(docs/senders.md)" in first


# --- the sample in Node ---

NODE = shutil.which("node")
JOSE = [ROOT / "build" / "tools" / "jose" / "usr" / "share" / "nodejs" / "jose", Path("/usr/share/nodejs/jose")]
PROGRAM = """
import { payload, jti, openAnswer } from "./sample.mjs";
import { createInterface } from "node:readline";
console.log(JSON.stringify({ payload, jti }));
for await (const line of createInterface({ input: process.stdin })) {
  const { body, id } = JSON.parse(line);
  try { console.log(JSON.stringify({ opened: await openAnswer(body, id, jti) })); }
  catch (error) { console.log(JSON.stringify({ refused: error.message })); }
}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Keyring]]:
    """The sample, running: it has printed its payload, and opens the answers that it is given line by line."""
    library = next((path for path in JOSE if path.is_dir()), None)
    if NODE is None or library is None:
        pytest.skip("no Node with jose on this machine (Debian: apt-get install nodejs node-jose)")
    (block,) = blocks(SENDERS, "js")
    (tmp_path / "sample.mjs").write_text(block)
    (tmp_path / "program.mjs").write_text(PROGRAM)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "jose").symlink_to(library)
    key = secrets.token_bytes(32)
    environment = {"PATH": "/usr/bin:/bin", "SECURE_COMMAND_KEY": base64.urlsafe_b64encode(key).rstrip(b"=").decode(), "AGENT_ID": AGENT_ID}
    started = subprocess.Popen(
        [NODE, "program.mjs"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        yield started, Keyring([key])
        started.kill()


def test_the_sample_in_node_seals_for_the_agent_and_opens_its_answer_only(node: tuple[subprocess.Popen[str], Keyring]) -> None:
    process, ring = node
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    made = json.loads(line)
    opened = open_command(made["payload"]["jwe"], ring, agent_id=AGENT_ID, now=datetime.now(UTC))
    request = requests_protocol.decode_request(requests_protocol.decode_payload(opened.plaintext), secure=True)
    assert (str(request.url), request.encrypt_response, opened.jti) == (f"{LIMS}/api/samples", True, made["jti"])

    def ask(body: Any, command_id: str = "c-1") -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"body": body, "id": command_id}) + "\n")
        process.stdin.flush()
        found: dict[str, Any] = json.loads(process.stdout.readline())
        return found

    def sealed(body: dict[str, Any], cid: str = "c-1", jti: str | None = made["jti"], keys: Keyring = ring) -> dict[str, Any]:
        return {"statusCode": 200, "jwe": "".join(seal_answer([json.dumps(body).encode()], keys, cid=cid, jti=jti))}

    body = {"statusCode": 200, "body": "x" * 300_000}
    assert ask(sealed(body)) == {"opened": body}
    refused = [sealed(body, cid="c-2"), sealed(body, jti="another"), sealed(body, jti=None), sealed(body, keys=Keyring([b"k" * 32]))]
    for wrong in [*refused, {"jwe": made["payload"]["jwe"]}, {"code": "ENOKEY"}, {"body": "forged"}, {}, None, "jwe", ["jwe"]]:
        assert "refused" in ask(wrong), wrong


def test_no_block_of_the_page_is_of_a_kind_that_no_test_runs() -> None:
    assert set(re.findall(r"^```(\w*)$", SENDERS, re.MULTILINE)) - {""} == {"python", "js"}
    assert len(PYTEST) == 1 and len(SAMPLES) == 2
