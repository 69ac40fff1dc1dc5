"""The whole agent in a network whose only ways out are proxies: both legs work, each failure names the proxy, no password comes out.

How each program forwards and refuses is tested in `tests/contract/test_real_proxies.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from relay_agent.sandbox.rest import same_origin
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, page, run_once, running, wait_until
from tests.real_proxies import (
    FORBIDDEN,
    KNOWN,
    PASSWORD,
    USER,
    Mitmproxy,
    RealProxy,
    Squid,
    run_dante,
    run_microsocks,
    run_mitmproxy,
    run_squid,
    run_tinyproxy,
)
from tests.target_certificates import ca_pem, server_context
from tests.target_proxies import pump
from tests.target_server import PATIENCE_SECONDS, Connection, Server
from tests.targets import ByteTarget, closed_port, reply

CANARY = PASSWORD.rpartition("-")[0]
"""The beginning of each password here, right or wrong."""
WRONG = f"{CANARY}-wrong"


class TlsFront(Server):
    """TLS in front of a port of the sandbox, which speaks plain HTTP: the platform is https, so that proxies are asked for tunnels."""

    def __init__(self, url: str) -> None:
        self._behind = urlsplit(url).port
        super().__init__(server_context())

    @property
    def url(self) -> str:
        """Its URL, with a name that only squid can resolve."""
        return f"https://{KNOWN}:{self.port}"

    def serve(self, conn: Connection) -> None:
        """Carry bytes both ways."""
        with socket.create_connection(("127.0.0.1", self._behind), PATIENCE_SECONDS) as behind:
            pump(conn, behind)


@pytest.fixture(scope="module")
def squid() -> Iterator[Squid]:
    with run_squid() as started:
        yield started


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("/large", reply(200, [("Content-Type", "text/plain")], "large" * 100_000))
        server.on("*", reply(200, body="plain"))
        yield server


@pytest.fixture
def secure() -> Iterator[ByteTarget]:
    with ByteTarget(server_context()) as server:
        server.on("*", reply(200, body="secure"))
        yield server


def settings(directory: Path, platform: str, target: str, *trusted: bytes) -> dict[str, str | None]:
    """Both legs through proxies, and nothing past them but what a test adds."""
    ca_file = directory / "roots.pem"
    ca_file.write_bytes(b"".join(trusted) or ca_pem())
    return {"RELAY_PLATFORM_PROXY": platform, "RELAY_TARGET_PROXY": target, "RELAY_CA_FILE": str(ca_file), "no_proxy": None}


def test_both_legs_work_through_squid_and_no_password_comes_out(
    sandbox: Sandbox, tmp_path: Path, squid: Squid, target: ByteTarget, secure: ByteTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform through TLS to squid and tunnels in it, targets through a squid that re-signs TLS; one host is named by no_proxy."""
    monkeypatch.setattr(same_origin, "OWN_NAMES", {*same_origin.OWN_NAMES, KNOWN})
    with ByteTarget() as near, TlsFront(sandbox.api_target) as rest, TlsFront(sandbox.aws_endpoint) as aws:
        near.on("*", reply(200, body="near"))
        environment = settings(tmp_path, squid.over_tls.right, squid.resigning.url(USER, PASSWORD), ca_pem(), squid.ca_pem)
        environment |= {"API_TARGET": rest.url, "AWS_ENDPOINT_URL": aws.url, "no_proxy": f"127.0.0.1:{near.port}"}
        environment |= {"RELAY_LOG_LEVEL": "debug"}
        with running(RunningAgent(sandbox, tmp_path, environment)) as agent:
            assert agent.get(secure.url(host=KNOWN)).response_body["body"] == "secure"
            assert agent.get(target.url(host=KNOWN)).response_body["body"] == "plain"
            assert agent.get(target.url("/large", host=KNOWN)).status == "SUCCESS"
            assert agent.get(near.url()).response_body["body"] == "near"
            assert agent.get(f"http://{FORBIDDEN}/").response_body["statusCode"] == 403
            assert agent.get(f"http://127.0.0.1:{closed_port()}/").response_body["statusCode"] == 503
            agent.wait_log("target-failed")
            shown = page(agent, "/")[1] + page(agent, "/status.json")[1] + page(agent, "/metrics")[1]
            command_line = Path(f"/proc/{agent.pid}/cmdline").read_text()
            bundle = tmp_path / "bundle.zip"
            done = run_once(["support-bundle", "--output", str(bundle)], tmp_path, agent.environment, timeout=60)
            assert done.returncode == 0, done.stderr
            wait_until(sandbox, lambda: any("target-failed" in event["message"] for event in sandbox.log_events(agent.agent_id)))
            assert agent.stop() == 0
            said = [*agent.lines.raw, agent.errors, shown, command_line, done.stdout.decode(), done.stderr.decode()]
        said += [event["message"] for event in sandbox.log_events(agent.agent_id)]
        with zipfile.ZipFile(bundle) as packed:
            said += [packed.read(name).decode("latin-1") for name in packed.namelist()]
    tunnels = (f"CONNECT {KNOWN}:{rest.port} {USER}", f"CONNECT {KNOWN}:{aws.port} {USER}")
    for way in (*tunnels, f"PUT {sandbox.aws_endpoint}/", f"GET https://{KNOWN}:{secure.port}/"):
        squid.login.wait_said(way)
    log = squid.login.said()
    assert f":{near.port}" not in log
    assert [line for line in [*said, log] if CANARY in line] == []
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_without_the_authority_of_a_re_signing_proxy_the_agent_says_which_file_is_missing(
    sandbox: Sandbox, tmp_path: Path, squid: Squid, secure: ByteTarget
) -> None:
    environment = settings(tmp_path, squid.login.right, squid.resigning.right)
    with running(RunningAgent(sandbox, tmp_path, environment)) as agent:
        answer = agent.get(secure.url(host=KNOWN)).response_body
        line = agent.wait_log("target-failed")
    assert answer["code"] == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    assert f"through the proxy {squid.resigning.masked}" in answer["message"]
    assert "O=the laboratory's proxy, which the agent does not trust (trusted: certifi's roots and RELAY_CA_FILE=" in line["cause"]
    assert "if a proxy re-signs TLS, ask its operator for its CA certificate" in line["cure"]
    assert CANARY not in json.dumps(answer) + "".join(agent.lines.raw)
    assert secure.requests == []


