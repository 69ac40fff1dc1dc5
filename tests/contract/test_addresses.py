"""Several addresses of one name (RFC 8305), and connections that are silent for long (PROTOCOL §3)."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.core.urls import parse_url
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.happy_eyeballs import NEXT_ADDRESS_SECONDS, Attempts
from relay_agent.transport.progress import Progress
from relay_agent.transport.proxy import parse_proxy
from relay_agent.transport.resolver import Address, Resolver
from relay_agent.transport.tls import TlsContexts
from tests.contract.relaying import Relay, code
from tests.contract.test_connections import Names
from tests.target_certificates import ca_pem, server_context
from tests.target_proxies import HttpProxy, Socks5Proxy
from tests.targets import ByteTarget, reply

DEAD = "127.0.0.3"


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server, dead(server.port):
        server.on("*", reply(200, body="ok"))
        yield server


@contextlib.contextmanager
def dead(port: int, host: str = DEAD) -> Iterator[None]:
    """The same port at another address, where no connection is ever completed."""
    with contextlib.ExitStack() as sockets:
        sockets.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(8):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((host, port))
        yield


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were tried, in order."""
    found: list[str] = []
    begin = Attempts.begin

    def noted(self: Attempts, address: Address) -> Any:
        found.append(address.text)
        return begin(self, address)

    monkeypatch.setattr(Attempts, "begin", noted)
    return found


def test_a_first_address_that_drops_everything_costs_a_quarter_of_a_second_once(
    relay: Relay, target: ByteTarget, monkeypatch: pytest.MonkeyPatch, tried: list[str]
) -> None:
    """The next is tried beside it, and the one that answered is asked first for a while."""
    Names(monkeypatch, dev=[DEAD, "127.0.0.1"])
    begun = time.monotonic()
    for _ in range(3):
        assert relay({"url": target.url(host="dev.lab.example"), "method": "POST"})["body"] == "ok"
    assert tried == [DEAD, "127.0.0.1", "127.0.0.1", "127.0.0.1"]
    assert NEXT_ADDRESS_SECONDS <= time.monotonic() - begun < 10


def test_the_same_addresses_in_another_order_have_the_same_winner(
    relay: Relay, target: ByteTarget, monkeypatch: pytest.MonkeyPatch, tried: list[str]
) -> None:
    names = Names(monkeypatch, dev=["127.0.0.1", DEAD], back=[DEAD, "127.0.0.1"])
    assert relay({"url": target.url(host="dev.lab.example"), "method": "POST"})["body"] == "ok"
    assert tried == ["127.0.0.1"]
    tried.clear()
    assert names.asked == ["dev.lab.example"]
    assert relay({"url": target.url(host="back.lab.example"), "method": "POST"})["body"] == "ok"
    assert tried == ["127.0.0.1"]


def test_a_winner_that_goes_away_is_followed_by_the_others(relay: Relay, monkeypatch: pytest.MonkeyPatch, tried: list[str]) -> None:
    with ByteTarget() as target:
        target.on("*", reply(200, body="ok"))
        Names(monkeypatch, dev=["127.0.0.8", "127.0.0.1"])
        assert relay({"url": target.url(host="dev.lab.example"), "method": "POST"})["body"] == "ok"
        assert relay({"url": target.url(host="dev.lab.example"), "method": "POST"})["body"] == "ok"
    assert tried == ["127.0.0.8", "127.0.0.1", "127.0.0.1"]
    assert code(relay({"url": target.url(host="dev.lab.example"), "method": "POST"})) == "ECONNREFUSED"
    assert tried[3:] == ["127.0.0.1", "127.0.0.8"]


def test_an_address_that_refuses_is_followed_at_once(relay: Relay, monkeypatch: pytest.MonkeyPatch, tried: list[str]) -> None:
    with ByteTarget() as target:
        target.on("*", reply(200, body="ok"))
        Names(monkeypatch, dev=["127.0.0.7", "127.0.0.8", "127.0.0.9", "127.0.0.1"])
        assert relay({"url": target.url(host="dev.lab.example")})["body"] == "ok"
    assert tried == ["127.0.0.7", "127.0.0.8", "127.0.0.9", "127.0.0.1"]


