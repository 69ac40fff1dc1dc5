"""The table of a `LocalAgent`: how a request finds its answer there, and what may be one."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from relay_agent.pipelines import Keyring, relay_session
from relay_agent.pipelines.testing import LocalAgent
from tests.sender_side import RING

API = "https://lims.lab.example/api"
ADDRESSES = [
    ("https://l.example", "https://l.example/"),
    ("https://l.example:443/x", "https://l.example/x"),
    ("https://l.example/x", "https://L.example:443/x#part"),
    ("HTTP://L.Example:80/y", "http://l.example/y"),
    ("http://l.example:8080/y", "http://l.example:8080/y"),
    ("get https://l.example/x", "https://l.example/x"),
    ("GET https://l.example", "https://l.example"),
    ("https://l.example/ä b", "https://l.example/%C3%A4%20b"),
    ("https://bücher.example/", "https://xn--bcher-kva.example/"),
    ("http://[::1]:80/x", "http://[::1]/x"),
    ("https://l.example?q=1", "https://l.example/?q=1"),
]


@pytest.mark.parametrize("name, url", ADDRESSES)
def test_every_way_to_write_an_address_finds_its_answer(name: str, url: str) -> None:
    with relay_session(LocalAgent(answers={name: (200, "found")})) as session:
        assert session.get(url).text == "found"
        with pytest.raises(requests.ConnectionError, match="the table of answers has none"):
            session.get("https://l.example:444/x")


RESPONSES = [
    (204, 204, b""),
    ((204, None), 204, b""),
    ((200, None), 200, b""),
    ((503,), 503, b""),
    ((200, ""), 200, b""),
    ((200, []), 200, b"[]"),
    ((200, bytearray(b"\xff")), 200, b"\xff"),
    ((200, memoryview(b"\xff")), 200, b"\xff"),
]
FAILS: list[tuple[Any, type[Exception], str]] = [
    ("ECONNREFUSED", requests.ConnectionError, r"^ECONNREFUSED: the table of answers says so"),
    ("ETIMEDOUT", requests.ReadTimeout, r"^ETIMEDOUT: "),
    (("ETIMEDOUT", "connect to 10.1.2.3:443 took longer than 3 s"), requests.ConnectTimeout, r"^ETIMEDOUT: connect to 10\.1\.2\.3"),
    ("EEXPIRED", requests.ConnectTimeout, r"^EEXPIRED: "),
    ("EPOLICY", requests.RequestException, r"^EPOLICY: "),
    (lambda _payload: "CERT_HAS_EXPIRED", requests.exceptions.SSLError, r"^CERT_HAS_EXPIRED: "),
    ("EXPIRED", requests.ReadTimeout, r"^EXPIRED: the agent did not answer"),
    ("UNSENT", requests.ConnectionError, r"^UNSENT: "),
]


@pytest.mark.parametrize("keyring", [None, RING], ids=["plain", "secure"])
def test_a_table_can_say_that_a_request_has_no_body_or_fails(keyring: Keyring | None) -> None:
    answers: dict[str, Any] = {}
    with relay_session(LocalAgent(answers=answers), keyring=keyring) as session:
        for answers[API], status, content in RESPONSES:
            found = session.get(API)
            assert (found.status_code, found.content) == (status, content)
        for answers[API], kind, words in FAILS:
            with pytest.raises(kind, match=words):
                session.get(API)


@pytest.mark.parametrize("wrong", ["ENONSENSE", "hello", None, (), ("200", "x"), (True, "x"), (99, "x"), (200, "x", {}, 1), {"id": 1}])
def test_what_is_no_answer_is_said(wrong: Any) -> None:
    with relay_session(LocalAgent(answers={API: wrong})) as session, pytest.raises(ValueError, match=r"lims.* is none of these: a status"):
        session.get(API)


def test_headers_may_be_pairs_with_a_name_repeated_and_head_has_no_body() -> None:
    fields = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("content-type", "text/x")]
    with relay_session(LocalAgent(answers={API: (200, {"id": 1}, fields)})) as session:
        assert session.get(API).json() == {"id": 1} and session.cookies.get_dict() == {"a": "1", "b": "2"}
        head = session.head(API)
    assert (head.content, head.headers["Content-Type"]) == (b"", "text/x")
