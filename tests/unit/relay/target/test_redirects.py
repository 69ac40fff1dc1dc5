"""Where a redirect leads, and what of a request goes with it (RFC 9110 §15.4; docs/protocol.md, "Redirects")."""

from __future__ import annotations

import pytest

from relay_agent.core.failures import Code
from relay_agent.core.models import Headers
from relay_agent.core.urls import parse_url
from relay_agent.relay.target.cookies import Cookies
from relay_agent.relay.target.redirects import (
    ACROSS_ORIGINS,
    ACROSS_WITH_BODY,
    BODY_HEADERS,
    Hop,
    cookie_host,
    field_values,
    next_hop,
    redirect_location,
    with_cookies,
)
from relay_agent.transport.errors import TransportFault

BASE = "http://dev.lab.example/a/b?q=1"
SECRET: Headers = (("X-Api-Key", "canary"), ("Authorization", "Basic canary"), ("Cookie", "a=canary"))


def hop(url: str = BASE, method: str = "GET", headers: Headers = (), body: bytes | None = None) -> Hop:
    return Hop(parse_url(url), method, headers, body)


def named(headers: Headers) -> set[str]:
    return {name.lower() for name, _ in headers}


# --- whether it is one ---


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_these_statuses_redirect_to_their_first_location(status: int) -> None:
    assert redirect_location(status, (("X", "1"), ("LOCATION", "/b"), ("Location", "/c"))) == "/b"


@pytest.mark.parametrize("status", [200, 201, 300, 304, 305, 306, 400])
def test_no_other_status_redirects(status: int) -> None:
    assert redirect_location(status, (("Location", "/b"),)) is None


@pytest.mark.parametrize("headers", [(), (("Location", ""),), (("Content-Location", "/b"),)])
def test_without_a_location_there_is_no_redirect(headers: Headers) -> None:
    assert redirect_location(302, headers) is None


# --- where it leads ---


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/x", "http://dev.lab.example/x"),
        ("c?r=2#part", "http://dev.lab.example/a/c?r=2"),
        ("//other.lab.example/x", "http://other.lab.example/x"),
        ("https://other.lab.example:8443/x", "https://other.lab.example:8443/x"),
        ("/\u00c3\u00a4", "http://dev.lab.example/%C3%A4"),
        ("/\u00e4", "http://dev.lab.example/%E4"),
    ],
    ids=["path", "relative", "scheme kept", "absolute", "UTF-8 bytes", "other bytes"],
)
def test_a_location_is_resolved_against_the_url_that_gave_it(location: str, url: str) -> None:
    assert str(next_hop(hop(), 302, location).url) == url


@pytest.mark.parametrize("location", ["ftp://dev.lab.example/", "http://", "http://dev.lab.example:99999/"])
def test_a_location_that_cannot_be_called_is_a_bad_response(location: str) -> None:
    with pytest.raises(TransportFault) as caught:
        next_hop(hop(), 302, location)
    assert caught.value.code is Code.EBADRESPONSE


def test_a_location_of_64_kib_is_followed() -> None:
    location = "/" + "x" * 65_500
    assert next_hop(hop(), 302, location).url.target == location


@pytest.mark.parametrize(
    ("url", "location"),
    [(BASE, "/" + "x" * 65_536), (BASE, "/" + "\u00e4" * 30_000), (f"http://dev.lab.example/{'x' * 40_000}/", "y" * 30_000)],
    ids=["by itself", "encoded", "together with the path it is relative to"],
)
def test_a_longer_location_is_a_bad_response(url: str, location: str) -> None:
    with pytest.raises(TransportFault, match="redirects to something that is longer than 65,536 characters") as caught:
        next_hop(hop(url), 302, location)
    assert caught.value.code is Code.EBADRESPONSE


# --- the method and the body ---


