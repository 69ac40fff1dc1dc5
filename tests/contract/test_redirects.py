"""Redirects and cookies within one command (docs/protocol.md, "Redirects"; RFC 9110 §15.4).

The tests look only at what each hop receives.
"""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from relay_agent.relay.target.cookies import MAX_COOKIES
from tests.contract.relaying import Relay, code, field
from tests.target_certificates import server_context
from tests.target_proxies import HttpProxy
from tests.target_server import PATIENCE_SECONDS, RawRequest
from tests.targets import ByteTarget, closed_port, in_turn, raw, redirect, reply


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("/end", reply(200, body="end"))
        yield server


@pytest.fixture
def other() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("/end", reply(200, body="other"))
        yield server


BODY = {"mode": "raw", "raw": "payload"}
SECRETS = [
    "Authorization",
    "Cookie",
    "X-API-Key",
    "X-Api-Token",
    "Api-Key",
    "X-Auth-Token",
    "ts-auth-token",
    "X-Access-Token",
    "X-CSRF-Token",
    "Private-Token",
    "X-Amz-Security-Token",
    "X-Secret",
    "X-Session-Id",
    "Proxy-Authorization",
]


def follow(relay: Relay, target: ByteTarget, status: int, location: str, **payload: Any) -> tuple[dict[str, Any], RawRequest]:
    """Redirect a command from /start once; its answer and the last request of the target."""
    target.on("/start", redirect(status, location))
    answer = relay({"url": target.url("/start"), **payload})
    return answer, target.last


# --- methods and bodies ---


@pytest.mark.parametrize(
    ("status", "method", "then", "keeps_body"),
    [
        (301, "POST", "GET", False),
        (302, "POST", "GET", False),
        (303, "POST", "GET", False),
        (307, "POST", "POST", True),
        (308, "POST", "POST", True),
        (301, "PUT", "PUT", True),
        (302, "PUT", "PUT", True),
        (302, "PATCH", "PATCH", True),
        (303, "PUT", "GET", False),
        (303, "DELETE", "GET", False),
        (303, "PATCH", "GET", False),
        (302, "DELETE", "DELETE", True),
        (307, "PUT", "PUT", True),
        (308, "PATCH", "PATCH", True),
        (307, "BREW", "BREW", True),
        (301, "GET", "GET", True),
    ],
)
def test_method_and_body_on_the_next_hop(relay: Relay, target: ByteTarget, status: int, method: str, then: str, keeps_body: bool) -> None:
    """POST becomes GET on 301 to 303, anything but HEAD on 303; 307 and 308 resend; the rest stays."""
    headers = [{"Content-Type": "text/x"}, {"Content-Encoding": "x"}, {"Content-Language": "en"}, {"X-Kept": "1"}]
    answer, last = follow(relay, target, status, "/end", method=method, body=BODY, headers=headers)
    assert (answer["statusCode"], answer["body"], answer["url"]) == (200, "end", target.url("/end"))
    assert (last.method, last.target, last.get("X-Kept")) == (then, "/end", "1")
    about_body = [name for name in last.names if name.startswith("content-")]
    if keeps_body:
        assert (last.body, sorted(about_body)) == (b"payload", ["content-encoding", "content-language", "content-length", "content-type"])
    else:
        assert (last.body, about_body) == (b"", [])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_and_head_stay(relay: Relay, target: ByteTarget, status: int, method: str) -> None:
    """Neither changes on any redirect."""
    answer, last = follow(relay, target, status, "/end", method=method)
    assert (answer["statusCode"], last.method, last.target) == (200, method, "/end")


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
def test_other_3xx_are_answers(relay: Relay, target: ByteTarget, status: int) -> None:
    """Only 301, 302, 303, 307 and 308 are followed."""
    answer, last = follow(relay, target, status, "/end")
    assert (answer["statusCode"], last.target, field(answer, "Location")) == (status, "/start", "/end")


