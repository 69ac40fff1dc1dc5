"""The path patterns of rules: which paths match, however they are written (docs/policy.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.urls import parse_url
from relay_agent.transport import path_patterns
from relay_agent.transport.path_patterns import MAX_DECODINGS, normal_path, parse_path, path_readings


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/?a/../b", "/"),
        ("/api/x?y=/../z", "/api/x"),
        ("/api/..%2fadmin", "/admin"),
        ("/api/..%252fadmin", "/admin"),
        ("/api/%2e%2E/admin", "/admin"),
        ("/api/%25%32%65%25%32%65/admin", "/admin"),
        ("/api/..;/admin", "/admin"),
        ("/api/..;x=1;y/admin", "/admin"),
        ("/api/..%3b/admin", "/admin"),
        ("/api/..\\admin", "/admin"),
        ("/api/..%5Cadmin", "/admin"),
        ("/api\\..%255c..%5c..\\..\\admin", "/admin"),
        ("//admin", "/admin"),
        ("/./admin/.", "/admin/"),
        ("/admin;x", "/admin"),
        ("/ad;x/min", "/ad/min"),
        (";/admin", "/admin"),
        ("/../../..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/a//", "/a/"),
        ("/.../a", "/.../a"),
        ("/a%2", "/a%2"),
        ("/a%zz%", "/a%zz%"),
        ("/a%00b", "/a\0b"),
        ("/a%3Fb%23c", "/a?b#c"),
        ("/%C3%A4", "/ä"),
        ("/ä", "/ä"),
        ("/%E4", "/\udce4"),
        ("/%c0%ae%c0%ae/x", "/\udcc0\udcae\udcc0\udcae/x"),
        ("/Admin", "/Admin"),
    ],
    ids=ascii,
)
def test_a_path_is_compared_in_its_simplest_form(target: str, path: str) -> None:
    assert normal_path(target) == path


HARMLESS = st.text(st.characters(codec="utf-8", exclude_characters="%/\\;?#.", exclude_categories=["Cc"]), min_size=1, max_size=6)
PATHS = st.lists(HARMLESS, max_size=5).map(lambda segments: "/" + "/".join(segments))


def random_percent(draw: st.DrawFn, text: str) -> str:
    """Percent-encode some characters, with hex digits of either case; a percent sign always, so that the text stays what it is."""

    def encoded(character: str) -> str:
        if character != "%" and draw(st.booleans()):
            return character
        return "".join(f"%{byte:{draw(st.sampled_from(['02x', '02X']))}}" for byte in character.encode())

    return "".join(map(encoded, text))


@st.composite
def disguised(draw: st.DrawFn) -> tuple[str, str]:
    """A path in its simplest form, and another way to write it."""
    plain = draw(PATHS)
    parts = [""]
    for segment in plain.split("/")[1:]:
        detour = draw(st.sampled_from(["", "", ".", "x/..", "x/y/../..", ";a=b", "./;c"]))
        parameters = draw(st.sampled_from(["", "", ";", ";v=1", ";a;b"])) if segment else ""
        parts += [*([detour] if detour and segment else []), segment + parameters]
    text = "".join(draw(st.sampled_from(["/", "/", "//", "\\", "/\\"])) + part for part in parts[1:])
    for _ in range(draw(st.integers(0, 4))):
        text = random_percent(draw, text)
    return plain, text


@given(disguised())
def test_every_way_to_write_a_path_has_the_same_normal_form(pair: tuple[str, str]) -> None:
    plain, written = pair
    assert normal_path(written) == plain
    assert normal_path(written + "?q=/../x%2f") == plain


@given(st.text(st.sampled_from("/\\.;%25efEF?a*"), max_size=40))
def test_the_normal_form_of_a_normal_form_is_itself(text: str) -> None:
    once = normal_path("/" + text)
    # A percent-encoded question mark is part of the path, while a plain one begins the query.
    assert normal_path(once.replace("?", "%3f")) == once
    assert once.startswith("/")
    assert "//" not in once and "\\" not in once and ";" not in once
    assert not {".", ".."} & set(once.split("/"))
    assert not re.search("%[0-9a-fA-F]{2}", once)


@given(st.text(st.sampled_from("/\\.;%25efa"), max_size=24), st.integers(0, 6))
def test_a_path_that_is_encoded_again_and_again_stays_the_same_path(text: str, times: int) -> None:
    written = "/" + text
    for _ in range(times):
        written = quote(written, safe="")
    assert normal_path(written) == normal_path("/" + text)


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_the_path_of_a_url_is_judged_as_it_is_in_the_url(text: str) -> None:
    """A non-ASCII character is percent-encoded in a request line, which changes no verdict."""
    path = "/" + re.sub(r"[\x00-\x20\x7f#?]", "", text)
    assert normal_path(parse_url(f"http://h{path}").target) == normal_path(path)


# --- readings ---


@pytest.mark.parametrize(
    ("target", "readings"),
    [
        ("/api/x?y=/../z", ["/api/x"]),
        ("/api//./x/", ["/api/x/"]),
        ("//api/./x/", ["/api/x/", "/x/"]),
        ("//api", ["/api", "/"]),
        ("///api/admin", ["/api/admin", "/admin"]),
        ("/\\api/admin", ["/\\api/admin", "/api/admin", "/admin"]),
        ("//a\\b/admin", ["/a\\b/admin", "/a/b/admin", "/b/admin", "/admin"]),
        ("/api/a%20b", ["/api/a b"]),
        ("/api/x;v=1", ["/api/x;v=1", "/api/x"]),
        ("/api/a\\b", ["/api/a\\b", "/api/a/b"]),
        ("/api/a%2fb", ["/api/a%2Fb", "/api/a/b"]),
        ("/api/a%2520b", ["/api/a%20b", "/api/a b"]),
        ("/a;b%3bc/d", ["/a;b;c/d", "/a/d"]),
        ("/a%3fb/c", ["/a?b/c", "/a"]),
        ("/a%3bb;c/d", ["/a;b;c/d", "/a;b/d", "/a/d"]),
        ("/admin/../api/x", ["/admin/../api/x", "/api/x"]),
        ("/admin//../api/x", ["/admin/../api/x", "/admin/api/x", "/api/x"]),
        ("/a/..", ["/a/..", "/"]),
        ("/%E4", ["/\udce4"]),
    ],
    ids=ascii,
)
def test_a_path_has_each_reading_that_some_server_has_of_it(target: str, readings: list[str]) -> None:
    assert path_readings(target).paths == set(readings)


REACHES_ELSEWHERE = [
    "/cgi-bin/admin.sh/..;/..;/api/x",
    "/cgi-bin/admin.sh/%252e%252e/%252e%252e/api/x",
    "/cgi-bin/admin.sh/x\\..\\..\\..\\api/x",
    "/cgi-bin/admin.sh/..%2f..%2fapi/x",
    "/cgi-bin/admin.sh/..%5c..%5capi/x",
    "/cgi-bin/admin.sh/%2e%2e/%2e%2e/api/x",
    "/cgi-bin/admin.sh/..%3b/..%3b/api/x",
    "/cgi-bin/admin.sh/../../api/x",
    "/api/../cgi-bin//../api/x",
    "/api/..;/cgi-bin/..%3b/api/x",
    "/api%2fx",
    "//api/admin",
    "/\\api/admin",
    "///api/admin",
    "//api",
]


@pytest.mark.parametrize("target", REACHES_ELSEWHERE)
def test_an_allowed_path_is_left_by_no_step_that_an_ordinary_server_takes_for_a_name(target: str) -> None:
    assert not path_readings(target).all_match([parse_path("/api/*")])


@pytest.mark.parametrize("target", [target for target in REACHES_ELSEWHERE if "cgi-bin" in target])
def test_a_denied_path_is_not_hidden_by_steps_that_an_ordinary_server_takes_for_names(target: str) -> None:
    assert path_readings(target).any_match([parse_path("/cgi-bin/*")])


@pytest.mark.parametrize(
    "target",
    [
        *("/\\admin;\\x", "/%2561dmin;%2fx", "/\\%2561dmin;%2fx", "/%2561dmin;%5cx", "/%61dmin%3b%252fx", "/\\admin;%252fx"),
        *(
            "/admin%3fx",
            "/admin%23x",
            "/admin%253fx",
            "/%2561dmin%3fx",
            "/\\admin%3f",
            "/admin;x%3fy",
            "/admin%3fx;y",
            "/admin%3f/../api/x",
        ),
        *("//x/admin;%2fx", "//x/admin%3f", "/admin?x", "/./admin%3f/.", "/x/..%3f/../admin"),
    ],
)
def test_a_denied_path_is_not_hidden_by_what_one_server_cuts_before_it_decodes_and_another_after(target: str) -> None:
    assert path_readings(target).any_match([parse_path("/admin")])


@pytest.mark.parametrize("target", ["/admin/.%3fx", "/admin/%3fx"])
def test_a_decoded_query_ends_the_path_as_a_plain_one_does(target: str) -> None:
    assert path_readings(target).any_match([parse_path("/admin/")])


@pytest.mark.parametrize(
    "target",
    [
        *("/api/..;/x", "/api/%" + "25" * MAX_DECODINGS + "2e"),
        *("/api/..%00/x", "/api/x%00", "/api/x%0A", "/api/%7f", "/api/%2500", "/api/x;%01", "//api/%1F"),
        *("/api/%u002e%u002e/x", "/api/%U0061", "/api/%25u0061", "/api/%%75%30061"),
        *("/api/..%c0%afx", "/api/%c0%ae%c0%ae/x", "/api/x%C0%BBy", "/api/.%25c1%259c", "/api/%e0%80%ae./x", "/x%f0%80%80%af"),
    ],
)
def test_a_path_that_may_be_any_path_is_allowed_by_no_pattern_but_that_for_all_and_denied_by_each(target: str) -> None:
    readings = path_readings(target)
    assert not readings.all_match([parse_path("/api/*"), parse_path("/x")])
    assert readings.all_match([parse_path("/*")])
    assert readings.any_match([parse_path("/other")])


@pytest.mark.parametrize("target", ["/%c1%a1dmin", "/adm%E0%81%A9n", "/admi%f0%80%81%ae", "/%25c1%25a1dmin"])
def test_a_denied_path_is_not_hidden_by_letters_in_overlong_utf_8_which_some_servers_decode(target: str) -> None:
    assert path_readings(target).any_match([parse_path("/admin")])
    assert not path_readings(target).all_match([parse_path("/admin")])


def test_bytes_of_another_charset_that_look_like_overlong_utf_8_are_allowed_below_a_path() -> None:
    assert path_readings("/api/%c0%b4").all_match([parse_path("/api/*")])  # GBK


def test_readings_may_each_match_another_of_the_patterns() -> None:
    readings = path_readings("/a/../b")
    assert readings.all_match([parse_path("/a/*"), parse_path("/b")])
    assert not readings.all_match([parse_path("/b")])


def merged(path: bytes) -> bytes:
    return b"/" + b"/".join(segment for segment in path.split(b"/") if segment not in (b"", b"."))


def climbed(path: bytes) -> bytes:
    kept: list[bytes] = []
    for segment in path.split(b"/")[1:]:
        kept = kept[:-1] if segment == b".." else kept if segment == b"." else [*kept, segment]
    return b"/" + b"/".join(kept)


def lenient(path: bytes) -> bytes:
    for number in range(128):
        for form in (b"%c%c", b"\xe0%c%c", b"\xf0\x80%c%c"):
            path = path.replace(form % ((0xC0 if form[0] == 0x25 else 0x80) | number >> 6, 0x80 | number & 0x3F), bytes((number,)))
    return path


SERVER = st.lists(
    st.sampled_from(
        [
            unquote_to_bytes,
            lenient,
            lambda path: re.sub(b";[^/]*", b"", path),
            lambda path: path.replace(b"\\", b"/"),
            lambda path: re.split(b"[?#]", path, maxsplit=1)[0],
            merged,
            climbed,
            lambda path: climbed(merged(path)),
        ]
    ),
    max_size=7,
)
"""What servers and the proxies before them do with a path, in any order, and several times."""
WRITTEN = st.lists(
    st.sampled_from(
        [
            *("/", "/", "/", "api", "x", "..", "..", ".", ";", ";a", "\\", "%2f", "%3b", "%5c", "%2e%2e", "%252e%252e", "%252f", "%25"),
            *("253b", "%3f", "%23", "%c0%af", "%c0%ae", "%c1%a1pi", "%c0%a52e"),
        ]
    ),
    max_size=16,
).map(lambda parts: "/" + "".join(parts))


FRONT: st.SearchStrategy[Callable[[bytes], bytes]] = st.sampled_from(
    [
        lambda path: path,
        lambda path: re.sub(rb"^//[^/]*", b"", path) or b"/",
        lambda path: re.sub(rb"^//+[^/]*", b"", path.replace(b"\\", b"/")) or b"/",
    ]
)
"""How servers read a request target: as a path, or as a reference, in which `//` stands before a host."""


@given(WRITTEN | st.tuples(st.sampled_from(["/api", "//api", "/\\api", "//x/api"]), WRITTEN).map("".join), FRONT, SERVER)
def test_whatever_a_server_makes_of_a_path_it_stays_where_rules_allow_it_and_is_denied_where_they_deny_it(
    target: str, front: Callable[[bytes], bytes], server: list[Callable[[bytes], bytes]]
) -> None:
    seen = front(target.encode())
    for step in [*server, *([] if unquote_to_bytes in server else [unquote_to_bytes]), merged]:
        seen = step(seen)
    reached = seen.startswith(b"/api/")
    pattern = parse_path("/api/*")
    if path_readings(target + "?q=/../x%2f").all_match([pattern]):
        assert reached or seen == b"/api"  # merging cuts the final slash
    if reached:
        assert path_readings(target).any_match([pattern])


@given(disguised())
def test_the_simplest_form_of_a_path_is_one_of_its_readings_unless_it_may_be_any_path(pair: tuple[str, str]) -> None:
    plain, written = pair
    paths = path_readings(written).paths
    assert plain in paths or not paths


@given(PATHS)
def test_a_path_that_is_written_plainly_has_one_reading_however_its_other_characters_are_encoded(plain: str) -> None:
    assert path_readings(plain).paths == path_readings(quote(plain)).paths == {plain}


@pytest.mark.parametrize(
    "unit", ["%25", "25", "/..", "//..", "\\", ";/", "%2e%2e%2f", "/;\\%253b%25253b", "%5c;%252f%3b/", "\\a;%2f%255c%3f"]
)
def test_a_path_has_a_bounded_number_of_readings_however_long_it_is(unit: str) -> None:
    assert len(path_readings("/" + unit * 1000).paths) <= 15 * (MAX_DECODINGS + 1)


# --- the simplest form ---


class Counted(bytearray):
    """A bytearray that counts what is done to it."""

    operations = 0

    def append(self, item: object) -> None:
        Counted.operations += 1
        super().append(item)  # type: ignore[arg-type]

    def __setitem__(self, key: object, value: object) -> None:
        Counted.operations += 1
        super().__setitem__(key, value)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "attack",
    [
        lambda size: "%" + "25" * size,
        lambda size: "%25" * size,
        lambda size: "%" * size + "25" * size,
        lambda size: "%2" * size + "5",
        lambda size: "%252525" * size + "2f" * size,
        lambda size: quote(quote(quote("/../" * size, safe=""), safe=""), safe=""),
    ],
    ids=["one percent sign", "many percent signs", "nested", "incomplete", "mixed", "encoded three times"],
)
def test_percent_decoding_takes_time_in_proportion_to_the_text(monkeypatch: pytest.MonkeyPatch, attack: Callable[[int], str]) -> None:
    """Counted in operations at the end of a buffer: each byte is appended once, and each decoding removes two."""
    monkeypatch.setattr(path_patterns, "bytearray", Counted, raising=False)
    for size in (10, 1000):
        text = "/" + attack(size)
        Counted.operations = 0
        normal_path(text)
        assert 0 < Counted.operations <= 1.5 * len(text)


# --- globs ---


def reference(pattern: str, path: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), path, re.DOTALL) is not None


GLOB = st.text(st.sampled_from("/ab*"), max_size=8).map(lambda text: "/" + text)


@given(GLOB.filter(lambda text: "//" not in text), st.text(st.sampled_from("/ab"), max_size=12).map(lambda text: "/" + text))
def test_a_glob_matches_what_a_regular_expression_does(pattern: str, path: str) -> None:
    assert parse_path(pattern).matches(path) == reference(pattern, path)


@given(st.lists(st.text(st.sampled_from("ab"), max_size=3), min_size=1, max_size=6), st.text(st.sampled_from("ab"), max_size=12))
def test_a_glob_of_any_number_of_parts_matches_what_a_regular_expression_does(parts: list[str], rest: str) -> None:
    pattern = "/" + "*".join(parts)
    assert parse_path(pattern).matches("/" + rest) == reference(pattern, "/" + rest)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("/api/*", ["/api/", "/api/x", "/api/x/y"], ["/api", "/apix", "/", "/API/x"]),
        ("/api", ["/api"], ["/api/", "/api/x"]),
        ("*", ["/", "/x/y"], []),
        ("/", ["/"], ["/x"]),
        ("*.csv", ["/a.csv", "/a/b.csv"], ["/a.csv/x", "/csv"]),
        ("/a/*/b/*/c", ["/a/x/b/y/c", "/a/b/b/b/c"], ["/a/b/c", "/a/x/c/y/b"]),
        ("/aa*aa", ["/aaaa", "/aaxaa"], ["/aaa", "/aa"]),
        ("/ä*", ["/ä", "/äx"], ["/a"]),
        ("/[a].", ["/[a]."], ["/a.", "/[a]x"]),
    ],
)
def test_an_asterisk_stands_for_any_characters_and_nothing_else_is_special(pattern: str, matching: list[str], others: list[str]) -> None:
    found = parse_path(pattern)
    assert [path for path in [*matching, *others] if found.matches(path)] == matching


class CountedPath(str):
    """A path that counts how many characters a search may look at."""

    __slots__ = ()

    looked: ClassVar[int] = 0

    def find(self, part: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        found = super().find(part, start, len(self) if end is None else end)
        CountedPath.looked += (len(self) if found < 0 else found + len(part)) - start
        return found


def test_a_glob_looks_at_no_character_of_a_hostile_path_twice() -> None:
    pattern = parse_path("/" + "*a" * 50 + "*b")
    for path in (CountedPath("/" + "a" * 10_000), CountedPath("/" + "a" * 10_000 + "b")):
        CountedPath.looked = 0
        pattern.matches(path)
        assert CountedPath.looked <= len(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not begin with / or *"),
        ("api/*", "does not begin with / or *"),
        ("/api?x", "rules do not look at the query"),
        ("/api#x", "rules do not look at the query"),
        ("/a//b", "write '/a/b'"),
        ("/a/../b", "write '/b'"),
        ("/a/./b", "write '/a/b'"),
        ("/a;v=1", "write '/a' and '/a*v=1'"),
        ("/a;v=1/b", "write '/a/b' and '/a*v=1/b'"),
        ("/a%3Bb", "write '/a' and '/a*b'"),
        ("/a%253Bb", "write '/a' and '/a*b'"),
        ("/a;*", "write '/a' and '/a*'"),
        ("/projects/group%2Fproject", "write '/projects/group*project'"),
        ("/a%5Cb", "write '/a*b'"),
        ("/a%252fb", "write '/a*b'"),
        ("/a\\*", "write '/a*'"),
        ("/%61", "write '/a'"),
        ("/a%252f", "write '/a*'"),
        ("/a\\b", "write '/a*b'"),
        ("*//x", "write '*/x'"),
        ("*/%61dmin", "write '*/admin'"),
        ("*;x", "write '*' and '*x'"),
        ("*/../x", "write 'x'"),
    ],
)
def test_a_pattern_that_no_path_can_match_is_an_error(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_path(text)
    assert says in str(caught.value)
    assert f"'{text.partition('?')[0].partition('#')[0]}" in str(caught.value)


@pytest.mark.parametrize(
    "written",
    [
        "/projects/group%2Fproject",
        "/api/v1/items;v=2",
        "/a%5Cb",
        "/a\\b",
        "/x;y/z",
        "/a%252Fb",
        "/a%3Bb",
        "/a//b",
        "/a%20b",
        "/x;a;b%2fc",
        "/a%2fb;c",
        "/a%3bb%2Fc;d/e",
    ],
)
def test_the_patterns_that_an_error_offers_match_the_path_that_was_written(written: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_path(written)
    offered = re.findall("'([^']*)'", str(caught.value).partition("; write ")[2])
    assert path_readings(written).all_match([parse_path(text) for text in offered])


@given(GLOB)
def test_a_pattern_is_accepted_exactly_if_it_is_in_its_normal_form(text: str) -> None:
    try:
        parse_path(text)
    except ValueError:
        assert normal_path(text) != text
    else:
        assert normal_path(text) == text
