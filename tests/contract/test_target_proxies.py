"""Targets behind a proxy (PROTOCOL §4): forwarded, tunnelled, refused, and distinguished from the target's own faults.

Which proxy serves which URL is tested in `tests/unit/transport/test_proxy_routing.py`.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.models import HttpResponse
from relay_agent.protocol.requests import decode_request
from tests.contract.relaying import Relay, code, field
from tests.target_certificates import server_context
from tests.target_proxies import HttpProxy, Refusal, Socks5Proxy
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, closed_port, in_turn, redirect, reply

AUTH = ("us er", "p@ss:/ü")


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("*", reply(200, [("X-A", "1")], "plain"))
        yield server


@pytest.fixture
def secure() -> Iterator[ByteTarget]:
    with ByteTarget(server_context()) as server:
        server.on("*", reply(200, [("X-A", "1")], "secure"))
        yield server


def test_http_goes_in_absolute_form(relay: Relay, target: ByteTarget) -> None:
    """The proxy gets the URL byte for byte, the target its path; nothing is added but what the protocol needs."""
    path = "/a%2Fb//c|{d}?x=%2f;&?"
    with HttpProxy() as proxy:
        answer = relay({"url": target.url(path), "headers": [{"X-B": "1"}, {"x-b": "2"}]}, proxy=proxy.url())
        (seen,) = proxy.seen
        assert (answer["statusCode"], answer["body"], answer["url"]) == (200, "plain", target.url(path))
        assert seen.line == f"GET {target.url(path)} HTTP/1.1".encode()
        assert sorted(seen.names) == ["accept-encoding", "host", "user-agent", "x-b", "x-b"]
        assert target.last.target == path


def test_name_goes_to_the_proxy_unresolved(relay: Relay, target: ByteTarget) -> None:
    """A name that only the proxy knows is reached through it."""
    with HttpProxy(resolve={"only.lab.example": ("127.0.0.1", target.port)}) as proxy:
        assert relay({"url": "http://only.lab.example/x"}, proxy=proxy.url()).get("body") == "plain"
        assert proxy.asked == [("only.lab.example", 80)]
        assert target.last.get_all("Host") == ["only.lab.example"]


def test_https_goes_through_a_tunnel(relay: Relay, secure: ByteTarget) -> None:
    """CONNECT names host and port and nothing of the command; TLS is with the target."""
    with HttpProxy(resolve={"dev.lab.example": ("127.0.0.1", secure.port)}) as proxy:
        payload = {"url": "https://u:hunter2@dev.lab.example/x?hunter2", "headers": [{"X-Secret": "hunter2"}, {"User-Agent": "hunter2"}]}
        assert relay(payload, proxy=proxy.url()).get("body") == "secure"
        (seen,) = proxy.seen
        assert seen.line == b"CONNECT dev.lab.example:443 HTTP/1.1"
        assert seen.get_all("Host") == ["dev.lab.example:443"]
        assert b"hunter2" not in seen.head
        assert (secure.last.server_name, secure.last.target) == ("dev.lab.example", "/x?hunter2")


def test_ipv6_literal_goes_through_a_tunnel(relay: Relay, secure: ByteTarget) -> None:
    """CONNECT has an IPv6 literal in brackets."""
    with HttpProxy() as proxy:
        assert relay({"url": secure.url("/", host="::1")}, proxy=proxy.url()).get("body") == "secure"
        assert proxy.seen[0].target == f"[::1]:{secure.port}"


def test_tunnel_is_kept(relay: Relay, secure: ByteTarget) -> None:
    """Two commands to one target use one tunnel."""
    with HttpProxy() as proxy:
        for _ in range(2):
            assert relay({"url": secure.url()}, proxy=proxy.url()).get("body") == "secure"
        assert proxy.tunnels == 1


@pytest.mark.parametrize("over_tls", [False, True], ids=["proxy in plain", "proxy over TLS"])
def test_proxy_password_is_sent_to_the_proxy_alone(relay: Relay, target: ByteTarget, secure: ByteTarget, over_tls: bool) -> None:
    """Percent-encoded credentials open the proxy, and the target sees nothing of them."""
    with HttpProxy(auth=AUTH, tls=server_context() if over_tls else None) as proxy:
        assert relay({"url": target.url()}, proxy=proxy.url(AUTH)).get("body") == "plain"
        assert relay({"url": secure.url()}, proxy=proxy.url(AUTH)).get("body") == "secure"
        expected = "Basic " + base64.b64encode(":".join(AUTH).encode()).decode()
        assert [seen.get("Proxy-Authorization") for seen in proxy.seen] == [expected, expected]
        assert [server.last.get("Proxy-Authorization") for server in (target, secure)] == [None, None]


@pytest.mark.parametrize("url", ["https://dev.lab.example/x", "http://dev.lab.example/x"], ids=["CONNECT", "forwarding"])
@pytest.mark.parametrize("status", [407, 403, 502, 503])
def test_refusal_is_the_proxys_answer(relay: Relay, url: str, status: int) -> None:
    """A proxy that refuses gives its own status, headers and body, as any response (PROTOCOL §4)."""
    refusal = Refusal(
        status,
        b"ask the administrator",
        (("Content-Type", "text/plain"), ("Proxy-Authenticate", 'Basic realm="lab"'), ("X-Cache", "MISS"), ("X-Cache", "none")),
    )
    with HttpProxy(refuse=refusal) as proxy:
        answer = relay({"url": url}, proxy=proxy.url())
        assert (answer["statusCode"], answer["status"], answer["body"]) == (status, "FAILURE", "ask the administrator")
        assert (field(answer, "Proxy-Authenticate"), field(answer, "X-Cache")) == ('Basic realm="lab"', ["MISS", "none"])
        assert answer["url"] == url


@pytest.mark.parametrize("url", ["https://dev.lab.example/x", "http://dev.lab.example/x"], ids=["CONNECT", "forwarding"])
def test_refusal_does_not_count_as_an_answer_of_the_target(relay: Relay, url: str) -> None:
    with HttpProxy(refuse=Refusal(503)) as proxy:
        outcome = relay.executor(proxy=proxy.url()).execute(decode_request({"url": url}), Deadline(8.0))
    assert isinstance(outcome, HttpResponse)
    outcome.content.close()
    assert outcome.from_proxy


def test_what_a_target_answers_through_a_proxy_counts_as_its_own(relay: Relay, target: ByteTarget, secure: ByteTarget) -> None:
    secure.on("/none", reply(404, [], ""))
    with HttpProxy() as proxy:
        for url in (target.url("/x"), secure.url("/none")):
            outcome = relay.executor(proxy=proxy.url()).execute(decode_request({"url": url}), Deadline(8.0))
            assert isinstance(outcome, HttpResponse)
            outcome.content.close()
            assert not outcome.from_proxy


def test_refusal_without_password_is_407(relay: Relay, secure: ByteTarget) -> None:
    """A proxy that wants a password and gets none or a wrong one answers 407."""
    with HttpProxy(auth=AUTH) as proxy:
        for url in (proxy.url(), proxy.url(("us er", "wrong"))):
            assert relay({"url": secure.url()}, proxy=url)["statusCode"] == 407


def test_refusal_in_bytes_is_base64(relay: Relay) -> None:
    """A proxy's response body is relayed like any other."""
    with HttpProxy(refuse=Refusal(503, b"\xff\xfe\x00")) as proxy:
        answer = relay({"url": "https://dev.lab.example/"}, proxy=proxy.url())
        assert (answer["bodyEncoding"], base64.b64decode(answer["body"])) == ("base64", b"\xff\xfe\x00")