@pytest.mark.parametrize("over_tls", [False, True], ids=["http platform", "https platform"])
def test_a_wrong_password_for_a_proxy_before_the_platform_is_reported_as_the_proxy_s(
    sandbox: Sandbox, tmp_path: Path, squid: Squid, over_tls: bool
) -> None:
    """In the log and by `check`, with its status and its cure."""
    wrong = squid.login.url(USER, WRONG)
    with TlsFront(sandbox.api_target) as rest:
        environment = settings(tmp_path, wrong, "none") | ({"API_TARGET": rest.url} if over_tls else {})
        with RunningAgent(sandbox, tmp_path, environment) as agent:
            line = agent.wait_log("platform-failed")
            agent.stop()
            done = run_once(["check", "--json"], tmp_path, agent.environment)
    (check,) = [one for one in json.loads(done.stdout)["checks"] if one["id"] == "platform"]
    for told in (line, check):
        cause = told["cause"].replace("[redacted]@", f"{USER}:***@")
        assert f"the proxy {squid.login.masked}, not the platform, answered 407: it requires a user and password" in cause
        assert "put user and password into the proxy's URL (https_proxy, http_proxy, RELAY_PLATFORM_PROXY)" in told["cure"]
    assert CANARY not in "".join(agent.lines.raw) + agent.errors + done.stdout.decode() + done.stderr.decode()


LOGIN = "it requires a user and password, or does not accept those given"
FORBIDS = "it refuses to connect the agent to"


