"""Targets behind the proxies that laboratories have: what the agent reports is what each program really answers.

Proxies that misbehave on purpose are in `test_target_proxies.py`; the whole agent behind such proxies in `tests/e2e/test_real_proxies.py`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from relay_agent.transport.resolver import Resolver
from tests.contract.relaying import Relay, code, field
from tests.real_proxies import (
    FORBIDDEN,
    KNOWN,
    ODD_LOGIN,
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
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, closed_port, redirect, reply

CANARY = PASSWORD.rpartition("-")[0]
"""The beginning of each password here, right or wrong."""
WRONG = f"{CANARY}-wrong"


@pytest.fixture(scope="session")
def squid() -> Iterator[Squid]:
    with run_squid() as running:
        yield running


@pytest.fixture(scope="session")
def mitmproxy() -> Iterator[Mitmproxy]:
    with run_mitmproxy() as running:
        yield running


@pytest.fixture(scope="session")
def tinyproxy() -> Iterator[RealProxy]:
    with run_tinyproxy(login=True) as running:
        yield running


@pytest.fixture(scope="session")
def open_tinyproxy() -> Iterator[RealProxy]:
    with run_tinyproxy(login=False) as running:
        yield running


@pytest.fixture(scope="session")
def microsocks() -> Iterator[RealProxy]:
    with run_microsocks(login=True) as running:
        yield running


@pytest.fixture(scope="session")
def open_microsocks() -> Iterator[RealProxy]:
    with run_microsocks(login=False) as running:
        yield running


@pytest.fixture(scope="session")
def dante() -> Iterator[RealProxy]:
    with run_dante() as running:
        yield running


@dataclass(frozen=True)
class Way:
    """A way to a target: a door, the URL that opens it, that URL masked, the authorities to trust, and a name of this machine."""

    door: RealProxy
    url: str
    masked: str
    trust: bytes
    host: str = "127.0.0.1"

    @property
    def options(self) -> dict[str, Any]:
        return {"proxy": self.url, "trust": self.trust}


def way(request: pytest.FixtureRequest, name: str) -> Way:
    """The way through a door: a fixture's name, and which of its doors."""
    fixture, _, which = name.partition(" ")
    program = request.getfixturevalue(fixture)
    door: RealProxy = getattr(program, which) if which else program
    trust = ca_pem() + (program.ca_pem if isinstance(program, Squid | Mitmproxy) else b"")
    # squid 5 takes no certificate for an address: it looks for the address among the names.
    host = KNOWN if which == "resigning" else "127.0.0.1"
    if fixture.startswith("open") or which in ("open", "resigning") or fixture == "dante":
        return Way(door, door.url(), door.url(), trust, host)
    return Way(door, door.right, door.masked, trust, host)


HTTP = ["squid login", "squid over_tls", "squid open", "squid resigning", "tinyproxy", "open_tinyproxy", "mitmproxy login"]
SOCKS = ["microsocks", "open_microsocks", "dante"]
LOGIN = ["squid login", "squid over_tls", "tinyproxy", "mitmproxy login"]


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("*", reply(200, [("X-A", "1"), ("X-A", "2")], "plain"))
        yield server


@pytest.fixture
def secure() -> Iterator[ByteTarget]:
    with ByteTarget(server_context()) as server:
        server.on("*", reply(200, [("X-A", "1"), ("X-A", "2")], "secure"))
        yield server


# --- what passes ---


@pytest.mark.parametrize("name", [*HTTP, *SOCKS])
def test_calls_pass_and_the_target_learns_nothing_of_the_proxy_s_password(
    relay: Relay, request: pytest.FixtureRequest, name: str, target: ByteTarget, secure: ByteTarget
) -> None:
    """Http and https, through each program; its log shows that they went through it."""
    through = way(request, name)
    for server, body in ((target, "plain"), (secure, "secure")):
        payload = {"url": server.url("/a%2Fb?x=%2f", host=through.host), "method": "POST", "body": "something", "headers": [{"X-B": "1"}]}
        answer = relay(payload, **through.options)
        assert (answer.get("statusCode"), answer.get("body")) == (200, body), answer
        assert field(answer, "X-A") == ["1", "2"] or (server is target and "tinyproxy" in name)  # which drops the second
        seen = server.last
        assert (seen.target, seen.body, seen.get("X-B")) == ("/a%2Fb?x=%2f", b"something", "1")
        assert CANARY.encode() not in seen.head
        assert base64.b64encode(f"{USER}:{PASSWORD}".encode()) not in seen.head
        assert seen.get("Proxy-Authorization") is None
    relay.close()  # squid logs a tunnel when it ends
    for server in (target, secure):
        through.door.wait_said(f"{'.' if name == 'dante' else ':'}{server.port}")
    assert CANARY not in through.door.said()


