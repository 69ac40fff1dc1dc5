"""The test suite's own target, proven with plain sockets and requests before anything is proven with it.

Owns the proof that the target sends and records exact bytes and stops cleanly. It must not touch the agent.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.target_certificates import ca_pem, server_context
from tests.target_proxies import HttpProxy, Refusal, Socks5Proxy
from tests.targets import ByteTarget, FullBacklog, in_turn, raw, reply


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        yield server


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as plain:
        plain.trust_env = False
        yield plain


def _dial(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), 5)


def _exchange(port: int, data: bytes) -> bytes:
    with _dial(port) as sock:
        sock.sendall(data)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_request_bytes_are_kept_exactly(target: ByteTarget) -> None:
    """Head and body are recorded as they came, in order and case."""
    target.on("/a", raw(b"HTTP/1.1 200 OK\r\n\r\nbye"))
    head = b"PoSt /a?x=%2f HTTP/1.1\r\nhOsT:  h \r\nX: 1\r\nx: \xe9\r\nContent-Length: 3\r\n\r\n"
    assert _exchange(target.port, head + b"abc") == b"HTTP/1.1 200 OK\r\n\r\nbye"
    assert target.last.head == head
    assert (target.last.method, target.last.target, target.last.body) == ("PoSt", "/a?x=%2f", b"abc")
    assert target.last.headers[:3] == [("hOsT", "h"), ("X", "1"), ("x", "é")]


def test_chunked_request_is_joined(target: ByteTarget) -> None:
    """A chunked body is unchunked, its raw bytes and trailers kept."""
    target.on("/", raw(b"HTTP/1.1 204 No Content\r\n\r\n"))
    _exchange(target.port, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n0\r\nT: 1\r\n\r\n")
    assert target.last.body == b"abc"
    assert target.last.trailers == (b"T: 1",)


def test_connections_are_kept_and_counted(target: ByteTarget, session: requests.Session) -> None:
    """Two requests of a session use one connection, over IPv4 and IPv6 alike."""
    target.on("/", in_turn(reply(200, body="1"), reply(201, body="2")))
    assert [session.get(target.url()).text, session.get(target.url()).text] == ["1", "2"]
    assert (target.connections, [request.connection for request in target.requests]) == (1, [1, 1])
    assert session.get(target.url(host="::1")).status_code == 201


def test_reset_is_a_reset(target: ByteTarget) -> None:
    """`reset` sends RST, not FIN."""
    target.on("/", raw(then="reset"))
    with _dial(target.port) as sock, pytest.raises(ConnectionResetError):
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        sock.recv(1)


def test_gate_holds_and_releases(target: ByteTarget) -> None:
    """A handler stays at a gate until it is released."""
    gate = target.gate()
    target.on("/", lambda conn, _: conn.respond(200 if conn.wait(gate) else 500, [("Connection", "close")]))
    with _dial(target.port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        gate.wait_reached()
        gate.release()
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")


def test_close_leaves_no_thread() -> None:
    """Closing ends handlers at gates, idle connections, dripping ones and the listener."""
    before = set(threading.enumerate())
    target = ByteTarget()
    gate = target.gate()
    target.on("/gate", lambda conn, _: (conn.wait(gate), None)[1])
    target.on("/drip", lambda conn, _: conn.drip(b"x" * 1000, 0.01))
    socks = [_dial(target.port) for _ in range(4)]
    socks[0].sendall(b"GET /gate HTTP/1.1\r\n\r\n")
    socks[1].sendall(b"GET /drip HTTP/1.1\r\n\r\n")
    socks[2].sendall(b"GET /half")
    target.wait_requests(2)
    target.close()
    for sock in socks:
        sock.close()
    assert set(threading.enumerate()) == before


def _verify(target: ByteTarget, host: str = "localhost") -> str:
    context = ssl.create_default_context(cadata=ca_pem().decode())
    try:
        with _dial(target.port) as sock, context.wrap_socket(sock, server_hostname=host) as wrapped:
            return wrapped.version() or "?"
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_code)
    except ssl.SSLError as error:
        return error.reason or "?"


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ("none", "TLSv1.3"),
        ("expired", "10"),
        ("not_yet_valid", "9"),
        ("self_signed", "18"),
        ("wrong_host", "62"),
        ("incomplete_chain", "20"),
        ("unknown_authority", "20"),
        ("unknown_root_sent", "19"),
    ],
)
def test_each_certificate_fault_is_that_fault(fault: str, verdict: str) -> None:
    """OpenSSL's verify code for each fault is the one it is named after."""
    with ByteTarget(server_context(fault)) as target:  # type: ignore[arg-type]
        assert _verify(target) == verdict