@pytest.mark.parametrize("status", [200, 201, 404])
def test_location_of_no_redirect_is_a_field(relay: Relay, target: ByteTarget, status: int) -> None:
    """A Location beside 201 and the like is not followed."""
    answer, last = follow(relay, target, status, "/end")
    assert (answer["statusCode"], last.target) == (status, "/start")


def test_missing_location_is_the_final_answer(relay: Relay, target: ByteTarget) -> None:
    """A redirect to nowhere is relayed as it is."""
    target.on("/start", reply(302, body="nowhere"))
    answer = relay({"url": target.url("/start")})
    assert (answer["statusCode"], answer["status"], answer["body"]) == (302, "SUCCESS", "nowhere")


def test_redirects_can_be_left_alone(relay: Relay, target: ByteTarget) -> None:
    """follow_redirects false gives the first answer, cookies and body included."""
    target.on("/start", reply(302, [("Location", "/end"), ("Set-Cookie", "a=1")], "moved"))
    answer = relay({"url": target.url("/start"), "follow_redirects": False})
    assert (answer["statusCode"], field(answer, "Location"), field(answer, "Set-Cookie"), answer["body"]) == (302, "/end", "a=1", "moved")
    assert len(target.requests) == 1


# --- where to ---


@pytest.mark.parametrize(
    ("location", "wire"),
    [
        ("/end", "/end"),
        ("next", "/a/b/next"),
        ("./next", "/a/b/next"),
        ("../up", "/a/up"),
        ("../../../top", "/top"),
        ("?q=1", "/a/b/c?q=1"),
        ("/x?y=%2F&z=%2f", "/x?y=%2F&z=%2f"),
        ("/a%2Fb|{c}", "/a%2Fb|{c}"),
        ("/with space", "/with%20space"),
        ("/x#frag", "/x"),
        ("//127.0.0.1:{port}/net", "/net"),
        ("http://127.0.0.1:{port}/abs?x", "/abs?x"),
        ("HTTP://127.0.0.1:{port}/upper", "/upper"),
        ("http://127.0.0.1:{port}", "/"),
        ("http://127.0.0.1:{port}?q", "/?q"),
        ("  /padded  ", "/padded"),
        ("/caf\xc3\xa9", "/caf%C3%A9"),
        ("/a;p=1/b", "/a;p=1/b"),
        ("/x?u=http://y//z", "/x?u=http://y//z"),
        ("/a//b", "/a//b"),
        ("/x?", "/x?"),
        ("/ger\xe4t?q=\xe9", "/ger%E4t?q=%E9"),
        ("/\xc3\xa9\xe9\xff", "/%C3%A9%E9%FF"),
        ("/\xed\xa0\x80", "/%ED%A0%80"),
        ("/" + "x" * 60_000, "/" + "x" * 60_000),
    ],
    ids=lambda value: value[:30],
)
def test_location_is_resolved(relay: Relay, target: ByteTarget, location: str, wire: str) -> None:
    """Relative, scheme-less and absolute references are followed as RFC 3986 §5 has it, their bytes kept."""
    target.on("/a/b/c", in_turn(redirect(302, location.format_map({"port": target.port, "c": "{c}"})), reply(200)))
    target.on("*", reply(200))
    answer = relay({"url": target.url("/a/b/c?old=1")})
    assert (answer["statusCode"], target.last.target) == (200, wire)
    assert answer["url"] == target.url(wire)


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "gopher://127.0.0.1/",
        "data:text/plain,x",
        "mailto:a@b.example",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://",
        "http:///x",
        "ws://127.0.0.1/",
        "/" + "x" * 65_536,
        "http://127.0.0.1\xe4/",
    ],
    ids=lambda value: value[:30],
)
def test_location_that_cannot_be_followed(relay: Relay, target: ByteTarget, location: str) -> None:
    """Another scheme, or what is no URL, is EBADRESPONSE."""
    answer, _ = follow(relay, target, 302, location)
    assert code(answer) == "EBADRESPONSE"


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.1.1",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "0.0.0.0",
        "[::]",
        "[::ffff:169.254.169.254]",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "224.0.0.1",
        "[ff02::1]",
        "0.1.2.3",
    ],
)
def test_denied_address_is_not_called(relay: Relay, target: ByteTarget, address: str) -> None:
    """Link-local, cloud metadata, unspecified and multicast, in any spelling, are EPOLICY directly and by redirect."""
    assert code(relay({"url": f"http://{address}/latest/meta-data"}, deadline=2.0)) == "EPOLICY"
    answer, _ = follow(relay, target, 302, f"http://{address}/latest/meta-data")
    assert code(answer) == "EPOLICY"


