"""Credentials of the policy file: targets get them, and nobody else ever sees the password."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, body, page, run_once, running
from tests.target_certificates import ca_pem, server_context
from tests.targets import ByteTarget, reply
from tests.windows_peers import Demand, DemandingProxy

CANARY = "canary-4c1e-pass"
RULES = """default = "allow"
[[target]]
hosts = ["127.0.0.1"]
auth = { digest = { user = "agent", password = { file = "password" } } }
[[target]]
hosts = ["localhost"]
auth = { ntlm = { user = 'LAB\\agent', password = { file = "password" } } }
"""
CHALLENGE = ("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256')


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy file with a password beside it, which NTLM's users have too."""
    file = tmp_path / "policy.toml"
    file.write_text(RULES, encoding="utf-8")
    (tmp_path / "password").write_text(CANARY, encoding="utf-8")
    (tmp_path / "users").write_text(f"LAB:agent:{CANARY}\n", encoding="utf-8")
    monkeypatch.setenv("NTLM_USER_FILE", str(tmp_path / "users"))
    return file


def test_the_password_is_in_no_log_page_bundle_or_explanation(sandbox: Sandbox, tmp_path: Path, rules: Path) -> None:
    with ByteTarget() as target, running(RunningAgent(sandbox, tmp_path, {"RELAY_POLICY_FILE": str(rules)})) as agent:
        asking, content = reply(401, [CHALLENGE], "who are you?"), reply(200, body="in")
        target.on("/digest", lambda conn, request: (content if request.get("Authorization") else asking)(conn, request))
        target.on("/ntlm", Demand("ntlm").before(content))
        target.on("/refused", asking)
        assert body(agent.get(target.url("/digest")))["body"] == "in"
        assert body(agent.get(target.url("/ntlm", host="localhost")))["body"] == "in"
        assert body(agent.get(target.url("/refused")))["statusCode"] == 401
        seen = "".join(page(agent, path)[1] for path in ("/", "/status.json", "/metrics"))
        told = run_once(["support-bundle", "-o", "mine.zip"], tmp_path, agent.environment, timeout=60)
        explained = run_once(["explain", target.url("/ntlm", host="localhost")], tmp_path, agent.environment)
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        bundle = "".join(archive.read(name).decode() for name in archive.namelist())
    assert "auth: ntlm as LAB\\agent" in explained.stdout.decode()
    everything = [*agent.lines.raw, seen, bundle, *(str(done.stdout + done.stderr) for done in (told, explained))]
    assert [text for text in everything if CANARY in text] == []


def test_explain_opens_a_tunnel_with_the_proxys_credentials(tmp_path: Path, rules: Path) -> None:
    rules.write_text(RULES.replace("auth =", "proxy_auth ="), encoding="utf-8")
    (tmp_path / "ca.pem").write_bytes(ca_pem())
    with ByteTarget(server_context()) as target, DemandingProxy(Demand("ntlm", proxy=True)) as proxy:
        settings = {"RELAY_POLICY_FILE": str(rules), "RELAY_CA_FILE": str(tmp_path / "ca.pem"), "RELAY_TARGET_PROXY": proxy.url()}
        done = run_once(["explain", "--json", target.url(host="localhost")], tmp_path, {"PATH": "/usr/bin:/bin", **settings})
    found = json.loads(done.stdout)
    assert [(stage["stage"], stage["status"]) for stage in found["stages"]] == [
        (name, "ok") for name in ("policy", "target", "proxy", "resolve", "connect", "tunnel", "tls")
    ]
    assert "proxy_auth: ntlm as LAB\\agent" in found["stages"][1]["summary"]