@pytest.mark.parametrize("name", [*HTTP, *SOCKS])
def test_answers_of_each_shape_pass(
    relay: Relay, request: pytest.FixtureRequest, name: str, target: ByteTarget, secure: ByteTarget
) -> None:
    """Without a body, in chunks, with an error's status, and a redirect, all on connections that are kept where the proxy keeps them."""
    through = way(request, name)

    def in_chunks(conn: Connection, _request: RawRequest) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nin c\r\n5\r\nhunks\r\n0\r\n\r\n")

    for server in (target, secure):
        server.on("/none", reply(204))
        server.on("/chunks", in_chunks)
        server.on("/wrong", reply(500, body="broken"))
        server.on("/away", redirect(302, "/chunks"))
        asked = [("GET", "/none"), ("GET", "/chunks"), ("HEAD", "/head"), ("GET", "/wrong"), ("GET", "/away"), ("DELETE", "/chunks")]
        found = [relay({"url": server.url(path, host=through.host), "method": method}, **through.options) for method, path in asked]
        told = [(answer.get("statusCode"), answer.get("body")) for answer in found]
        assert told == [(204, ""), (200, "in chunks"), (200, ""), (500, "broken"), (200, "in chunks"), (200, "in chunks")]


@pytest.mark.parametrize("name", [*LOGIN, "squid resigning", "microsocks", "dante"])
def test_megabytes_pass_both_ways(relay: Relay, request: pytest.FixtureRequest, name: str, target: ByteTarget, secure: ByteTarget) -> None:
    through = way(request, name)
    text = "0123456789abcdef" * 100_000
    for server in (target, secure):
        server.on("/echo", lambda conn, asked: conn.respond(200, body=asked.body))
        answer = relay({"url": server.url("/echo", host=through.host), "method": "PUT", "body": text}, **through.options)
        assert answer.get("body") == text, str(answer)[:500]


@pytest.mark.parametrize("door", ["login", "over_tls", "resigning"])
def test_a_name_that_only_the_proxy_knows_is_reached(relay: Relay, squid: Squid, target: ByteTarget, secure: ByteTarget, door: str) -> None:
    url = getattr(squid, door).right
    trust = ca_pem() + squid.ca_pem
    assert relay({"url": target.url(host=KNOWN)}, proxy=url, trust=trust).get("body") == "plain"
    assert relay({"url": secure.url(host=KNOWN)}, proxy=url, trust=trust).get("body") == "secure"
    assert secure.last.get("Host") == f"{KNOWN}:{secure.port}"
    assert code(relay({"url": target.url(host=KNOWN)})) in {"ENOTFOUND", "EAI_AGAIN"}


