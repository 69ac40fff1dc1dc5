"""HTTP requests (PROTOCOL §3): the target receives what the command asks for, byte for byte, and nothing else.

The tests look only at what arrives on a socket.
"""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.contract.relaying import Relay, code
from tests.target_certificates import server_context
from tests.target_proxies import Socks5Proxy
from tests.target_server import RawRequest
from tests.targets import ByteTarget, closed_port, in_turn, raw, reply


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("*", reply(200, body="ok"))
        yield server


def sent(relay: Relay, target: ByteTarget, path: str = "/", **payload: Any) -> RawRequest:
    """Relay a command and return what arrived."""
    answer = relay({"url": target.url(path), **payload})
    assert answer.get("statusCode") == 200, answer
    return target.last


# --- methods ---


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH", "get", "!#$%&'*+-.^_`|~1"]
)
def test_any_method_token_is_sent_as_given(relay: Relay, target: ByteTarget, method: str) -> None:
    """The request line starts with the command's token, in its case."""
    assert sent(relay, target, method=method).line == f"{method} / HTTP/1.1".encode()


def test_method_defaults_to_get(relay: Relay, target: ByteTarget) -> None:
    """Without a method the command is a GET."""
    assert sent(relay, target).method == "GET"


@pytest.mark.parametrize("method", ["GE T", "", "GET\r\nX: 1", "GÉT", "a(b", 7])
def test_invalid_method_is_refused(relay: Relay, target: ByteTarget, method: object) -> None:
    """EBADCOMMAND names the field and nothing is sent."""
    answer = relay({"url": target.url(), "method": method})
    assert code(answer) == "EBADCOMMAND"
    assert "method" in answer["message"]
    assert target.connections == 0


# --- header fields ---


def test_order_case_and_repeats_are_kept(relay: Relay, target: ByteTarget) -> None:
    """Fields arrive in the command's order, names in its case, repeats as separate lines."""
    given = [{"x-LOWER-miXed": "1"}, {"X-Two": "a"}, {"ACCEPT": "*/*"}, {"X-Two": "b"}, {"x-two": "c"}, {"aaa": "z"}]
    lines = sent(relay, target, headers=given).header_lines
    wanted = [f"{name}: {value}".encode() for entry in given for name, value in entry.items()]
    assert [line for line in lines if line in wanted] == wanted


def test_plain_object_of_headers_is_taken(relay: Relay, target: ByteTarget) -> None:
    """Values may be strings or lists of strings."""
    request = sent(relay, target, headers={"X-A": ["1", "2"], "X-B": "3"})
    assert [line for line in request.header_lines if line.startswith(b"X-")] == [b"X-A: 1", b"X-A: 2", b"X-B: 3"]


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        ("  padded  inside\tkept \t", b"padded  inside\tkept"),
        ("a,b, c", b"a,b, c"),
        ('"q\\"uoted"; x=1', b'"q\\"uoted"; x=1'),
        ("caf\xe9 \x80\xff", b"caf\xe9 \x80\xff"),
        ("", b""),
        ("%41:+{}|\\^`<>", b"%41:+{}|\\^`<>"),
        ("\xa0nbsp\x85", b"\xa0nbsp\x85"),
    ],
)
def test_value_arrives_exactly(relay: Relay, target: ByteTarget, value: str, wire: bytes) -> None:
    """A value's bytes are ISO-8859-1 of its characters; only white space around it is not part of it."""
    request = sent(relay, target, headers=[{"X-Value": value}])
    (line,) = [line for line in request.header_lines if line.startswith(b"X-Value:")]
    assert line.removeprefix(b"X-Value:").strip(b" \t") == wire


