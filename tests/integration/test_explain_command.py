"""`relay-agent explain`: each stage of a command's route, the code that the command would get, and no request that was not asked for.

With the real command, and compared with the code that a real command gets.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_agent.sandbox.server import Sandbox
from tests import tls_peers
from tests.agents import ThreadedAgent, agent_environment, body, run_once, running
from tests.target_certificates import ca_pem, server_context
from tests.target_proxies import HttpProxy, Refusal, Socks5Proxy
from tests.targets import ByteTarget, closed_port, play, raw, redirect, reply, seen

CANARY = "canary-5d20aa"
FIELDS = ["url", "verdict", "rule", "code", "proxy", "stages"]


class Explainer:
    """`explain --json` with nothing set but what a test sets."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.code = -1
        self.output = ""

    def __call__(self, *arguments: str, **environment: str) -> dict[str, Any]:
        done = run_once(["explain", "--json", *arguments], self.directory, {"PATH": os.environ["PATH"], **environment})
        assert done.stderr == b"", done.stderr.decode()
        self.code, self.output = done.returncode, done.stdout.decode()
        found: dict[str, Any] = json.loads(self.output)
        assert list(found) == FIELDS
        assert all(list(stage) == ["stage", "status", "summary", "seconds"] for stage in found["stages"])
        assert self.code == (1 if any(stage["status"] == "error" for stage in found["stages"]) else 0)
        return found


@pytest.fixture
def explain(tmp_path: Path) -> Explainer:
    return Explainer(tmp_path)


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(200))
        yield running_target


@pytest.fixture
def trusted(tmp_path: Path) -> dict[str, str]:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(ca_pem())
    return {"REQUESTS_CA_BUNDLE": str(bundle)}


def stages(found: dict[str, Any]) -> list[str]:
    return [stage["stage"] for stage in found["stages"]]


def stage(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [one for one in found["stages"] if one["stage"] == name]
    return dict(one)


def failed(found: dict[str, Any]) -> dict[str, Any]:
    """The last stage, which alone went wrong."""
    *before, last = found["stages"]
    assert last["status"] == "error", found
    assert {one["status"] for one in before} <= {"ok"}
    return dict(last)


# --- requests that succeed ---


def test_each_stage_is_shown_without_any_setting_and_nothing_is_sent(explain: Explainer, target: ByteTarget) -> None:
    found = explain(target.url("/"))
    assert stages(found) == ["policy", "proxy", "resolve", "connect"]
    assert (found["verdict"], found["code"], found["proxy"], explain.code) == ("allow", None, None, 0)
    assert stage(found, "policy")["summary"] == "default: allow"
    assert stage(found, "proxy")["summary"] == "directly: no proxy is set for http"
    assert stage(found, "resolve")["summary"] == "127.0.0.1"
    assert stage(found, "connect")["summary"] == f"connected to 127.0.0.1:{target.port}"
    assert target.requests == []


def test_tls_is_shown_with_version_subject_issuer_expiry_and_bundle(explain: Explainer, trusted: dict[str, str]) -> None:
    with ByteTarget(server_context()) as tls:
        found = explain(tls.url("/", host="localhost"), **trusted)
        assert tls.requests == []
    summary = stage(found, "tls")["summary"]
    assert summary.startswith("TLSv1.3, subject OU=Testing cert")
    assert "issuer OU=Testing CA" in summary
    assert "expires 3000-01-01" in summary
    assert f"trusted by REQUESTS_CA_BUNDLE={trusted['REQUESTS_CA_BUNDLE']}" in summary


@pytest.mark.parametrize(("status", "status_shown"), [(200, "ok"), (404, "warning"), (503, "warning")], ids=["200", "404", "503"])
def test_send_really_sends_and_shows_the_status(explain: Explainer, target: ByteTarget, status: int, status_shown: str) -> None:
    target.on("/thing", reply(status))
    found = explain("--send", "-X", "DELETE", target.url("/thing?a=1"))
    assert (stage(found, "http")["status"], explain.code) == (status_shown, 0)
    assert str(status) in stage(found, "http")["summary"]
    assert seen(target) == {"DELETE /thing?a=1": 1}


def test_send_follows_redirects_and_names_where_they_fail(explain: Explainer, target: ByteTarget) -> None:
    port = closed_port()
    target.on("/away", redirect(302, f"http://127.0.0.1:{port}/next?{CANARY}"))
    found = explain("--send", target.url("/away"))
    assert found["code"] == "ECONNREFUSED"
    assert f"redirected to http://127.0.0.1:{port}: " in failed(found)["summary"]
    assert CANARY not in explain.output


def test_a_redirect_to_what_is_forbidden_is_a_verdict(explain: Explainer, target: ByteTarget) -> None:
    target.on("/away", redirect(302, "http://169.254.169.254/"))
    found = explain("--send", target.url("/away"))
    assert (found["verdict"], found["code"]) == ("deny", "EPOLICY")
    assert "link-local and cloud metadata" in failed(found)["summary"]


# --- requests that fail ---


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://169.254.169.254/latest", "built-in: link-local and cloud metadata"),
        ("http://0/", "built-in: unspecified addresses"),
        ("http://[ff02::1]/", "built-in: multicast"),
        ("http://127.0.0.1:8089/", "built-in: the agent's own admin address"),
    ],
)
def test_a_denied_url_stops_at_the_policy_with_its_rule(explain: Explainer, url: str, rule: str) -> None:
    found = explain(url)
    assert (found["verdict"], found["code"], stages(found)) == ("deny", "EPOLICY", ["policy"])
    assert rule in failed(found)["summary"]


