"""URLs are parsed without changing a byte of what a target receives (RFC 3986)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.models import Url
from relay_agent.core.urls import BadUrl, check_host_header, join, literal_address, normal_host, parse_url

# The characters that clients send in a path or query, valid or not: all visible ASCII except `#`.
_VISIBLE = st.text([chr(code) for code in range(0x21, 0x7F) if chr(code) != "#"], max_size=40)


@given(path=_VISIBLE.map(lambda text: "/" + text.replace("?", "")), query=st.none() | _VISIBLE)
def test_path_and_query_keep_every_byte(path: str, query: str | None) -> None:
    target = path if query is None else f"{path}?{query}"
    url = parse_url(f"https://lims.lab.example:9005{target}")
    assert url.target == target
    assert str(url) == f"https://lims.lab.example:9005{target}"
    assert parse_url(str(url)) == url


@pytest.mark.parametrize("target", ["/a%2Fb", "/a%2fb", "/a//b", "//a", "/?", "/a;b=1", "/a|b{c}", "/.", "/a/../b", "/%zz", '/"<>^`\\'])
def test_no_part_of_a_path_is_normalised(target: str) -> None:
    assert parse_url("http://h" + target).target == target


@pytest.mark.parametrize(
    "text, target",
    [
        ("http://h", "/"),
        ("http://h?x=1", "/?x=1"),
        ("http://h?", "/?"),
        ("http://h#f", "/"),
        ("http://h/a#f?g", "/a"),
        ("http://h/#@x", "/"),
    ],
)
def test_an_empty_path_becomes_a_slash_and_the_fragment_is_dropped(text: str, target: str) -> None:
    assert parse_url(text).target == target


def test_non_ascii_is_percent_encoded_as_utf_8_and_nothing_else_is() -> None:
    assert parse_url("http://h/ä%C3%A4/|?ü=€").target == "/%C3%A4%C3%A4/|?%C3%BC=%E2%82%AC"


@pytest.mark.parametrize(
    "text, host, port, explicit, netloc",
    [
        ("HTTP://Lims.LAB.example/", "lims.lab.example", 80, False, "lims.lab.example"),
        ("https://h/", "h", 443, False, "h"),
        ("https://h:443/", "h", 443, True, "h:443"),
        ("http://h:/", "h", 80, False, "h"),
        ("http://h:0080/", "h", 80, True, "h:80"),
        ("http://h.:8080", "h.", 8080, True, "h.:8080"),
        ("http://[::1]:81/", "::1", 81, True, "[::1]:81"),
        ("http://[FE80::1%25eth0]/", "fe80::1%eth0", 80, False, None),
        ("http://[fe80::1%eth0]/", "fe80::1%eth0", 80, False, None),
        ("http://my_host/", "my_host", 80, False, "my_host"),
        ("http://münchen.example/", "xn--mnchen-3ya.example", 80, False, "xn--mnchen-3ya.example"),
        ("http://my_host.MÜNCHEN。example/", "my_host.xn--mnchen-3ya.example", 80, False, None),
        ("http://straße.example/", "xn--strae-oqa.example", 80, False, None),
        ("http://１２７.0.0.1/", "127.0.0.1", 80, False, None),
    ],
)
def test_host_and_port_are_parsed_and_normalised(text: str, host: str, port: int, explicit: bool, netloc: str | None) -> None:
    url = parse_url(text)
    assert (url.host, url.port, url.explicit_port) == (host, port, explicit)
    if netloc is not None:
        assert url.netloc == netloc


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h/path",
        "/path",
        "//h/path",
        "http:/h",
        "ftp://h/",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://?x",
        "http://:80/",
        "http://u@/",
        "http://h:0/",
        "http://h:65536/",
        "http://h:99999999999999999999/",
        "http://h:0000019999999/",
        "http://h:" + "9" * 5000 + "/",
        "http://h:8o/",
        "http://h:-1/",
        "http://h:٣/",
        "http://[::1/",
        "http://[::1]x/",
        "http://[1.2.3.4]/",
        "http://[::1%25]/",
        "http://[fe80::1%25é]/",
        "http://[g::1]/",
        "http://::1/",
        "http://h h/",
        "http://h/a b",
        " http://h/",
        "http://h/\r\nX: y",
        "http://h/\x00",
        "http://h/\x7f",
        "http://h\\@evil/",
        "http://h%41/",
        "http://h|h/",
        "http://a℀b/",
        "http://xn--ü/",
        "http://\ud800/",
        "http://h/\ud800",
        "http://\ud800@h/",
    ],
)
def test_a_url_that_cannot_be_called_is_refused(text: str) -> None:
    with pytest.raises(BadUrl):
        parse_url(text)


@pytest.mark.parametrize("end", [":x/", " /", "\\/", "|/", "/\ud800", "]/"])
def test_the_error_text_of_a_bad_url_repeats_no_part_of_it(end: str) -> None:
    with pytest.raises(BadUrl) as caught:
        parse_url(f"https://u:canary-1@canary-2{end}canary-3?canary-4")
    assert "canary" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_either_a_url_or_a_bad_one(text: str) -> None:
    for candidate in (text, f"http://{text}", f"http://h/{text}"):
        try:
            url = parse_url(candidate)
        except BadUrl:
            continue
        str(url).encode("ascii")
        assert url.target.startswith("/") and url.host


@pytest.mark.parametrize(
    "userinfo, credentials",
    [
        ("user:pw", b"user:pw"),
        ("user", b"user:"),
        ("user:p%40ss%3Aword", b"user:p@ss:word"),
        ("a@b:c", b"a@b:c"),
        (":pw", b":pw"),
        ("ü:%C3%BC", "ü:ü".encode()),
        ("u:%FF", b"u:\xff"),
    ],
)
def test_user_info_becomes_basic_credentials_and_is_never_shown(userinfo: str, credentials: bytes) -> None:
    url = parse_url(f"https://{userinfo}@h/path")
    assert url.authorization == "Basic " + base64.b64encode(credentials).decode()
    assert str(url) == "https://h/path"
    assert url.authorization not in repr(url)


def test_an_empty_user_info_gives_no_credentials() -> None:
    assert parse_url("http://@h/").authorization is None


_BASE = "http://a/b/c/d;p?q"


@pytest.mark.parametrize(
    "reference, expected",
    # RFC 3986 §5.4.1 and §5.4.2, without those of another scheme and without fragments.
    [
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//g", "http://g/"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        ("#s", "http://a/b/c/d;p?q"),
        ("g#s", "http://a/b/c/g"),
        (";x", "http://a/b/c/;x"),
        ("g;x?y#s", "http://a/b/c/g;x?y"),
        ("", "http://a/b/c/d;p?q"),
        (".", "http://a/b/c/"),
        ("./", "http://a/b/c/"),
        ("..", "http://a/b/"),
        ("../g", "http://a/b/g"),
        ("../..", "http://a/"),
        ("../../../g", "http://a/g"),
        ("/./g", "http://a/g"),
        ("/../g", "http://a/g"),
        ("g.", "http://a/b/c/g."),
        ("..g", "http://a/b/c/..g"),
        ("./g/.", "http://a/b/c/g/"),
        ("g/../h", "http://a/b/c/h"),
        ("g;x=1/../y", "http://a/b/c/y"),
        ("g?y/../x", "http://a/b/c/g?y/../x"),
        ("http:g", "http://a/b/c/g"),
    ],
)
def test_a_reference_is_resolved_as_rfc_3986_says(reference: str, expected: str) -> None:
    assert str(join(parse_url(_BASE), reference)) == expected


@pytest.mark.parametrize(
    "location, expected",
    [
        ("/b?", "http://a/b?"),
        ("/b;", "http://a/b;"),
        ("x//y", "http://a/b/c/x//y"),
        ("/x//y", "http://a/x//y"),
        ("http://h//x?", "http://h//x?"),
        ("HTTPS://h", "https://h/"),
        ("https://h/x/../y", "https://h/y"),
        ("/%2e%2E/x%2Fy", "http://a/%2e%2E/x%2Fy"),
        ("/with space|{}", "http://a/with%20space|{}"),
        ("  /trimmed\t", "http://a/trimmed"),
        ("/tab\tin", "http://a/tab%09in"),
        ("/ü", "http://a/%C3%BC"),
        ("1:2", "http://a/b/c/1:2"),
    ],
)
def test_a_location_keeps_what_urljoin_drops(location: str, expected: str) -> None:
    assert str(join(parse_url(_BASE), location)) == expected


@pytest.mark.parametrize(
    "location", ["ftp://h/", "mailto:a@b", "javascript:alert(1)", "https:g", "http://", "http://h:x/", "http://[/", "//"]
)
def test_a_location_that_is_not_an_http_url_is_refused(location: str) -> None:
    with pytest.raises(BadUrl):
        join(parse_url(_BASE), location)


@given(st.text(max_size=60))
def test_any_location_is_either_a_url_or_a_bad_one(location: str) -> None:
    try:
        joined = join(parse_url(_BASE), location)
    except BadUrl:
        return
    assert parse_url(str(joined)).origin == joined.origin


@given(_VISIBLE)
def test_an_absolute_location_without_dot_segments_keeps_every_byte(text: str) -> None:
    path, mark, query = text.replace(".", "").partition("?")
    target = f"/{path}{mark}{query}"
    assert join(parse_url(_BASE), f"http://h{target}").target == target


def test_user_info_stays_within_the_authority_that_gave_it() -> None:
    base = parse_url("http://u:p@a/x")
    assert join(base, "/y").authorization == base.authorization
    assert join(base, "http://a/y").authorization is None
    assert join(base, "//b/y").authorization is None
    assert join(base, "http://v:q@b/").authorization == "Basic " + base64.b64encode(b"v:q").decode()


@pytest.mark.parametrize(
    "host, address",
    [
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3.", "10.1.2.3"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7F.0.0x0.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:a00:1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("localhost", None),
        ("1.2.3.4.5", None),
        ("256.1.1.1", None),
        ("4294967296", None),
        ("0x", None),
        ("beef", None),
        ("1and1.example", None),
        ("", None),
        ("১২৭.0.0.1", None),
    ],
)
def test_every_spelling_of_an_address_is_that_address(host: str, address: str | None) -> None:
    found = literal_address(host)
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize("value", ["h", "H.example:8080", "h:", "[::1]", "[::1]:80", "10.0.0.1", "my_host"])
def test_a_host_header_is_a_host_with_an_optional_port(value: str) -> None:
    check_host_header(value)


@pytest.mark.parametrize(
    "value", ["", " h", "h\r\nX: y", "u@h", "h/p", "h\\p", "h?q", "h#f", "h:x", "h:70000", "::1", "http://h", "münchen.example"]
)
def test_a_host_header_that_is_not_a_host_is_refused(value: str) -> None:
    with pytest.raises(BadUrl):
        check_host_header(value)


def test_a_host_has_one_normal_form() -> None:
    assert normal_host("[::1]") == "::1"
    assert normal_host("BÜCHER.example") == normal_host("xn--bcher-kva.EXAMPLE")


def test_an_origin_is_scheme_host_and_port() -> None:
    assert parse_url("http://H/").origin == parse_url("http://h:80/x").origin
    assert Url("http", "h", 80, "/").origin != Url("https", "h", 443, "/").origin


LABEL = "a" * 63
LONGEST_HOST = f"{LABEL}.{LABEL}.{LABEL}.{'a' * 61}"


def test_a_host_may_be_as_long_as_dns_allows() -> None:
    assert normal_host(LONGEST_HOST) == LONGEST_HOST
    assert normal_host(f"{LONGEST_HOST}.") == f"{LONGEST_HOST}."


@pytest.mark.parametrize(
    "host",
    [
        "a" * 64,
        f"{LONGEST_HOST}a",
        f"{LONGEST_HOST}a.",
        "a." * 130,
        "." * 1000,
        "é" * 64,
        "é." * 200,
        "\u00ad" * 100_000 + "a",
        f"[{'1:' * 200}]",
        f"[fe80::1%25{'e' * 300}]",
        "a" * 60_000,
    ],
    ids=lambda host: f"{host[:8]!a}-{len(host)}",
)
def test_a_longer_host_is_refused_before_idna_decodes_it(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    monkeypatch.setattr("relay_agent.core.urls._idna", lambda text: decoded.append(len(text)) or text)
    with pytest.raises(BadUrl) as refused:
        parse_url(f"http://user:password@{host}/")
    assert max(decoded, default=0) <= 253
    assert len(str(refused.value)) < 100


def test_a_url_is_at_most_64_kib_long_as_given_and_as_sent() -> None:
    longest = "http://h/".ljust(64 * 1024, "a")
    assert str(parse_url(longest)) == longest
    for url in (longest + "a", "http://h/" + "é" * 20_000, "http://h/?" + "a" * 100_000):
        with pytest.raises(BadUrl, match="longer than 65,536"):
            parse_url(url)


def test_a_location_does_not_make_a_url_longer_than_that() -> None:
    base = parse_url("http://h/".ljust(60_000, "a") + "/")
    assert join(base, "b" * 1000).target.endswith("b" * 1000)
    for location in ("b" * 10_000, "/" + "é" * 20_000, "//h/" + "a" * 100_000, "?" + " " * 30_000 + "a"):
        with pytest.raises(BadUrl, match="longer than 65,536"):
            join(base, location)