@contextlib.contextmanager
def refusing(what: str, squid: Squid) -> Iterator[tuple[RealProxy, str, str, str]]:
    """A proxy that refuses or fails, its URL as it is set, the target's URL, and what must be said of the proxy."""
    if what == "squid, no password":
        yield squid.login, squid.login.url(), "https://lims.lab.example/", f", not the target, answered 407: {LOGIN}"
    elif what == "squid, wrong password":
        yield squid.over_tls, squid.over_tls.url(USER, WRONG), "https://lims.lab.example/", f", not the target, answered 407: {LOGIN}"
    elif what == "squid, denied":
        yield squid.login, squid.login.right, f"https://{FORBIDDEN}/", f", not the target, answered 403: {FORBIDS} {FORBIDDEN}:443"
    elif what == "squid, unreachable":
        url = f"https://127.0.0.1:{closed_port()}/"
        yield squid.login, squid.login.right, url, ", not the target, answered 503: it cannot reach 127.0.0.1:"
    elif what == "tinyproxy, wrong password":
        with run_tinyproxy(login=True) as tinyproxy:
            yield tinyproxy, tinyproxy.url(USER, WRONG), "https://lims.lab.example/", f", not the target, answered 401: {LOGIN}"
    elif what == "tinyproxy, denied":
        with run_tinyproxy(login=False) as tinyproxy:
            yield tinyproxy, tinyproxy.url(), f"https://{FORBIDDEN}/", f", not the target, answered 403: {FORBIDS} {FORBIDDEN}:443"
    elif what == "microsocks, wrong password":
        with run_microsocks(login=True) as microsocks:
            yield microsocks, microsocks.url(USER, WRONG), "https://lims.lab.example/", ", not the target, fails: "
    else:
        with run_dante() as dante:
            yield dante, dante.url(), f"https://{FORBIDDEN}/", f" can be reached, but cannot reach {FORBIDDEN}:443 (EHOSTUNREACH)"


@pytest.mark.parametrize(
    "what",
    [
        "squid, no password",
        "squid, wrong password",
        "squid, denied",
        "squid, unreachable",
        "tinyproxy, wrong password",
        "tinyproxy, denied",
        "microsocks, wrong password",
        "dante, denied",
    ],
)
def test_explain_says_what_a_proxy_does(tmp_path: Path, squid: Squid, what: str) -> None:
    (tmp_path / "roots.pem").write_bytes(ca_pem())
    with refusing(what, squid) as (door, proxy, url, says):
        environment = {"PATH": os.environ["PATH"], "RELAY_TARGET_PROXY": proxy, "RELAY_CA_FILE": str(tmp_path / "roots.pem")}
        done = run_once(["explain", "--json", url], tmp_path, environment)
    (failed,) = [stage for stage in json.loads(done.stdout)["stages"] if stage["status"] == "error"]
    shown = door.masked if "@" in proxy else proxy
    assert f"the proxy {shown}{says}" in failed["summary"]
    assert CANARY not in done.stdout.decode() + done.stderr.decode()


@pytest.fixture
def mitmproxy() -> Iterator[Mitmproxy]:
    with run_mitmproxy() as started:
        yield started


def test_explain_shows_the_authority_of_a_proxy_that_re_signs_tls(tmp_path: Path, mitmproxy: Mitmproxy, secure: ByteTarget) -> None:
    """With and without it in RELAY_CA_FILE."""
    for trusted in (ca_pem(), ca_pem() + mitmproxy.ca_pem):
        (tmp_path / "roots.pem").write_bytes(trusted)
        environment = {
            "PATH": os.environ["PATH"],
            "RELAY_TARGET_PROXY": mitmproxy.login.right,
            "RELAY_CA_FILE": str(tmp_path / "roots.pem"),
        }
        done = run_once(["explain", "--json", secure.url()], tmp_path, environment)
        (tls,) = [stage for stage in json.loads(done.stdout)["stages"] if stage["stage"] == "tls"]
        assert "CN=mitmproxy" in tls["summary"]
        assert (tls["status"] == "error", "ask its operator for its CA" in tls["summary"]) == (trusted == ca_pem(), trusted == ca_pem())
        assert CANARY not in done.stdout.decode() + done.stderr.decode()