def test_a_key_that_is_not_pinned_is_a_verdict_with_a_cause_of_its_own(explain: Explainer, trusted: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    table = f'[[target]]\nhosts = ["localhost"]\ntls_min = "1.3"\npin_sha256 = ["{"A" * 43}="]\n'
    file.write_text(f'default = "allow"\n{table}')
    with ByteTarget(server_context()) as tls:
        found = explain(tls.url("/", host="localhost"), RELAY_POLICY_FILE=str(file), **trusted)
    assert (found["verdict"], found["rule"], found["code"]) == ("deny", "pin_sha256", "EPOLICY")
    assert "put the new key's digest into pin_sha256" in failed(found)["summary"]
    assert "TLS 1.3 or later; 1 pinned key" in stage(found, "target")["summary"]


def test_a_secure_command_is_explained_as_such(explain: Explainer, target: ByteTarget, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[[rule]]\nname = "sealed"\naction = "allow"\nsecure_only = true\n')
    assert explain(target.url("/"), RELAY_POLICY_FILE=str(file))["verdict"] == "deny"
    found = explain("--secure", "--send", target.url("/"), RELAY_POLICY_FILE=str(file))
    assert (found["verdict"], found["rule"], found["code"]) == ("allow", "sealed", None)
    assert seen(target) == {"GET /": 1}


def test_an_address_that_a_name_resolves_to_is_judged_too(explain: Explainer) -> None:
    found = explain("http://localhost:8089/")
    assert (found["verdict"], found["code"]) == ("deny", "EPOLICY")


def test_a_name_that_does_not_exist_is_reported(explain: Explainer) -> None:
    found = explain("http://lims.lab.invalid/")
    assert (found["code"], failed(found)["stage"]) == ("ENOTFOUND", "resolve")
    assert "the name lims.lab.invalid does not exist" in failed(found)["summary"]
    assert "DNS" in failed(found)["summary"]


def test_a_port_that_refuses_is_explained(explain: Explainer) -> None:
    port = closed_port()
    found = explain(f"http://127.0.0.1:{port}/")
    assert (found["code"], failed(found)["stage"]) == ("ECONNREFUSED", "connect")
    assert f"127.0.0.1 refuses connections on port {port}: nothing listens there, or a firewall rejects them" in failed(found)["summary"]


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("unknown_authority", "UNABLE_TO_VERIFY_LEAF_SIGNATURE", ["issued by OU=Testing CA", "RELAY_CA_FILE", "certifi's roots"]),
        ("self_signed", "DEPTH_ZERO_SELF_SIGNED_CERT", ["CN=a device that signed itself", "RELAY_CA_FILE"]),
        ("expired", "CERT_HAS_EXPIRED", ["has expired on 20", "clock"]),
        ("wrong_host", "ERR_TLS_CERT_ALTNAME_INVALID", ["elsewhere.lab.example", "use one of those names"]),
        ("not_yet_valid", "EPROTO", ["not yet valid", "is not valid yet (it is valid from 20", "set this machine's clock (with NTP"]),
    ],
)
def test_each_fault_of_a_certificate_names_it_and_the_cure(
    explain: Explainer, trusted: dict[str, str], fault: Any, code: str, says: list[str]
) -> None:
    with ByteTarget(server_context(fault)) as tls:
        found = explain(tls.url("/"), **({} if fault == "unknown_authority" else trusted))
        assert tls.requests == []
    assert (found["code"], failed(found)["stage"]) == (code, "tls")
    for text in says:
        assert text in failed(found)["summary"]


