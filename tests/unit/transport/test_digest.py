"""Digest (RFC 7616): the examples of the RFC, and requests' own as a second opinion."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import SecretStr
from requests.auth import HTTPDigestAuth

from relay_agent.transport.authentication import Call
from relay_agent.transport.challenges import Challenge, parse_challenges
from relay_agent.transport.digest import Digest, _Session

RFC = {
    "realm": "http-auth@example.org",
    "qop": "auth, auth-int",
    "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
}
CALL = Call("GET", "/dir/index.html", "dev.lab.example", 80)


def parameters(value: str) -> dict[str, str]:
    scheme, _, rest = value.partition(" ")
    assert scheme == "Digest"
    return {name: quoted or plain for name, quoted, plain in re.findall(r'([\w*]+)=(?:"((?:[^"\\]|\\.)*)"|([^, ]+))', rest)}


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [("MD5", "8ca523f5e9506fed4657c9700eebdbec"), ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1")],
)
def test_the_examples_of_rfc_7616(algorithm: str, response: str) -> None:
    challenge = Challenge("digest", "", {**RFC, "algorithm": algorithm})
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    session = _Session(Digest("Mufasa", SecretStr("Circle of Life")), challenge, lambda: cnonce)
    sent = parameters(session.authorization("GET", "/dir/index.html"))
    assert sent == {
        **{name: RFC[name] for name in ("realm", "nonce", "opaque")},
        "username": "Mufasa",
        "uri": "/dir/index.html",
        "algorithm": algorithm,
        "qop": "auth",
        "nc": "00000001",
        "cnonce": cnonce,
        "response": response,
    }


@pytest.mark.parametrize("algorithm", [None, "MD5", "MD5-SESS", "SHA-256"])
@pytest.mark.parametrize("qop", [None, "auth", "auth,auth-int"])
def test_requests_computes_the_same(algorithm: str | None, qop: str | None) -> None:
    given = {"realm": "r", "nonce": "n", "opaque": "o"}
    given |= {} if algorithm is None else {"algorithm": algorithm}
    given |= {} if qop is None else {"qop": qop}
    theirs: Any = HTTPDigestAuth("agent", "p:w")
    theirs.init_per_thread_state()
    theirs._thread_local.chal = given
    value = theirs.build_digest_header("PUT", "http://dev.lab.example/a?b=c")
    if algorithm == "MD5-SESS" and qop is None:
        return  # requests does not tell the server its cnonce, without which that cannot check the response.
    cnonce = parameters(value).get("cnonce", "")
    session = _Session(Digest("agent", SecretStr("p:w")), Challenge("digest", "", given), lambda: cnonce)
    assert parameters(session.authorization("PUT", "/a?b=c"))["response"] == parameters(value)["response"]


def test_a_user_may_be_hashed_or_beyond_ascii() -> None:
    def sent(more: dict[str, str]) -> dict[str, str]:
        session = _Session(
            Digest("Jäsøn Doe", SecretStr("Secret, or not?")), Challenge("digest", "", {"realm": "api@example.org", "nonce": "n", **more})
        )
        return parameters(session.authorization("GET", "/"))

    assert sent({})["username"] == "Jäsøn Doe".encode().decode("latin-1")
    assert sent({"charset": "UTF-8"})["username*"] == "UTF-8''J%C3%A4s%C3%B8n%20Doe"
    hashed = sent({"charset": "UTF-8", "userhash": "true", "algorithm": "SHA-256"})
    assert (hashed["username"], hashed["userhash"]) == ("5a1a8a47df5c298551b9b42ba9b05835174a5bd7d511ff7fe9191d8e946fc4e7", "true")


def test_quotation_marks_are_escaped() -> None:
    session = _Session(Digest('a"b\\', SecretStr("p")), Challenge("digest", "", {"realm": 'r"', "nonce": "n"}))
    assert 'username="a\\"b\\\\", realm="r\\"", nonce="n"' in session.authorization("GET", "/")


def test_credentials_show_no_password_and_are_equal_by_what_they_say() -> None:
    one, other = Digest("agent", SecretStr("secret")), Digest("agent", SecretStr("secret"))
    assert (one, hash(one)) == (other, hash(other))
    assert one != Digest("agent", SecretStr("other"))
    assert "secret" not in repr(one)


def test_the_first_challenge_that_can_be_answered_is_taken() -> None:
    offers = parse_challenges(
        [
            'Digest realm="r", nonce="1", algorithm=SHA-512-256',
            'Digest realm="r", nonce="2", algorithm=SHA-256',
            'Digest realm="r", nonce="3"',
        ]
    )
    handshake = Digest("agent", SecretStr("p")).handshake(CALL)
    assert handshake.authorization() is None
    assert handshake.challenged(offers)
    assert parameters(handshake.authorization() or "")["nonce"] == "2"
    assert not handshake.challenged(offers)


def test_a_nonce_serves_one_host_and_is_forgotten_once_it_is_refused() -> None:
    credentials = Digest("agent", SecretStr("p"))
    offer = [Challenge("digest", "", {"realm": "r", "nonce": "n", "qop": "auth"})]
    credentials.handshake(CALL).challenged(offer)
    assert credentials.handshake(Call("GET", "/", "other.lab.example", 80)).authorization() is None
    later = credentials.handshake(CALL)
    assert parameters(later.authorization() or "")["nc"] == "00000001"
    assert later.challenged(offer)
    assert not later.challenged(offer)
    assert credentials.handshake(CALL).authorization() is None


def test_what_is_remembered_is_bounded() -> None:
    credentials = Digest("agent", SecretStr("p"))
    for port in range(1, 1000):
        credentials.handshake(Call("GET", "/", "h", port)).challenged([Challenge("digest", "", {"realm": "r", "nonce": "n"})])
    assert len(credentials.remembered._sessions) <= 256