@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"),
        (302, "DELETE", "DELETE"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
def test_a_method_that_becomes_get_loses_its_body_and_every_other_keeps_it(status: int, method: str, becomes: str) -> None:
    found = next_hop(hop(method=method, body=b"x"), status, "/n")
    assert (found.method, found.body) == (becomes, None if becomes == "GET" else b"x")


def test_the_fields_that_describe_a_body_go_with_it() -> None:
    headers = (("Accept", "*/*"), *((name.title(), "x") for name in sorted(BODY_HEADERS)))
    assert named(next_hop(hop(method="POST", headers=headers, body=b"x"), 303, "/n").headers) == {"accept"}
    assert next_hop(hop(method="POST", headers=headers, body=b"x"), 307, "/n").headers == headers


def test_a_get_that_stays_a_get_keeps_all_its_fields() -> None:
    headers = (("Content-Type", "text/plain"), *SECRET)
    assert next_hop(hop(headers=headers), 302, "/n").headers == headers


# --- secrets ---


@pytest.mark.parametrize(
    ("before", "location", "kept"),
    [
        (BASE, "/n", True),
        (BASE, "http://DEV.lab.example:80/n", True),
        (BASE, "https://dev.lab.example/n", True),
        ("https://dev.lab.example/", "http://dev.lab.example/n", False),
        ("http://dev.lab.example:8080/", "https://dev.lab.example/n", False),
        (BASE, "https://dev.lab.example:8443/n", False),
        (BASE, "http://dev.lab.example:81/n", False),
        (BASE, "http://other.lab.example/n", False),
        (BASE, "https://other.lab.example/n", False),
    ],
    ids=["path", "spelled out", "upgraded", "downgraded", "upgraded from a port", "upgraded to a port", "port", "host", "host, upgraded"],
)
def test_only_the_same_origin_or_its_upgrade_to_https_gets_the_secrets(before: str, location: str, kept: bool) -> None:
    found = next_hop(hop(before, headers=(*SECRET, ("Accept", "*/*"))), 307, location)
    assert named(found.headers) == (named(SECRET) | {"accept"} if kept else {"accept"})


@pytest.mark.parametrize(("location", "kept"), [("/n", True), ("http://dev.lab.example/n", True), ("http://other.lab.example/n", False)])
def test_the_user_info_of_the_url_follows_only_to_the_same_origin(location: str, kept: bool) -> None:
    first = hop("http://u:canary@dev.lab.example/")
    assert first.url.authorization is not None
    assert next_hop(first, 302, location).url.authorization == (first.url.authorization if kept else None)


def test_the_user_info_of_a_location_replaces_that_of_the_url() -> None:
    first = hop("http://u:canary@dev.lab.example/")
    found = next_hop(first, 302, "http://v:other@dev.lab.example/n").url.authorization
    assert found == parse_url("http://v:other@dev.lab.example/n").authorization != first.url.authorization


def test_another_origin_gets_the_fields_of_a_body_only_together_with_the_body() -> None:
    headers = tuple((name, "x") for name in sorted(ACROSS_ORIGINS | ACROSS_WITH_BODY))
    other = "http://other.lab.example/n"
    assert named(next_hop(hop(method="POST", headers=headers, body=b"x"), 307, other).headers) == ACROSS_ORIGINS | ACROSS_WITH_BODY
    assert named(next_hop(hop(headers=headers), 307, other).headers) == ACROSS_ORIGINS


# --- cookies ---


def jar(*cookies: str, host: str = "dev.lab.example") -> Cookies:
    made = Cookies()
    made.store(list(cookies), host, "/")
    return made


def test_without_a_cookie_of_a_redirect_the_fields_are_unchanged() -> None:
    headers = (("Cookie", "a=1"), ("X", "1"))
    assert with_cookies(hop(headers=headers), Cookies()) is headers


def test_a_redirect_s_cookies_join_the_command_s_own_in_one_field_and_replace_those_of_the_same_name() -> None:
    headers = (("cookie", "a=1; b=2;"), ("X", "1"), ("Cookie", "c=3"))
    assert with_cookies(hop(headers=headers), jar("b=new", "d=4")) == (("X", "1"), ("Cookie", "a=1; c=3; b=new; d=4"))


def test_a_secure_cookie_is_sent_over_https_only() -> None:
    secure = jar("s=1; Secure", "p=2")
    assert field_values(with_cookies(hop("https://dev.lab.example/"), secure), "cookie") == ["s=1; p=2"]
    assert field_values(with_cookies(hop("http://dev.lab.example/"), secure), "cookie") == ["p=2"]


@pytest.mark.parametrize(
    ("headers", "host"),
    [
        ((), "dev.lab.example"),
        ((("HOST", "Named.lab.example:8080"),), "named.lab.example"),
        ((("Host", "one.lab.example"), ("Host", "two.lab.example")), "one.lab.example"),
        ((("Host", "not a host"),), "dev.lab.example"),
    ],
    ids=["the URL's", "the field's", "the first field's", "the URL's, since the field is none"],
)
def test_cookies_belong_to_the_host_that_the_request_names(headers: Headers, host: str) -> None:
    assert cookie_host(hop(headers=headers)) == host
    assert field_values(with_cookies(hop(headers=headers), jar("a=1", host=host)), "cookie") == ["a=1"]


def test_neither_headers_nor_body_are_in_the_repr_of_a_hop() -> None:
    assert "canary" not in repr(Hop(parse_url("http://h/"), "POST", (("X-Key", "canary"),), b"canary"))