@pytest.mark.parametrize(
    ("peer", "stage", "says"),
    [
        (tls_peers.sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "tls", "does not speak TLS"),
        (tls_peers.sends(tls_peers.alert(70)), "tls", "have no TLS version in common, or only one that does not allow"),
        (tls_peers.sends(tls_peers.alert(40)), "tls", "have no cipher in common"),
        (tls_peers.diffie_hellman(1024), "tls", "keys or signatures in the handshake that are too weak"),
        (tls_peers.sends(tls_peers.server_hello(0xC02F, renegotiation_info=False)), "tls", "secure renegotiation (RFC 5746)"),
        (tls_peers.refuses_the_name, "tls", "does not recognise the host name"),
        (tls_peers.shows(key=tls_peers.rsa_key(1024)), "tls", "has a key that is too short"),
        (tls_peers.for_clients_only, "tls", "is not valid for a server"),
        (tls_peers.asks(ssl.TLSVersion.TLSv1_2), "tls", "requires a client certificate"),
        (tls_peers.asks(ssl.TLSVersion.TLSv1_3), "http", "requires a client certificate"),
    ],
)
def test_each_fault_of_tls_itself_has_its_cause_and_cure(
    explain: Explainer, trusted: dict[str, str], peer: tls_peers.Peer, stage: str, says: str
) -> None:
    """A target that speaks TLS 1.3 wants its client certificate only once the handshake is done."""
    with peer() as tls:
        found = explain("--send", tls.url("/", host="localhost", scheme="https"), **trusted)
        assert tls.requests == []
    assert (found["code"], failed(found)["stage"]) == ("EPROTO", stage)
    assert says in failed(found)["summary"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_proxy_that_wants_a_client_certificate_is_at_fault(explain: Explainer, trusted: dict[str, str], version: ssl.TLSVersion) -> None:
    with HttpProxy(tls=server_context(oldest=version, newest=version, client_authority=ca_pem())) as proxy:
        found = explain("https://lims.lab.example/", https_proxy=proxy.url(), **trusted)
    assert f"the proxy {proxy.url()} (not the target) requires a client certificate" in failed(found)["summary"]


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [(["ftp://h/"], "must be http or https"), (["nothing"], "absolute URL"), (["-X", "A B", "http://h/"], "method")],
)
def test_an_invalid_request_is_ebadcommand_and_is_not_shown(explain: Explainer, arguments: list[str], reported: str) -> None:
    found = explain(*arguments)
    assert (found["code"], found["verdict"], found["url"]) == ("EBADCOMMAND", None, "[redacted]")
    assert reported in failed(found)["summary"]


def test_a_target_that_does_not_speak_http_is_reported_with_send(explain: Explainer, target: ByteTarget) -> None:
    target.on("/", raw(b"SSH-2.0-OpenSSH\r\n"))
    found = explain("--send", target.url("/"))
    assert (found["code"], failed(found)["stage"]) == ("EBADRESPONSE", "http")


# --- proxies ---


def test_a_proxy_is_named_masked_with_the_variable_and_asked_for_a_tunnel_only(explain: Explainer, trusted: dict[str, str]) -> None:
    with (
        ByteTarget(server_context()) as tls,
        HttpProxy(auth=("lab", CANARY), resolve={"lims.lab.example": ("127.0.0.1", tls.port)}) as proxy,
    ):
        found = explain("https://lims.lab.example/", https_proxy=proxy.url(("lab", CANARY)), **trusted)
        assert tls.requests == []
        assert [request.method for request in proxy.seen] == ["CONNECT"]
    masked = f"http://lab:***@127.0.0.1:{proxy.port}"
    assert (found["proxy"], explain.code) == (masked, 0)
    assert stages(found) == ["policy", "proxy", "resolve", "connect", "tunnel", "tls"]
    assert stage(found, "proxy")["summary"] == f"{masked}: https_proxy"
    assert "the policy cannot judge its addresses" in stage(found, "resolve")["summary"]
    assert CANARY not in explain.output


