"""Who may ask for credentials, which field carries the answer, and what a request that only opens a handshake leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from relay_agent.transport.authentication import Call
from relay_agent.transport.challenges import Challenge
from relay_agent.transport.proxy import parse_proxy
from relay_agent.transport.sides import Side, Sides, certificate_of
from tests.unit.transport.fake_socket import exchange

PROXY = parse_proxy("http://proxy.lab.example:3128")
ASKS_401 = (("WWW-Authenticate", "Fake a=1"),)
ASKS_407 = (("Proxy-Authenticate", "Fake a=1"),)


class Fake:
    """Credentials whose handshake accepts every challenge, and remembers what it was told."""

    scheme, user = "fake", "agent"

    def __init__(self, *, per_connection: bool = False, opening: bool = False) -> None:
        self.per_connection = per_connection
        self.opening = opening
        self.bound = per_connection
        self.calls: list[Call] = []
        self.certificates: list[bytes | None] = []
        self.challenges: list[Sequence[Challenge]] = []

    def handshake(self, call: Call) -> Any:
        self.calls.append(call)
        return self

    def connected(self, certificate: bytes | None) -> None:
        self.certificates.append(certificate)

    def challenged(self, challenges: Sequence[Challenge]) -> bool:
        self.challenges.append(list(challenges))
        return bool(self.challenges[-1])

    def authorization(self) -> str | None:
        return f"Fake {len(self.challenges)}" if self.challenges else None


def sides(auth: Fake | None = None, proxy_auth: Fake | None = None, url: str = "http://dev.lab.example/a", **more: Any) -> Sides:
    return Sides(exchange(url, auth=auth, proxy_auth=proxy_auth, **more))


def test_a_target_asks_by_401_and_a_proxy_by_407() -> None:
    target, proxy = Fake(), Fake()
    asked = sides(target, proxy, proxy=PROXY)
    for status, fields, who in ((401, ASKS_401, target), (407, ASKS_407, proxy)):
        side = asked.asking(status, fields)
        assert side is not None
        assert (side.credentials, side.proxy) == (who, who is proxy)
    assert asked.asking(401, ASKS_407) is None, "a challenge in the other's field is none"
    assert asked.asking(403, ASKS_401) is None
    assert asked.asking(200, ASKS_401) is None


def test_nobody_is_answered_without_credentials_for_it() -> None:
    assert sides().asking(401, ASKS_401) is None
    assert sides(Fake()).asking(407, ASKS_407) is None


def test_the_proxy_of_a_tunnel_does_not_ask_within_the_exchange() -> None:
    asked = sides(None, Fake(), url="https://dev.lab.example/a", proxy=PROXY)
    assert asked.asking(407, ASKS_407) is None


@pytest.mark.parametrize(
    "fields, answered",
    [((), False), ((("Proxy-Support", "Session-Based-Authentication"),), True), ((("Proxy-Support", "other"),), False)],
)
def test_a_scheme_of_connections_is_used_through_a_proxy_only_if_that_keeps_sessions_apart(fields: Any, answered: bool) -> None:
    assert (sides(Fake(per_connection=True), proxy=PROXY).asking(401, (*ASKS_401, *fields)) is not None) == answered
    assert sides(Fake(), proxy=PROXY).asking(401, (*ASKS_401, *fields)) is not None
    assert sides(Fake(per_connection=True)).asking(401, ASKS_401) is not None
    assert sides(None, Fake(per_connection=True), proxy=PROXY).asking(407, ASKS_407) is not None, "the proxy itself may ask"


def test_each_side_s_credentials_replace_the_request_s_own_and_only_once_they_were_asked_for() -> None:
    given = (("Authorization", "Basic own"), ("proxy-authorization", "Basic own"), ("X-A", "b"))
    asked = sides(Fake(), Fake(), headers=given, proxy=PROXY)
    assert asked.next_request().headers == (("X-A", "b"),)
    asked.asking(401, ASKS_401)
    asked.asking(407, ASKS_407)
    assert asked.next_request().headers == (("X-A", "b"), ("Proxy-Authorization", "Fake 1"), ("Authorization", "Fake 1"))


def test_renewed_fields_replace_the_exchanges_own_and_credentials_are_added_to_them() -> None:
    asked = sides(Fake(), headers=(("X-A", "b"),))
    asked.asking(401, ASKS_401)
    asked.renew((*asked.headers, ("Cookie", "a=1")))
    assert asked.next_request().headers == (("X-A", "b"), ("Cookie", "a=1"), ("Authorization", "Fake 1"))
    assert asked.headers == (("X-A", "b"), ("Cookie", "a=1"))


def test_a_request_that_only_opens_a_handshake_has_no_body_and_may_be_repeated() -> None:
    given = (("Content-Length", "4"), ("Connection", "close"), ("Expect", "100-continue"), ("X-A", "b"))
    opened = sides(Fake(opening=True), method="POST", headers=given, body=b"body").next_request()
    assert (opened.body, opened.repeatable) == (None, True)
    assert opened.headers == (("Content-Length", "0"), ("X-A", "b"))
    whole = sides(Fake(), method="POST", headers=given, body=b"body").next_request()
    assert (whole.body, whole.headers, whole.repeatable) == (b"body", given, False)


def test_each_handshake_knows_the_target_of_its_own_request_line() -> None:
    target, proxy = Fake(), Fake()
    sides(target, proxy, url="http://dev.lab.example:8080/a?b=c", proxy=PROXY)
    assert target.calls == [Call("GET", "/a?b=c", "dev.lab.example", 8080)]
    assert proxy.calls == [Call("GET", "http://dev.lab.example:8080/a?b=c", "proxy.lab.example", 3128)]


class Session:
    """A TLS session, as far as its peer's certificate."""

    def __init__(self, der: bytes | None = b"der") -> None:
        self.der = der

    def getpeercert(self, _binary: bool) -> bytes | None:
        return self.der


@pytest.mark.parametrize(
    "url, proxy, to_target, to_proxy",
    [
        ("http://dev.lab.example/a", PROXY, None, None),
        ("http://dev.lab.example/a", parse_proxy("https://proxy.lab.example:3128"), None, b"der"),
    ],
)
def test_each_handshake_is_bound_to_the_certificate_of_its_own_peer(
    url: str, proxy: Any, to_target: bytes | None, to_proxy: bytes | None
) -> None:
    target, at_proxy = Fake(), Fake()
    sides(target, at_proxy, url=url, proxy=proxy).connected(Session())
    assert (target.certificates, at_proxy.certificates) == ([to_target], [to_proxy])


def test_a_connection_without_tls_or_without_a_certificate_binds_nothing() -> None:
    assert certificate_of(Session(), "https") == b"der"
    assert certificate_of(Session(b""), "https") is None
    assert certificate_of(object(), "http") is None


def test_a_side_says_what_its_handshake_says() -> None:
    fake = Fake(per_connection=True, opening=True)
    side = Side(fake, Call("GET", "/", "h", 80))
    assert (side.bound, side.opening, side.authorization()) == (True, True, ())