TEXT = "zur\u00fcckgewiesen " * 9


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(TEXT.encode(), mtime=0)),
        ("gzip", gzip.compress(TEXT[:50].encode(), mtime=0) + gzip.compress(TEXT[50:].encode(), mtime=0) + b"\0\0"),
        ("deflate", zlib.compress(TEXT.encode())),
        ("deflate", zlib.compress(TEXT.encode(), wbits=-15)),
        ("br", brotli.compress(TEXT.encode())),
        ("deflate, gzip", gzip.compress(zlib.compress(TEXT.encode()), mtime=0)),
    ],
    ids=["gzip", "members and padding", "zlib", "bare deflate", "br", "two"],
)
def test_refusal_in_a_coding_is_text(relay: Relay, coding: str, packed: bytes) -> None:
    """What a proxy says of a tunnel is decoded as any response is, and the fields of its coding go."""
    refusal = Refusal(403, packed, (("Content-Type", "text/html; charset=utf-8"), ("Content-Encoding", coding), ("X-Proxy", "yes")))
    with HttpProxy(refuse=refusal) as proxy:
        answer = relay({"url": "https://dev.lab.example/"}, proxy=proxy.url())
    assert (answer["statusCode"], answer["bodyEncoding"], answer["body"]) == (403, "utf-8", TEXT)
    assert (field(answer, "Content-Encoding"), field(answer, "Content-Length"), field(answer, "X-Proxy")) == (None, None, "yes")