@pytest.mark.parametrize(
    "headers",
    [
        [{"X": "a\r\nY: 1"}],
        [{"X": "a\nb"}],
        [{"X": "a\x00"}],
        [{"X Y": "1"}],
        [{"": "1"}],
        [{"X:": "1"}],
        [{"X\r\nY": "1"}],
        [{"X": "\x07"}],
        [{"X": "\x7f"}],
    ],
)
def test_smuggled_header_is_refused(relay: Relay, target: ByteTarget, headers: list[dict[str, str]]) -> None:
    """CR, LF, NUL or what the grammar forbids in a name or value is EBADCOMMAND; nothing is sent."""
    assert code(relay({"url": target.url(), "headers": headers})) == "EBADCOMMAND"
    assert target.connections == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_only_what_the_protocol_needs_is_added(relay: Relay, target: ByteTarget, method: str) -> None:
    """Without a body: Host, Accept-Encoding and a User-Agent, once each, no more."""
    assert sorted(sent(relay, target, method=method).names) == ["accept-encoding", "host", "user-agent"]


def test_only_what_the_protocol_needs_is_added_to_a_body(relay: Relay, target: ByteTarget) -> None:
    """With a raw body Content-Length is added too, but no Content-Type."""
    request = sent(relay, target, method="POST", body={"mode": "raw", "raw": "x"})
    assert sorted(request.names) == ["accept-encoding", "content-length", "host", "user-agent"]


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "ACCEPT-ENCODING", "Accept-Encoding"])
def test_given_field_replaces_ours(relay: Relay, target: ByteTarget, name: str) -> None:
    """What the command gives is sent once, as given, and ours is not."""
    request = sent(relay, target, headers=[{name: "mine"}])
    assert request.get_all(name) == ["mine"]
    assert f"{name}: mine".encode() in request.header_lines


def test_content_length_and_transfer_encoding_are_ours(relay: Relay, target: ByteTarget) -> None:
    """Given, they are dropped; the body arrives with its true length."""
    given = [{"Content-Length": "999"}, {"transfer-encoding": "chunked"}, {"X-Kept": "1"}]
    request = sent(relay, target, method="POST", headers=given, body="four")
    assert request.get_all("Content-Length") == ["4"]
    assert request.get_all("Transfer-Encoding") == []
    assert (request.body, request.get("X-Kept")) == (b"four", "1")


def test_connection_close_is_sent_when_asked_for(relay: Relay, target: ByteTarget) -> None:
    """A hop-by-hop field of the command is the command's."""
    assert sent(relay, target, headers=[{"Connection": "close"}]).get_all("Connection") == ["close"]


