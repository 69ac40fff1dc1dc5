"""Certificates and a token that end soon: the log, the status page, the metrics and `check` say so, and the agent stays ready.

When something is logged is tested in `tests/unit/diagnostics/test_expiry_watch.py`.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from relay_agent.protocol.jwe import seal_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.sandbox.server import Sandbox
from tests.agents import SECURE_REQUEST, ThreadedAgent, agent_environment, page, run_once, running, wait_until
from tests.target_certificates import ca_pem, ca_that_ends, server_context
from tests.target_proxies import HttpProxy
from tests.targets import ByteTarget, reply

KEY = secrets.token_bytes(32)
DAY = 24 * 3600


@pytest.fixture(autouse=True)
def _own_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):  # `check` knows neither
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """The file of RELAY_CA_FILE: the tests' authority, and one that ends in 3 days."""
    path = tmp_path / "lab-ca.pem"
    path.write_bytes(ca_pem() + ca_that_ends(3, "Old Lab CA"))
    return path


def target_that_ends(days: float) -> ByteTarget:
    target = ByteTarget(server_context(days=days))
    target.on("/", reply(200))
    return target


def status(agent: ThreadedAgent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page(agent, "/status.json")[1])
    return found


def test_a_target_whose_certificate_ends_in_10_days_is_a_warning_everywhere_and_the_agent_stays_ready(
    sandbox: Sandbox, tmp_path: Path, trusted: Path
) -> None:
    settings = {"RELAY_CA_FILE": str(trusted)}
    with target_that_ends(10.5) as target, running(ThreadedAgent(sandbox, tmp_path, settings)) as agent:
        name = f"127.0.0.1:{target.port}"
        assert agent.get(target.url("/")).status == "SUCCESS"
        (entry,) = [one for one in status(agent)["ending"] if one["role"] == "target"]
        (warning,) = [one for one in status(agent)["warnings"] if one["check"] == "target"]
        metrics = page(agent, "/metrics")[1]
        assert (status(agent)["state"], page(agent, "/readyz")[0]) == ("ready", 200)
        assert warning["reason"] in page(agent, "/")[1]
    assert entry["name"] == name
    assert "in 10 days; after that calls fail with CERT_HAS_EXPIRED" in warning["cause"] == entry["remark"]
    (sample,) = [line for line in metrics.splitlines() if f'name="{name}"' in line]
    assert sample.startswith("relay_agent_certificate_expiry_timestamp_seconds{") and 'role="target"' in sample
    assert 10 * DAY < float(sample.split()[-1]) - time.time() < 10.5 * DAY + 1


def test_a_ca_and_a_target_that_end_within_7_days_are_logged_at_once(sandbox: Sandbox, tmp_path: Path, trusted: Path) -> None:
    settings = {"RELAY_CA_FILE": str(trusted)}
    with target_that_ends(5.5) as target, running(ThreadedAgent(sandbox, tmp_path, settings)) as agent:
        line = agent.wait_log("certificate-ends-soon", role="ca")
        assert (line["subject"], line["name"], line["days"]) == ("CN=Old Lab CA", str(trusted), 2)
        assert agent.get(target.url("/")).status == "SUCCESS"
        line = agent.wait_log("certificate-ends-soon", role="target")
        assert (line["name"], line["days"]) == (f"127.0.0.1:{target.port}", 5)
        for _ in range(3):
            assert agent.get(target.url("/")).status == "SUCCESS"
        assert len(agent.events("certificate-ends-soon")) == 2


def test_the_certificate_of_a_tls_proxy_is_watched_too(sandbox: Sandbox, tmp_path: Path, trusted: Path) -> None:
    with target_that_ends(400) as target, HttpProxy(tls=server_context(days=4.5)) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        settings: dict[str, str | None] = {"RELAY_CA_FILE": str(trusted), "RELAY_TARGET_PROXY": url, "no_proxy": None}
        with running(ThreadedAgent(sandbox, tmp_path, settings)) as agent:
            assert agent.get(target.url("/")).status == "SUCCESS"
            line = agent.wait_log("certificate-ends-soon", role="proxy")
        found = checks(sandbox, tmp_path, settings, "--target", target.url("/"))
    assert "the certificate of the proxy 127.0.0.1 expires on" in line["cause"]
    assert (found["target"]["status"], found["target"]["cause"]) == ("warning", line["cause"])