def test_the_families_take_turns(relay: Relay, monkeypatch: pytest.MonkeyPatch, tried: list[str]) -> None:
    with ByteTarget() as target:
        target.on("*", reply(200, body="ok"))
        Names(monkeypatch, dev=["fd00::2", "fd00::3", "fd00::4", "127.0.0.1", "127.0.0.9"])
        assert relay({"url": target.url(host="dev.lab.example")})["body"] == "ok"
    assert tried == ["fd00::2", "127.0.0.1"]


def test_the_attempt_that_lost_is_closed(target: ByteTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, dev=[DEAD, "127.0.0.1"])
    held: list[Any] = []

    class Noting(Progress):
        def hold(self, sock: Any) -> None:
            held.append(sock)
            super().hold(sock)

    asked = exchange(target.url(host="dev.lab.example"))
    sock = Dialer(TlsContexts(), Resolver()).dial(asked, Noting(asked))
    lost, won, again = held
    assert (lost.fileno(), won, again) == (-1, sock, sock)
    sock.close()


def test_addresses_that_are_all_dead_are_late_and_named(relay: Relay, target: ByteTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    with dead(target.port, "127.0.0.4"):
        Names(monkeypatch, dev=[DEAD, "127.0.0.4"])
        answer = relay({"url": target.url(host="dev.lab.example"), "timeout": 1})
    assert (code(answer), answer["message"]) == ("ETIMEDOUT", f"connect 127.0.0.4:{target.port} timed out (2 addresses were tried)")


def test_the_answer_of_one_address_is_reported_rather_than_a_dead_address(
    relay: Relay, target: ByteTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, dev=["127.0.0.8", DEAD])
    assert code(relay({"url": target.url(host="dev.lab.example"), "timeout": 1})) == "ECONNREFUSED"


def test_an_abort_while_several_are_tried_ends_it_soon(target: ByteTarget, monkeypatch: pytest.MonkeyPatch, tried: list[str]) -> None:
    Names(monkeypatch, dev=[DEAD, "127.0.0.4"])
    stopped, begun = threading.Event(), threading.Event()

    class Stopping(ExchangeObserver):
        def check_stop(self) -> None:
            if len(tried) == 2:
                begun.set()
            if stopped.is_set():
                raise TransportFault(Code.ECONNRESET, "broken off")

    asked = exchange(target.url(host="dev.lab.example"))
    ended: list[str] = []

    def dial() -> None:
        with pytest.raises(TransportFault) as caught:
            Dialer(TlsContexts(), Resolver()).dial(asked, Progress(asked, Stopping()))
        ended.append(caught.value.message)

    thread = threading.Thread(target=dial)
    with dead(target.port, "127.0.0.4"):
        thread.start()
        assert begun.wait(5)
        stopped.set()
        thread.join(5)
    assert ended == ["broken off"]


def exchange(url: str, **options: Any) -> Exchange:
    parsed = parse_url(url)
    return Exchange("GET", parsed, (("Host", parsed.netloc),), None, Deadline(8.0), **options)


@pytest.mark.parametrize("way", ["http", "https", "proxy", "tunnel", "socks"])
def test_the_system_asks_after_a_minute_whether_a_silent_peer_is_there(way: str, tmp_path: Path) -> None:
    """Else a firewall that forgets idle connections keeps the answer of a call that computes for long."""
    (tmp_path / "ca.pem").write_bytes(ca_pem())
    dialer = Dialer(TlsContexts(ca_file=tmp_path / "ca.pem"), Resolver())
    with (
        ByteTarget(server_context() if way in ("https", "tunnel") else None) as server,
        HttpProxy() as http_proxy,
        Socks5Proxy() as socks_proxy,
    ):
        proxy = {"proxy": http_proxy.url(), "tunnel": http_proxy.url(), "socks": socks_proxy.url()}.get(way)
        sock = dialer.dial(exchange(server.url(), proxy=parse_proxy(proxy) if proxy else None))
        with socket.socket(fileno=os.dup(sock.fileno())) as plain:  # beneath TLS
            found = [plain.getsockopt(socket.IPPROTO_TCP, option) for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)]
            assert (bool(plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)), found) == (True, [60, 30])
        sock.close()
