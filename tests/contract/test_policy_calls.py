"""Calls under a policy file, to real targets: what is refused, how targets are called, and what never reaches another (docs/policy.md)."""

from __future__ import annotations

import base64
import itertools
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import Deadline
from relay_agent.core.models import Failure
from relay_agent.protocol.requests import decode_request
from relay_agent.relay.target.concurrency import ConcurrencyLimit
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.storage.spool import Spool
from relay_agent.transport.connection_pool import ConnectionPool
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.target_settings import TargetSettings
from relay_agent.transport.tls import TlsContexts
from relay_agent.transport.x509 import public_key_digest
from tests.contract.relaying import Relay, code, run
from tests.contract.test_connections import Names
from tests.target_certificates import ca_pem, client_certificate, server_context
from tests.target_proxies import HttpProxy, Socks5Proxy
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, redirect, reply

CANARY = "canary-51d0e2"
ALLOW_ALL = 'default = "allow"\n'
LIMS = '[[target]]\nhosts = ["lims.lab.example"]\n'


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """`lims`, `eln` and `dev` below lab.example are this machine."""
    return Names(monkeypatch, lims=["127.0.0.1"], eln=["127.0.0.1"], dev=["127.0.0.1"])


@pytest.fixture
def target(names: Names) -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("*", reply(200, body="ok"))
        yield server


@pytest.fixture
def other(names: Names) -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("*", reply(200, body="other"))
        yield server


@pytest.fixture
def secured(names: Names) -> Iterator[ByteTarget]:
    with ByteTarget(server_context()) as server:
        server.on("*", reply(200, body="ok"))
        yield server


def url(target: ByteTarget, path: str = "/", host: str = "lims.lab.example") -> str:
    return target.url(path, host=host)


def refusal(answer: dict[str, Any]) -> str:
    """What a refused command is told, without the words that begin it; it says nothing about the network but the command's own URL."""
    assert code(answer) == "EPOLICY", answer
    said = json.dumps({name: value for name, value in answer.items() if name != "url"})
    assert "127.0.0" not in said and "lab.example" not in said and CANARY not in said, said
    assert answer["message"].startswith("refused by the agent's policy: ")
    return str(answer["message"]).removeprefix("refused by the agent's policy: ")


# --- which calls are refused ---


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        ("", "default: deny"),
        ('[[rule]]\nname = "not there"\naction = "deny"\nhosts = ["*.lab.example"]\n[[rule]]\naction = "allow"\n', "not there"),
        ('[[rule]]\naction = "deny"\nhosts = ["127.0.0.0/8"]\n[[rule]]\naction = "allow"\n', "rule 1"),
        ('[[rule]]\naction = "allow"\nhosts = ["10.0.0.0/8"]\n', "default: deny"),
        ('[[rule]]\naction = "allow"\nschemes = ["https"]\n', "default: deny"),
        ('[[rule]]\naction = "allow"\nports = [1]\n', "default: deny"),
        ('[[rule]]\naction = "allow"\nmethods = ["POST"]\n', "default: deny"),
        ('[[rule]]\naction = "allow"\npaths = ["/api/*"]\n', "default: deny"),
        ('[[rule]]\naction = "allow"\nsecure_only = true\n', "default: deny"),
    ],
)
def test_a_refusal_names_the_rule_and_nothing_about_the_network(relay: Relay, target: ByteTarget, rules: str, rule: str) -> None:
    answer = relay({"url": url(target, "/api/..%2fadmin")}, policy=rules or 'mode = "enforce"')
    assert refusal(answer) == rule
    assert target.connections == 0


def test_a_name_that_is_refused_by_name_is_not_looked_up(relay: Relay, target: ByteTarget, names: Names) -> None:
    """A name server would see names that a sender invents, which can carry data out."""
    by_name = '[[rule]]\naction = "allow"\nhosts = ["eln.lab.example"]\n'
    denied = ALLOW_ALL + '[[rule]]\nname = "no"\naction = "deny"\nhosts = ["*.lab.example"]\n'
    for policy, rule in (('mode = "enforce"', "default: deny"), (by_name, "default: deny"), (denied, "no")):
        assert refusal(relay({"url": url(target)}, policy=policy)) == rule
    assert names.asked == []


def test_what_is_always_denied_is_refused_under_a_policy_that_allows_everything(
    relay: Relay, target: ByteTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, rebind=["127.0.0.1", "169.254.169.254"])
    for policy in (
        ALLOW_ALL,
        '[[rule]]\naction = "allow"\nhosts = ["*", "rebind.lab.example", "0.0.0.0/0"]\n',
        ALLOW_ALL + 'mode = "observe"\n',
    ):
        assert refusal(relay({"url": url(target, host="rebind.lab.example")}, policy=policy)) == "built-in: link-local and cloud metadata"
    assert target.connections == 0