def test_expect_continue_is_answered(relay: Relay, target: ByteTarget) -> None:
    """Expect: 100-continue is sent as given, and its 100 is not the answer."""
    target.on("/", raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", then="keep"))
    assert sent(relay, target, method="POST", headers=[{"Expect": "100-continue"}], body="x").get("Expect") == "100-continue"


# --- the URL ---

PATHS = [
    "/a%2Fb/a%2fb",
    "//a//b//",
    "/a?",
    "/?a=1?b=2&&=&c",
    "/a;p=1;q/b;",
    "/a|b{c}d",
    '/?f={"a":[1|2]}',
    "/%zz%",
    "/a/../b/./c",
    "/.",
    "/..",
    "/%7Euser/~user",
    "/a+b%20c?d+e%20f",
    "/'()*!$@:,=^`<>\\[]",
    "/?q=%C3%A9&r=%e9",
    "/?u=http://x/y?z",
    "/" + "a" * 7000,
]


@pytest.mark.parametrize("path", PATHS)
def test_path_and_query_arrive_byte_for_byte(relay: Relay, target: ByteTarget, path: str) -> None:
    """The request target is the URL's path and query, and the answer's url names the same."""
    answer = relay({"url": target.url(path)})
    assert target.last.target == path
    assert answer["url"] == target.url(path)


@pytest.mark.parametrize(
    ("path", "wire"), [("", "/"), ("?x=1", "/?x=1"), ("?", "/?"), ("/a#frag?x", "/a"), ("#f", "/"), ("/é?ü=€", "/%C3%A9?%C3%BC=%E2%82%AC")]
)
def test_characters_that_a_request_line_cannot_hold_are_encoded(relay: Relay, target: ByteTarget, path: str, wire: str) -> None:
    """A missing path is `/`, a fragment stays behind, non-ASCII is percent-encoded as UTF-8."""
    assert sent(relay, target, path).target == wire


@pytest.mark.parametrize(
    "url",
    [
        "http://h/a b",
        "http://h/\r\nX: 1",
        "/relative",
        "ftp://h/",
        "http://",
        "http:///x",
        "http://h:99999/",
        "http://h:x/",
        "",
        "//h/",
        5,
        "http://[::1/",
        "http://a b/",
        "http://h/\x00",
    ],
)
def test_url_that_cannot_be_called_is_refused(relay: Relay, url: object) -> None:
    """EBADCOMMAND names the field, not its value."""
    answer = relay({"url": url})
    assert code(answer) == "EBADCOMMAND"
    assert "url" in answer["message"]


def test_ipv6_literal_is_called(relay: Relay, target: ByteTarget) -> None:
    """The agent connects to an IPv6 literal, and writes it in brackets in Host and url."""
    answer = relay({"url": target.url("/six", host="::1")})
    assert (answer["statusCode"], answer["url"]) == (200, target.url("/six", host="::1"))
    assert target.last.get_all("Host") == [f"[::1]:{target.port}"]


def test_host_names_the_port_of_the_url(relay: Relay, target: ByteTarget) -> None:
    """Host is the URL's host and port, in lower case."""
    relay({"url": target.url(host="LOCALHOST")})
    assert target.last.get_all("Host") == [f"localhost:{target.port}"]


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("straße.example", "xn--strae-oqa.example"),
    ],
)
def test_international_host_goes_as_idna(relay: Relay, target: ByteTarget, host: str, ascii_host: str) -> None:
    """A non-ASCII host is resolved and named as IDNA; without a port in the URL, Host has none."""
    with Socks5Proxy(resolve={ascii_host: ("127.0.0.1", target.port)}) as proxy:
        answer = relay({"url": f"http://{host}/x"}, proxy=proxy.url())
        assert (answer.get("statusCode"), answer["url"]) == (200, f"http://{ascii_host}/x")
        assert proxy.names == [ascii_host]
        assert target.last.get_all("Host") == [ascii_host]


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("user:p%40ss", "user:p@ss"),
        ("user", "user:"),
        ("user:", "user:"),
        (":pass", ":pass"),
        ("a:b:c", "a:b:c"),
        ("m%C3%BC:%E9", "m\xc3\xbc:\xe9"),
    ],
)
def test_user_info_becomes_basic_authorization(relay: Relay, target: ByteTarget, userinfo: str, credentials: str) -> None:
    """User and password are percent-decoded, sent as Basic, and stand neither in the request line nor in the answer."""
    answer = relay({"url": target.url("/x", userinfo=userinfo)})
    wanted = "Basic " + base64.b64encode(credentials.encode("latin-1")).decode()
    assert target.last.get_all("Authorization") == [wanted]
    assert (target.last.target, target.last.get("Host")) == ("/x", f"127.0.0.1:{target.port}")
    assert answer["url"] == target.url("/x")


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
def test_explicit_authorization_wins_over_user_info(relay: Relay, target: ByteTarget, name: str) -> None:
    """The command's own field is sent alone."""
    request = sent(relay, target, headers=[{name: "Bearer t"}], url=target.url("/", userinfo="u:p"))
    assert request.get_all("Authorization") == ["Bearer t"]


def test_user_info_never_shows_in_a_failure(relay: Relay) -> None:
    """A failure's url and message hold neither user nor password."""
    answer = relay({"url": f"http://ursula:hunter2@127.0.0.1:{closed_port()}/"})
    assert code(answer) == "ECONNREFUSED"
    assert "hunter2" not in json.dumps(answer)
    assert "ursula" not in json.dumps(answer)


@pytest.mark.parametrize("host", ["virtual.lab.example", "virtual.lab.example:8080", "[::1]:80", "10.0.0.1"])
def test_given_host_replaces_the_urls(relay: Relay, target: ByteTarget, host: str) -> None:
    """Host given by the command is sent in its place, once."""
    assert sent(relay, target, headers=[{"Host": host}]).get_all("Host") == [host]


