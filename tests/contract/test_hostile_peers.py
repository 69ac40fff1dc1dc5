"""Whatever happens at any step on the way to a target, the command fails with a code, in time, and leaves no socket open.

Peers that speak no known protocol, invalid names, and a machine without free resources.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.core.urls import literal_address, parse_url
from relay_agent.transport import happy_eyeballs
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.progress import Progress
from relay_agent.transport.proxy import parse_proxy
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.contract.relaying import Relay, code
from tests.examples import examples
from tests.target_certificates import ca_pem, server_context
from tests.target_proxies import HttpProxy, Socks5Proxy
from tests.target_server import Connection
from tests.targets import ByteTarget, reply

GREETING, LOGIN = b"\x05\x00", b"\x05\x02"
CONNECTED = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"
TUNNEL = b"HTTP/1.1 200 OK\r\n\r\n"
STEPS: dict[str, list[list[bytes]]] = {
    "none": [[]],
    "http": [[], [TUNNEL]],
    "https": [[]],
    "socks5h": [[], [GREETING], [LOGIN], [LOGIN, b"\x01\x00"], [GREETING, CONNECTED]],
}
"""What a peer says in good order before it goes wrong, by the kind of proxy that it plays."""

_RECORD = st.builds(
    lambda kind, version, data: bytes([kind, 3, version]) + len(data).to_bytes(2, "big") + data,
    st.sampled_from([20, 21, 22, 23, 24]),
    st.integers(0, 4),
    st.binary(max_size=60),
)
_SOCKS = st.builds(
    lambda reply, kind, rest: bytes([5, reply, 0, kind]) + rest, st.integers(0, 9), st.integers(0, 5), st.binary(max_size=20)
)
_HTTP = st.builds(
    lambda rest: b"HTTP/1.1 " + rest,
    st.sampled_from([b"200 OK\r\n", b"407 \r\n\r\n", b"999 x\r\nA:\r\n\r\nx", b""]) | st.binary(max_size=40),
)
GARBAGE = st.one_of(st.binary(max_size=300), st.lists(_RECORD, min_size=1, max_size=4).map(b"".join), _SOCKS, _HTTP)


def says(*pieces: bytes) -> Callable[[Connection], bool]:
    """A peer that says one piece after each thing that it hears, and then ends its side."""

    def talk(conn: Connection) -> bool:
        for piece in pieces:
            conn.sock.recv(65536)
            conn.send(piece)
        conn.half_close()
        conn.hang(2.0)
        return False

    return talk


@pytest.mark.parametrize(
    ("scheme", "kind", "said"),
    [
        (scheme, kind, said)
        for kind, all_said in STEPS.items()
        for said in all_said
        for scheme in ("http", "https")
        if scheme == "https" or said != [TUNNEL]
    ],
)
def test_what_is_no_protocol_is_a_value_at_every_step(relay: Relay, kind: str, said: list[bytes], scheme: str) -> None:
    with ByteTarget() as peer:

        @settings(max_examples=examples(8))
        @given(GARBAGE)
        def check(garbage: bytes) -> None:
            peer.on_accept = says(*said, garbage)
            url = f"{scheme}://127.0.0.1:{peer.port}/" if kind == "none" else f"{scheme}://dev.lab.example/"
            proxy = "none" if kind == "none" else f"{kind}://user:pass@127.0.0.1:{peer.port}"
            answer = relay({"url": url, "timeout": 5}, proxy=proxy)
            assert "statusCode" in answer or answer["code"] in set(Code) - {Code.EINTERRUPTED}
            assert answer["elapsedMs"] < 5000

        check()


@pytest.mark.parametrize("login", [False, True])
def test_a_socks_proxy_may_end_after_any_byte(relay: Relay, login: bool) -> None:
    whole = [LOGIN, b"\x01\x00", CONNECTED] if login else [GREETING, CONNECTED]
    with ByteTarget() as peer:
        for place, piece in enumerate(whole):
            for length in range(len(piece)):
                peer.on_accept = says(*whole[:place], piece[:length])
                answer = relay({"url": "http://dev.lab.example/"}, proxy=f"socks5h://u:p@127.0.0.1:{peer.port}")
                assert code(answer) == "ECONNRESET"
                assert "proxy" in answer["message"]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n"], "EBADRESPONSE"),
        ([b"\x05\xff"], "ECONNREFUSED"),
        ([b"\x05\x01"], "ECONNREFUSED"),
        ([LOGIN, b"\x01\x01"], "ECONNREFUSED"),
        ([GREETING, b"\x04\x00\x00\x01" + b"\x00" * 6], "EBADRESPONSE"),
        ([GREETING, b"\x05\x00\x00\x07" + b"\x00" * 6], "EBADRESPONSE"),
        ([GREETING, b"\x05\x63\x00\x01" + b"\x00" * 6], "ECONNREFUSED"),
    ],
)
def test_a_refusal_by_a_socks_proxy_is_the_proxys_fault(relay: Relay, said: list[bytes], wanted: str) -> None:
    def talk(conn: Connection) -> bool:
        for piece in said:
            conn.sock.recv(65536)
            conn.send(piece)
        conn.hang(2.0)
        return False

    with ByteTarget() as peer:
        peer.on_accept = talk
        answer = relay({"url": "http://dev.lab.example/"}, proxy=f"socks5h://u:secret@127.0.0.1:{peer.port}")
        assert code(answer) == wanted
        assert "proxy" in answer["message"]
        assert "secret" not in answer["message"]


def test_the_address_in_a_socks_answer_may_be_a_name(relay: Relay) -> None:
    """It is read past, to the byte."""

    def talk(conn: Connection) -> bool:
        for piece in (GREETING, b"\x05\x00\x00\x03\x04name\x00\x50", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"):
            conn.sock.recv(65536)
            conn.send(piece)
        conn.hang(2.0)
        return False

    with ByteTarget() as peer:
        peer.on_accept = talk
        assert relay({"url": "http://dev.lab.example/"}, proxy=f"socks5h://127.0.0.1:{peer.port}").get("body") == "ok"


# --- names ---


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that knows addresses only, and encodes names as Python's does."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, family: int, kind: int, proto: int, flags: int) -> Any:
        if flags == socket.AI_NUMERICHOST:
            return real(host, port, family, kind, proto, flags)
        host.encode("idna")
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture(params=["none", "http", "https", "socks5h"])
def proxy(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "none":
        yield "none"
        return
    server = Socks5Proxy() if request.param == "socks5h" else HttpProxy(tls=server_context() if request.param == "https" else None)
    with server:
        yield server.url()


@pytest.mark.usefixtures("no_names")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_any_name_is_a_value(relay: Relay, proxy: str, scheme: str) -> None:
    @settings(max_examples=examples(15))
    @given(
        st.text("aZ0.-_~!$&'()*+,;=", min_size=1, max_size=80)
        | st.lists(st.integers(0, 70), max_size=8).map(lambda sizes: ".".join("a" * size for size in sizes))
    )
    def check(host: str) -> None:
        assume(host and literal_address(host) is None)
        answer = relay({"url": f"{scheme}://{host}/", "timeout": 5}, proxy=proxy)
        assert answer.get("statusCode") == 502 or answer["code"] in {"ENOTFOUND", "ECONNREFUSED", "EBADCOMMAND", "EPOLICY"}, answer

    check()


@pytest.mark.usefixtures("no_names")
@pytest.mark.parametrize("host", ["a..b", ".example", "a..", "a" * 64 + ".example", ".".join(["a" * 60] * 5)])
@pytest.mark.parametrize("socks", [False, True], ids=["directly", "SOCKS5"])
def test_what_is_no_domain_name_cannot_be_looked_up(host: str, socks: bool, tmp_path: Path) -> None:
    """Nobody is asked for it. Of what a command may name, empty labels are such."""
    with Socks5Proxy() as proxy:
        exchange = _exchange("https://dev.lab.example/", proxy.url() if socks else "none")
        exchange = replace(exchange, url=replace(exchange.url, host=host))
        with pytest.raises(TransportFault) as caught:
            Dialer(_trust(tmp_path), Resolver()).dial(exchange)
        assert caught.value.code == "ENOTFOUND"
        assert not socks or "cannot be resolved" in caught.value.message
        assert caught.value.facts.proxy is None
        assert proxy.asked == []


def test_a_long_name_reaches_a_socks_proxy_whole(relay: Relay) -> None:
    """Its length is one byte, also beyond 127."""
    host = ".".join(["a" * 49] * 5)
    with ByteTarget() as target, Socks5Proxy(resolve={host: ("127.0.0.1", target.port)}, auth=("u" * 200, "p" * 255)) as proxy:
        target.on("*", reply(200, body="ok"))
        assert relay({"url": f"http://{host}/"}, proxy=proxy.url(("u" * 200, "p" * 255))).get("body") == "ok"
        assert proxy.names == [host]


# --- this machine ---


def _exchange(url: str, proxy: str, **options: Any) -> Exchange:
    parsed = parse_url(url)
    through = None if proxy == "none" else parse_proxy(proxy)
    options = {"deadline": Deadline(8.0), **options}
    return Exchange("GET", parsed, (("Host", parsed.netloc),), None, proxy=through, **options)


def _trust(directory: Path) -> TlsContexts:
    (directory / "ca.pem").write_bytes(ca_pem())
    return TlsContexts(ca_file=directory / "ca.pem")


@pytest.mark.parametrize("kind", ["none", "http", "https", "socks5h"])
def test_a_connection_that_is_refused_while_it_opens_leaves_no_socket(kind: str, tmp_path: Path) -> None:
    """The observer of an exchange may refuse its socket at every step, as the agent's stop does."""
    context = server_context()
    servers: dict[str, Any] = {"http": HttpProxy, "https": lambda: HttpProxy(tls=server_context()), "socks5h": Socks5Proxy}
    with ByteTarget(context) as target, servers.get(kind, ByteTarget)() as server:
        for last in range(4):
            reported: list[Any] = []

            class Refusing(Progress):
                def hold(self, sock: Any, reported: list[Any] = reported, last: int = last) -> None:
                    reported.append(sock)
                    if len(reported) > last:
                        raise TransportFault(Code.ECONNRESET, "refused")

            exchange = _exchange(target.url(), "none" if kind == "none" else server.url())
            try:
                Dialer(_trust(tmp_path), Resolver()).dial(exchange, Refusing(exchange)).close()
            except TransportFault as fault:
                assert "refused" in fault.message
            else:
                assert len(reported) <= last
            assert reported
            assert {sock.fileno() for sock in reported} == {-1}
        server.wait_idle()
        target.wait_idle()