@pytest.mark.parametrize("host", ["lims.lab.example", "127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "LIMS.lab.example."])
def test_a_subnet_decides_about_names_and_addresses_in_every_spelling(relay: Relay, target: ByteTarget, names: Names, host: str) -> None:
    names.names["lims.lab.example."] = ["127.0.0.1"]
    request = {"url": f"http://{host}:{target.port}/"}
    assert relay(request, policy='[[rule]]\naction = "allow"\nhosts = ["127.0.0.0/8"]\n')["body"] == "ok"
    denied = '[[rule]]\nname = "no"\naction = "deny"\nhosts = ["127.0.0.1"]\n[[rule]]\naction = "allow"\n'
    assert refusal(relay(request, policy=denied)) == "no"


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ('action = "allow"\nhosts = ["127.0.0.1"]', False),
        ('action = "allow"\nhosts = ["127.0.0.1", "127.0.0.2"]', True),
        ('action = "allow"\nhosts = ["127.0.0.0/30"]', True),
        ('action = "allow"\nhosts = ["127.0.0.0/30", "several.lab.example"]', True),
        ('action = "deny"\nhosts = ["127.0.0.2"]', False),
        ('action = "deny"\nhosts = ["127.0.0.3"]', True),
        ('action = "deny"\nhosts = ["::/0"]', True),
    ],
)
def test_of_several_addresses_one_is_enough_to_deny_and_all_are_needed_to_allow(
    relay: Relay, target: ByteTarget, monkeypatch: pytest.MonkeyPatch, rule: str, allowed: bool
) -> None:
    Names(monkeypatch, several=["127.0.0.1", "127.0.0.2"])
    default = "allow" if "deny" in rule else "deny"
    answer = relay({"url": url(target, host="several.lab.example")}, policy=f'default = "{default}"\n[[rule]]\n{rule}\n')
    if allowed:
        assert answer["body"] == "ok"
    else:
        refusal(answer)
        assert target.connections == 0


@pytest.mark.parametrize("kind", [HttpProxy, Socks5Proxy])
def test_a_name_that_a_proxy_resolves_is_in_no_subnet(relay: Relay, target: ByteTarget, kind: type[HttpProxy | Socks5Proxy]) -> None:
    with kind(resolve={"lims.lab.example": ("127.0.0.1", target.port)}) as proxy:
        allow = '[[rule]]\naction = "allow"\nhosts = ["127.0.0.0/8"]\n'
        assert refusal(relay({"url": url(target)}, policy=allow, proxy=proxy.url())) == "default: deny"
        assert proxy.connections == 0
        assert relay({"url": target.url("/")}, policy=allow, proxy=proxy.url())["body"] == "ok", "a literal address is judged"
        deny = ALLOW_ALL + '[[rule]]\nname = "no"\naction = "deny"\nhosts = ["127.0.0.0/8"]\n'
        assert relay({"url": url(target)}, policy=deny, proxy=proxy.url())["body"] == "ok"
        assert refusal(relay({"url": "http://2130706433/"}, policy=deny, proxy=proxy.url())) == "no"


def test_a_name_that_is_rebound_is_connected_to_as_it_was_judged(relay: Relay, target: ByteTarget, names: Names) -> None:
    """There is no second resolution: the name server may answer otherwise from the first answer on."""
    policy = '[[rule]]\naction = "allow"\nhosts = ["127.0.0.1"]\n'
    answers = itertools.chain([["127.0.0.1"]], itertools.repeat(["127.0.0.9"]))
    real = names.names.__getitem__

    class Rebinding(dict[str, list[str]]):
        def __getitem__(self, host: str) -> list[str]:
            return next(answers) if host == "lims.lab.example" else real(host)

    names.names = Rebinding(names.names)
    assert relay({"url": url(target), "method": "POST"}, policy=policy)["body"] == "ok"
    assert names.asked == ["lims.lab.example"]
    assert refusal(relay({"url": url(target), "method": "POST"}, policy=policy)) == "default: deny"
    assert target.connections == 1


def test_a_kept_connection_is_judged_by_the_addresses_that_it_was_made_with(relay: Relay, target: ByteTarget, names: Names) -> None:
    policy = '[[rule]]\naction = "allow"\nhosts = ["127.0.0.1"]\n'
    assert relay({"url": url(target)}, policy=policy)["body"] == "ok"
    names.names["lims.lab.example"] = ["127.0.0.9"]
    assert relay({"url": url(target)}, policy=policy)["body"] == "ok"
    assert (target.connections, names.asked) == (1, ["lims.lab.example"])


# --- redirects are judged anew ---


@pytest.mark.parametrize(
    ("rule", "location"),
    [
        ('hosts = ["lims.lab.example"]', "http://eln.lab.example:{port}/x"),
        ('paths = ["/start"]', "/admin"),
        ('paths = ["/start", "/api/*"]', "/api/..%2fadmin"),
        ("ports = [{port}]", "http://lims.lab.example:1/"),
        ('schemes = ["http"]', "https://lims.lab.example:{port}/"),
        ('methods = ["POST"]', "/x"),
        ('hosts = ["lims.lab.example", "127.0.0.1"]', "http://127.0.0.2:{port}/"),
    ],
)
def test_each_redirect_is_judged_again(relay: Relay, target: ByteTarget, rule: str, location: str) -> None:
    target.on("/start", redirect(303, location.format(port=target.port)))
    policy = f'[[rule]]\naction = "allow"\n{rule.format(port=target.port)}\n'
    answer = relay({"url": url(target, "/start"), "method": "POST"}, policy=policy)
    assert refusal(answer) == "default: deny"
    assert [request.target for request in target.requests] == ["/start"]