def test_failure_on_a_later_hop_names_that_hop(relay: Relay, target: ByteTarget) -> None:
    """The failure's url is where it happened."""
    port = closed_port()
    answer, _ = follow(relay, target, 302, f"http://127.0.0.1:{port}/there")
    assert (code(answer), answer["url"]) == ("ECONNREFUSED", f"http://127.0.0.1:{port}/there")


# --- how many ---


def count_down(target: ByteTarget, hops: int) -> None:
    """/0 redirects to /1 and so on; /hops is the end."""
    for hop in range(hops):
        target.on(f"/{hop}", redirect(302, f"/{hop + 1}"))
    target.on(f"/{hops}", reply(200, body="arrived"))


def test_ten_redirects_are_followed(relay: Relay, target: ByteTarget) -> None:
    """Exactly ten are fine."""
    count_down(target, 10)
    assert relay({"url": target.url("/0")}).get("body") == "arrived"


def test_eleven_redirects_are_too_many(relay: Relay, target: ByteTarget) -> None:
    """The eleventh is not followed: ETOOMANYREDIRECTS."""
    count_down(target, 11)
    assert code(relay({"url": target.url("/0")})) == "ETOOMANYREDIRECTS"
    assert len(target.requests) == 11


def test_loop_ends(relay: Relay, target: ByteTarget) -> None:
    """A page that redirects to itself ends after ten redirects."""
    answer, _ = follow(relay, target, 302, "/start")
    assert code(answer) == "ETOOMANYREDIRECTS"
    assert len(target.requests) == 11


def test_redirects_use_one_connection(relay: Relay, target: ByteTarget) -> None:
    """Hops on one origin go over the same connection, bodies of redirects read away."""
    target.on("/start", reply(302, [("Location", "/end")], b"x" * 10_000))
    assert relay({"url": target.url("/start")}).get("body") == "end"
    assert target.connections == 1


def test_body_of_a_redirect_that_never_ends_does_not_hold_it_up(relay: Relay, target: ByteTarget) -> None:
    """A redirect is followed whatever becomes of its body."""
    target.on("/start", raw(b"HTTP/1.1 302 Found\r\nLocation: /end\r\nContent-Length: 1000\r\n\r\npart", then="hang"))
    assert relay({"url": target.url("/start")}, deadline=1.5).get("body") == "end"


def test_first_answer_leaves_nothing_in_the_last(relay: Relay, target: ByteTarget) -> None:
    """The answer's fields are the last hop's alone."""
    target.on("/start", redirect(302, "/end", [("X-First", "1"), ("Set-Cookie", "a=1")]))
    answer = relay({"url": target.url("/start")})
    assert (field(answer, "X-First"), field(answer, "Set-Cookie"), field(answer, "Location")) == (None, None, None)


# --- secrets across hosts ---