def test_roots_that_cannot_be_read_are_this_machine_s_fault(tmp_path: Path) -> None:
    dialer = Dialer(TlsContexts(ca_file=tmp_path / "gone.pem"), Resolver())
    with ByteTarget(server_context()) as target, HttpProxy(tls=server_context()) as proxy:
        for through in ("none", proxy.url()):
            with pytest.raises(DiskFault, match="the trusted roots cannot be read"):
                dialer.dial(_exchange(target.url(), through))
        target.wait_idle()
        proxy.wait_idle()


def test_a_machine_without_file_descriptors_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class NoSocket:
        def __init__(self, *_: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(happy_eyeballs, "DeadlineSocket", NoSocket)
    for proxy in ("none", "http://127.0.0.1:3128", "socks5h://127.0.0.1:1080"):
        with pytest.raises(TransportFault, match="EMFILE"):
            Dialer(_trust(tmp_path), Resolver()).dial(_exchange("http://127.0.0.1:1/", proxy))


def test_a_limit_longer_than_the_system_can_wait_means_no_limit(tmp_path: Path) -> None:
    """A command may live for years."""
    transport = Transport(Dialer(_trust(tmp_path), Resolver()))
    with ByteTarget(server_context()) as target, HttpProxy(tls=server_context()) as proxy, Socks5Proxy() as socks:
        target.on("*", reply(200, body="ok"))
        for through in ("none", proxy.url(), socks.url()):
            exchange = _exchange(target.url(), through, deadline=Deadline(1e12), connect_seconds=1e12)
            with transport.send(exchange) as response:
                assert response.read(1000) == b"ok"
        transport.close()