def test_the_entry_of_no_proxy_that_decides_is_named(explain: Explainer, target: ByteTarget) -> None:
    found = explain(target.url("/"), http_proxy="http://proxy.lab.invalid:1", no_proxy="lab.example,127.0.0.0/8")
    assert (found["proxy"], stage(found, "proxy")["summary"]) == (None, "directly: no_proxy names 127.0.0.0/8")


@pytest.mark.parametrize("status", [407, 502])
def test_a_proxy_s_refusal_is_the_proxy_s_and_a_command_would_get_its_status_not_a_code(explain: Explainer, status: int) -> None:
    with HttpProxy(refuse=Refusal(status)) as proxy:
        found = explain("https://lims.lab.example/", RELAY_TARGET_PROXY=proxy.url(("lab", CANARY)))
    assert (found["code"], failed(found)["stage"]) == (None, "tunnel")
    assert f"the proxy http://lab:***@127.0.0.1:{proxy.port}, not the target, answered {status}" in failed(found)["summary"]
    assert CANARY not in explain.output


def test_a_407_to_a_plain_request_is_the_proxy_s_too(explain: Explainer) -> None:
    with HttpProxy(auth=("lab", "right")) as proxy:
        found = explain("--send", "http://lims.lab.example/", http_proxy=proxy.url())
    assert failed(found)["stage"] == "http"
    assert "not the target, answered 407" in failed(found)["summary"]


def test_a_proxy_on_a_closed_port_is_named(explain: Explainer) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    found = explain("https://lims.lab.example/", https_proxy=url)
    assert (found["code"], failed(found)["stage"]) == ("ECONNREFUSED", "connect")
    assert f"the proxy {url}, not the target, fails: nothing listens on its port" in failed(found)["summary"]


def test_a_socks_proxy_that_cannot_reach_the_target_is_distinguished_from_an_unreachable_proxy(explain: Explainer) -> None:
    with Socks5Proxy(refuse=5) as proxy:
        found = explain("http://lims.lab.example:8080/", all_proxy=proxy.url())
    assert found["code"] == "ECONNREFUSED"
    assert "can be reached, but cannot reach lims.lab.example:8080" in failed(found)["summary"]


def test_tls_with_a_proxy_is_a_stage_of_its_own_and_the_proxy_s_fault(explain: Explainer, trusted: dict[str, str]) -> None:
    with HttpProxy(tls=server_context("wrong_host")) as proxy:
        found = explain("https://lims.lab.example/", https_proxy=proxy.url(), **trusted)
    assert failed(found)["stage"] == "proxy-tls"
    assert "presents a certificate that the agent does not trust (ERR_TLS_CERT_ALTNAME_INVALID)" in failed(found)["summary"]


# --- the same code as a command's ---


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedAgent]:
    with running(ThreadedAgent(sandbox, tmp_path_factory.mktemp("agent"))) as started:
        yield started
        started.stop()


@pytest.mark.parametrize("what", ["name", "port", "policy", "certificate", "cut"])
def test_the_code_is_the_one_that_a_command_gets(sandbox: Sandbox, agent: ThreadedAgent, tmp_path: Path, what: str) -> None:
    with ByteTarget(server_context("self_signed")) as tls, ByteTarget() as cut:
        cut.on_accept = play(lambda conn: conn.close())
        url = {
            "name": "http://lims.lab.invalid/",
            "port": f"http://127.0.0.1:{closed_port()}/",
            "policy": "http://169.254.169.254/",
            "certificate": tls.url("/"),
            "cut": cut.url("/"),
        }[what]
        environment = agent_environment(sandbox, agent.agent_id, tmp_path)
        done = run_once(["explain", "--json", "--send", url], tmp_path, environment)
        assert json.loads(done.stdout)["code"] == body(agent.get(url))["code"]


# --- settings and secrets ---