def test_secrets_stay_on_one_origin(relay: Relay, target: ByteTarget) -> None:
    """Within scheme, host and port every field of the command goes along."""
    headers = [{name: "s3cret"} for name in SECRETS] + [{"Host": "v.lab.example"}]
    _, last = follow(relay, target, 302, "/end", headers=headers)
    assert [last.get(name) for name in SECRETS] == ["s3cret"] * len(SECRETS)
    assert last.get("Host") == "v.lab.example"


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("name", [*SECRETS, "X-Tenant", "Referer", "Origin", "If-Match", "Accept-Charset", "Expect", "Via", "Content-Md5"])
def test_secrets_do_not_cross_to_another_port(relay: Relay, target: ByteTarget, other: ByteTarget, status: int, name: str) -> None:
    """A field of any name may be a credential: it is dropped when the origin changes, unless its name is known to be none."""
    _, _ = follow(relay, target, status, other.url("/end"), headers=[{name.upper(): "s3cret"}, {"Accept": "x/y"}, {"User-Agent": "me"}])
    assert "s3cret" not in other.last.head.decode("latin-1")
    assert (other.last.get("Accept"), other.last.get("User-Agent")) == ("x/y", "me")


NO_SECRETS = ["Accept", "Accept-Language", "Accept-Encoding", "User-Agent", "Range"]
ABOUT_BODY = ["Content-Type", "Content-Encoding", "Content-Language"]


@pytest.mark.parametrize(("status", "about_body"), [(307, ["mine"] * 3), (303, [None] * 3)])
def test_only_what_is_no_secret_crosses(
    relay: Relay, target: ByteTarget, other: ByteTarget, status: int, about_body: list[str | None]
) -> None:
    """What the client can read goes along in any case of its name; what describes the body, where that is sent again."""
    headers = [{name.swapcase(): "mine"} for name in [*NO_SECRETS, *ABOUT_BODY]]
    _, last = follow(relay, target, status, other.url("/end"), method="POST", body=BODY, headers=headers)
    assert last.method == "POST"
    assert [other.last.get(name) for name in NO_SECRETS] == ["mine"] * len(NO_SECRETS)
    assert [other.last.get(name) for name in ABOUT_BODY] == about_body
    assert other.last.body == (b"payload" if status == 307 else b"")


def test_what_describes_a_body_that_was_never_there_does_not_cross(relay: Relay, target: ByteTarget, other: ByteTarget) -> None:
    """A Content-Type beside no body goes no further than its origin."""
    follow(relay, target, 307, other.url("/end"), headers=[{"Content-Type": "s3cret"}])
    assert other.last.get("Content-Type") is None


class _OneHost(HttpProxy):
    """A proxy behind which every host is this target, by TLS on port 443 and without on 80."""

    def __init__(self, plain: ByteTarget, secure: ByteTarget) -> None:
        self.ports = {80: plain.port, 443: secure.port}
        super().__init__()

    def upstream(self, address: tuple[str, int]) -> socket.socket:
        self.asked.append(address)
        return socket.create_connection(("127.0.0.1", self.ports[address[1]]), PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("start", "location", "crosses"),
    [
        ("http://u:p@one.lab.example/start", "https://one.lab.example/end", False),
        ("http://u:p@one.lab.example:80/start", "https://ONE.lab.example:443/end", False),
        ("http://u:p@one.lab.example/start", "https://two.lab.example/end", True),
        ("https://u:p@one.lab.example/start", "http://one.lab.example/end", True),
    ],
)
def test_an_upgrade_to_tls_is_the_same_origin(relay: Relay, target: ByteTarget, start: str, location: str, crosses: bool) -> None:
    """From http to https of one host on the default ports fields and user info go along; never back, and to no other host."""
    with ByteTarget(server_context()) as secure, _OneHost(target, secure) as proxy:
        for server in (target, secure):
            server.on("/start", redirect(302, location))
            server.on("/end", reply(200, body="end"))
        answer = relay({"url": start, "headers": [{"X-Key": "s3cret"}]}, proxy=proxy.url())
        last = (target if start.startswith("https") else secure).last
        assert (answer["body"], last.target) == ("end", "/end")
        carried = (last.get("X-Key"), last.get("Authorization"))
        assert carried == ((None, None) if crosses else ("s3cret", "Basic " + base64.b64encode(b"u:p").decode()))


def test_host_given_does_not_cross(relay: Relay, target: ByteTarget, other: ByteTarget) -> None:
    """A Host override names a virtual host of the first address only."""
    follow(relay, target, 302, other.url("/end"), headers=[{"Host": "v.lab.example"}])
    assert other.last.get_all("Host") == [f"127.0.0.1:{other.port}"]


