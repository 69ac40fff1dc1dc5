"""NTLM and Negotiate, as a `[[target]]` table asks for them, against pyspnego's server side."""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from spnego.channel_bindings import GssChannelBindings

from relay_agent.transport.connection_pool import ConnectionPool
from relay_agent.transport.sides import MAX_ROUNDS
from tests.contract.relaying import Relay, code
from tests.target_certificates import server_context
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, reply
from tests.windows_peers import Demand, DemandingProxy

USER, PASSWORD = "LAB\\agent", "canary-pässword"
ADMITTED = "LAB\\agent"
LARGE = 4_000_000


@pytest.fixture(autouse=True)
def users(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The users that pyspnego's server side knows."""
    file = tmp_path_factory.mktemp("ntlm") / "users"
    file.write_text(f"LAB:agent:{PASSWORD}\n", encoding="utf-8")
    monkeypatch.setenv("NTLM_USER_FILE", str(file))


@pytest.fixture(params=["ntlm", "negotiate"])
def scheme(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(params=[False, True], ids=["http", "https"])
def target(request: pytest.FixtureRequest) -> Iterator[ByteTarget]:
    with ByteTarget(server_context() if request.param else None) as running:
        yield running


@pytest.fixture
def plain_target() -> Iterator[ByteTarget]:
    with ByteTarget() as running:
        yield running


def policy(tmp_path: Path, scheme: str, *, password: str = PASSWORD, key: str = "auth", user: str = USER) -> str:
    (tmp_path / "password").write_text(password, encoding="utf-8")
    return f"""default = "allow"
[[target]]
hosts = ["localhost", "127.0.0.1"]
{key} = {{ {scheme} = {{ user = '{user}', password = {{ file = "password" }} }} }}
"""


def lengths(requests: list[RawRequest]) -> list[int]:
    return [len(request.body) for request in requests]


def test_a_connection_is_authenticated_once_and_kept(relay: Relay, target: ByteTarget, tmp_path: Path, scheme: str) -> None:
    demand = Demand(scheme)
    target.on("*", demand.before(reply(200, body="secret data")))
    rules = policy(tmp_path, scheme)
    for number in range(2):
        answer = relay({"url": target.url("/a", host="localhost")}, policy=rules, worker=number)
        assert (answer["statusCode"], answer["body"]) == (200, "secret data")
    assert list(demand.admitted.values()) == [ADMITTED]
    assert (target.connections, len(target.requests)) == (1, 4)


def test_a_posts_body_stays_away_from_the_message_that_opens_the_handshake(
    relay: Relay, target: ByteTarget, tmp_path: Path, scheme: str
) -> None:
    executed: list[bytes] = []
    demand, begun = Demand(scheme), []
    target.on("*", demand.before(lambda conn, request: (executed.append(request.body), conn.respond(200, body=b"done"))[1]))
    payload = {"method": "POST", "url": target.url("/a", host="localhost"), "body": "b" * LARGE, "headers": [{"Connection": "close"}]}
    answer = relay(payload, policy=policy(tmp_path, scheme), before_send=lambda: begun.append(1))
    assert (answer["statusCode"], answer["body"]) == (200, "done")
    assert (begun, [len(body) for body in executed]) == ([1], [LARGE])
    assert lengths(target.requests) == [LARGE, 0, LARGE]
    assert target.requests[1].get("Content-Length") == "0"


def test_a_wrong_password_is_answered_with_the_targets_401(relay: Relay, target: ByteTarget, tmp_path: Path, scheme: str) -> None:
    demand = Demand(scheme)
    target.on("*", demand.before(reply(200)))
    answer = relay({"url": target.url(host="localhost")}, policy=policy(tmp_path, scheme, password="wrong"))
    assert (answer["status"], answer["statusCode"]) == ("FAILURE", 401)
    assert len(target.requests) == 3


def test_an_authenticated_connection_serves_no_command_without_these_credentials(
    relay: Relay, plain_target: ByteTarget, tmp_path: Path
) -> None:
    target, demand = plain_target, Demand("ntlm")
    target.on("*", demand.before(reply(200)))
    pool = ConnectionPool()  # One for both, as after a change of the policy file.
    assert relay({"url": target.url()}, policy=policy(tmp_path, "ntlm"), pool=pool)["statusCode"] == 200
    assert relay({"url": target.url()}, policy='default = "allow"', pool=pool)["statusCode"] == 401
    assert target.connections == 2


def test_the_commands_own_credentials_are_replaced(relay: Relay, plain_target: ByteTarget, tmp_path: Path, scheme: str) -> None:
    demand = Demand(scheme)
    plain_target.on("*", demand.before(reply(200)))
    payload = {"url": plain_target.url(userinfo="a:b"), "headers": [{"Authorization": "Bearer x"}]}
    assert relay(payload, policy=policy(tmp_path, scheme))["statusCode"] == 200
    assert plain_target.requests[0].get("Authorization") is None
    assert all(len(request.get_all("Authorization")) < 2 for request in plain_target.requests)


def test_no_credentials_follow_a_redirect_to_another_origin(relay: Relay, plain_target: ByteTarget, tmp_path: Path) -> None:
    with ByteTarget() as other:
        plain_target.on("*", reply(307, [("Location", other.url("/there"))]))
        other.on("*", Demand("ntlm").before(reply(200)))
        assert relay({"url": plain_target.url()}, policy=policy(tmp_path, "ntlm"))["statusCode"] == 401
        assert [request.get("Authorization") for request in other.requests] == [None]


def test_a_target_that_closes_after_its_challenge_refuses(relay: Relay, plain_target: ByteTarget, tmp_path: Path, scheme: str) -> None:
    demand = Demand(scheme)
    demand.more = [("Connection", "close")]
    plain_target.on("*", demand.before(reply(200)))
    answer = relay({"method": "POST", "url": plain_target.url(), "body": "b"}, policy=policy(tmp_path, scheme))
    assert answer["statusCode"] == 401
    assert "who are you?" in answer["body"]
    assert lengths(plain_target.requests) == [1, 0]


@pytest.mark.parametrize(
    "spoil", [lambda _: b"NTLMSSP\0\2", lambda token: token[:-5], lambda _: b"\x60\x84\xff\xff\xff\xff", lambda _: b"0" * 9]
)
def test_a_token_that_cannot_be_read_is_a_refusal(
    relay: Relay, plain_target: ByteTarget, tmp_path: Path, scheme: str, spoil: object
) -> None:
    demand = Demand(scheme)
    demand.spoil = spoil  # type: ignore[assignment]
    plain_target.on("*", demand.before(reply(200)))
    assert relay({"url": plain_target.url()}, policy=policy(tmp_path, scheme))["statusCode"] == 401
    assert len(plain_target.requests) <= 3


def test_a_target_that_takes_the_opening_message_for_the_request_is_a_bad_answer(
    relay: Relay, plain_target: ByteTarget, tmp_path: Path
) -> None:
    plain_target.on(
        "*",
        lambda conn, request: (reply(200) if request.get("Authorization") else reply(401, [("WWW-Authenticate", "NTLM")]))(conn, request),
    )
    rules = policy(tmp_path, "ntlm")
    assert code(relay({"method": "POST", "url": plain_target.url(), "body": "b"}, policy=rules)) == "EBADRESPONSE"
    assert relay({"method": "POST", "url": plain_target.url()}, policy=rules)["statusCode"] == 200


def test_the_handshake_is_bound_to_the_targets_certificate(relay: Relay, tmp_path: Path, scheme: str) -> None:
    with ByteTarget(server_context()) as target:
        certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", target.port)))
        for data, status in ((certificate, 200), (b"another", 401)):
            bindings = GssChannelBindings(application_data=b"tls-server-end-point:" + hashlib.sha256(data).digest())
            target.on("*", Demand(scheme, bindings=bindings).before(reply(200)))
            payload = {"url": target.url(host="localhost"), "headers": [{"Connection": "close"}]}
            assert relay(payload, policy=policy(tmp_path, scheme))["statusCode"] == status


# --- proxies ---


def test_a_proxy_that_demands_it_gets_it(relay: Relay, target: ByteTarget, tmp_path: Path, scheme: str) -> None:
    """Before a tunnel, and on forwarded requests, whose bodies arrive once."""
    target.on("*", reply(200, body="through"))
    with DemandingProxy(Demand(scheme, proxy=True)) as proxy:
        payload = {"method": "POST", "url": target.url(host="localhost"), "body": "b" * LARGE}
        answer = relay(payload, proxy=proxy.url(), policy=policy(tmp_path, scheme, key="proxy_auth"))
        assert (answer["statusCode"], answer["body"]) == (200, "through")
        assert list(proxy.demand.admitted.values()) == [ADMITTED]
    assert lengths(target.requests) == [LARGE]
    assert "proxy-authorization" not in target.last.names


def test_a_proxy_over_tls_gets_it_bound_to_its_own_certificate(relay: Relay, target: ByteTarget, tmp_path: Path) -> None:
    target.on("*", reply(200, body="through"))
    context = server_context()
    demand = Demand("ntlm", proxy=True)
    with DemandingProxy(demand, tls=context) as proxy:
        der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", proxy.port)))
        demand.bindings = GssChannelBindings(application_data=b"tls-server-end-point:" + hashlib.sha256(der).digest())
        rules = policy(tmp_path, "ntlm", key="proxy_auth")
        answer = relay({"url": target.url(host="localhost")}, proxy=proxy.url(host="localhost"), policy=rules)
        assert (answer["statusCode"], answer["body"]) == (200, "through")


def test_a_proxy_that_refuses_gives_its_407(relay: Relay, target: ByteTarget, tmp_path: Path, scheme: str) -> None:
    target.on("*", reply(200))
    with DemandingProxy(Demand(scheme, proxy=True)) as proxy:
        rules = policy(tmp_path, scheme, key="proxy_auth", password="wrong")
        answer = relay({"url": target.url(host="localhost")}, proxy=proxy.url(), policy=rules)
        assert (answer["status"], answer["statusCode"]) == ("FAILURE", 407)
    assert target.requests == []


def test_a_proxy_may_close_after_its_first_refusal_but_not_within_the_handshake(relay: Relay, target: ByteTarget, tmp_path: Path) -> None:
    target.on("*", reply(200))

    class Closing(Demand):
        closes = b""

        def _ask(self, conn: object, token: bytes) -> None:
            self.more = [("Connection", "close")] if token == self.closes or self.closes == b"all" else []
            super()._ask(conn, token)  # type: ignore[arg-type]

    demand = Closing("ntlm", proxy=True)
    with DemandingProxy(demand) as proxy:
        rules = policy(tmp_path, "ntlm", key="proxy_auth")
        assert relay({"url": target.url(host="localhost")}, proxy=proxy.url(), policy=rules)["statusCode"] == 200
        demand.closes = b"all"
        payload = {"url": target.url(host="localhost"), "headers": [{"Connection": "close"}], "method": "POST"}
        assert relay(payload, proxy=proxy.url(), policy=rules)["statusCode"] == 407


def test_the_proxy_and_the_target_may_both_demand_it(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    user = f"user = '{USER}', password = {{ file = \"password\" }}"
    with ByteTarget(server_context()) as target, DemandingProxy(Demand("negotiate", proxy=True)) as proxy:
        target.on("*", Demand("ntlm").before(reply(200, body="both")))
        rules = f'default = "allow"\n[[target]]\nhosts = ["*"]\nauth.ntlm = {{ {user} }}\nproxy_auth.negotiate = {{ {user} }}\n'
        answer = relay({"method": "POST", "url": target.url(host="localhost"), "body": "b"}, proxy=proxy.url(), policy=rules)
        assert (answer["statusCode"], answer["body"]) == (200, "both")


def test_a_target_behind_a_proxy_that_shares_connections_gets_no_handshake(relay: Relay, plain_target: ByteTarget, tmp_path: Path) -> None:
    """RFC 4559 §6: the connection behind the proxy may serve others too, unless the proxy says that it does not."""
    target, rules = plain_target, policy(tmp_path, "ntlm")
    target.on("*", reply(401, [("WWW-Authenticate", "NTLM")]))
    with DemandingProxy(Demand("ntlm", proxy=True)) as proxy:
        proxy.demand.admits = lambda _conn, _request: True  # type: ignore[method-assign]
        assert relay({"url": target.url()}, proxy=proxy.url(), policy=rules)["statusCode"] == 401
        assert len(target.requests) == 1
        target.on("*", reply(401, [("WWW-Authenticate", "NTLM"), ("Proxy-Support", "Session-Based-Authentication")]))
        relay({"url": target.url()}, proxy=proxy.url(), policy=rules)
        assert [(request.get("Authorization") or "")[:9] for request in target.requests[1:]] == ["", "NTLM TlRM"]


def test_tokens_carry_no_password(relay: Relay, plain_target: ByteTarget, tmp_path: Path, scheme: str) -> None:
    plain_target.on("*", Demand(scheme).before(reply(200)))
    relay({"url": plain_target.url()}, policy=policy(tmp_path, scheme))
    tokens = [base64.b64decode((request.get("Authorization") or " ").split(" ")[1]) for request in plain_target.requests]
    assert any(tokens)
    assert not any(PASSWORD.encode(coding) in token for token in tokens for coding in ("utf-8", "utf-16-le"))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_target_that_closes_within_each_handshake_without_a_word_ends_it(
    relay: Relay, plain_target: ByteTarget, tmp_path: Path, method: str
) -> None:
    demand, executed = Demand("ntlm"), []

    def close_after(conn: Connection, request: RawRequest) -> None:
        if demand.admits(conn, request):
            executed.append(request.method)
        conn.close()

    plain_target.on("*", close_after)
    answer = relay({"method": method, "url": plain_target.url(), "body": "b"}, policy=policy(tmp_path, "ntlm"))
    assert answer.get("statusCode") == 401 or answer["code"] == "ECONNRESET"
    assert executed == []
    assert len(plain_target.requests) <= 2 * MAX_ROUNDS