@pytest.mark.parametrize("host", ["a b", "a/b", "u@h", "a?b", "h:port", "h:70000", "[::1", "a#b", ""])
def test_invalid_host_field_is_refused(relay: Relay, target: ByteTarget, host: str) -> None:
    """Host is checked to be a host: EBADCOMMAND."""
    assert code(relay({"url": target.url(), "headers": [{"Host": host}]})) == "EBADCOMMAND"
    assert target.connections == 0


def test_given_host_is_not_the_name_in_tls(relay: Relay) -> None:
    """Over TLS the server name stays the URL's, which the certificate is checked for."""
    with ByteTarget(server_context()) as target:
        target.on("/", reply(200))
        assert relay({"url": target.url(host="localhost"), "headers": [{"Host": "virtual.lab.example"}]})["statusCode"] == 200
        assert (target.last.server_name, target.last.get_all("Host")) == ("localhost", ["virtual.lab.example"])


# --- bodies ---


@pytest.mark.parametrize(
    ("body", "wire"),
    [
        ({"mode": "raw", "raw": '{"id":1}'}, b'{"id":1}'),
        ({"mode": "raw", "raw": "é€\U0001f600\r\n\x00"}, "é€\U0001f600\r\n\x00".encode()),
        ("bare", b"bare"),
        ({"mode": "base64", "base64": "AP/+gA=="}, b"\x00\xff\xfe\x80"),
        ({"mode": "raw", "raw": ""}, b""),
        ("", b""),
    ],
)
def test_body_arrives_exactly(relay: Relay, target: ByteTarget, body: object, wire: bytes) -> None:
    """The body's bytes, with their length, and no Content-Type of ours."""
    request = sent(relay, target, method="POST", body=body)
    assert (request.body, request.get_all("Content-Length")) == (wire, [str(len(wire))])
    assert request.get("Content-Type") is None
    assert request.get("Transfer-Encoding") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_missing_body_is_an_empty_one_where_one_is_expected(relay: Relay, target: ByteTarget, method: str) -> None:
    """A POST without a body says so with Content-Length: 0 (RFC 9110 §8.6)."""
    request = sent(relay, target, method=method)
    assert (request.body, request.get_all("Content-Length")) == (b"", ["0"])


@pytest.mark.parametrize("method", ["GET", "DELETE", "PROPFIND", "OPTIONS"])
def test_any_method_may_carry_a_body(relay: Relay, target: ByteTarget, method: str) -> None:
    """A body is sent with whatever method the command asks for."""
    request = sent(relay, target, method=method, body="query")
    assert (request.body, request.get_all("Content-Length")) == (b"query", ["5"])


def test_urlencoded_body(relay: Relay, target: ByteTarget) -> None:
    """Pairs in order, repeats kept, encoded as UTF-8, with their Content-Type."""
    pairs = [("a", "1 2"), ("b&", "=é+"), ("a", ""), ("c", "%41")]
    body = {"mode": "urlencoded", "urlencoded": [{"key": key, "value": value} for key, value in pairs]}
    request = sent(relay, target, method="POST", body=body)
    assert parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True) == pairs
    assert request.get_all("Content-Type") == ["application/x-www-form-urlencoded"]


def test_urlencoded_keeps_a_given_content_type(relay: Relay, target: ByteTarget) -> None:
    """The command's own Content-Type stands, once."""
    body = {"mode": "urlencoded", "urlencoded": [{"key": "a", "value": "1"}]}
    request = sent(relay, target, method="POST", headers=[{"content-type": "x/y"}], body=body)
    assert request.get_all("Content-Type") == ["x/y"]


