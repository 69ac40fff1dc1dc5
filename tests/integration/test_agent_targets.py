"""A broken target: the log, the status page and `check` give cause and cure in the same words.

How often something is logged is tested in `tests/unit/diagnostics/test_target_failures.py`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_agent.sandbox.server import Sandbox
from tests.agents import ThreadedAgent, agent_environment, page, run_once, running, wait_until
from tests.target_certificates import ca_pem, server_context
from tests.target_proxies import HttpProxy, Refusal
from tests.targets import ByteTarget, FullBacklog, closed_port, play, raw, redirect, reply

CANARY = "canary-77b0"


CERTIFICATES = {
    "unknown_authority": "was issued by OU=Testing CA",
    "self_signed": "is self-signed (CN=a device that signed itself)",
    "expired": "has expired on 20",
    "not_yet_valid": "is not valid yet (it is valid from 20",
    "wrong_host": "is valid for other names only: elsewhere.lab.example",
}


@contextlib.contextmanager
def broken(what: str, directory: Path) -> Iterator[tuple[str, dict[str, str | None], str]]:
    """A URL behind which that is broken, the settings that it takes, and what must be said."""
    direct: dict[str, str | None] = {}
    if what == "name":
        yield "http://lims.lab.invalid/", direct, "the name lims.lab.invalid does not exist"
    elif what == "port":
        yield f"http://127.0.0.1:{closed_port()}/", direct, "127.0.0.1 refuses connections on port"
    elif what == "firewall":
        with FullBacklog() as silent:
            yield silent.url("/"), {"RELAY_CONNECT_TIMEOUT_SECONDS": "1"}, "a firewall drops the packets"
    elif what == "cut":
        with ByteTarget() as target:
            target.on_accept = play(lambda conn: conn.close())
            yield target.url("/"), direct, "was closed by the target"
    elif what == "plain":
        with ByteTarget() as target:
            target.on_accept = play(lambda conn: conn.read_exactly(1), lambda conn: conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
            yield target.url("/", scheme="https"), direct, "does not speak TLS"
    elif what in CERTIFICATES:
        trusted = directory / "ca.pem"
        trusted.write_bytes(ca_pem())
        with ByteTarget(server_context(what)) as target:  # type: ignore[arg-type]
            yield target.url("/"), direct if what == "unknown_authority" else {"RELAY_CA_FILE": str(trusted)}, CERTIFICATES[what]
    elif what == "tunnel":
        with HttpProxy(refuse=Refusal(407)) as proxy:
            settings: dict[str, str | None] = {"RELAY_TARGET_PROXY": proxy.url(("lab", CANARY)), "no_proxy": None}
            yield "https://lims.lab.example/", settings, f"@127.0.0.1:{proxy.port}, not the target, answered 407"
    elif what == "forwarding proxy":
        with HttpProxy(auth=("lab", "right")) as proxy:
            settings = {"RELAY_TARGET_PROXY": proxy.url(("lab", CANARY)), "no_proxy": None}
            yield "http://lims.lab.example/", settings, f"@127.0.0.1:{proxy.port}, not the target, answered 407"
    else:
        url = f"http://127.0.0.1:{closed_port()}"
        yield "https://lims.lab.example/", {"RELAY_TARGET_PROXY": url, "no_proxy": None}, f"the proxy {url}, not the target, fails"


BROKEN = [
    "name",
    "port",
    "firewall",
    "cut",
    "plain",
    *CERTIFICATES,
    "tunnel",
    "forwarding proxy",
    "proxy",
]


@pytest.mark.parametrize("what", BROKEN)
def test_log_page_and_check_name_the_same_cause_and_cure(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):  # `check` knows neither
        monkeypatch.delenv(name, raising=False)
    with (
        broken(what, tmp_path) as (url, settings, says),
        running(ThreadedAgent(sandbox, tmp_path, {**settings, "RELAY_WORKERS": "2"})) as agent,
    ):
        for _ in range(3):
            assert agent.get(url).status == "FAILURE"
        line = agent.wait_log("target-failed")
        (warning,) = [one for one in json.loads(page(agent, "/status.json")[1])["warnings"] if one["check"] == "target"]
        environment = agent_environment(sandbox, agent.agent_id, tmp_path, settings)
        done = run_once(["check", "--json", "--target", url], tmp_path, environment)
        (check,) = [one for one in json.loads(done.stdout)["checks"] if one["id"] == "target"]
        assert len(agent.events("target-failed")) == 1
        everything = "".join(agent.lines.raw) + page(agent, "/")[1] + json.dumps(warning)
    assert says in line["cause"].replace("[redacted]@", "@")
    masked: list[dict[str, Any]] = [line, warning, check]
    assert len({(_bare(one["cause"]), _bare(one["cure"])) for one in masked}) == 1, [one["cause"] for one in masked]
    assert CANARY not in everything


def _bare(text: str) -> str:
    """Without a proxy's user, which each place masks in its own way."""
    return text.replace("lab:***@", "").replace("[redacted]@", "")


def test_a_target_that_answers_again_is_logged_and_leaves_the_page(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent, ByteTarget() as target:
        target.on_accept = play(lambda conn: conn.close())
        assert agent.get(target.url("/")).status == "FAILURE"
        agent.wait_log("target-failed", host="127.0.0.1", port=target.port)
        assert "was closed by the target" in page(agent, "/")[1]
        target.on_accept = None
        target.on("/", reply(200))
        assert agent.get(target.url("/")).status == "SUCCESS"
        agent.wait_log("target-recovered", host="127.0.0.1", port=target.port)
        wait_until(sandbox, lambda: "was closed by the target" not in page(agent, "/")[1])


def test_a_failed_command_reveals_no_secret(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent, ByteTarget() as target, ByteTarget(server_context("self_signed")) as tls:
        away = f"http://u:{CANARY}@127.0.0.1:{closed_port()}/{CANARY}?{CANARY}"
        target.on("/cut", raw(f"HTTP/1.1 2x0 {CANARY}\r\n{CANARY}".encode()))
        target.on("/none", redirect(302, f"ftp://u:{CANARY}@h/{CANARY}?{CANARY}"))
        target.on("/away", redirect(302, away))
        failing = [target.url(f"/{path}?{CANARY}", userinfo=f"u:{CANARY}") for path in ("cut", "none", "away")]
        for url in (*failing, away, tls.url(f"/{CANARY}?{CANARY}", userinfo=f"u:{CANARY}"), f"http://169.254.169.254/{CANARY}?{CANARY}"):
            assert agent.get(url).status == "FAILURE"
        wait_until(sandbox, lambda: len(agent.events("target-failed")) == 4)
        reported = "".join(agent.lines.raw) + page(agent, "/")[1] + page(agent, "/status.json")[1]
    assert CANARY not in reported