def test_the_target_of_a_secure_command_is_named_on_stdout_only(sandbox: Sandbox, tmp_path: Path, trusted: Path) -> None:
    settings = {"RELAY_CA_FILE": str(trusted), "SECURE_COMMAND_KEY": KEY.hex()}
    with target_that_ends(5) as target, running(ThreadedAgent(sandbox, tmp_path, settings)) as agent:
        request = {"url": target.url("/", host="localhost"), "encrypt_response": True}
        sealed = seal_command(
            json.dumps(request).encode(), Keyring([KEY]), aud=agent.agent_id, exp=int(time.time()) + 60, jti=str(uuid.uuid4())
        )
        assert agent.ask_until_logged({"jwe": sealed}, SECURE_REQUEST).status == "SUCCESS"
        line = agent.wait_log("certificate-ends-soon", role="target")
        assert f"localhost:{target.port}" == line["name"]

        def shipped() -> list[str]:
            return [event["message"] for event in sandbox.log_events(agent.agent_id)]

        wait_until(sandbox, lambda: any('"role":"target"' in message for message in shipped()))
        bundled = page(agent, "/log")[1].splitlines()
    (told,) = [json.loads(message) for message in shipped() if '"role":"target"' in message]
    assert set(told) == {"event", "timestamp", "level", "role", "days"}
    assert [text for text in [*shipped(), *bundled] if f":{target.port}" in text or '"localhost"' in text] == []


def test_check_warns_of_the_platform_s_certificate_and_of_its_proxy_s(sandbox: Sandbox, tmp_path: Path, trusted: Path) -> None:
    with ByteTarget(server_context(days=20.5)) as platform, HttpProxy(tls=server_context(days=8.5)) as proxy:
        platform.on("*", reply(200, body='{"isEnabled": false, "type": "user-defined"}'))
        settings: dict[str, str | None] = {
            "API_TARGET": platform.url("").rstrip("/"),
            "RELAY_CA_FILE": str(trusted),
            "RELAY_PLATFORM_PROXY": f"https://127.0.0.1:{proxy.port}",
            "no_proxy": None,
        }
        found = checks(sandbox, tmp_path, settings)
    assert (found["platform"]["status"], found["enabled"]["status"]) == ("warning", "error")
    first, second = found["platform"]["cause"].split("; the ")
    assert "the certificate of the proxy 127.0.0.1 expires on" in first and "in 8 days" in first
    assert "certificate that 127.0.0.1 shows expires on" in second and "in 20 days" in second
    assert found["configuration"]["status"] == "warning"
    assert f"CN=Old Lab CA in {trusted} (RELAY_CA_FILE) expires on" in found["configuration"]["cause"]


def test_a_renewed_file_of_the_policy_is_watched_without_a_restart(sandbox: Sandbox, tmp_path: Path) -> None:
    policy, file = tmp_path / "policy.toml", tmp_path / "lims.pem"
    file.write_bytes(ca_that_ends(400, "Lims CA"))
    policy.write_text('[[target]]\nhosts = ["lims.lab.example"]\nca_file = "lims.pem"\n', encoding="utf-8")
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_POLICY_FILE": str(policy)})) as agent:
        assert status(agent)["ending"] == []
        file.write_bytes(ca_that_ends(2, "Other CA"))
        line = agent.wait_log("certificate-ends-soon", role="ca")
    assert (line["subject"], line["name"]) == ("CN=Other CA", str(file))
    assert "uses the new file" in line["cure"]


def test_a_token_that_ends_within_7_days_is_logged_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    token = sandbox.issue_jwt(6.5 * DAY)
    with running(ThreadedAgent(sandbox, tmp_path, {"JWT": token})) as agent:
        line = agent.wait_log("token-ends-soon")
        (entry,) = status(agent)["ending"]
    assert line["days"] == 6
    assert "in 6 days; after that the platform refuses the agent" in line["cause"] == entry["remark"]
    assert entry["role"] == "token"


def checks(sandbox: Sandbox, directory: Path, settings: dict[str, str | None], *arguments: str) -> dict[str, dict[str, Any]]:
    environment = agent_environment(sandbox, sandbox.add_agent(), directory, settings)
    done = run_once(["check", "--json", *arguments], directory, environment)
    return {one["id"]: one for one in json.loads(done.stdout)["checks"]}