def test_an_invalid_setting_that_matters_is_reported_and_another_is_ignored(explain: Explainer, target: ByteTarget) -> None:
    found = explain(target.url("/"), RELAY_WORKERS="many", API_TARGET="<placeholder>", JWT=CANARY)
    assert explain.code == 0
    found = explain(target.url("/"), RELAY_CA_FILE="/nowhere.pem", http_proxy=f"ftp://u:{CANARY}@h")
    assert (failed(found)["stage"], explain.code, found["url"]) == ("configuration", 1, target.url("/"))
    assert "RELAY_CA_FILE: cannot read /nowhere.pem" in failed(found)["summary"]
    assert "http_proxy: " in failed(found)["summary"]
    assert CANARY not in explain.output


def test_of_a_url_that_is_asked_under_invalid_settings_no_secret_is_shown(explain: Explainer) -> None:
    wrong = {"RELAY_CA_FILE": "/nowhere.pem", "JWT": CANARY}
    assert explain(f"http://u:{CANARY}@lims.lab.example/{CANARY}?a={CANARY}", **wrong)["url"].startswith("http://lims.lab.example/")
    assert CANARY not in explain.output
    assert explain(f"nonsense {CANARY}", **wrong)["url"] == "[redacted]"
    assert CANARY not in explain.output


def test_an_env_file_is_read(explain: Explainer, target: ByteTarget) -> None:
    (explain.directory / "agent.env").write_text("http_proxy=http://proxy.lab.invalid:3128\n")
    found = explain("--env-file", "agent.env", target.url("/"))
    assert found["proxy"] == "http://proxy.lab.invalid:3128"


def test_a_missing_url_exits_1(tmp_path: Path) -> None:
    done = run_once(["explain"], tmp_path, {"PATH": os.environ["PATH"]})
    assert (done.returncode, b"Traceback" in done.stderr) == (1, False)


def test_the_report_for_people_names_stage_cause_cure_and_code(tmp_path: Path) -> None:
    port = closed_port()
    done = run_once(["explain", f"http://127.0.0.1:{port}/p?q=1"], tmp_path, {"PATH": os.environ["PATH"]})
    text = done.stdout.decode()
    assert done.returncode == 1
    assert text.startswith(f"http://127.0.0.1:{port}/p?[redacted]\n\nok        policy ")
    assert f"          cause  127.0.0.1 refuses connections on port {port}" in text
    assert "          cure   check the port" in text
    assert text.endswith("\nA command would fail with ECONNREFUSED.\n")
    assert "\x1b" not in text


@pytest.mark.parametrize("command", ["check", "explain"])
def test_the_help_shows_an_example_and_needs_no_configuration(tmp_path: Path, command: str) -> None:
    done = run_once([command, "--help"], tmp_path, {"PATH": os.environ["PATH"]})
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"\n  relay-agent {command}".encode() in done.stdout
    assert b"--json" in done.stdout


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("path", ["good", "refused", "cut", "signed", "denied", "malformed"])
def test_no_secret_is_in_any_output(tmp_path: Path, target: ByteTarget, how: list[str], path: str) -> None:
    user = f"user:{CANARY}-password"
    target.on("/good", reply(401, [("WWW-Authenticate", f"Basic realm={CANARY}"), ("Set-Cookie", CANARY)], CANARY))
    target.on("/cut", raw(f"HTTP/1.1 200 {CANARY}\r\n{CANARY}".encode()))
    urls = {
        "good": target.url(f"/good?token={CANARY}-query'\"<{CANARY}", userinfo=user),
        "refused": f"http://{user}@127.0.0.1:{closed_port()}/p?{CANARY}",
        "cut": target.url(f"/cut?{CANARY}", userinfo=user),
        "signed": target.url(f"/{CANARY}/path?X-Amz-Signature={CANARY}", userinfo=user),
        "denied": f"http://{user}@169.254.169.254/?{CANARY}",
        "malformed": f"http://{user}@host with spaces/?{CANARY}",
    }
    environment = {"PATH": os.environ["PATH"], "https_proxy": f"http://u:{CANARY}-proxy@h:1", "JWT": f"{CANARY}-jwt"}
    done = run_once(["explain", "--send", *how, urls[path]], tmp_path, environment)
    output = (done.stdout + done.stderr).decode()
    assert output
    assert CANARY not in output
    assert "Traceback" not in output
