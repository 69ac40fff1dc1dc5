"""An agent with RELAY_POLICY_FILE: its start, changes while it runs, the mode observe, and that no secret comes out (docs/policy.md).

What a policy decides about a call is in tests/contract/test_policy_calls.py.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization

from relay_agent.agent import wiring
from relay_agent.config.network import load_rules
from relay_agent.config.policy_file import LoadedPolicy
from relay_agent.config.settings import Settings
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, ThreadedAgent, agent_environment, body, page, run_once, running, wait_until
from tests.target_certificates import ca_pem, client_certificate, server_context
from tests.targets import ByteTarget, Connection, RawRequest, redirect, reply

RELOAD_SECONDS = 10.0
ALLOW_ALL = 'default = "allow"\n'
BROKEN = '[[rule]]\nname = "lims"\naction = "allow"\nhost = ["lims.lab.example"]\n'
SAID = "RELAY_POLICY_FILE: policy.toml: [[rule]] 1 (lims): unknown key 'host'; did you mean 'hosts'?"


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("*", reply(body="here"))
        yield running_target


def under(directory: Path, text: str) -> dict[str, str | None]:
    """Write a policy file beside the agent; the setting that names it."""
    file = directory / "policy.toml"
    fresh = directory / "policy.new"
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
    return {"RELAY_POLICY_FILE": str(file)}


def ask(agent: RunningAgent, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return run_once(list(arguments), agent.directory, agent.environment, timeout=60)


# --- the start ---


@pytest.mark.parametrize("command", [["run"], ["check"], ["explain", "http://127.0.0.1:9/"]], ids=lambda words: words[0])
def test_a_mistake_in_a_file_is_reported_with_table_key_and_nearest_key(sandbox: Sandbox, tmp_path: Path, command: list[str]) -> None:
    environment = agent_environment(sandbox, "not-there", tmp_path, under(tmp_path, BROKEN))
    done = run_once(command, tmp_path, environment)
    assert done.returncode == (1 if command[0] == "explain" else 2)
    assert SAID in (done.stdout + done.stderr).decode()
    if command == ["run"]:
        assert any(SAID in problem for problem in json.loads(done.stdout)["problems"])
    assert b"Traceback" not in done.stdout + done.stderr


def test_all_mistakes_are_reported_together_and_a_missing_file_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    text = BROKEN + 'ports = ["443"]\n[[target]]\nhosts = ["h"]\nca_file = "no.pem"\n'
    environment = agent_environment(sandbox, "not-there", tmp_path, under(tmp_path, text.replace("host =", "hosts =")))
    first = run_once(["run"], tmp_path, environment)
    assert b"[[rule]] 1 (lims): ports: input should be a valid integer" in first.stdout
    under(tmp_path, '[[target]]\nhosts = ["h"]\nca_file = "no.pem"\n')
    second = run_once(["run"], tmp_path, environment)
    assert f"[[target]] 1 (h): ca_file: cannot read {tmp_path}/no.pem (No such file or directory)" in second.stdout.decode()
    third = run_once(["run"], tmp_path, {**environment, "RELAY_POLICY_FILE": str(tmp_path / "absent.toml")})
    assert f"RELAY_POLICY_FILE: cannot read {tmp_path}/absent.toml (No such file or directory)" in third.stdout.decode()
    assert (first.returncode, second.returncode, third.returncode) == (2, 2, 2)


def test_the_journal_is_wiped_while_a_changed_policy_is_still_being_read(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, reading, read_on = threading.Event(), threading.Event(), threading.Event()

    def slow(settings: Settings) -> LoadedPolicy:
        if started.is_set():
            reading.set()
            assert read_on.wait(60)
        return load_rules(settings)

    monkeypatch.setattr(wiring, "load_rules", slow)
    with running(ThreadedAgent(sandbox, tmp_path, under(tmp_path, ALLOW_ALL))) as agent:
        started.set()
        try:
            under(tmp_path, ALLOW_ALL + 'mode = "observe"\n')
            assert reading.wait(30)
            assert agent.get(target.url()).status == "SUCCESS"
            journal, log = agent.agent.flow.journal, tmp_path / "state" / "journal.db-wal"
            wait_until(sandbox, lambda: journal.counts()["delivered"] == 1 and log.stat().st_size == 0)
        finally:
            read_on.set()
        agent.wait_log("policy-loaded")


# --- changes while it runs ---


def test_a_changed_file_is_taken_over_within_ten_seconds_and_a_broken_one_is_not(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    with running(RunningAgent(sandbox, tmp_path, under(tmp_path, ""))) as agent:
        pid = agent.pid
        refused = body(agent.get(target.url("/")))
        assert (refused["code"], refused["message"]) == ("EPOLICY", "refused by the agent's policy: default: deny")
        under(tmp_path, ALLOW_ALL)
        agent.wait_log("policy-loaded", RELOAD_SECONDS, mode="enforce", rules=0, targets=0)
        assert agent.get(target.url("/")).status == "SUCCESS"
        under(tmp_path, BROKEN)
        line = agent.wait_log("policy-unusable", RELOAD_SECONDS)
        assert SAID in line["cause"] and "policy check" in line["cure"]
        assert agent.get(target.url("/")).status == "SUCCESS", "the old policy stays"
        assert "the policy file is not valid" in page(agent, "/")[1]
        found = json.loads(ask(agent, "status", "--json").stdout)
        assert SAID in str(found["warnings"])
        assert (found["policy"]["mode"], found["policy"]["default"], found["policy"]["file"]) == (
            "enforce",
            "allow",
            str(tmp_path / "policy.toml"),
        )
        assert SAID in ask(agent, "check", "--json").stdout.decode()
        under(tmp_path, "")
        wait_until(sandbox, lambda: len(agent.events("policy-loaded")) == 2, RELOAD_SECONDS)
        assert body(agent.get(target.url("/")))["code"] == "EPOLICY"
        assert "the policy file is not valid" not in page(agent, "/")[1]
        assert (agent.pid, len(agent.events("policy-unusable")), len(agent.events("agent-ready"))) == (pid, 1, 1)


def test_a_secret_that_is_replaced_in_its_file_is_used_from_then_on(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    policy = ALLOW_ALL + '[[target]]\nhosts = ["127.0.0.1"]\nheaders = { Authorization = { file = "token" } }\n'
    (tmp_path / "token").write_text("Bearer first-secret")
    with running(ThreadedAgent(sandbox, tmp_path, under(tmp_path, policy))) as agent:
        agent.get(target.url("/"))
        assert target.last.get("Authorization") == "Bearer first-secret"
        (tmp_path / "token.new").write_text("Bearer second-secret\n")
        (tmp_path / "token.new").replace(tmp_path / "token")
        agent.wait_log("policy-loaded", RELOAD_SECONDS)
        agent.get(target.url("/"))
        assert target.last.get("Authorization") == "Bearer second-secret"
        assert not any("-secret" in line for line in agent.lines.raw)


def test_a_table_at_its_limit_takes_no_worker_from_other_hosts(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    policy = ALLOW_ALL + '[[target]]\nhosts = ["127.0.0.0/8"]\nmax_concurrency = 1\n'
    gate = target.gate()

    def slow_answer(conn: Connection, _request: RawRequest) -> None:
        conn.wait(gate)
        conn.respond(200, body=b"slow")

    target.on("/slow", slow_answer)
    with running(ThreadedAgent(sandbox, tmp_path, {**under(tmp_path, policy), "RELAY_WORKERS": "3"})) as agent:
        hosts = ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "017700000001"]
        slow = [agent.create({"url": target.url("/slow", host=host)}) for host in hosts]
        gate.wait_reached()
        for _ in range(3):
            assert agent.get(target.url("/", host="localhost")).status == "SUCCESS"
        assert [request.target for request in target.requests].count("/slow") == 1
        gate.release()
        assert {sandbox.wait_final(command.id).status for command in slow} == {"SUCCESS"}


# --- the mode observe ---


def test_observed_rules_refuse_nothing_and_what_they_would_refuse_is_shown(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    policy = 'mode = "observe"\n[[rule]]\nname = "no admin"\naction = "deny"\npaths = ["/admin"]\n[[rule]]\naction = "allow"\n'
    with running(RunningAgent(sandbox, tmp_path, under(tmp_path, policy))) as agent:
        refused, fine = agent.ask_until_logged({"url": target.url("/x/..%2fadmin")}), agent.ask_until_logged({"url": target.url("/")})
        assert (refused.status, fine.status) == ("SUCCESS", "SUCCESS")
        assert "no admin" not in json.dumps(refused.updates)
        assert agent.wait_log("command", id=refused.id)["wouldRefuse"] == "no admin"
        assert "wouldRefuse" not in agent.wait_log("command", id=fine.id)
        denied = agent.ask_until_logged({"url": "http://169.254.169.254/"})
        assert body(denied)["message"] == "refused by the agent's policy: built-in: link-local and cloud metadata"
        listed = {one["id"]: one["wouldRefuse"] for one in json.loads(ask(agent, "commands", "--json").stdout)["commands"]}
        assert listed == {refused.id: "no admin", fine.id: None, denied.id: None}
        assert "no admin" in ask(agent, "commands").stdout.decode()
        shown = ask(agent, "commands", "show", refused.id).stdout.decode()
        assert "no admin would refuse such a command in the mode enforce" in shown


def test_explain_says_what_the_policy_decides_and_how_the_target_is_called(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    policy = (
        '[[rule]]\nname = "here"\naction = "allow"\nhosts = ["127.0.0.0/8"]\npaths = ["/api/*"]\n'
        '[[target]]\nhosts = ["127.0.0.1"]\nmax_concurrency = 2\ntimeout_seconds = 60\nproxy = "none"\n'
    )
    environment = agent_environment(sandbox, "not-there", tmp_path, under(tmp_path, policy))
    allowed = json.loads(run_once(["explain", "--json", target.url("/api/x")], tmp_path, environment).stdout)
    assert (allowed["verdict"], allowed["rule"], allowed["code"]) == ("allow", "here", None)
    stages = {stage["stage"]: stage["summary"] for stage in allowed["stages"]}
    assert stages["target"] == "[[target]] 1 (127.0.0.1): proxy none; at most 2 at a time; at most 60 s"
    assert "[[target]] 1 (127.0.0.1)" in stages["proxy"]
    denied = json.loads(run_once(["explain", "--json", target.url("/api/..%2fadmin")], tmp_path, environment).stdout)
    assert (denied["verdict"], denied["rule"], denied["code"]) == ("deny", "default: deny", "EPOLICY")
    assert target.requests == []


# --- secrets ---

TOKEN = "canary-policy-token-41"
COOKIE = "canary-policy-cookie-42"
INLINE = "canary-policy-inline-43"
PASSWORD = "canary-policy-password-44"
PROXY = "canary-policy-proxy-45"


def secret_policy(directory: Path) -> str:
    """Write a policy with a secret in every place that can hold one."""
    certificate, key = client_certificate()
    sealed = serialization.BestAvailableEncryption(PASSWORD.encode())
    private = serialization.load_pem_private_key(key, None)
    (directory / "ca.pem").write_bytes(ca_pem())
    (directory / "agent.pem").write_bytes(certificate)
    (directory / "agent.key").write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed))
    (directory / "password").write_text(f"{PASSWORD}\n")
    (directory / "token").write_text(f"Bearer {TOKEN}\n")
    (directory / "cookie").write_text(f"session={COOKIE}\n")
    return (
        ALLOW_ALL
        + '[[target]]\nhosts = ["127.0.0.1"]\nca_file = "ca.pem"\nclient_cert = "agent.pem"\nclient_key = "agent.key"\n'
        + 'client_key_password_file = "password"\nproxy = "none"\n'
        + f'headers = {{ Authorization = {{ file = "token" }}, Cookie = {{ file = "cookie" }}, X-Key = "{INLINE}" }}\n'
        + f'[[target]]\nhosts = ["localhost"]\nproxy = "http://agent:{PROXY}@127.0.0.1:9"\n'
    )


def canaries() -> list[str]:
    """Each secret plain, percent-encoded, and in base64 at each place of a longer text."""
    found = []
    for secret in (TOKEN, COOKIE, INLINE, PASSWORD, PROXY):
        coded = [base64.b64encode(b"x" * lead + secret.encode()).decode()[4:-4] for lead in range(3)]
        found += [secret, quote(secret, safe=""), secret.encode().hex(), *coded]
    return found


def leaks(*texts: str | bytes) -> list[str]:
    joined = "\n".join(text if isinstance(text, str) else text.decode("latin-1") for text in texts)
    return [canary for canary in canaries() if canary in joined]


def journal_of(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((directory / "state").rglob("*")) if path.is_file())


def bundled(path: Path) -> list[bytes]:
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


def test_no_secret_of_a_policy_comes_out_anywhere(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with ByteTarget(server_context(client_authority=ca_pem())) as secured:
        secured.on("*", reply(body="here"))
        secured.on("/gone", lambda conn, _request: conn.reset())
        secured.on("/away", redirect(302, target.url("/", host="localhost")))
        more = {**under(tmp_path, secret_policy(tmp_path)), "RELAY_ADMIN_ADDR": "off"}
        with running(RunningAgent(sandbox, tmp_path, more)) as agent:
            commands = [agent.ask_until_logged({"url": secured.url(path)}) for path in ("/", "/gone", "/away")]
            commands.append(agent.ask_until_logged({"url": target.url("/", host="localhost")}))
            commands.append(agent.ask_until_logged({"url": secured.url("/"), "method": "TRACE"}))
            assert [one.status for one in commands] == ["SUCCESS", "FAILURE", "FAILURE", "FAILURE", "SUCCESS"]
            assert secured.requests[0].get("Authorization") == f"Bearer {TOKEN}"
            assert secured.requests[0].get("X-Key") == INLINE
            under(tmp_path, secret_policy(tmp_path) + "x = 1\n")
            agent.wait_log("policy-unusable", RELOAD_SECONDS)
            pages = [page(agent, path)[1] for path in ("/", "/status.json", "/metrics", "/log", "/commands")]
            done = [
                ask(agent, *words)
                for words in (
                    ["status"],
                    ["status", "--json"],
                    ["commands"],
                    ["commands", "--json"],
                    ["support-bundle", "-o", "mine.zip"],
                    ["check", "--target", secured.url("/")],
                )
            ]
            under(tmp_path, secret_policy(tmp_path))
            for url in (secured.url("/"), target.url("/", host="localhost")):
                ways = (["explain", "--send", url], ["explain", "--send", "--json", url], ["check", "--json", "--target", url])
                done += [ask(agent, *words) for words in ways]
            command_line = Path(f"/proc/{agent.pid}/cmdline").read_bytes() + Path(f"/proc/{agent.pid}/environ").read_bytes()
            wait_until(sandbox, lambda: any(commands[0].id in event["message"] for event in sandbox.log_events(agent.agent_id)))
            assert agent.stop() == 0
        (told,) = (event["message"] for event in sandbox.log_events(agent.agent_id) if "policy-unusable" in event["message"])
        assert "policy.toml" not in told and "127.0.0.1" not in told, "the platform learns neither files nor targets of the policy"
        assert all(b"Traceback" not in one.stdout + one.stderr for one in done)
        assert leaks(*agent.lines.raw) == []
        assert leaks(agent.errors) == []
        assert leaks(*(one.stdout + one.stderr for one in done)) == []
        assert leaks(*pages) == []
        assert leaks(*bundled(tmp_path / "mine.zip")) == []
        assert leaks(journal_of(tmp_path)) == []
        assert leaks(command_line) == []
        assert leaks(*(event["message"] for event in sandbox.log_events(agent.agent_id))) == []
        assert leaks(*(text for command in commands for text in command.updates)) == []


@pytest.mark.parametrize("where", ["headers", "proxy", "password"])
def test_a_mistake_beside_a_secret_does_not_show_it(sandbox: Sandbox, tmp_path: Path, where: str) -> None:
    text = secret_policy(tmp_path)
    if where == "headers":
        (tmp_path / "token").write_text(f"Bearer {TOKEN}\nBearer {TOKEN}\n")
        text = text.replace(f'"{INLINE}"', f'["{INLINE}"]')
    elif where == "proxy":
        text = text.replace("127.0.0.1:9", "127.0.0.1:99999")
    else:
        (tmp_path / "password").write_text(f"{PASSWORD}-wrong")
    environment: dict[str, Any] = agent_environment(sandbox, "not-there", tmp_path, under(tmp_path, text))
    done = [
        run_once(words, tmp_path, environment) for words in (["run"], ["check"], ["check", "--json"], ["support-bundle", "-o", "b.zip"])
    ]
    assert done[0].returncode == 2
    assert leaks(*(one.stdout + one.stderr for one in done), *bundled(tmp_path / "b.zip")) == []