@pytest.mark.parametrize("name", SOCKS)
def test_socks5h_has_the_proxy_resolve_names(
    relay: Relay, request: pytest.FixtureRequest, name: str, target: ByteTarget, secure: ByteTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent asks no DNS server for a target behind SOCKS."""
    through = way(request, name)
    asked: list[object] = []
    resolve = Resolver.resolve

    def listening(self: Resolver, host: str, *rest: Any) -> Any:
        asked.append(host)
        return resolve(self, host, *rest)

    monkeypatch.setattr(Resolver, "resolve", listening)
    assert relay({"url": target.url(host="localhost")}, proxy=through.url).get("body") == "plain"
    assert relay({"url": secure.url(host="localhost")}, proxy=through.url).get("body") == "secure"
    assert set(asked) == {"127.0.0.1"}
    assert secure.last.server_name == "localhost"


@pytest.mark.parametrize("door", ["login", "over_tls"])
def test_a_login_of_odd_characters_opens_the_proxy(relay: Relay, squid: Squid, target: ByteTarget, secure: ByteTarget, door: str) -> None:
    """They are percent-encoded in the proxy's URL, and sent as UTF-8."""
    url = getattr(squid, door).url(*ODD_LOGIN)
    assert relay({"url": target.url()}, proxy=url).get("body") == "plain"
    assert relay({"url": secure.url()}, proxy=url).get("body") == "secure"


def test_a_tunnel_through_squid_is_kept(relay: Relay, squid: Squid, secure: ByteTarget) -> None:
    for _ in range(3):
        assert relay({"url": secure.url()}, proxy=squid.over_tls.right).get("body") == "secure"
    assert secure.connections == 1


@pytest.mark.parametrize("name", ["squid login", "tinyproxy", "microsocks"])
def test_no_proxy_goes_direct(relay: Relay, request: pytest.FixtureRequest, name: str, target: ByteTarget, secure: ByteTarget) -> None:
    """The proxy, which would refuse, is not asked."""
    door = way(request, name).door
    for server, body in ((target, "plain"), (secure, "secure")):
        answer = relay({"url": server.url()}, proxy=door.url(USER, WRONG), no_proxy=f"example.com, 127.0.0.1:{server.port}")
        assert answer.get("body") == body
        assert f":{server.port}" not in door.said()


# --- what a proxy refuses ---


@pytest.mark.parametrize("given", ["none", "wrong"])
@pytest.mark.parametrize("name", LOGIN)
def test_without_the_right_password_the_answer_is_the_proxy_s(
    relay: Relay, request: pytest.FixtureRequest, name: str, given: str, target: ByteTarget, secure: ByteTarget
) -> None:
    """407, forwarded or tunnelled; tinyproxy says 401 of a wrong password. Nothing reaches the target, and no password comes back."""
    through = way(request, name)
    url = through.door.url() if given == "none" else through.door.url(USER, WRONG)
    for server in (target, secure):
        answer = relay({"url": server.url()}, proxy=url, trust=through.trust)
        expected = 401 if (name, given) == ("tinyproxy", "wrong") else 407
        assert (answer.get("statusCode"), answer["status"], answer["url"]) == (expected, "FAILURE", server.url())
        assert field(answer, "Proxy-Authenticate" if expected == 407 else "WWW-Authenticate")
        assert CANARY not in json.dumps(answer)
        assert server.requests == []
    assert CANARY not in through.door.said()


@pytest.mark.parametrize("name", ["squid login", "squid over_tls", "tinyproxy", "open_tinyproxy"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_denied_target_is_the_proxy_s_403(relay: Relay, request: pytest.FixtureRequest, name: str, scheme: str) -> None:
    answer = relay({"url": f"{scheme}://{FORBIDDEN}/x"}, proxy=way(request, name).url)
    assert (answer.get("statusCode"), answer["status"]) == (403, "FAILURE")
    assert CANARY not in json.dumps(answer)


@pytest.mark.parametrize(("name", "status"), [("squid login", 503), ("squid over_tls", 503), ("tinyproxy", 500), ("mitmproxy login", 502)])
def test_a_target_that_the_proxy_cannot_reach_is_the_proxy_s_status(
    relay: Relay, request: pytest.FixtureRequest, name: str, status: int
) -> None:
    """With the proxy's page, which says why."""
    through = way(request, name)
    for scheme in ("http", "https"):
        answer = relay({"url": f"{scheme}://127.0.0.1:{closed_port()}/"}, **through.options)
        assert (answer.get("statusCode"), answer["status"]) == (status, "FAILURE"), answer
        assert answer["body"]
        assert CANARY not in json.dumps(answer)


@pytest.mark.parametrize("given", ["none", "wrong"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_socks_without_the_right_password_is_a_failure_of_the_proxy(
    relay: Relay, microsocks: RealProxy, target: ByteTarget, given: str, scheme: str
) -> None:
    url = microsocks.url() if given == "none" else microsocks.url(USER, WRONG)
    answer = relay({"url": target.url(scheme=scheme)}, proxy=url)
    says = "refused every authentication method that it was offered" if given == "none" else "refused the user and password"
    shown = microsocks.url() if given == "none" else microsocks.masked
    assert (code(answer), answer["message"]) == ("ECONNREFUSED", f"the proxy {shown} {says}")
    assert CANARY not in json.dumps(answer) + microsocks.said()
    assert target.connections == 0


@pytest.mark.parametrize("name", SOCKS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_target_that_a_socks_proxy_cannot_reach_is_the_proxy_s_answer(
    relay: Relay, request: pytest.FixtureRequest, name: str, scheme: str
) -> None:
    through = way(request, name)
    refused = relay({"url": f"{scheme}://127.0.0.1:{closed_port()}/"}, proxy=through.url)
    assert (code(refused), refused["message"]) == ("ECONNREFUSED", f"the proxy {through.masked} answered ECONNREFUSED")
    unknown = relay({"url": f"{scheme}://nowhere.invalid/"}, proxy=through.url)
    assert code(unknown) in {"ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"}
    assert unknown["message"].startswith(f"the proxy {through.masked} ")


def test_a_target_that_dante_s_rules_deny_is_the_proxy_s_answer(relay: Relay, dante: RealProxy) -> None:
    answer = relay({"url": f"https://{FORBIDDEN}/"}, proxy=dante.url())
    assert (code(answer), answer["message"]) == ("EHOSTUNREACH", f"the proxy {dante.url()} answered EHOSTUNREACH")


# --- TLS ---


@pytest.mark.parametrize("name", ["squid resigning", "mitmproxy login"])
def test_a_proxy_that_re_signs_tls_must_be_trusted(relay: Relay, request: pytest.FixtureRequest, name: str, secure: ByteTarget) -> None:
    """With its authority in RELAY_CA_FILE calls pass; without it the failure names the proxy, and nothing is sent."""
    through = way(request, name)
    url = secure.url(host=through.host)
    failed = relay({"url": url}, proxy=through.url)
    assert code(failed) == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    assert f"through the proxy {through.masked}" in failed["message"]
    assert ("O=the laboratory's proxy" if "squid" in name else "CN=mitmproxy") in failed["message"]
    assert CANARY not in json.dumps(failed)
    assert secure.requests == []
    assert relay({"url": url}, **through.options).get("body") == "secure"
    assert relay({"url": url, "ignore_tls_certificate": True}, proxy=through.url).get("body") == "secure"


def test_an_address_that_squid_re_signs_as_a_name_is_reported_as_such(relay: Relay, squid: Squid, secure: ByteTarget) -> None:
    """Squid 5 finds no address in the target's certificate, and makes one for a page of its own with the address among the names."""
    answer = relay({"url": secure.url()}, proxy=squid.resigning.url(), trust=ca_pem() + squid.ca_pem)
    assert code(answer) == "ERR_TLS_CERT_ALTNAME_INVALID"
    assert "which is for 127.0.0.1 (as a name, not as an address)" in answer["message"]


@pytest.mark.parametrize(("name", "status"), [("squid resigning", 503), ("mitmproxy login", 502)])
def test_a_target_that_a_re_signing_proxy_does_not_trust_is_the_proxy_s_page(
    relay: Relay, request: pytest.FixtureRequest, name: str, status: int
) -> None:
    """Only the proxy sees the target's certificate."""
    through = way(request, name)
    with ByteTarget(server_context("expired")) as target:
        answer = relay({"url": target.url(host=through.host)}, **through.options)
        assert (answer.get("statusCode"), answer["status"]) == (status, "FAILURE")
        assert "certificate" in answer["body"].lower()
        assert target.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_whose_own_certificate_is_not_trusted_is_at_fault(relay: Relay, squid: Squid, target: ByteTarget, scheme: str) -> None:
    answer = relay({"url": target.url(scheme=scheme)}, proxy=squid.over_tls.right, trust=False)
    assert code(answer) == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    assert answer["message"].startswith(f"proxy {squid.over_tls.masked}: ")
    assert "the agent does not know the authority" in answer["message"]
    assert CANARY not in json.dumps(answer)
    assert target.connections == 0


# --- a proxy that is another kind of proxy ---


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("squid over_tls", "http"),
        ("squid login", "https"),
        ("squid login", "socks5h"),
        ("tinyproxy", "https"),
        ("microsocks", "http"),
        ("microsocks", "https"),
        ("dante", "http"),
    ],
)
def test_a_proxy_that_is_set_as_another_kind_is_at_fault(
    relay: Relay, request: pytest.FixtureRequest, target: ByteTarget, name: str, wrong: str, scheme: str
) -> None:
    """The failure says proxy, and shows no password. Some programs wait for more, and so it is a time-out."""
    door = replace(way(request, name).door, scheme=wrong)
    answer = relay({"url": target.url(scheme=scheme)}, proxy=door.right, deadline=0.3)
    assert code(answer) in {"ECONNRESET", "EBADRESPONSE", "EPROTO", "ETIMEDOUT"}
    assert "proxy" in answer["message"]
    assert door.masked in answer["message"]
    assert CANARY not in json.dumps(answer)
    assert target.connections == 0