def test_versions_can_be_limited() -> None:
    """A target may speak TLS 1.2 only, or 1.1 only, which a client of today refuses."""
    with ByteTarget(server_context(newest=ssl.TLSVersion.TLSv1_2)) as target:
        assert _verify(target) == "TLSv1.2"
    with ByteTarget(server_context(oldest=ssl.TLSVersion.TLSv1_1, newest=ssl.TLSVersion.TLSv1_1)) as target:
        assert _verify(target) == "TLSV1_ALERT_PROTOCOL_VERSION"


def test_https_request_shows_name_and_version(session: requests.Session, tmp_path: Path) -> None:
    """SNI and the TLS version are recorded with the request."""
    (tmp_path / "ca.pem").write_bytes(ca_pem())
    with ByteTarget(server_context()) as target:
        target.on("/", reply(200))
        session.get(target.url(host="localhost"), verify=str(tmp_path / "ca.pem"))
        assert (target.last.server_name, target.last.tls_version) == ("localhost", "TLSv1.3")


def test_http_proxy_forwards_and_tunnels(session: requests.Session, tmp_path: Path) -> None:
    """Absolute-form is forwarded, CONNECT is tunnelled, both with Basic auth, both recorded."""
    (tmp_path / "ca.pem").write_bytes(ca_pem())
    with (
        ByteTarget() as plain,
        ByteTarget(server_context()) as secure,
        HttpProxy(auth=("u", "p@ss"), resolve={"x.lab.example": ("127.0.0.1", secure.port)}) as proxy,
    ):
        plain.on("/p", reply(200, body="plain"))
        secure.on("/s", reply(200, body="secure"))
        proxies = dict.fromkeys(("http", "https"), proxy.url(("u", "p@ss")))
        assert session.get(plain.url("/p"), proxies=proxies).text == "plain"
        assert session.get("https://x.lab.example/s", proxies=proxies, verify=str(tmp_path / "ca.pem")).text == "secure"
        assert [request.target for request in proxy.seen] == [plain.url("/p"), "x.lab.example:443"]
        assert session.get(plain.url("/p"), proxies={"http": proxy.url()}).status_code == 407


def test_http_proxy_refuses(session: requests.Session) -> None:
    """A refusal has the status and body the test wants."""
    with HttpProxy(refuse=Refusal(503, b"closed")) as proxy:
        answer = session.get("http://a.lab.example/", proxies={"http": proxy.url()})
        assert (answer.status_code, answer.content) == (503, b"closed")


@pytest.mark.parametrize("auth", [None, ("user", "pass")])
def test_socks_proxy_resolves_for_the_client(session: requests.Session, auth: tuple[str, str] | None) -> None:
    """A name goes to the proxy as a name, with and without a password."""
    with ByteTarget() as target, Socks5Proxy(auth=auth, resolve={"dev.lab.example": ("127.0.0.1", target.port)}) as proxy:
        target.on("/", reply(200, body="ok"))
        assert session.get("http://dev.lab.example/", proxies={"http": proxy.url(auth)}).text == "ok"
        assert (proxy.names, proxy.asked) == (["dev.lab.example"], [("dev.lab.example", 80)])


def test_full_backlog_never_connects() -> None:
    """A connect to the full port hangs until its timeout."""
    with FullBacklog() as hole, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", hole.port), 0.2).close()
