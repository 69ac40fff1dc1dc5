"""TLS to a target inside TLS to a proxy: as safe, and as well behaved, as TLS alone.

Only what the inner session adds; tunnels in general are tested in `test_target_proxies.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import Interrupted
from relay_agent.core.failures import Code
from relay_agent.core.urls import parse_url
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.proxy import parse_proxy
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.contract.relaying import Relay, code
from tests.contract.test_tls_faults import CODES
from tests.target_certificates import Fault, ca_pem, server_context
from tests.target_proxies import HttpProxy
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, in_turn, raw, reply

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


class PoliteProxy(HttpProxy):
    """Ends a tunnel with a goodbye of its own (close_notify), however the target ended it."""

    def _tunnel(self, conn: Connection, upstream: Any) -> None:
        super()._tunnel(conn, upstream)
        conn.finish_tls()


@pytest.fixture(params=[HttpProxy, PoliteProxy], ids=["proxy", "polite proxy"])
def proxy(request: pytest.FixtureRequest) -> Iterator[HttpProxy]:
    with request.param(tls=server_context()) as server:
        yield server


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget(server_context()) as server:
        server.on("*", reply(200, body="its own"))
        yield server


def test_a_body_cut_without_the_target_s_goodbye_is_no_answer(relay: Relay, target: ByteTarget, proxy: HttpProxy) -> None:
    """A body without a length ends with the target's close_notify, and the proxy's says nothing of it (RFC 9112 §9.8)."""
    target.on("/cut", raw(b"HTTP/1.1 200 OK\r\n\r\n", b"cut"))
    target.on("/whole", raw(b"HTTP/1.1 200 OK\r\n\r\n", b"whole", then="finish_tls"))
    assert code(relay({"url": target.url("/cut")}, proxy=proxy.url())) == "EBADRESPONSE"
    assert relay({"url": target.url("/whole")}, proxy=proxy.url()).get("body") == "whole"


@pytest.mark.parametrize("through", [False, True], ids=["TLS alone", "TLS in TLS"])
def test_without_verification_a_cut_is_an_end(relay: Relay, target: ByteTarget, proxy: HttpProxy, through: bool) -> None:
    """Where anybody may have written the answer, old instruments are given their way, over a proxy or not."""
    target.on("/cut", raw(b"HTTP/1.1 200 OK\r\n\r\n", b"cut"))
    options = {"proxy": proxy.url()} if through else {}
    assert relay({"url": target.url("/cut"), "ignore_tls_certificate": True}, **options).get("body") == "cut"


def test_a_body_shorter_than_its_length_is_no_answer(relay: Relay, target: ByteTarget, proxy: HttpProxy) -> None:
    target.on("/cut", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", then="finish_tls"))
    assert code(relay({"url": target.url("/cut")}, proxy=proxy.url())) == "EBADRESPONSE"


def test_an_answer_that_nobody_asked_for_is_given_to_nobody(relay: Relay, target: ByteTarget, proxy: HttpProxy) -> None:
    """Whatever layer holds it when the next command comes."""
    for pieces in ([ANSWER + b"first" + ANSWER + b"wrong"], [ANSWER + b"first", ANSWER + b"wrong"], [ANSWER + b"first", ANSWER, b"wrong"]):
        target.on("/", in_turn(raw(*pieces, then="keep"), reply(200, body="its own")))
        assert relay({"url": target.url("/")}, proxy=proxy.url()).get("body") == "first"
        assert relay({"url": target.url("/next"), "method": "POST", "body": "x"}, proxy=proxy.url()).get("body") == "its own"


def test_a_clean_tunnel_serves_many_commands(relay: Relay, target: ByteTarget, proxy: HttpProxy) -> None:
    for number in range(20):
        method = ("GET", "PUT")[number % 2]
        assert relay({"url": target.url(f"/{number}"), "method": method}, proxy=proxy.url()).get("body") == "its own"
    assert (proxy.tunnels, target.connections) == (1, 1)


def test_large_bodies_pass_both_ways(relay: Relay, target: ByteTarget, proxy: HttpProxy) -> None:
    """Beyond any buffer, with a length and in chunks."""
    text = "0123456789abcdef" * 500_000

    def in_chunks(conn: Connection, request: RawRequest) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(request.body), 100_000):
            piece = request.body[start : start + 100_000]
            conn.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        conn.send(b"0\r\n\r\n")

    target.on("/echo", lambda conn, request: conn.respond(200, body=request.body))
    target.on("/chunks", in_chunks)
    for path in ("/echo", "/chunks"):
        assert relay({"url": target.url(path), "method": "PUT", "body": text}, proxy=proxy.url()).get("body") == text
    assert proxy.tunnels == 1


@pytest.mark.parametrize("fault", [fault for fault in get_args(Fault) if fault != "none"])
def test_each_certificate_fault_of_the_target_is_the_target_s(relay: Relay, proxy: HttpProxy, fault: Fault) -> None:
    """Its code is the same as over TLS alone; nothing is sent, and it can be ignored."""
    with ByteTarget(server_context(fault)) as target:
        target.on("/", reply(200, body="ok"))
        url = target.url(host="localhost")
        answer = relay({"url": url}, proxy=proxy.url())
        assert code(answer) == CODES.get(fault, code(relay({"url": url})))
        assert not answer["message"].startswith(("proxy", "the proxy"))
        assert target.requests == []
        assert relay({"url": url, "ignore_tls_certificate": True}, proxy=proxy.url()).get("body") == "ok"


def _transport(directory: Path) -> Transport:
    (directory / "ca.pem").write_bytes(ca_pem())
    return Transport(Dialer(TlsContexts(ca_file=directory / "ca.pem"), Resolver()))


def _exchange(target: ByteTarget, proxy: HttpProxy, path: str = "/", **options: Any) -> Exchange:
    url = parse_url(target.url(path))
    return Exchange("GET", url, (("Host", url.netloc),), None, Deadline(8.0), proxy=parse_proxy(proxy.url()), **options)


def test_the_certificate_that_is_refused_is_shown(proxy: HttpProxy, tmp_path: Path) -> None:
    transport = _transport(tmp_path)
    with (
        ByteTarget(server_context("self_signed")) as target,
        pytest.raises(TransportFault) as caught,
        transport.send(_exchange(target, proxy)),
    ):
        pass
    transport.close()
    assert caught.value.facts.certificate is not None
    assert "a device that signed itself" in caught.value.facts.certificate.issuer


def _silent(conn: Connection) -> bool:
    conn.hang()
    return False


def _asking(conn: Connection) -> bool:
    """Send what a client that is shaking hands passes over (HelloRequest), without end."""
    while not conn.stopping.is_set():
        conn.send(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 1000)
    return False


def _dripping(conn: Connection) -> bool:
    conn.drip(b"\x16\x03\x03\x40\x00" + b"\x02\x00\x40\x00" * 1000)
    return False


@pytest.mark.parametrize("behaves", [_silent, _asking, _dripping])
def test_a_handshake_that_does_not_get_on_ends_at_the_deadline(
    relay: Relay, proxy: HttpProxy, behaves: Callable[[Connection], bool]
) -> None:
    with ByteTarget() as target:
        target.on_accept = behaves
        answer = relay({"url": target.url(scheme="https"), "timeout": 1}, proxy=proxy.url())
        assert code(answer) == "ETIMEDOUT"
        assert answer["message"].startswith("the TLS handshake to")
        assert answer["elapsedMs"] < 5000


def test_an_answer_that_does_not_come_ends_at_the_deadline(relay: Relay, target: ByteTarget, proxy: HttpProxy) -> None:
    target.on("/drips", lambda conn, _: conn.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000))
    for path, handler in (("/silent", lambda conn, _: conn.hang()), ("/drips", None)):
        if handler:
            target.on(path, handler)
        answer = relay({"url": target.url(path), "timeout": 1}, proxy=proxy.url())
        assert code(answer) == "ETIMEDOUT"
        assert answer["elapsedMs"] < 5000


@pytest.mark.parametrize("where", ["/hangs", "/drips", "the handshake"])
def test_what_is_under_way_can_be_broken_off(relay: Relay, target: ByteTarget, proxy: HttpProxy, where: str) -> None:
    """The agent's stop reaches a worker that waits within the inner session, and is no crash."""
    gate, silent = target.gate(), ByteTarget()

    def wait(conn: Connection, _request: RawRequest) -> None:
        if where == "/drips":
            conn.send(b"HTTP/1.1 200 OK\r\n\r\nsome")
        conn.wait(gate)

    def wait_too(conn: Connection) -> bool:
        conn.wait(gate)
        return False

    target.on(where, wait)
    silent.on_accept = wait_too
    url = silent.url(scheme="https") if where == "the handshake" else target.url(where)
    executor = relay.executor(proxy=proxy.url())
    with silent, ThreadPoolExecutor(1) as pool:
        running = pool.submit(relay, {"url": url, "ignore_tls_certificate": True}, proxy=proxy.url())
        gate.wait_reached()
        executor.interrupt()
        with pytest.raises(Interrupted):
            running.result(5)
        gate.release()


def test_an_exchange_that_is_aborted_is_a_fault_and_the_next_goes_through(target: ByteTarget, proxy: HttpProxy, tmp_path: Path) -> None:
    """As for a call to the platform, whose thread continues."""
    transport, gate = _transport(tmp_path), target.gate()
    target.on("/hangs", lambda conn, _: conn.wait(gate))

    def ask() -> None:
        with transport.send(_exchange(target, proxy, "/hangs")):
            pass

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask)
        gate.wait_reached()
        transport.abort()
        with pytest.raises(TransportFault) as caught:
            running.result(5)
        assert caught.value.code == Code.ECONNRESET
        gate.release()
    with transport.send(_exchange(target, proxy, "/next")) as response:
        assert response.raw.read() == b"its own"
    transport.close()
