"""Cookies of one command, step by step as RFC 6265 §5 has them, and bounded."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.relay.target import cookies
from relay_agent.relay.target.cookies import Cookies, SetCookie, default_path, domain_matches, parse, parse_date, path_matches

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
HOST = "www.lab.example"


def kept(*fields: str, host: str = HOST, target: str = "/a/b") -> Cookies:
    jar = Cookies(lambda: NOW)
    jar.store(fields, host, target)
    return jar


def sent(jar: Cookies, host: str = HOST, target: str = "/a/b", *, secure: bool = False) -> str:
    return "; ".join("=".join(pair) for pair in jar.for_request(host, target, secure=secure))


# --- §5.1.1 dates ---


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", (1994, 11, 6, 8, 49, 37)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", (1994, 11, 6, 8, 49, 37)),
        ("Sun Nov  6 08:49:37 1994", (1994, 11, 6, 8, 49, 37)),
        ("06 Nov 1994 08:49:37", (1994, 11, 6, 8, 49, 37)),
        ("08:49:37 06 Nov 1994", (1994, 11, 6, 8, 49, 37)),
        ("1994 6 November 8:49:37", (1994, 11, 6, 8, 49, 37)),
        ("Nov 6 1994 8:4:7", (1994, 11, 6, 8, 4, 7)),
        ("nOVEMBER 6th, 1994, 08:49:37.5", (1994, 11, 6, 8, 49, 37)),
        ("Wed, 01 Jan 70 00:00:00 GMT", (1970, 1, 1, 0, 0, 0)),
        ("Wed, 01 Jan 69 00:00:00 GMT", (2069, 1, 1, 0, 0, 0)),
        ("Wed, 01 Jan 99 00:00:00 GMT", (1999, 1, 1, 0, 0, 0)),
        ("Wed, 01 Jan 00 00:00:00 GMT", (2000, 1, 1, 0, 0, 0)),
        ("Thu, 29 Feb 2024 00:00:00 GMT", (2024, 2, 29, 0, 0, 0)),
        ("Thu, 29 Feb 2023 00:00:00 GMT", None),
        ("Wed, 32 Jan 2031 00:00:00 GMT", None),
        ("Wed, 00 Jan 2031 00:00:00 GMT", None),
        ("Wed, 01 Jan 1600 00:00:00 GMT", None),
        ("Wed, 01 Jan 1601 00:00:00 GMT", (1601, 1, 1, 0, 0, 0)),
        ("Wed, 01 Jan 2031 24:00:00 GMT", None),
        ("Wed, 01 Jan 2031 00:60:00 GMT", None),
        ("Wed, 01 Jan 2031 00:00:60 GMT", None),
        ("Wed, 01 Jan 2031 00:00 GMT", None),
        ("Wed, 01 Foo 2031 00:00:00 GMT", None),
        ("Wed, 01 Jan 00:00:00 GMT", None),
        ("Wed, 01 Jan 12345 00:00:00 GMT", None),
        ("Jan 2031 00:00:00", None),
        ("", None),
        ("\xff\xb2", None),
    ],
)
def test_a_date_is_read_token_by_token(text: str, moment: tuple[int, ...] | None) -> None:
    year, month, day, hour, minute, second = moment or (1, 1, 1, 0, 0, 0)
    expected = None if moment is None else datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    assert parse_date(text) == expected


# --- §5.1.3 domains, §5.1.4 paths ---


@pytest.mark.parametrize(
    ("host", "domain", "matches"),
    [
        ("lab.example", "lab.example", True),
        ("www.lab.example", "lab.example", True),
        ("a.b.lab.example", "lab.example", True),
        ("lab.example", "www.lab.example", False),
        ("badlab.example", "lab.example", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.1", False),
        ("::1", "::1", True),
        ("localhost", "localhost", True),
    ],
)
def test_a_host_lies_within_a_domain_by_whole_labels(host: str, domain: str, matches: bool) -> None:
    assert domain_matches(host, domain) is matches


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/a", "/"),
        ("/a/", "/a"),
        ("/a/b", "/a"),
        ("/a/b/", "/a/b"),
        ("/a/b?x=/y/z", "/a"),
        ("?x=/y", "/"),
        ("", "/"),
        ("*", "/"),
    ],
)
def test_the_default_path_is_the_directory_of_what_was_asked_for(target: str, path: str) -> None:
    assert default_path(target) == path


@pytest.mark.parametrize(
    ("path", "cookie_path", "matches"),
    [
        ("/a", "/a", True),
        ("/a/", "/a", True),
        ("/a/b", "/a", True),
        ("/a/b", "/a/", True),
        ("/a", "/a/", False),
        ("/ab", "/a", False),
        ("/", "/a", False),
        ("/A", "/a", False),
        ("/anything", "/", True),
    ],
)
def test_a_path_lies_within_a_cookies_by_whole_segments(path: str, cookie_path: str, matches: bool) -> None:
    assert path_matches(path, cookie_path) is matches


# --- §5.2 the field ---


@pytest.mark.parametrize(
    ("field", "parsed"),
    [
        ("a=1", SetCookie("a", "1")),
        (" a = 1 ; Path=/", SetCookie("a", "1", path="/")),
        ("a=", SetCookie("a", "")),
        ("a=b=c", SetCookie("a", "b=c")),
        ('a="1; x"', SetCookie("a", '"1')),
        ("a b=c d", SetCookie("a b", "c d")),
        ("a=1; unknown; =; ;;", SetCookie("a", "1")),
        ("a=\xe9", SetCookie("a", "\xe9")),
        ("=1", None),
        ("a", None),
        ("", None),
        (";a=1", None),
        ("; Path=/", None),
        ("a=1; Secure", SetCookie("a", "1", secure=True)),
        ("a=1; sEcUrE=no; HttpOnly; SameSite=Lax", SetCookie("a", "1", secure=True)),
        ("a=1; Domain=.Lab.Example", SetCookie("a", "1", domain="lab.example")),
        ("a=1; Domain=x.example; Domain=lab.example", SetCookie("a", "1", domain="lab.example")),
        ("a=1; Domain=lab.example; Domain=", SetCookie("a", "1", domain="lab.example")),
        ("a=1; Domain=lab.example; Domain=.", SetCookie("a", "1")),
        ("a=1; Path=/x; Path=/y", SetCookie("a", "1", path="/y")),
        ("a=1; Path=/x; Path=y", SetCookie("a", "1")),
        ("a=1; Path=/x; Path", SetCookie("a", "1")),
        ("a=1; Path=/x=y", SetCookie("a", "1", path="/x=y")),
        ("a=1; Max-Age=5; Max-Age=x", SetCookie("a", "1", max_age=5)),
        ("a=1; Max-Age=5; Max-Age=-7", SetCookie("a", "1", max_age=-7)),
        ("a=1; Max-Age=+5", SetCookie("a", "1")),
        ("a=1; Max-Age=1.5", SetCookie("a", "1")),
        ("a=1; Max-Age=-", SetCookie("a", "1")),
        ("a=1; Max-Age=", SetCookie("a", "1")),
        ("a=1; Max-Age=" + "9" * 900, SetCookie("a", "1", max_age=float("inf"))),
        ("a=1; Expires=Thu, 01 Jan 1970 00:00:05 GMT; Expires=soon", SetCookie("a", "1", expires_at=5)),
        ("a=1\x01", None),
        ("a=1; Path=/\x7f", None),
        ("a=1;\tPath=/x\t", SetCookie("a", "1", path="/x")),
    ],
)
def test_a_field_is_parsed_part_by_part(field: str, parsed: SetCookie | None) -> None:
    assert parse(field) == parsed


@given(st.text(st.characters(max_codepoint=255), max_size=80) | st.text(st.sampled_from("a=;, \t-/.1Path"), max_size=60))
def test_any_field_is_a_cookie_or_none(field: str) -> None:
    jar = kept(field, f"b=1;{field}")
    assert all("\n" not in value and ";" not in value for pair in jar.for_request(HOST, "/a/b", secure=True) for value in pair)


# --- §5.3 keeping ---


@pytest.mark.parametrize(
    ("attributes", "host", "goes_to"),
    [
        ("", "lab.example", {"lab.example"}),
        ("; Domain=lab.example", "lab.example", {"lab.example"}),
        ("; Domain=lab.example", "www.lab.example", {"lab.example", "www.lab.example", "x.www.lab.example"}),
        ("; Domain=.LAB.example", "www.lab.example", {"lab.example", "www.lab.example", "x.www.lab.example"}),
        ("; Domain=www.lab.example", "lab.example", set()),
        ("; Domain=other.example", "lab.example", set()),
        ("; Domain=example", "lab.example", set()),
        ("; Domain=ab.example", "lab.example", set()),
        ("; Domain=", "lab.example", {"lab.example"}),
        ("", "localhost", {"localhost"}),
        ("; Domain=localhost", "localhost", {"localhost"}),
        ("; Domain=.localhost", "localhost", {"localhost"}),
        ("; Domain=localhost", "x.localhost", set()),
        ("; Domain=127.0.0.1", "127.0.0.1", {"127.0.0.1"}),
        ("; Domain=0.0.1", "127.0.0.1", set()),
        ("", "::1", {"::1"}),
    ],
)
def test_a_cookie_goes_to_its_host_or_domain(attributes: str, host: str, goes_to: set[str]) -> None:
    jar = kept(f"a=1{attributes}", host=host)
    hosts = ("lab.example", "www.lab.example", "x.www.lab.example", "other.example", "localhost", "x.localhost", "127.0.0.1", "::1")
    assert {other for other in hosts if sent(jar, other)} == goes_to


@pytest.mark.parametrize(
    ("attributes", "lives"),
    [
        ("", True),
        ("; Max-Age=1", True),
        ("; Max-Age=0", False),
        ("; Max-Age=-1", False),
        ("; Max-Age=x", True),
        ("; Expires=Sun, 01 Mar 2026 12:00:01 GMT", True),
        ("; Expires=Sun, 01 Mar 2026 12:00:00 GMT", False),
        ("; Expires=Thu, 01 Jan 1970 00:00:00 GMT", False),
        ("; Expires=soon", True),
        ("; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=5", True),
        ("; Max-Age=5; Expires=Thu, 01 Jan 1970 00:00:00 GMT", True),
        ("; Max-Age=0; Expires=Thu, 01 Jan 2031 00:00:00 GMT", False),
    ],
)
def test_a_cookie_lives_until_its_end(attributes: str, lives: bool) -> None:
    assert sent(kept(f"a=1{attributes}")) == ("a=1" if lives else "")


def test_a_cookie_ends_while_the_command_goes_on() -> None:
    times = [NOW]
    jar = Cookies(lambda: times[0])
    jar.store(["a=1; Max-Age=10", "b=2"], HOST, "/")
    times[0] = NOW + 9.9
    assert sent(jar) == "a=1; b=2"
    times[0] = NOW + 10
    assert sent(jar) == "b=2"


def test_a_cookie_that_is_set_and_ended_in_one_answer_is_gone() -> None:
    assert sent(kept("a=1", "a=; Max-Age=0", "b=2")) == "b=2"
    assert sent(kept("a=; Max-Age=0", "a=1")) == "a=1"


def test_a_cookie_of_the_same_name_domain_and_path_takes_the_place_of_the_old_one() -> None:
    assert sent(kept("a=1", "b=2", "a=3")) == "a=3; b=2"


def test_a_cookie_of_another_path_or_domain_stands_beside() -> None:
    jar = kept("a=1; Path=/", "a=2; Path=/a", "a=3; Path=/a; Domain=lab.example")
    assert sent(jar) == "a=2; a=3; a=1"


# --- §5.4 sending ---


def test_longer_paths_come_first_and_then_what_was_created_first() -> None:
    jar = kept("z=1; Path=/", "y=2; Path=/a", "x=3; Path=/", "w=4; Path=/a/b", "v=5; Path=/a")
    assert sent(jar) == "w=4; y=2; v=5; z=1; x=3"
    assert sent(jar, target="/a?/a/b") == "y=2; v=5; z=1; x=3"
    assert sent(jar, target="/") == "z=1; x=3"


def test_a_secure_cookie_goes_over_tls_only() -> None:
    jar = kept("a=1; Secure", "b=2")
    assert (sent(jar), sent(jar, secure=True)) == ("b=2", "a=1; b=2")


# --- bounds ---


def test_a_cookie_that_is_too_long_is_none() -> None:
    whole = "a=" + "x" * (cookies.MAX_PAIR - 1)
    assert sent(kept(whole)) == whole
    assert sent(kept(whole + "x")) == ""
    assert sent(kept("a=1;" + " " * cookies.MAX_FIELD)) == ""


def test_an_attribute_that_is_too_long_is_as_if_it_were_not_there() -> None:
    jar = kept("a=1; Path=/a", "b=2; Path=/" + "a" * cookies.MAX_ATTRIBUTE)
    assert sent(jar, target="/a/c") == "a=1; b=2"


def test_what_was_not_sent_for_the_longest_time_is_the_first_to_go() -> None:
    jar = kept(*(f"c{number}=1; Path=/{number}" for number in range(cookies.MAX_COOKIES)))
    assert sent(jar, target="/0") == "c0=1"
    jar.store(["new=1; Path=/new", "newer=1; Path=/newer"], HOST, "/")
    assert [sent(jar, target=f"/{number}") for number in range(4)] == ["c0=1", "", "", "c3=1"]
    assert sent(jar, target="/newer") == "newer=1"


def test_what_has_ended_goes_before_what_lives() -> None:
    times = [NOW]
    jar = Cookies(lambda: times[0])
    jar.store(["old=1"], HOST, "/")
    jar.store([f"c{number}=1; Max-Age=1" for number in range(cookies.MAX_COOKIES - 1)], HOST, "/")
    times[0] = NOW + 5
    jar.store(["new=1"], HOST, "/")
    assert sent(jar) == "old=1; new=1"


def test_no_number_of_cookies_makes_more_than_the_bound() -> None:
    jar = kept(*(f"c{number}=1" for number in range(5000)))
    assert len(jar.for_request(HOST, "/a/b", secure=False)) == cookies.MAX_COOKIES
