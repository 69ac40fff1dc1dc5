"""The session for the sender's calls to the platform, as `send` uses it: which certificates it trusts, through which proxy it goes."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay_agent.cli.send import send
from tests.sender_side import AGENT, TOKEN, URL, Platform, serving
from tests.target_certificates import authority, ca_pem, server_context
from tests.target_proxies import HttpProxy, Socks5Proxy


def run(command: Any, *args: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(command, args, input=stdin, env=env)


@pytest.fixture
def secured(environment: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A platform with a certificate of a private authority, which only RELAY_CA_FILE trusts."""
    Path("ca.pem").write_bytes(ca_pem())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost").configure_cert(tls)
    with serving(Platform(), tls) as port:
        address = {"API_TARGET": f"https://localhost:{port}", "ORG_SLUG": "acme", "AGENT_ID": AGENT, "JWT": TOKEN}
        yield address | {"RELAY_CA_FILE": "ca.pem"}


@pytest.mark.parametrize("name", ["RELAY_CA_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_send_trusts_what_the_settings_name(secured: dict[str, str], name: str) -> None:
    del secured["RELAY_CA_FILE"]
    result = run(send, URL, env=secured | {name: "ca.pem"})
    assert (result.exit_code, result.stdout) == (0, "hello"), result.stderr


def test_send_trusts_nothing_else(secured: dict[str, str]) -> None:
    del secured["RELAY_CA_FILE"]
    result = run(send, URL, env=secured)
    assert result.exit_code == 1 and "the certificate of localhost is not trusted" in result.stderr


@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy", "RELAY_PLATFORM_PROXY"])
def test_send_goes_through_the_platforms_proxy(secured: dict[str, str], variable: str) -> None:
    with HttpProxy(auth=("user", "p@ss:w")) as proxy:
        result = run(send, URL, env=secured | {variable: proxy.url(("user", "p@ss:w"))})
        assert (result.exit_code, result.stdout) == (0, "hello"), result.stderr
        assert proxy.tunnels >= 1


def test_a_tls_fault_unrelated_to_certificates_is_reported_as_such(secured: dict[str, str], served: tuple[Platform, str]) -> None:
    result = run(send, URL, env=secured | {"API_TARGET": served[1].replace("http://127.0.0.1", "https://localhost")})
    assert result.exit_code == 1 and "TLS with localhost fails" in result.stderr


def test_send_goes_through_a_proxy_that_speaks_tls_or_socks(secured: dict[str, str]) -> None:
    with HttpProxy(tls=server_context()) as proxy:
        result = run(send, URL, env=secured | {"https_proxy": proxy.url(host="localhost")})
        assert (result.exit_code, result.stdout, proxy.tunnels > 0) == (0, "hello", True), result.stderr
    with Socks5Proxy() as socks:
        result = run(send, URL, env=secured | {"all_proxy": socks.url()})
        assert (result.exit_code, result.stdout, len(socks.asked) > 0) == (0, "hello", True), result.stderr


def test_send_leaves_no_proxy_and_the_targets_proxy_alone(secured: dict[str, str]) -> None:
    with HttpProxy() as proxy:
        more = {"https_proxy": proxy.url(), "no_proxy": "localhost", "RELAY_TARGET_PROXY": proxy.url()}
        assert run(send, URL, env=secured | more).stdout == "hello"
        assert not proxy.asked


def test_a_proxy_that_is_not_there_is_named_without_its_password(secured: dict[str, str]) -> None:
    result = run(send, URL, env=secured | {"https_proxy": "http://user:canary@127.0.0.1:9"})
    assert result.exit_code == 1 and "the proxy for localhost" in result.stderr and "canary" not in result.output
