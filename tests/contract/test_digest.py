"""Digest, as a `[[target]]` table asks for it, against Apache and lighttpd."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.relaying import Relay
from tests.target_certificates import server_context
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, redirect, reply
from tests.web_servers import APACHE, LIGHTTPD, Apache, Lighttpd

USER, PASSWORD = "agent", 'canary-pässword "x"'
USERS = {USER: PASSWORD, "jürgen": "grün"}
needs_apache = pytest.mark.skipif(APACHE is None, reason="Apache is not installed (make web-servers)")
needs_lighttpd = pytest.mark.skipif(not LIGHTTPD.exists(), reason="lighttpd is not here (make web-servers)")


def policy(tmp_path: Path, user: str = USER, password: str = PASSWORD, key: str = "auth") -> str:
    """A policy whose targets all get credentials from a file."""
    (tmp_path / "password").write_text(f"{password}\n", encoding="utf-8")
    return f"""default = "allow"
[[target]]
hosts = ["*"]
{key} = {{ digest = {{ user = "{user}", password = {{ file = "password" }} }} }}
"""


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running:
        yield running


@pytest.fixture
def tls_target() -> Iterator[ByteTarget]:
    with ByteTarget(server_context()) as running:
        yield running


@pytest.fixture(scope="module")
def apache() -> Iterator[Apache]:
    with Apache(USERS) as server:
        yield server


@pytest.fixture(scope="module")
def lighttpd() -> Iterator[Lighttpd]:
    with Lighttpd(USERS) as server:
        yield server


@pytest.fixture(params=[pytest.param("apache", marks=needs_apache), pytest.param("lighttpd", marks=needs_lighttpd)])
def server(request: pytest.FixtureRequest) -> Apache | Lighttpd:
    """MD5 by Apache, SHA-256 by lighttpd."""
    found: Apache | Lighttpd = request.getfixturevalue(request.param)
    return found


def test_a_target_that_asks_for_digest_gets_it(relay: Relay, server: Apache, tmp_path: Path) -> None:
    answer = relay({"url": server.url()}, policy=policy(tmp_path))
    assert (answer["statusCode"], answer["body"]) == (200, f"{USER} GET ")


def test_a_body_is_sent_again_and_queries_and_parameters_are_part_of_the_digest(relay: Relay, server: Apache, tmp_path: Path) -> None:
    begun: list[int] = []
    body = "x" * 300_000
    payload = {"method": "POST", "url": server.url("/echo.cgi?a=1;b=%2f&c"), "body": body}
    answer = relay(payload, policy=policy(tmp_path), before_send=lambda: begun.append(1))
    assert (answer["statusCode"], answer["body"]) == (200, f"{USER} POST {body}")
    assert begun == [1]


def test_a_wrong_password_is_answered_with_the_targets_401(relay: Relay, server: Apache, tmp_path: Path) -> None:
    answer = relay({"url": server.url()}, policy=policy(tmp_path, password="wrong"))
    assert (answer["status"], answer["statusCode"]) == ("FAILURE", 401)


def test_the_commands_own_credentials_are_replaced(relay: Relay, server: Apache, tmp_path: Path) -> None:
    url = server.url().replace("//", "//somebody:else@")
    answer = relay({"url": url, "headers": [{"Authorization": "Basic Zm9vOmJhcg=="}]}, policy=policy(tmp_path))
    assert answer["statusCode"] == 200


def test_a_user_beyond_ascii_is_sent_as_utf_8(relay: Relay, server: Apache, tmp_path: Path) -> None:
    answer = relay({"url": server.url()}, policy=policy(tmp_path, "jürgen", "grün"))
    assert (answer["statusCode"], answer["body"]) == (200, "jürgen GET ")


@needs_apache
def test_a_nonce_that_a_restarted_target_no_longer_knows_is_replaced(relay: Relay, tmp_path: Path) -> None:
    rules = policy(tmp_path)
    with Apache(USERS) as first:
        port = first.port
        assert relay({"url": first.url()}, policy=rules)["statusCode"] == 200
    with Apache(USERS, port) as second:
        assert relay({"method": "POST", "url": second.url(), "body": "b"}, policy=rules)["body"] == f"{USER} POST b"


@needs_apache
def test_a_proxy_that_asks_for_digest_gets_it_on_forwarded_requests(
    relay: Relay, apache: Apache, target: ByteTarget, tmp_path: Path
) -> None:
    target.on("/a", reply(200, body="through"))
    payload = {"method": "POST", "url": target.url("/a"), "body": "b", "headers": [{"Proxy-Authorization": "Basic Zm9vOmJhcg=="}]}
    answer = relay(payload, proxy=f"http://127.0.0.1:{apache.port}", policy=policy(tmp_path, key="proxy_auth"))
    assert (answer["statusCode"], answer["body"]) == (200, "through")
    assert [request.body for request in target.requests] == [b"b"]
    assert "proxy-authorization" not in target.last.names


@needs_apache
def test_a_proxy_that_asks_for_digest_gets_it_before_a_tunnel(relay: Relay, apache: Apache, tls_target: ByteTarget, tmp_path: Path) -> None:
    tls_target.on("/a", reply(200, body="through"))
    proxy = f"http://127.0.0.1:{apache.port}"
    answer = relay({"url": tls_target.url("/a", host="localhost")}, proxy=proxy, policy=policy(tmp_path, key="proxy_auth"))
    assert (answer["statusCode"], answer["body"]) == (200, "through")
    refused = relay({"url": tls_target.url("/a", host="localhost")}, proxy=proxy, policy=policy(tmp_path, "nobody", key="proxy_auth"))
    assert (refused["status"], refused["statusCode"]) == ("FAILURE", 407)


CHALLENGE = ("WWW-Authenticate", 'Digest realm="r", nonce="n1", qop="auth,auth-int", opaque="o", algorithm=SHA-256')


def test_the_next_request_needs_no_challenge_and_counts_on(relay: Relay, target: ByteTarget, tmp_path: Path) -> None:
    target.on("*", lambda conn, request: (reply(200) if request.get("Authorization") else reply(401, [CHALLENGE]))(conn, request))
    rules = policy(tmp_path)
    for _ in range(2):
        assert relay({"url": target.url("/a?b=1")}, policy=rules)["statusCode"] == 200
    sent = [request.get("Authorization") or "" for request in target.requests]
    assert ["nc=00000001" in value for value in sent] == [False, True, False]
    assert ["nc=00000002" in value for value in sent] == [False, False, True]
    assert all('uri="/a?b=1"' in value for value in sent[1:])


@pytest.mark.parametrize("stale", [True, False])
def test_a_refusal_of_a_new_nonce_ends_the_exchange_unless_it_was_stale_once(
    relay: Relay, target: ByteTarget, tmp_path: Path, stale: bool
) -> None:
    challenge = (CHALLENGE[0], CHALLENGE[1] + (", stale=true" if stale else ""))
    target.on("*", reply(401, [challenge], "no"))
    answer = relay({"method": "POST", "url": target.url(), "body": "b"}, policy=policy(tmp_path))
    assert (answer["statusCode"], answer["body"]) == (401, "no")
    assert len(target.requests) == (3 if stale else 2)


@pytest.mark.parametrize(
    "offer", ['Basic realm="r"', 'Digest realm="r", nonce="n", qop="auth-int"', 'Digest realm="r", nonce="n", algorithm=SHA-1', "Digest"]
)
def test_what_cannot_be_answered_is_the_answer(relay: Relay, target: ByteTarget, tmp_path: Path, offer: str) -> None:
    target.on("*", reply(401, [("WWW-Authenticate", offer)]))
    assert relay({"url": target.url()}, policy=policy(tmp_path))["statusCode"] == 401
    assert len(target.requests) == 1


def test_no_credentials_follow_a_redirect_to_another_origin(
    relay: Relay, target: ByteTarget, tls_target: ByteTarget, tmp_path: Path
) -> None:
    target.on("*", reply(307, [("Location", tls_target.url("/there", host="localhost"))]))
    tls_target.on("*", reply(401, [CHALLENGE]))
    answer = relay({"url": target.url()}, policy=policy(tmp_path))
    assert answer["statusCode"] == 401
    assert [request.get("Authorization") for request in tls_target.requests] == [None]


def test_a_407_of_a_target_without_a_proxy_is_not_answered(relay: Relay, target: ByteTarget, tmp_path: Path) -> None:
    target.on("*", reply(407, [("Proxy-Authenticate", CHALLENGE[1])]))
    assert relay({"url": target.url()}, policy=policy(tmp_path, key="proxy_auth"))["statusCode"] == 407
    assert len(target.requests) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_cookies_of_a_challenge_are_sent_with_the_request_that_answers_it(
    relay: Relay, target: ByteTarget, tmp_path: Path, method: str
) -> None:
    """A target may keep its session in a cookie, and want cookie and credentials; what the command has of its own stays."""

    def handle(conn: Connection, request: RawRequest) -> None:
        both = request.get("Authorization") and "sid=42" in (request.get("Cookie") or "")
        challenge = [CHALLENGE, ("Set-Cookie", "sid=42; Path=/"), ("Set-Cookie", "away=1; Path=/elsewhere")]
        (reply(200) if both else reply(401, challenge))(conn, request)

    target.on("*", handle)
    payload = {"method": method, "url": target.url("/a"), "headers": [{"Cookie": "own=1; sid=0"}, {"X-A": "b"}], "body": "hi"}
    assert relay(payload, policy=policy(tmp_path))["statusCode"] == 200
    first, second = target.requests
    assert (first.get_all("Cookie"), second.get_all("Cookie")) == (["own=1; sid=0"], ["own=1; sid=42"])
    assert (second.get("X-A"), second.body) == ("b", b"hi")


def test_cookies_of_a_challenge_are_sent_after_a_redirect_too_and_end_with_the_command(
    relay: Relay, target: ByteTarget, tmp_path: Path
) -> None:
    def handle(conn: Connection, request: RawRequest) -> None:
        challenge = reply(401, [CHALLENGE, ("Set-Cookie", "sid=42; Path=/")])
        (redirect(302, "/end") if request.get("Authorization") else challenge)(conn, request)

    target.on("/start", handle)
    target.on("/end", reply(200))
    assert relay({"url": target.url("/start")}, policy=policy(tmp_path))["statusCode"] == 200
    assert target.last.get("Cookie") == "sid=42"
    assert relay({"url": target.url("/end")}, policy=policy(tmp_path))["statusCode"] == 200
    assert target.last.get("Cookie") is None


def test_cookies_of_a_proxys_challenge_are_not_the_targets(relay: Relay, target: ByteTarget, tmp_path: Path) -> None:
    def handle(conn: Connection, request: RawRequest) -> None:
        challenge = reply(407, [("Proxy-Authenticate", CHALLENGE[1]), ("Set-Cookie", "sid=42; Path=/")])
        (reply(200) if request.get("Proxy-Authorization") else challenge)(conn, request)

    target.on("*", handle)
    rules = policy(tmp_path, key="proxy_auth")
    assert relay({"url": "http://dev.lab.example/"}, proxy=target.url().rstrip("/"), policy=rules)["statusCode"] == 200
    assert [request.get("Cookie") for request in target.requests] == [None, None]


class Impatient(ByteTarget):
    """Asks for credentials as soon as it has read a head without them, and reads no body then."""

    def serve(self, conn: Connection) -> None:
        head = conn.read_head()
        assert head is not None
        length = int(RawRequest(head).get("Content-Length") or 0)
        if RawRequest(head).get("Authorization") is None:
            conn.respond(401, [CHALLENGE, ("Connection", "close")], b"who are you?")
            return
        conn.respond(200, body=hashlib.sha256(conn.read_exactly(length)).hexdigest().encode())


def test_a_challenge_before_the_end_of_a_large_body_is_answered_on_a_new_connection(relay: Relay, tmp_path: Path) -> None:
    body = "x" * 4_000_000
    with Impatient() as target:
        answer = relay({"method": "POST", "url": target.url(), "body": body}, policy=policy(tmp_path))
        assert (answer["statusCode"], answer["body"]) == (200, hashlib.sha256(body.encode()).hexdigest())
        assert target.connections == 2


class Leaving(ByteTarget):
    """Asks for credentials, and gives the connection up as soon as the next request comes on it."""

    def __init__(self, challenge: tuple[str, str], how: str) -> None:
        super().__init__()
        self.challenge = challenge
        self.how = how

    def serve(self, conn: Connection) -> None:
        head = conn.read_head()
        assert head is not None
        request = RawRequest(head)
        body = conn.read_exactly(int(request.get("Content-Length") or 0))
        if request.get("Authorization") or request.get("Proxy-Authorization"):
            conn.respond(200, body=request.method.encode() + body)
            return
        conn.respond(401 if self.challenge[0] == "WWW-Authenticate" else 407, [self.challenge])
        getattr(conn, self.how)()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("by_proxy", [False, True])
def test_a_peer_that_gives_up_the_connection_of_its_challenge_unannounced_loses_no_command(
    relay: Relay, tmp_path: Path, method: str, how: str, by_proxy: bool
) -> None:
    payload = {"method": method, "url": "http://dev.lab.example/", "body": "hi"}
    with Leaving(("Proxy-Authenticate" if by_proxy else CHALLENGE[0], CHALLENGE[1]), how) as peer:
        if by_proxy:
            answer = relay(payload, proxy=peer.url().rstrip("/"), policy=policy(tmp_path, key="proxy_auth"))
        else:
            answer = relay({**payload, "url": peer.url()}, policy=policy(tmp_path))
        assert (answer.get("statusCode"), answer.get("body")) == (200, f"{method}hi"), answer
        assert peer.connections == 2