@pytest.mark.parametrize("coding", ["gzip", "foo", "gzip, gzip, gzip, gzip"])
def test_refusal_with_a_wrong_coding_is_passed_on_as_received(relay: Relay, coding: str) -> None:
    """The refusal is the answer, whatever its text is worth."""
    with HttpProxy(refuse=Refusal(407, b"who are you?", (("Content-Encoding", coding),))) as proxy:
        answer = relay({"url": "https://dev.lab.example/"}, proxy=proxy.url())
    assert (answer["statusCode"], answer["body"], field(answer, "Content-Encoding")) == (407, "who are you?", coding)


def test_refusal_that_expands_too_much_is_passed_on_as_received(relay: Relay) -> None:
    """A proxy's text is worth a bounded amount of work and of memory."""
    packed = gzip.compress(b"x" * 50_000_000, mtime=0)
    with HttpProxy(refuse=Refusal(403, packed, (("Content-Encoding", "gzip"),))) as proxy:
        answer = relay({"url": "https://dev.lab.example/"}, proxy=proxy.url())
    assert (answer["statusCode"], base64.b64decode(answer["body"])) == (403, packed)


def test_refused_tunnel_does_not_mark_the_command_started(relay: Relay) -> None:
    """Nothing of the request went out when the tunnel was refused."""
    seen: list[int] = []
    with HttpProxy(refuse=Refusal(503)) as proxy:
        relay({"url": "https://dev.lab.example/", "method": "POST"}, proxy=proxy.url(), before_send=lambda: seen.append(1))
    assert seen == []


def test_target_unreachable_behind_the_proxy_is_the_proxys_502(relay: Relay) -> None:
    """What the proxy says of a target that it cannot reach is relayed."""
    with HttpProxy() as proxy:
        for scheme in ("http", "https"):
            assert relay({"url": f"{scheme}://127.0.0.1:{closed_port()}/"}, proxy=proxy.url())["statusCode"] == 502