def test_user_info_does_not_cross(relay: Relay, target: ByteTarget, other: ByteTarget) -> None:
    """Basic credentials of the URL are for its origin: kept there, dropped elsewhere."""
    target.on("/start", redirect(302, "/hop"))
    target.on("/hop", redirect(302, other.url("/end")))
    relay({"url": target.url("/start", userinfo="u:p")})
    assert [request.get("Authorization") for request in target.requests] == ["Basic " + base64.b64encode(b"u:p").decode()] * 2
    assert other.last.get("Authorization") is None


def test_secrets_dropped_do_not_come_back(relay: Relay, target: ByteTarget, other: ByteTarget) -> None:
    """A way through another origin loses them for good: the other one chose where it led."""
    other.on("/back", redirect(302, target.url("/end")))
    follow(relay, target, 302, other.url("/back"), headers=[{"Authorization": "s3cret"}])
    assert target.last.target == "/end"
    assert target.last.get("Authorization") is None


def test_user_info_in_a_location_is_not_echoed(relay: Relay, target: ByteTarget) -> None:
    """The final url holds no user info, wherever it came from."""
    answer, _ = follow(relay, target, 302, f"http://who:hunter2@127.0.0.1:{target.port}/end")
    assert (answer["statusCode"], answer["url"]) == (200, target.url("/end"))


def test_scheme_may_change(relay: Relay, target: ByteTarget) -> None:
    """From http to https and back is followed, without secrets."""
    with ByteTarget(server_context()) as secure:
        secure.on("/tls", redirect(302, target.url("/end")))
        answer, _ = follow(relay, target, 302, secure.url("/tls"), headers=[{"Authorization": "s3cret"}])
        assert (answer["body"], secure.last.get("Authorization"), target.last.get("Authorization")) == ("end", None, None)


def test_redirect_to_a_fault_of_tls_is_that_fault(relay: Relay, target: ByteTarget) -> None:
    """Certificates are checked on every hop."""
    with ByteTarget(server_context("self_signed")) as secure:
        answer, _ = follow(relay, target, 302, secure.url("/"))
        assert (code(answer), answer["url"]) == ("DEPTH_ZERO_SELF_SIGNED_CERT", secure.url("/"))


def test_redirects_go_through_the_proxy(relay: Relay, target: ByteTarget) -> None:
    """Each hop is sent to the proxy, which sees each URL."""
    with HttpProxy() as proxy:
        target.on("/start", redirect(302, "/end"))
        assert relay({"url": target.url("/start")}, proxy=proxy.url()).get("body") == "end"
        assert [request.target for request in proxy.seen] == [target.url("/start"), target.url("/end")]


# --- cookies ---


def cookies(request: RawRequest) -> dict[str, str]:
    """The cookies of a request, which has at most one Cookie field."""
    lines = request.get_all("Cookie")
    assert len(lines) <= 1
    return dict(pair.strip().split("=", 1) for line in lines for pair in line.split(";"))