def test_formdata_body(relay: Relay, target: ByteTarget) -> None:
    """Text and file parts arrive in order with names, file names, types and exact bytes."""
    parts = [
        {"key": "text", "value": "é\r\nline", "type": "text"},
        {"key": "plain", "value": "1"},
        {
            "key": "up",
            "type": "file",
            "filename": "a b.bin",
            "contentType": "image/x-raw",
            "base64": base64.b64encode(bytes(range(256))).decode(),
        },
    ]
    request = sent(relay, target, method="POST", body={"mode": "formdata", "formdata": parts})
    (content_type,) = request.get_all("Content-Type")
    assert content_type.startswith("multipart/form-data; boundary=")
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + request.body, policy=email.policy.HTTP)
    found = [
        (part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload(decode=True))
        for part in message.iter_parts()
    ]
    assert found == [("text", None, "é\r\nline".encode()), ("plain", None, b"1"), ("up", "a b.bin", bytes(range(256)))]
    assert b"Content-Type: image/x-raw\r\n" in request.body


def test_ten_megabytes_go_out(relay: Relay, target: ByteTarget) -> None:
    """A body of 10 MB arrives whole."""
    text = "0123456789abcdef" * 655_360
    request = sent(relay, target, method="PUT", body={"mode": "raw", "raw": text})
    assert hashlib.sha256(request.body).digest() == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "x",
        {},
        {"url": None},
        {"body": 5},
        {"body": {"mode": "nope"}},
        {"body": {"mode": "base64", "base64": "*"}},
        {"headers": "x"},
        {"headers": [{"a": 1}]},
        {"headers": [{"a": "1", "b": "2"}]},
        {"timeout": "3"},
        {"timeout": -1},
        {"timeout": True},
        {"follow_redirects": "no"},
        {"ignore_tls_certificate": 1},
    ],
)
def test_payload_that_is_no_request_is_refused(relay: Relay, target: ByteTarget, payload: object) -> None:
    """A field of the wrong type is EBADCOMMAND, and nothing is sent."""
    if isinstance(payload, dict) and payload and "url" not in payload:
        payload = {"url": target.url(), **payload}
    assert code(relay(payload)) == "EBADCOMMAND"
    assert target.connections == 0


def test_refusal_never_repeats_a_value(relay: Relay, target: ByteTarget) -> None:
    """The message names the field, never what stood there."""
    for wrong in ({"headers": [{"X": "hunter2\r\n"}]}, {"method": "hunter2 x"}, {"timeout": "hunter2"}, {"body": {"mode": "hunter2"}}):
        assert "hunter2" not in json.dumps(relay({"url": target.url(), **wrong}))


def test_unknown_field_is_ignored(relay: Relay, target: ByteTarget) -> None:
    """A field that is none of ours changes nothing."""
    assert sent(relay, target, verify=False, note={"a": 1}).method == "GET"


# --- nothing from the environment or an earlier command ---


def test_environment_does_not_show(relay: Relay, target: ByteTarget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither ~/.netrc nor proxy variables that the settings did not read change a request."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\ndefault login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    assert sent(relay, target).get("Authorization") is None


def test_no_state_crosses_from_one_command_to_the_next(relay: Relay, target: ByteTarget) -> None:
    """Cookies, credentials, Host and fields of one command are not in the next on the same connection."""
    target.on("/", in_turn(reply(200, [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")]), reply(200)))
    first = [{"Authorization": "Bearer t"}, {"Cookie": "mine=1"}, {"Host": "v.example"}, {"X-One": "1"}, {"User-Agent": "first"}]
    relay({"url": target.url("/", userinfo="u:p"), "method": "POST", "headers": first, "body": "x"})
    fresh = sent(relay, target)
    assert sorted(fresh.names) == ["accept-encoding", "host", "user-agent"]
    assert (fresh.get("Host"), fresh.get("User-Agent") != "first") == (f"127.0.0.1:{target.port}", True)


def test_before_send_comes_before_the_first_byte(relay: Relay, target: ByteTarget) -> None:
    """What marks a command started is called once, when nothing has arrived yet."""
    seen: list[int] = []
    relay({"url": target.url()}, before_send=lambda: seen.append(len(target.requests)))
    assert seen == [0]


def test_before_send_is_not_called_when_nothing_can_be_sent(relay: Relay) -> None:
    """A refused connection never started the command's request."""
    seen: list[int] = []
    relay({"url": f"http://127.0.0.1:{closed_port()}/"}, before_send=lambda: seen.append(1))
    assert seen == []