@pytest.mark.parametrize("location", ["ftp://lims.lab.example/", "file:///etc/passwd", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_not_followed(relay: Relay, target: ByteTarget, location: str) -> None:
    target.on("/start", redirect(302, location))
    assert code(relay({"url": url(target, "/start")}, policy=ALLOW_ALL)) == "EBADRESPONSE"


# --- secrets of `headers` ---

SECRET = ALLOW_ALL + LIMS + 'headers = { Authorization = { file = "token" }, Cookie = { file = "cookie" }, X-Key = { file = "token" } }\n'


@pytest.fixture
def secrets(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"Bearer {CANARY}\n")
    (tmp_path / "cookie").write_text(f"session={CANARY}\n")


def leaked(*targets: ByteTarget) -> list[str]:
    """The requests that carry the secret."""
    return [f"{one.get('Host')}{one.target}" for target in targets for one in target.requests if CANARY in one.head.decode("latin-1")]


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE"])
def test_headers_are_added_and_win_over_the_commands_own(relay: Relay, target: ByteTarget, method: str) -> None:
    own = [{"AUTHORIZATION": "mine"}, {"authorization": "mine too"}, {"cookie": "a=1"}, {"X-Other": "kept"}]
    address = target.url("/x", host="lims.lab.example", userinfo="me:mine")
    assert relay({"url": address, "method": method, "headers": own}, policy=SECRET)["statusCode"] == 200
    assert target.last.get_all("Authorization") == [f"Bearer {CANARY}"]
    assert target.last.get_all("Cookie") == [f"session={CANARY}"]
    assert (target.last.get("X-Key"), target.last.get("X-Other")) == (f"Bearer {CANARY}", "kept")


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("method", ["GET", "TRACE"])
def test_no_field_of_the_command_s_own_reaches_a_server_under_the_name_of_an_added_one(
    relay: Relay, target: ByteTarget, method: str
) -> None:
    """CGI and WSGI make one variable, HTTP_X_KEY, of all of them, and some servers take the last."""
    twins = [{name: "mine"} for name in ("X_Key", "x_key", "X.KEY", "X-Key", "x-Key")]
    relay({"url": target.url("/x", host="lims.lab.example"), "method": method, "headers": [*twins, {"X_Other": "kept"}]}, policy=SECRET)
    assert b"mine" not in target.last.head
    assert target.last.get_all("X-Key") == ([] if method == "TRACE" else [f"Bearer {CANARY}"])
    assert target.last.get("X_Other") == "kept"


@pytest.mark.usefixtures("secrets")
def test_headers_are_added_for_no_other_host(relay: Relay, target: ByteTarget) -> None:
    for host in ("eln.lab.example", "127.0.0.1", "localhost"):
        relay({"url": url(target, host=host), "headers": [{"Host": "lims.lab.example"}]}, policy=SECRET)
    assert leaked(target) == []


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("method", ["TRACE", "trace", "Trace", "TRACK", "track"])
def test_a_target_cannot_be_made_to_send_a_secret_back(relay: Relay, target: ByteTarget, method: str) -> None:
    """RFC 9110 §9.3.8: the answer to TRACE is the request, which the sender would read."""
    target.on("*", lambda conn, request: conn.respond(200, [("Content-Type", "message/http")], request.head))
    answer = relay({"url": url(target), "method": method, "headers": [{"Authorization": "mine"}, {"X-Other": "kept"}]}, policy=SECRET)
    assert CANARY not in json.dumps(answer)
    assert "X-Other: kept" in answer["body"]
    assert "mine" not in answer["body"]


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("host", ["eln.lab.example", "127.0.0.1:{port}", "lims.lab.example:1", "lims.lab.example."])
def test_a_secret_does_not_go_to_another_site_that_a_host_field_names(relay: Relay, target: ByteTarget, host: str) -> None:
    relay({"url": url(target), "headers": [{"Host": host.format(port=target.port)}]}, policy=SECRET)
    assert leaked(target) == []
    relay({"url": url(target), "headers": [{"Host": f"LIMS.lab.example:{target.port}"}]}, policy=SECRET)
    assert leaked(target) == [f"LIMS.lab.example:{target.port}/"]


@pytest.mark.usefixtures("secrets")
def test_a_secret_goes_along_with_redirects_on_its_own_origin(relay: Relay, target: ByteTarget) -> None:
    target.on("/start", redirect(302, "/next"))
    target.on("/next", redirect(307, url(target, "/end")))
    relay({"url": url(target, "/start")}, policy=SECRET)
    assert leaked(target) == [f"lims.lab.example:{target.port}{path}" for path in ("/start", "/next", "/end")]


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("cookie", ["", "stolen=1; Domain=lab.example; Path=/", "session=x; Domain=.lab.example", "session="])
@pytest.mark.parametrize("where", ["host", "port", "address", "dot", "user info"])
def test_a_secret_never_crosses_to_another_origin(
    relay: Relay, target: ByteTarget, other: ByteTarget, names: Names, status: int, cookie: str, where: str
) -> None:
    names.names["lims.lab.example."] = ["127.0.0.1"]
    locations = {
        "host": url(target, "/end", "eln.lab.example"),
        "port": url(other, "/end"),
        "address": target.url("/end"),
        "dot": url(target, "/end", "lims.lab.example."),
        "user info": f"http://lims.lab.example:{target.port}@127.0.0.1:{other.port}/end",
    }
    target.on("/start", redirect(status, locations[where], [("Set-Cookie", cookie)] if cookie else []))
    answer = relay({"url": url(target, "/start"), "method": "POST", "body": "x"}, policy=SECRET)
    assert answer["statusCode"] == 200
    assert [one.target for one in (*target.requests, *other.requests)] == ["/start", "/end"]
    assert leaked(target, other) == [f"lims.lab.example:{target.port}/start"]


@pytest.mark.usefixtures("secrets")
def test_a_secret_never_crosses_to_another_scheme(relay: Relay, secured: ByteTarget, other: ByteTarget) -> None:
    secured.on("/start", redirect(307, f"http://lims.lab.example:{other.port}/end"))
    relay({"url": url(secured, "/start"), "method": "POST"}, policy=SECRET)
    other.on("/start", redirect(307, url(secured, "/end")))
    relay({"url": url(other, "/start"), "method": "POST"}, policy=SECRET)
    assert sorted(leaked(secured, other)) == sorted([f"lims.lab.example:{secured.port}/start", f"lims.lab.example:{other.port}/start"])
    assert len(secured.requests) == len(other.requests) == 2


@pytest.mark.usefixtures("secrets")
def test_a_secret_is_not_added_when_a_redirect_leads_back(relay: Relay, target: ByteTarget, other: ByteTarget) -> None:
    """The other target has chosen the URL: with the secret it could change what it wants."""
    target.on("/start", redirect(307, other.url("/there")))
    other.on("/there", redirect(307, url(target, "/delete-everything")))
    target.on("/delete-everything", redirect(307, url(target, "/again")))
    relay({"url": url(target, "/start")}, policy=SECRET)
    assert [one.target for one in target.requests] == ["/start", "/delete-everything", "/again"]
    assert leaked(target, other) == [f"lims.lab.example:{target.port}/start"]


@pytest.mark.usefixtures("secrets")
def test_a_secret_is_not_added_for_a_host_that_only_a_redirect_names(relay: Relay, target: ByteTarget, other: ByteTarget) -> None:
    other.on("/start", redirect(302, url(target, "/end")))
    assert relay({"url": other.url("/start")}, policy=SECRET)["body"] == "ok"
    assert leaked(target, other) == []


@pytest.mark.usefixtures("secrets")
def test_a_cookie_of_a_target_stands_beside_the_agents_own_and_only_there(relay: Relay, target: ByteTarget, other: ByteTarget) -> None:
    target.on("/start", redirect(302, "/next", [("Set-Cookie", "fresh=1; Path=/")]))
    target.on("/next", redirect(302, url(target, "/end", "eln.lab.example")))
    relay({"url": url(target, "/start"), "headers": [{"Cookie": "mine=1"}]}, policy=SECRET)
    assert [one.get("Cookie") for one in target.requests] == [f"session={CANARY}", f"session={CANARY}; fresh=1", None]


@pytest.mark.usefixtures("secrets")
def test_a_secret_is_in_no_answer_and_no_failure(relay: Relay, target: ByteTarget) -> None:
    target.on("/closed", lambda conn, _request: conn.reset())
    target.on("/slow", lambda conn, _request: conn.hang())
    for path, more in [("/x", {}), ("/closed", {}), ("/slow", {"timeout": 0.3})]:
        assert CANARY not in json.dumps(relay({"url": url(target, path), **more}, policy=SECRET))


def test_redirect_headers_may_cross_and_no_other_field(relay: Relay, target: ByteTarget, other: ByteTarget) -> None:
    target.on("/start", redirect(307, other.url("/end")))
    policy = ALLOW_ALL + LIMS + 'redirect_headers = ["X-Tenant"]\n'
    sent = [{"x-tenant": "lab"}, {"X-Api-Key": "mine"}, {"Authorization": "mine"}, {"Accept": "x/y"}]
    relay({"url": url(target, "/start"), "headers": sent}, policy=policy)
    assert (other.last.get("X-Tenant"), other.last.get("Accept")) == ("lab", "x/y")
    assert (other.last.get("X-Api-Key"), other.last.get("Authorization")) == (None, None)


@pytest.mark.usefixtures("secrets")
def test_redirect_headers_let_only_the_commands_own_value_cross(relay: Relay, target: ByteTarget, other: ByteTarget) -> None:
    target.on("/start", redirect(307, other.url("/end")))
    policy = SECRET + 'redirect_headers = ["Authorization", "X-Key"]\n'
    relay({"url": url(target, "/start"), "headers": [{"Authorization": "mine"}]}, policy=policy)
    assert (other.last.get("Authorization"), other.last.get("X-Key")) == ("mine", None)


# --- TLS ---

LENIENT = {"ignore_tls_certificate": True}


def test_ignore_tls_certificate_can_be_forbidden_for_a_target(relay: Relay, secured: ByteTarget) -> None:
    policy = ALLOW_ALL + LIMS + "allow_ignore_tls = false\n"
    assert refusal_of_table(relay({"url": url(secured), **LENIENT}, policy=policy)) == "allow_ignore_tls is false for lims.lab.example"
    assert secured.connections == 0
    assert relay({"url": url(secured)}, policy=policy)["body"] == "ok"
    assert relay({"url": url(secured, host="eln.lab.example"), **LENIENT}, policy=policy)["body"] == "ok"


def refusal_of_table(answer: dict[str, Any]) -> str:
    """The rule of a refusal that names the host which the sender itself has named."""
    assert code(answer) == "EPOLICY"
    return str(answer["message"]).removeprefix("refused by the agent's policy: ")


def test_ignore_tls_certificate_that_is_forbidden_is_refused_after_a_redirect_too(relay: Relay, secured: ByteTarget) -> None:
    secured.on("/start", redirect(302, url(secured, "/end")))
    policy = ALLOW_ALL + LIMS + "allow_ignore_tls = false\n"
    refusal_of_table(relay({"url": url(secured, "/start", "eln.lab.example"), **LENIENT}, policy=policy))
    assert [one.target for one in secured.requests] == ["/start"]


def pin_of(target: ByteTarget) -> str:
    der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", target.port)))
    return base64.b64encode(public_key_digest(der) or b"").decode()


OTHER_PIN = base64.b64encode(bytes(32)).decode()
PINS = "pin_sha256 does not name the target's public key"


@contextmanager
def way_through(kind: str, target: ByteTarget) -> Iterator[str]:
    resolve = {"lims.lab.example": ("127.0.0.1", target.port)}
    if kind == "direct":
        yield "none"
        return
    with HttpProxy(resolve=resolve) if kind == "connect" else Socks5Proxy(resolve=resolve) as proxy:
        yield proxy.url()


@pytest.mark.parametrize("way", ["direct", "connect", "socks"])
@pytest.mark.parametrize("fault", ["none", "self_signed"])
def test_a_pinned_key_is_required_verified_or_not(relay: Relay, names: Names, way: str, fault: Any) -> None:
    with ByteTarget(server_context(fault)) as target, way_through(way, target) as proxy:
        target.on("*", reply(200, body="ok"))
        request = {"url": url(target), "ignore_tls_certificate": fault != "none"}
        right = ALLOW_ALL + LIMS + f'pin_sha256 = ["{OTHER_PIN}", "{pin_of(target)}"]\n'
        assert relay(request, policy=right, proxy=proxy)["body"] == "ok"
        wrong = ALLOW_ALL + LIMS + f'pin_sha256 = ["{OTHER_PIN}"]\n'
        for _ in range(2):
            assert refusal(relay(request, policy=wrong, proxy=proxy)) == PINS
        assert len(target.requests) == 1, "nothing was sent to a target with another key"


def test_a_pin_does_not_replace_the_check_of_the_certificate(relay: Relay, names: Names) -> None:
    with ByteTarget(server_context("self_signed")) as target:
        policy = ALLOW_ALL + LIMS + f'pin_sha256 = ["{pin_of(target)}"]\n'
        assert code(relay({"url": url(target)}, policy=policy)) == "DEPTH_ZERO_SELF_SIGNED_CERT"
        assert target.requests == []


@pytest.mark.parametrize("more", [{}, LENIENT], ids=["verified", "not verified"])
def test_tls_min_refuses_an_older_target(relay: Relay, names: Names, more: dict[str, Any]) -> None:
    with ByteTarget(server_context(newest=ssl.TLSVersion.TLSv1_2)) as target:
        target.on("*", reply(200, body="ok"))
        newer = ALLOW_ALL + LIMS + 'tls_min = "1.3"\n'
        assert code(relay({"url": url(target), **more}, policy=newer)) == "EPROTO"
        assert target.requests == []
        assert relay({"url": url(target, host="eln.lab.example"), **more}, policy=newer)["body"] == "ok"
        assert relay({"url": url(target), **more}, policy=ALLOW_ALL + LIMS + 'tls_min = "1.2"\n')["body"] == "ok"


def test_a_private_ca_is_trusted_for_its_target_only(relay: Relay, secured: ByteTarget) -> None:
    policy = ALLOW_ALL + LIMS + 'ca_file = "ca.pem"\n'
    assert relay({"url": url(secured)}, policy=policy, trust=False)["body"] == "ok"
    untrusted = relay({"url": url(secured, host="eln.lab.example")}, policy=policy, trust=False)
    assert code(untrusted) == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"


def test_a_private_ca_replaces_the_built_in_roots_and_not_the_one_that_is_added(relay: Relay, secured: ByteTarget, tmp_path: Path) -> None:
    stranger = trustme.CA(key_type=trustme.KeyType.ECDSA)
    (tmp_path / "stranger.pem").write_bytes(stranger.cert_pem.bytes())
    policy = ALLOW_ALL + LIMS + 'ca_file = "stranger.pem"\n'
    assert code(relay({"url": url(secured)}, policy=policy, trust=False)) == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    assert relay({"url": url(secured)}, policy=policy, trust=True)["body"] == "ok"


def write_client(directory: Path, password: str = "") -> str:
    """Write a client's certificate and key, and return the keys of its table."""
    certificate, key = client_certificate()
    sealed = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    private = serialization.load_pem_private_key(key, None)
    (directory / "agent.pem").write_bytes(certificate)
    (directory / "agent.key").write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed))
    (directory / "agent.key.password").write_text(f"{password}\n")
    more = 'client_key_password_file = "agent.key.password"\n' if password else ""
    return f'client_cert = "agent.pem"\nclient_key = "agent.key"\n{more}'


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("password", ["", CANARY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("more", [{}, LENIENT], ids=["verified", "not verified"])
def test_a_client_certificate_is_shown_to_its_target_only(
    relay: Relay, names: Names, tmp_path: Path, newest: ssl.TLSVersion, password: str, more: dict[str, Any]
) -> None:
    policy = ALLOW_ALL + LIMS + write_client(tmp_path, password)
    with ByteTarget(server_context(newest=newest, client_authority=ca_pem())) as target:
        target.on("*", reply(200, body="ok"))
        assert relay({"url": url(target), **more}, policy=policy)["body"] == "ok"
        assert code(relay({"url": url(target, host="eln.lab.example"), **more}, policy=policy)) == "EPROTO"
        assert len(target.requests) == 1


def test_a_redirect_to_another_host_does_not_take_the_client_certificate_along(relay: Relay, names: Names, tmp_path: Path) -> None:
    policy = ALLOW_ALL + LIMS + write_client(tmp_path)
    with ByteTarget(server_context(client_authority=ca_pem())) as target:
        target.on("/start", redirect(302, url(target, "/end", "eln.lab.example")))
        assert code(relay({"url": url(target, "/start")}, policy=policy)) == "EPROTO"
        assert [one.target for one in target.requests] == ["/start"]


def test_a_redirect_cannot_make_the_agent_show_the_client_certificate_of_another_host(relay: Relay, names: Names, tmp_path: Path) -> None:
    """The host that redirects has chosen the request, which would be made in the agent's name."""
    policy = ALLOW_ALL + LIMS + write_client(tmp_path)
    with ByteTarget(server_context(client_authority=ca_pem())) as target, ByteTarget() as hostile:
        target.on("*", reply(200, body="ok"))
        hostile.on("*", redirect(307, url(target, "/delete")))
        answer = relay({"url": url(hostile, host="dev.lab.example"), "method": "POST"}, policy=policy)
        assert code(answer) == "EPROTO", answer
        assert "client certificate" in answer["message"]
        assert target.requests == []
        assert relay({"url": url(target, "/delete"), "method": "POST"}, policy=policy)["body"] == "ok", "the command itself may"
        assert code(relay({"url": url(hostile, host="dev.lab.example")}, policy=policy)) == "EPROTO", "nor a kept connection that showed it"


@pytest.mark.parametrize("host", ["lims.lab.example", "localhost"])
def test_subnets_decide_and_the_target_is_called_by_its_name(relay: Relay, secured: ByteTarget, host: str) -> None:
    """SNI, Host and the certificate's names are those of the URL, whatever address was judged."""
    policy = '[[rule]]\naction = "allow"\nhosts = ["127.0.0.0/8", "::1"]\n[[target]]\nhosts = ["*"]\ntls_min = "1.2"\n'
    assert relay({"url": url(secured, host=host)}, policy=policy)["body"] == "ok"
    assert (secured.last.server_name, secured.last.get("Host")) == (host, f"{host}:{secured.port}")


def test_the_name_of_the_certificate_is_checked_with_a_private_ca_too(relay: Relay, names: Names) -> None:
    with ByteTarget(server_context("wrong_host")) as target:
        policy = ALLOW_ALL + LIMS + 'ca_file = "ca.pem"\n'
        assert code(relay({"url": url(target)}, policy=policy, trust=False)) == "ERR_TLS_CERT_ALTNAME_INVALID"


# --- the other settings of a target ---


def test_a_target_may_have_a_proxy_of_its_own_or_none(relay: Relay, target: ByteTarget) -> None:
    with HttpProxy() as general, HttpProxy(resolve={"lims.lab.example": ("127.0.0.1", target.port)}) as own:
        policy = ALLOW_ALL + LIMS + f'proxy = "{own.url()}"\n' + '[[target]]\nhosts = ["eln.lab.example"]\nproxy = "none"\n'
        assert relay({"url": url(target)}, policy=policy, proxy=general.url())["body"] == "ok"
        assert (len(own.seen), len(general.seen)) == (1, 0)
        assert relay({"url": url(target, host="eln.lab.example")}, policy=policy, proxy=general.url())["body"] == "ok"
        assert (len(own.seen), len(general.seen)) == (1, 0)
        assert relay({"url": target.url("/")}, policy=policy, proxy=general.url())["body"] == "ok"
        assert (len(own.seen), len(general.seen)) == (1, 1)


def test_a_targets_own_proxy_does_not_ask_the_resolver_and_is_shown_its_password(relay: Relay, target: ByteTarget, names: Names) -> None:
    auth = ("agent", CANARY)
    with HttpProxy(auth=auth, resolve={"lims.lab.example": ("127.0.0.1", target.port)}) as proxy:
        policy = ALLOW_ALL + LIMS + f'proxy = "{proxy.url(auth)}"\n'
        answer = relay({"url": url(target)}, policy=policy)
        assert (answer["body"], names.asked) == ("ok", [])
        assert CANARY not in json.dumps(answer)
        assert target.last.get("Proxy-Authorization") is None


def test_a_request_takes_no_longer_than_its_target_allows(relay: Relay, target: ByteTarget) -> None:
    target.on("/slow", lambda conn, _request: conn.hang())
    policy = ALLOW_ALL + LIMS + "timeout_seconds = 0.3\n"
    assert code(relay({"url": url(target, "/slow")}, policy=policy, deadline=60)) == "ETIMEDOUT"


def test_the_shorter_time_of_command_and_target_holds(relay: Relay, target: ByteTarget) -> None:
    target.on("/slow", lambda conn, _request: conn.hang())
    policy = ALLOW_ALL + LIMS + "timeout_seconds = 3600\n"
    assert code(relay({"url": url(target, "/slow"), "timeout": 0.3}, policy=policy, deadline=60)) == "ETIMEDOUT"


@pytest.mark.parametrize(("own", "general"), [(2000, 100_000), (100_000, 2000)], ids=["lower", "higher"])
def test_a_targets_largest_response_replaces_the_general_one(relay: Relay, target: ByteTarget, own: int, general: int) -> None:
    target.on("/large", reply(200, body=b"x" * 10_000))
    policy = ALLOW_ALL + LIMS + f"max_response_bytes = {own}\n"
    answers = [
        relay({"url": url(target, "/large", host)}, policy=policy, max_response_bytes=general)
        for host in ("lims.lab.example", "eln.lab.example")
    ]
    fits, too_large = answers if own > general else answers[::-1]
    assert len(fits["body"]) == 10_000
    assert code(too_large) == "ERESPONSETOOLARGE"


def test_secure_only_lets_secure_commands_alone_through(relay: Relay, target: ByteTarget) -> None:
    policy = '[[rule]]\nname = "sealed"\naction = "allow"\nsecure_only = true\n'
    assert refusal(relay({"url": url(target)}, policy=policy)) == "default: deny"
    assert relay({"url": url(target)}, policy=policy, secure=True)["body"] == "ok"


class Crowd:
    """A handler that counts how many requests it answers at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._met = threading.Semaphore(0)
        self.running = self.most = 0

    def __call__(self, conn: Connection, _request: RawRequest) -> None:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self._met.acquire(timeout=0.05)  # Whoever may run beside it has this long to come.
        with self._lock:
            self.running -= 1
        conn.respond(200, body=b"ok")


@pytest.mark.parametrize("hosts", [["lims.lab.example"] * 6, ["lims.lab.example", "eln.lab.example"] * 3], ids=["one host", "two hosts"])
def test_no_more_requests_run_at_the_hosts_of_a_table_than_it_says(relay: Relay, target: ByteTarget, hosts: list[str]) -> None:
    policy = ALLOW_ALL + '[[target]]\nhosts = ["lims.lab.example", "eln.lab.example"]\nmax_concurrency = 1\n'
    crowd = Crowd()
    target.on("/x", crowd)
    for worker in range(len(hosts)):
        relay.executor(policy=policy, worker=worker)
    with ThreadPoolExecutor(len(hosts)) as pool:
        asked = [
            pool.submit(relay, {"url": url(target, "/x", host), "method": "POST"}, policy=policy, worker=worker)
            for worker, host in enumerate(hosts)
        ]
        assert [one.result(30)["body"] for one in asked] == ["ok"] * len(hosts)
    assert crowd.most == 1


def test_a_busy_target_is_waited_for_until_the_commands_time_has_passed(relay: Relay, target: ByteTarget) -> None:
    policy = ALLOW_ALL + LIMS + "max_concurrency = 1\n"
    gate = target.gate()

    def hold(conn: Connection, _request: RawRequest) -> None:
        conn.wait(gate)
        conn.respond(200, body=b"held")

    target.on("/hold", hold)
    relay.executor(policy=policy, worker=1)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(relay, {"url": url(target, "/hold")}, policy=policy, worker=1)
        gate.wait_reached()
        answer = relay({"url": url(target)}, policy=policy, deadline=0.2)
        assert code(answer) == "ETIMEDOUT"
        assert answer["message"] == "the time limit passed while the target was busy (max_concurrency = 1)"
        assert relay({"url": url(target, host="eln.lab.example")}, policy=policy)["body"] == "ok"
        gate.release()
        assert held.result(10)["body"] == "held"
    assert relay({"url": url(target)}, policy=policy)["body"] == "ok"


def test_the_time_of_a_request_begins_when_it_may_run(relay: Relay, target: ByteTarget, tmp_path: Path) -> None:
    time = 0.0

    class Busy(ConcurrencyLimit):
        @contextmanager
        def place(self, target: TargetSettings, deadline: Deadline, check_stop: Callable[[], None]) -> Iterator[None]:
            nonlocal time
            time += 100.0
            yield

    rules = relay.rules(ALLOW_ALL + LIMS + "max_concurrency = 1\ntimeout_seconds = 60\n")
    transport = Transport(Dialer(TlsContexts(), Resolver()), ConnectionPool())
    executor = Executor(transport, lambda: rules, ProxyRouter({}, ""), Limits(), tmp_path, concurrency=Busy())
    outcome = executor.execute(decode_request({"url": url(target)}), Deadline(1000.0, lambda: time))
    executor.close()
    assert not isinstance(outcome, Failure)
    outcome.content.close()


# --- a policy that changes ---


class Changing:
    """One worker whose rules the test replaces between commands; its connections are kept."""

    def __init__(self, relay: Relay, directory: Path) -> None:
        self._relay = relay
        self._spool = Spool(directory)
        self._pool = ConnectionPool()
        self.policy = ""
        trusted = TlsContexts(ca_file=directory / "ca.pem")
        transport = Transport(Dialer(trusted, Resolver()), self._pool)
        self.meanwhile: Callable[[], None] = nothing
        waits = Waits(lambda: self.meanwhile())
        self._executor = Executor(transport, lambda: relay.rules(self.policy), ProxyRouter({}, ""), Limits(), directory, concurrency=waits)

    def __call__(self, payload: dict[str, Any], policy: str) -> dict[str, Any]:
        self.policy = policy
        return run(self._executor, payload, 8.0, lambda: None, self._spool)

    def close(self) -> None:
        self._executor.close()
        self._pool.close()


class Waits(ConcurrencyLimit):
    """A limit for which each request waits while the test does something."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    @contextmanager
    def place(self, target: TargetSettings, deadline: Deadline, check_stop: Callable[[], None]) -> Iterator[None]:
        self._meanwhile()
        check_stop()
        yield


@pytest.fixture
def changing(relay: Relay, tmp_path: Path) -> Iterator[Changing]:
    (tmp_path / "ca.pem").write_bytes(ca_pem())
    found = Changing(relay, tmp_path)
    yield found
    found.close()


def test_a_kept_connection_is_not_used_where_new_rules_deny_its_address(changing: Changing, target: ByteTarget) -> None:
    assert changing({"url": url(target)}, ALLOW_ALL)["body"] == "ok"
    assert refusal(changing({"url": url(target)}, '[[rule]]\naction = "allow"\nhosts = ["10.0.0.0/8"]\n')) == "default: deny"
    assert changing({"url": url(target)}, '[[rule]]\naction = "allow"\nhosts = ["127.0.0.0/8"]\n')["body"] == "ok"
    assert len(target.requests) == 2


ONLY_ELN = '[[rule]]\nname = "eln"\naction = "allow"\nhosts = ["eln.lab.example"]\n'


def test_a_redirect_is_judged_by_the_rules_that_are_in_force_when_it_comes(changing: Changing, target: ByteTarget) -> None:
    def change(conn: Connection, _request: RawRequest) -> None:
        changing.policy = ONLY_ELN
        conn.respond(302, [("Location", "/next")])

    target.on("/first", change)
    assert refusal(changing({"url": url(target, "/first")}, ALLOW_ALL)) == "default: deny"
    assert [request.target for request in target.requests] == ["/first"]


def test_a_call_that_waited_for_its_place_is_judged_again_and_made_with_the_settings_in_force(
    changing: Changing, target: ByteTarget
) -> None:
    def change() -> None:
        changing.policy = following.pop() if following else changing.policy

    changing.meanwhile = change
    following = [ONLY_ELN]
    assert refusal(changing({"url": url(target)}, ALLOW_ALL + LIMS + "max_concurrency = 1\n")) == "default: deny"
    assert not target.requests
    following = [ALLOW_ALL + LIMS + 'headers = { X-Now = "new" }\n']
    assert changing({"url": url(target)}, ALLOW_ALL + LIMS + 'headers = { X-Now = "old" }\n')["body"] == "ok"
    assert target.last.get("X-Now") == "new"


def test_connections_with_old_tls_settings_are_not_used_with_new_ones(changing: Changing, names: Names, tmp_path: Path) -> None:
    client = write_client(tmp_path)
    with ByteTarget(server_context()) as target:
        target.on("*", reply(200, body="ok"))
        pin = f'pin_sha256 = ["{pin_of(target)}"]\n'
        begun = target.connections
        policies = [ALLOW_ALL, *(ALLOW_ALL + LIMS + keys for keys in ('tls_min = "1.3"\n', pin, client, 'ca_file = "ca.pem"\n'))]
        for number, policy in enumerate(policies, start=1):
            for _ in range(2):
                assert changing({"url": url(target)}, policy)["body"] == "ok"
            assert target.connections - begun == number
        assert refusal(changing({"url": url(target)}, ALLOW_ALL + LIMS + f'pin_sha256 = ["{OTHER_PIN}"]\n')) == PINS


def test_the_same_settings_that_were_read_again_open_new_connections(relay: Relay, changing: Changing, secured: ByteTarget) -> None:
    """The files may have changed: a certificate that was replaced is shown from the next command on."""
    policy = ALLOW_ALL + LIMS + 'ca_file = "ca.pem"\n'
    assert changing({"url": url(secured)}, policy)["body"] == "ok"
    relay.read_rules_again()
    assert changing({"url": url(secured)}, policy)["body"] == "ok"
    assert secured.connections == 2


# --- the mode observe ---

ALLOW_LIMS = '[[rule]]\naction = "allow"\nhosts = ["lims.lab.example"]\n'


@pytest.mark.parametrize(
    ("rules", "would"),
    [
        ("", "default: deny"),
        ('[[rule]]\nname = "no"\naction = "deny"\nhosts = ["127.0.0.0/8"]\n', "no"),
        ('[[rule]]\nname = "yes"\naction = "allow"\nhosts = ["127.0.0.0/8"]\n', None),
        ('[[rule]]\nname = "yes"\naction = "allow"\nhosts = ["10.0.0.0/8"]\n', "default: deny"),
        ('[[rule]]\nname = "yes"\naction = "allow"\npaths = ["/start"]\n', "default: deny"),
    ],
)
def test_observed_rules_refuse_nothing_and_say_what_they_would_refuse(
    relay: Relay, target: ByteTarget, rules: str, would: str | None
) -> None:
    target.on("/start", redirect(302, "/end"))
    executor = relay.executor(policy='mode = "observe"\n' + rules)
    outcome = executor.execute(decode_request({"url": url(target, "/start")}), Deadline(8.0))
    assert not isinstance(outcome, Failure)
    outcome.content.close()
    assert (outcome.status_code, outcome.would_refuse) == (200, would)


def test_what_would_be_refused_after_a_redirect_names_the_host_that_is_recorded_nowhere_else(relay: Relay, target: ByteTarget) -> None:
    target.on("/start", redirect(302, url(target, "/end", "eln.lab.example")))
    policy = f'mode = "observe"\n{ALLOW_LIMS}'
    outcome = relay.executor(policy=policy).execute(decode_request({"url": url(target, "/start")}), Deadline(8.0))
    assert not isinstance(outcome, Failure)
    outcome.content.close()
    assert outcome.would_refuse == f"default: deny (redirect to http://eln.lab.example:{target.port})"


def test_what_would_be_refused_is_said_of_a_failure_too_and_not_to_the_sender(relay: Relay, target: ByteTarget) -> None:
    target.on("/x", lambda conn, _request: conn.reset())
    request = {"url": url(target, "/x"), "method": "POST"}
    outcome = relay.executor(policy='mode = "observe"\n').execute(decode_request(request), Deadline(8.0))
    assert isinstance(outcome, Failure)
    assert (outcome.would_refuse, outcome.code) == ("default: deny", "ECONNRESET")
    assert "deny" not in json.dumps(relay(request, policy='mode = "observe"\n'))


def test_settings_of_targets_hold_while_rules_are_observed(relay: Relay, secured: ByteTarget) -> None:
    policy = 'mode = "observe"\n' + LIMS + f'allow_ignore_tls = false\npin_sha256 = ["{OTHER_PIN}"]\n'
    refusal_of_table(relay({"url": url(secured), **LENIENT}, policy=policy))
    assert refusal(relay({"url": url(secured)}, policy=policy)) == PINS