def test_cookies_set_on_the_way_are_sent(relay: Relay, target: ByteTarget) -> None:
    """A login that sets cookies and redirects works, over several hops."""
    target.on("/start", redirect(302, "/second", [("Set-Cookie", "a=1; Path=/; HttpOnly"), ("Set-Cookie", "b=2; SameSite=Lax")]))
    target.on("/second", redirect(303, "/end", [("Set-Cookie", "b=3; Path=/"), ("Set-Cookie", "c=x=y; Path=/")]))
    relay({"url": target.url("/start"), "method": "POST", "body": "x"})
    assert [cookies(request) for request in target.requests] == [{}, {"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "x=y"}]


def test_cookies_join_the_commands_own(relay: Relay, target: ByteTarget) -> None:
    """What the command gave and what was set go together on one origin."""
    target.on("/start", redirect(302, "/end", [("Set-Cookie", "a=1")]))
    relay({"url": target.url("/start"), "headers": [{"Cookie": "mine=0; two=2"}]})
    assert target.requests[0].get_all("Cookie") == ["mine=0; two=2"]
    assert cookies(target.last) == {"mine": "0", "two": "2", "a": "1"}


def test_set_cookie_replaces_the_commands_own_of_that_name(relay: Relay, target: ByteTarget) -> None:
    """A newer value of the same cookie counts, as in a browser."""
    target.on("/start", redirect(302, "/end", [("Set-Cookie", "sid=new; Path=/")]))
    relay({"url": target.url("/start"), "headers": [{"Cookie": "sid=old; two=2"}]})
    assert target.last.get("Cookie") is not None
    assert "sid=new" in str(target.last.get("Cookie"))
    assert "sid=old" not in str(target.last.get("Cookie"))


@pytest.mark.parametrize(
    "attributes",
    ["; Path=/elsewhere", "; Max-Age=0", "; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "; Secure", "; Domain=lab.example", "; Domain=com"],
)
def test_cookie_that_does_not_apply_is_not_sent(relay: Relay, target: ByteTarget, attributes: str) -> None:
    """Path, age, Secure and a foreign Domain are respected (RFC 6265)."""
    target.on("/start", redirect(302, "/end", [("Set-Cookie", f"a=1{attributes}")]))
    relay({"url": target.url("/start")})
    assert target.last.target == "/end"
    assert cookies(target.last) == {}


def test_cookie_can_be_deleted_on_the_way(relay: Relay, target: ByteTarget) -> None:
    """A later hop may take a cookie back."""
    target.on("/start", redirect(302, "/second", [("Set-Cookie", "a=1; Path=/")]))
    target.on("/second", redirect(302, "/end", [("Set-Cookie", "a=; Path=/; Max-Age=0")]))
    relay({"url": target.url("/start")})
    assert [cookies(request) for request in target.requests] == [{}, {"a": "1"}, {}]


def test_cookie_does_not_cross_to_another_host(relay: Relay, target: ByteTarget) -> None:
    """A cookie of 127.0.0.1 is not localhost's."""
    target.on("/start", redirect(302, target.url("/end", host="localhost"), [("Set-Cookie", "a=1; Path=/")]))
    relay({"url": target.url("/start")})
    assert target.last.target == "/end"
    assert target.last.get("Cookie") is None


def test_cookies_are_sent_in_the_order_of_their_arrival(relay: Relay, target: ByteTarget) -> None:
    """The last of several of one name counts, in the place of the first."""
    fields = [("Set-Cookie", f"{pair}; Path=/") for pair in ("z=1", "a=2", "m=3", "z=4")]
    target.on("/start", redirect(302, "/end", fields))
    relay({"url": target.url("/start")})
    assert target.last.get_all("Cookie") == ["z=4; a=2; m=3"]


@pytest.mark.parametrize("attributes", ["", "; Domain=localhost", "; Domain=.localhost", "; Path=nowhere", "; Max-Age=5; Max-Age=x"])
def test_cookies_of_a_name_without_dots_work(relay: Relay, target: ByteTarget, attributes: str) -> None:
    """A host of one label is a host like any other."""
    target.on("/start", redirect(302, "/end", [("Set-Cookie", f"a=1{attributes}")]))
    relay({"url": target.url("/start", host="localhost")})
    assert target.last.get("Cookie") == "a=1"


def test_cookie_set_and_ended_in_one_answer_is_gone(relay: Relay, target: ByteTarget) -> None:
    """A log-out that clears what it set a line before."""
    target.on("/start", redirect(302, "/end", [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "a=; Path=/; Max-Age=0")]))
    relay({"url": target.url("/start")})
    assert (target.last.target, target.last.get("Cookie")) == ("/end", None)


def test_cookies_are_those_of_the_host_that_the_command_names(relay: Relay, target: ByteTarget) -> None:
    """Behind an address the command's Host says who it is: its domain counts, not the address."""
    cookies_set = [("Set-Cookie", "a=1; Domain=lab.example; Path=/"), ("Set-Cookie", "b=2; Domain=127.0.0.1; Path=/")]
    target.on("/start", redirect(302, "/end", cookies_set))
    relay({"url": target.url("/start"), "headers": [{"Host": f"V.lab.example:{target.port}"}]})
    assert target.last.get("Cookie") == "a=1"


def test_cookies_go_to_other_hosts_of_their_domain(relay: Relay, target: ByteTarget) -> None:
    """Domain and Secure are looked at on each hop."""
    fields = [
        ("Set-Cookie", "all=1; Domain=lab.example; Path=/"),
        ("Set-Cookie", "own=1; Path=/"),
        ("Set-Cookie", "tls=1; Domain=lab.example; Path=/; Secure"),
    ]
    with ByteTarget(server_context()) as secure, _OneHost(target, secure) as proxy:
        target.on("/start", redirect(302, "http://b.lab.example/second", fields))
        target.on("/second", redirect(302, "https://c.lab.example/third"))
        secure.on("/third", redirect(302, "http://a.lab.example/end"))
        relay({"url": "http://a.lab.example/start"}, proxy=proxy.url())
        assert [request.get("Cookie") for request in target.requests] == [None, "all=1", "all=1; own=1"]
        assert secure.last.get("Cookie") == "all=1; tls=1"


def test_a_header_block_full_of_cookies_is_read_in_proportion_to_its_length(relay: Relay, target: ByteTarget) -> None:
    """Twice the cookies take about twice the time, and at most the bound of them is sent."""

    def seconds(count: int, pad: int) -> float:
        fields = [("Set-Cookie", f"c{number}=1; Path=/;" + ";" * pad) for number in range(count)]
        target.on("/start", redirect(302, "/end", fields))
        before = time.process_time()
        assert relay({"url": target.url("/start")})["body"] == "end"
        return time.process_time() - before

    small = max(seconds(100, 240), 0.005)
    assert seconds(900, 240) < 9 * 5 * small
    assert len(str(target.last.get("Cookie")).split(";")) == MAX_COOKIES
    seconds(1, 240_000)
    assert target.last.get("Cookie") is None


def test_cookies_end_with_the_command(relay: Relay, target: ByteTarget) -> None:
    """The next command on the same connection has none of them, on its first hop or a later one."""
    target.on("/start", redirect(302, "/end", [("Set-Cookie", "a=1; Path=/")]))
    target.on("/again", redirect(302, "/end"))
    target.on("/end", reply(200, [("Set-Cookie", "late=1; Path=/")]))
    relay({"url": target.url("/start")})
    relay({"url": target.url("/again")})
    assert [request.get("Cookie") for request in target.requests] == [None, "a=1", None, None]
    assert target.connections == 1


def test_malformed_set_cookie_does_no_harm(relay: Relay, target: ByteTarget) -> None:
    """Whatever Set-Cookie contains, the redirect is followed and the field relayed."""
    bad = [("Set-Cookie", value) for value in ("", "=", ";", "novalue", "a=1; Max-Age=x; Expires=soon", "b" * 5000, "\xff=\xfe", "c=\x01")]
    target.on("/start", redirect(302, "/end", bad))
    target.on("/end", reply(200, bad, "end"))
    answer = relay({"url": target.url("/start")})
    assert (answer["body"], field(answer, "Set-Cookie")) == ("end", [value for _, value in bad])


@pytest.mark.parametrize("status", [307, 308])
def test_a_large_body_is_sent_whole_on_each_hop(relay: Relay, target: ByteTarget, status: int) -> None:
    body = {"mode": "raw", "raw": "0123456789" * 50_000}
    answer, last = follow(relay, target, status, "/end", method="POST", body=body)
    assert (answer["statusCode"], last.get_all("Content-Length")) == (200, ["500000"])
    assert [request.body for request in target.requests] == [body["raw"].encode()] * 2