@pytest.mark.parametrize("kind", ["http", "https", "socks5h"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_unreachable_proxy_is_the_proxys_fault(relay: Relay, kind: str, scheme: str) -> None:
    """ECONNREFUSED says proxy, has no statusCode and no password in it."""
    url = f"{kind}://user:hunter2@127.0.0.1:{closed_port()}"
    answer = relay({"url": f"{scheme}://dev.lab.example/"}, proxy=url)
    assert code(answer) == "ECONNREFUSED"
    assert "proxy" in answer["message"].lower()
    assert "hunter2" not in json.dumps(answer)


@pytest.mark.parametrize("kind", ["http", "socks5h"])
def test_proxy_name_that_does_not_exist_is_the_proxys_fault(relay: Relay, kind: str) -> None:
    """A name that fails is the proxy's, not the target's."""
    answer = relay({"url": "http://dev.lab.example/"}, proxy=f"{kind}://no-such-proxy.invalid:3128")
    assert code(answer) in {"ENOTFOUND", "EAI_AGAIN"}
    assert "proxy" in answer["message"].lower()


def test_proxy_that_speaks_tls_where_plain_was_expected(relay: Relay) -> None:
    """A TLS proxy named http:// fails, and the failure says proxy."""
    with HttpProxy(tls=server_context()) as proxy:
        for scheme in ("http", "https"):
            answer = relay({"url": f"{scheme}://dev.lab.example/"}, proxy=proxy.url().replace("https:", "http:"))
            assert code(answer) in {"EBADRESPONSE", "ECONNRESET", "EPROTO"}
            assert "proxy" in answer["message"].lower()


def test_proxy_that_speaks_plain_where_tls_was_expected(relay: Relay) -> None:
    """A plain proxy named https:// fails, and the failure says proxy."""

    def answer_plainly(conn: Connection) -> bool:
        conn.sock.recv(5)
        conn.respond(400, body=b"plain HTTP here")
        conn.half_close()
        conn.hang(1.0)
        return False

    with ByteTarget() as proxy:
        proxy.on_accept = answer_plainly
        answer = relay({"url": "http://dev.lab.example/"}, proxy=f"https://127.0.0.1:{proxy.port}")
        assert code(answer) == "EPROTO"
        assert "proxy" in answer["message"].lower()


def test_certificate_of_the_proxy_is_checked(relay: Relay) -> None:
    """A proxy's own certificate fault says proxy, and ignore_tls_certificate is for targets only."""
    with HttpProxy(tls=server_context("self_signed")) as proxy:
        for ignore in (False, True):
            answer = relay({"url": "https://dev.lab.example/", "ignore_tls_certificate": ignore}, proxy=proxy.url())
            assert code(answer) == "DEPTH_ZERO_SELF_SIGNED_CERT"
            assert "proxy" in answer["message"].lower()


def test_certificate_of_the_target_is_checked_in_the_tunnel(relay: Relay) -> None:
    """A fault of the target's certificate keeps its code behind any proxy, and can be ignored."""
    with (
        ByteTarget(server_context("expired")) as target,
        HttpProxy() as plain,
        HttpProxy(tls=server_context()) as over_tls,
        Socks5Proxy() as socks,
    ):
        target.on("/", reply(200, body="ok"))
        for proxy in (plain, over_tls, socks):
            assert code(relay({"url": target.url()}, proxy=proxy.url())) == "CERT_HAS_EXPIRED"
            assert relay({"url": target.url(), "ignore_tls_certificate": True}, proxy=proxy.url()).get("body") == "ok"


@pytest.mark.parametrize(
    "said",
    [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 2", b"HTTP/1.1 200\r\nX: " + b"y" * 300_000, b"HTTP/1.1 abc\r\n\r\n"],
    ids=["nothing", "ssh", "cut", "endless", "garbage"],
)
def test_nonsense_in_answer_to_connect_is_the_proxys_fault(relay: Relay, said: bytes) -> None:
    """A proxy that hangs up or speaks no HTTP is a failure that says proxy."""

    def answer(conn: Connection) -> bool:
        conn.read_head()
        conn.send(said)
        conn.half_close()
        conn.hang(1.0)
        return False

    with ByteTarget() as proxy:
        proxy.on_accept = answer
        failed = relay({"url": "https://dev.lab.example/"}, proxy=f"http://127.0.0.1:{proxy.port}")
        assert code(failed) in {"EBADRESPONSE", "ECONNRESET"}
        assert "proxy" in failed["message"].lower()


@pytest.mark.parametrize(
    "granted",
    [
        b"HTTP/1.0 200 Connection established\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 299 Fine\r\nX: 1\r\n\r\n",
    ],
)
def test_any_2xx_opens_the_tunnel(relay: Relay, secure: ByteTarget, granted: bytes) -> None:
    """Length and coding of a 2xx to CONNECT mean nothing (RFC 9110 §9.3.6), and its version does not end the tunnel."""
    with HttpProxy(grant=granted) as proxy:
        for _ in range(2):
            assert relay({"url": secure.url()}, proxy=proxy.url()).get("body") == "secure"
        assert proxy.tunnels == 1


def test_refusal_in_chunks_is_whole(relay: Relay) -> None:
    """A proxy's body is read by its framing."""

    def answer(conn: Connection) -> bool:
        conn.read_head()
        conn.send(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno,\r\n4\r\n no!\r\n0\r\n\r\n")
        conn.hang(1.0)
        return False

    with ByteTarget() as proxy:
        proxy.on_accept = answer
        said = relay({"url": "https://dev.lab.example/"}, proxy=f"http://127.0.0.1:{proxy.port}", deadline=1.0)
        assert (said.get("statusCode"), said.get("body")) == (503, "no, no!")


@pytest.mark.parametrize(
    ("framing", "said", "then", "expected"),
    [
        (b"", b"no entry", "hang", (503, "no entry")),
        (b"Content-Length: 80\r\n", b"no entry", "hang", (503, "no entry")),
        (b"Transfer-Encoding: chunked\r\n", b"2\r\nno\r\n", "hang", (503, "no")),
        (b"", b"no entry", "close", (503, "no entry")),
        (b"Content-Length: 80\r\n", b"no entry", "close", ("EBADRESPONSE", None)),
        (b"Transfer-Encoding: chunked\r\n", b"8\r\nno", "close", ("EBADRESPONSE", None)),
        (b"Transfer-Encoding: chunked\r\n", b"zz\r\nno", "hang", ("EBADRESPONSE", None)),
        (b"", b"no entry", "reset", (503, "no entry")),
        (b"Content-Length: 80\r\n", b"no entry", "reset", ("EBADRESPONSE", None)),
    ],
)
def test_a_refusal_that_never_ends_is_reported_with_its_status(
    relay: Relay, framing: bytes, said: bytes, then: str, expected: tuple[object, object]
) -> None:
    """A proxy that neither sends all nor closes takes no more than the time to connect."""

    def answer(conn: Connection) -> bool:
        conn.read_head()
        conn.send(b"HTTP/1.1 503 No\r\n" + framing + b"\r\n" + said)
        conn.wait_read()  # A reset discards data that was not read before it.
        getattr(conn, then)()
        return False

    with ByteTarget() as proxy:
        proxy.on_accept = answer
        reported = relay({"url": "https://dev.lab.example/"}, proxy=f"http://127.0.0.1:{proxy.port}", deadline=20.0, connect_seconds=3.0)
    assert (reported.get("statusCode") or code(reported), reported.get("body")) == expected
    assert reported.get("statusCode") or "503" in reported["message"]


@pytest.mark.parametrize("over_tls", [False, True], ids=["proxy in plain", "proxy over TLS"])
def test_large_bodies_pass_a_tunnel_both_ways(relay: Relay, secure: ByteTarget, over_tls: bool) -> None:
    """Megabytes in both directions arrive complete, TLS in TLS included, and the tunnel stays usable."""
    text = "0123456789abcdef" * 125_000
    secure.on("/echo", lambda conn, request: conn.respond(200, body=request.body))
    with HttpProxy(tls=server_context() if over_tls else None) as proxy:
        for _ in range(2):
            answer = relay({"url": secure.url("/echo"), "method": "PUT", "body": text}, proxy=proxy.url())
            assert answer.get("body") == text
        assert proxy.tunnels == 1


@pytest.mark.parametrize("over_tls", [False, True], ids=["proxy in plain", "proxy over TLS"])
def test_tunnel_that_went_stale_is_replaced(relay: Relay, secure: ByteTarget, over_tls: bool) -> None:
    """A target that closed its end of a kept tunnel does not fail the next command."""
    done = threading.Event()

    def answer_and_leave(conn: Connection, _request: RawRequest) -> None:
        conn.respond(200, body=b"first")
        conn.finish_tls()
        done.set()

    secure.on("/", answer_and_leave)
    with HttpProxy(tls=server_context() if over_tls else None) as proxy:
        assert relay({"url": secure.url("/")}, proxy=proxy.url()).get("body") == "first"
        assert done.wait(5)
        proxy.wait_idle()
        assert relay({"url": secure.url("/x"), "method": "POST", "body": "x"}, proxy=proxy.url()).get("body") == "secure"


def test_redirect_in_answer_to_connect_is_not_the_targets(relay: Relay) -> None:
    """A 302 from the proxy must not be followed as if the target had sent it, whatever the sender gets."""
    with ByteTarget() as elsewhere, HttpProxy(refuse=Refusal(302, b"", (("Location", elsewhere.url("/login")),))) as proxy:
        answer = relay({"url": "https://dev.lab.example/", "headers": [{"Authorization": "s"}]}, proxy=proxy.url())
        assert answer.get("statusCode") in (None, 302)
        assert elsewhere.connections == 0


@pytest.mark.parametrize("auth", [None, ("user", "p@ss")])
def test_socks_resolves_at_the_proxy(relay: Relay, target: ByteTarget, secure: ByteTarget, auth: tuple[str, str] | None) -> None:
    """socks5h sends names, with and without a password, for http and https."""
    names = {"a.lab.example": ("127.0.0.1", target.port), "b.lab.example": ("127.0.0.1", secure.port)}
    with Socks5Proxy(auth=auth, resolve=names) as proxy:
        assert relay({"url": "http://a.lab.example/"}, proxy=proxy.url(auth)).get("body") == "plain"
        assert relay({"url": "https://b.lab.example/"}, proxy=proxy.url(auth)).get("body") == "secure"
        assert proxy.names == ["a.lab.example", "b.lab.example"]
        assert proxy.asked == [("a.lab.example", 80), ("b.lab.example", 443)]
        assert (secure.last.server_name, secure.last.get("Host")) == ("b.lab.example", "b.lab.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_socks_takes_literals(relay: Relay, target: ByteTarget, host: str) -> None:
    """An address goes as an address."""
    with Socks5Proxy() as proxy:
        assert relay({"url": target.url(host=host)}, proxy=proxy.url()).get("body") == "plain"
        assert (proxy.asked, proxy.names) == ([(host, target.port)], [])


@pytest.mark.parametrize(
    ("reply_code", "wanted"), [(1, None), (2, None), (3, "ENETUNREACH"), (4, "EHOSTUNREACH"), (5, "ECONNREFUSED"), (7, None)]
)
def test_socks_refusal_says_proxy(relay: Relay, reply_code: int, wanted: str | None) -> None:
    """A SOCKS proxy's error is reported as the proxy's, with the system's code if there is one."""
    with Socks5Proxy(refuse=reply_code) as proxy:
        answer = relay({"url": "http://dev.lab.example/"}, proxy=proxy.url())
        assert wanted is None or code(answer) == wanted
        assert "proxy" in answer["message"].lower()


def test_socks_wants_another_password(relay: Relay) -> None:
    """A wrong or missing SOCKS password is a failure that says proxy and not the password."""
    with Socks5Proxy(auth=("user", "right")) as proxy:
        for auth in (None, ("user", "hunter2")):
            answer = relay({"url": "http://dev.lab.example/"}, proxy=proxy.url(auth))
            assert "statusCode" not in answer
            assert "proxy" in answer["message"].lower()
            assert "hunter2" not in json.dumps(answer)


@pytest.mark.parametrize("kind", [HttpProxy, Socks5Proxy])
def test_denied_address_is_refused_before_the_proxy_is_asked(relay: Relay, kind: type[HttpProxy | Socks5Proxy]) -> None:
    """Literal addresses are checked also where a proxy would connect: EPOLICY."""
    with kind() as proxy:
        for host in ("169.254.169.254", "[::ffff:a9fe:a9fe]", "0xa9fea9fe"):
            assert code(relay({"url": f"http://{host}/latest"}, proxy=proxy.url())) == "EPOLICY"
        assert (proxy.connections, proxy.asked) == (0, [])


def test_no_proxy_goes_directly(relay: Relay, target: ByteTarget) -> None:
    """A host that no_proxy names is not sent to the proxy, on each hop by itself."""
    with HttpProxy(resolve={"far.lab.example": ("127.0.0.1", target.port)}) as proxy:
        target.on("/start", in_turn(redirect(302, "http://far.lab.example/far")))
        answer = relay({"url": target.url("/start")}, proxy=proxy.url(), no_proxy="127.0.0.1")
        assert answer["body"] == "plain"
        assert [seen.target for seen in proxy.seen] == ["http://far.lab.example/far"]


def test_connection_through_a_proxy_is_not_used_without(relay: Relay, target: ByteTarget) -> None:
    """Direct and proxied commands to one target keep connections apart."""
    with HttpProxy() as proxy:
        assert relay({"url": target.url("/1")}).get("body") == "plain"
        assert relay({"url": target.url("/2")}, proxy=proxy.url()).get("body") == "plain"
        assert len(proxy.seen) == 1


@pytest.mark.parametrize("name", ["Proxy-Authorization", "proxy-authorization"])
def test_the_commands_own_proxy_authorization_never_stands_beside_the_agents(relay: Relay, target: ByteTarget, name: str) -> None:
    """An http proxy with credentials gets these alone; one without gets what the command gives."""
    with HttpProxy(auth=AUTH) as proxy:
        assert relay({"url": target.url(), "headers": [{name: "Basic other"}]}, proxy=proxy.url(AUTH)).get("body") == "plain"
        (seen,) = proxy.seen
        assert [value.split(" ")[0] for value in seen.get_all("Proxy-Authorization")] == ["Basic"]
        assert seen.get("Proxy-Authorization") != "Basic other"
    with HttpProxy() as proxy:
        relay({"url": target.url(), "headers": [{name: "Basic other"}]}, proxy=proxy.url())
        assert proxy.seen[0].get_all("Proxy-Authorization") == ["Basic other"]


@pytest.mark.parametrize("method", ["TRACE", "trace"])
def test_a_proxy_that_reads_the_request_gets_no_password_with_trace(relay: Relay, target: ByteTarget, tmp_path: Path, method: str) -> None:
    """RFC 9110 §9.3.8: with Max-Forwards the proxy itself answers with what it received, and the sender would read the password."""
    with HttpProxy(auth=AUTH) as proxy:
        payload = {"url": target.url(), "method": method, "headers": [{"Max-Forwards": "0"}]}
        assert relay(payload, proxy=proxy.url(AUTH)).get("statusCode") == 407
        (tmp_path / "password").write_text("canary")
        digest = 'proxy_auth = { digest = { user = "agent", password = { file = "password" } } }'
        policy = f'default = "allow"\n[[target]]\nhosts = ["*"]\n{digest}\n'
        assert relay(payload, proxy=proxy.url(), policy=policy).get("statusCode") == 407
        assert [seen.get("Proxy-Authorization") for seen in proxy.seen] == [None, None]
        assert target.requests == []
