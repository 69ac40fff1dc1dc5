"""Connections kept open between commands: never poisoned, no request sent twice, no state of one command in another.

The tests look only at what targets see, not into the agent's pool.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import Interrupted
from relay_agent.core.failures import Phase
from relay_agent.core.urls import parse_url
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.contract.relaying import Relay, code
from tests.target_certificates import ca_pem, server_context
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, in_turn, play, raw, reply


@pytest.fixture(params=[False, True], ids=["http", "https"])
def target(request: pytest.FixtureRequest) -> Iterator[ByteTarget]:
    with ByteTarget(server_context() if request.param else None) as server:
        server.on("/next", reply(200, body="next"))
        yield server


class Closing:
    """A handler that answers well and then ends the connection without having said so; `done` is set when it has."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.done = threading.Event()

    def __call__(self, conn: Connection, _request: RawRequest) -> None:
        conn.respond(200, body=b"first")
        getattr(conn, self.how)()
        self.done.set()


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("how", ["close", "finish_tls"])
def test_connection_that_went_stale_is_replaced(relay: Relay, target: ByteTarget, method: str, how: str) -> None:
    """A kept connection that the target closed meanwhile does not fail the next command, whatever its method."""
    closing = Closing(how)
    target.on("/", closing)
    assert relay({"url": target.url()}).get("body") == "first"
    assert closing.done.wait(5)
    answer = relay({"url": target.url("/next"), "method": method, "body": "x"})
    assert (answer.get("statusCode"), len(target.requests)) == (200, 2)


def test_connection_that_was_reset_is_replaced(relay: Relay, target: ByteTarget) -> None:
    """An RST on an idle connection does not fail the next command."""
    reset = threading.Event()
    gate = target.gate()

    def handle(conn: Connection, _request: RawRequest) -> None:
        conn.respond(200, body=b"first")
        conn.wait(gate)
        conn.reset()
        reset.set()

    target.on("/", handle)
    assert relay({"url": target.url()}).get("body") == "first"
    gate.release()
    assert reset.wait(5)
    assert relay({"url": target.url("/next"), "method": "POST", "body": "x"})["statusCode"] == 200


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "BREW"])
def test_request_that_may_have_arrived_is_not_sent_twice(relay: Relay, target: ByteTarget, method: str, how: str) -> None:
    """On a kept connection that dies with the request on it, what is not idempotent fails: ECONNRESET, sent once."""
    target.on("/dies", raw(then=how))
    assert relay({"url": target.url("/next")}).get("body") == "next"
    answer = relay({"url": target.url("/dies"), "method": method, "body": "x"})
    assert code(answer) in {"ECONNRESET", "EPIPE"}
    assert [request.target for request in target.requests] == ["/next", "/dies"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_death_on_a_kept_connection_is_retried_at_most_once(relay: Relay, target: ByteTarget, method: str) -> None:
    """A target that hangs up on every request is not asked for ever."""
    target.on("/dies", raw(then="close"))
    relay({"url": target.url("/next")})
    assert code(relay({"url": target.url("/dies"), "method": method})) == "ECONNRESET"
    assert len(target.requests) <= 3


def test_started_is_said_once_though_a_connection_was_stale(relay: Relay, target: ByteTarget) -> None:
    """before_send is called once for a command, also when its first connection was no use."""
    closing = Closing("close")
    target.on("/", closing)
    relay({"url": target.url()})
    assert closing.done.wait(5)
    seen: list[int] = []
    relay({"url": target.url("/next")}, before_send=lambda: seen.append(len(target.requests)))
    assert seen == [1]


def test_what_before_send_raises_comes_through_and_nothing_is_sent(relay: Relay, target: ByteTarget) -> None:
    """A command that could not be recorded as started is not sent, on a new connection or a kept one; the next one is."""

    def fail() -> None:
        raise RuntimeError("the journal is full")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="journal is full"):
            relay({"url": target.url("/never")}, before_send=fail)
        assert relay({"url": target.url("/next")}).get("body") == "next"
    assert [request.target for request in target.requests] == ["/next", "/next"]


EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    ],
    ids=["length", "chunked", "204", "304", "empty"],
)
@pytest.mark.parametrize("when", ["at once", "in a write of its own"])
def test_surplus_bytes_are_no_answer_to_the_next_command(relay: Relay, target: ByteTarget, head: bytes, body: str, when: str) -> None:
    """What a target sends beyond its response ends with the connection: the next command gets its own answer."""
    sent = threading.Event()
    rest = b"hello" * (b"Content-Length: 5" in head and b"304" not in head)

    def handle(conn: Connection, _request: RawRequest) -> None:
        if when == "at once":
            conn.send(head + rest + EVIL)
        else:
            conn.send(head + rest)
            conn.stopping.wait(0.05)
            conn.send(EVIL)
        sent.set()

    target.on("/", handle)
    assert relay({"url": target.url()}).get("body") == body
    assert sent.wait(5)
    assert relay({"url": target.url("/next")}).get("body") == "next"
    assert target.connections == 2


def test_surplus_after_a_head_is_no_answer_to_the_next_command(relay: Relay, target: ByteTarget) -> None:
    """A body sent to a HEAD is not the next command's answer."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n" + EVIL, then="keep"))
    assert relay({"url": target.url(), "method": "HEAD"}).get("body") == ""
    assert relay({"url": target.url("/next")}).get("body") == "next"


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_failed_answer_does_not_fail_the_next_command(relay: Relay, target: ByteTarget, bad: bytes) -> None:
    """After an answer that could not be relayed the next command is served."""
    target.on("/", raw(bad))
    assert code(relay({"url": target.url()})) == "EBADRESPONSE"
    assert relay({"url": target.url("/next")}).get("body") == "next"


def test_too_large_answer_does_not_fail_the_next_command(relay: Relay, target: ByteTarget) -> None:
    """The rest of an answer over the limit is discarded."""
    target.on("/", reply(200, body=b"x" * 300_000))
    assert code(relay({"url": target.url()}, max_response_bytes=100_000)) == "ERESPONSETOOLARGE"
    assert relay({"url": target.url("/next")}, max_response_bytes=100_000).get("body") == "next"


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n"],
    ids=["close", "HTTP/1.0"],
)
def test_connection_that_ends_is_not_used_again(relay: Relay, target: ByteTarget, head: bytes) -> None:
    """Connection: close and HTTP/1.0 are taken at their word."""
    target.on("/", raw(head + b"hi", then="keep"))
    assert relay({"url": target.url()}).get("body") == "hi"
    assert relay({"url": target.url("/next")}).get("body") == "next"
    assert target.connections == 2


def test_connection_that_may_go_on_does(relay: Relay, target: ByteTarget) -> None:
    """Ten commands of one worker to one origin need one connection."""
    for _ in range(10):
        assert relay({"url": target.url("/next")})["statusCode"] == 200
    assert target.connections == 1


def test_addresses_with_one_port_are_distinguished(relay: Relay, target: ByteTarget) -> None:
    """A connection to one host is not used for another name of it."""
    for host in ("127.0.0.1", "::1", "localhost"):
        assert relay({"url": target.url("/next", host=host)})["statusCode"] == 200
    assert target.connections == 3


def test_workers_share_nothing(relay: Relay, target: ByteTarget) -> None:
    """Side by side, each command gets the answer to its own request."""
    target.on("*", lambda conn, request: conn.respond(200, body=request.target.encode() + request.body))

    def one(number: int) -> bool:
        worker, path = number % 8, f"/{number}?{'x' * (number % 50)}"
        answer = relay({"url": target.url(path), "method": "POST", "body": f"body-{number}"}, worker=worker)
        return bool(answer["body"] == f"{path}body-{number}")

    for worker in range(8):
        relay.executor(worker=worker)  # made here, used there
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda worker: all(one(number) for number in range(worker, 200, 8)), range(8), timeout=20))


def test_kept_connection_is_used_in_turn(relay: Relay, target: ByteTarget) -> None:
    """Each command gets its own answer, in order."""
    target.on("/", in_turn(*[reply(200, body=str(number)) for number in range(5)]))
    assert [relay({"url": target.url()})["body"] for _ in range(5)] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\nthe first half of a body that ends with its connection"])
def test_what_is_interrupted_ends_at_once_and_is_never_taken_for_an_answer(relay: Relay, target: ByteTarget, answer: bytes) -> None:
    """Broken off from another thread; a body that ends with its connection must not look whole because that was shut."""
    gate = target.gate()
    target.on("/hangs", play(lambda conn: conn.send(answer), lambda conn: conn.wait(gate, 0.1), Connection.hang))
    executor = relay.executor()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(relay, {"url": target.url("/hangs")}, deadline=8.0)
        gate.wait_reached()
        executor.interrupt()
        with pytest.raises(Interrupted):
            running.result(2)


def test_what_is_interrupted_on_a_kept_connection_is_not_sent_again_on_a_new_one(relay: Relay, target: ByteTarget) -> None:
    """The connection was shut down on purpose: it was not stale."""
    gate = target.gate()
    target.on("/hangs", play(lambda conn: conn.wait(gate, 0.1), Connection.hang))
    assert relay({"url": target.url("/next")}).get("body") == "next"
    executor = relay.executor()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(relay, {"url": target.url("/hangs")}, deadline=8.0)
        gate.wait_reached()
        executor.interrupt()
        with pytest.raises(Interrupted):
            running.result(2)
    assert (target.connections, len(target.requests)) == (1, 2)


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[Transport]:
    (tmp_path / "ca.pem").write_bytes(ca_pem())
    found = Transport(Dialer(TlsContexts(ca_file=tmp_path / "ca.pem"), Resolver()))
    yield found
    found.close()


def _exchange(target: ByteTarget, path: str, **options: Any) -> Exchange:
    url = parse_url(target.url(path))
    return Exchange("GET", url, (("Host", url.netloc),), None, Deadline(8.0), **options)


def _ask(transport: Transport, exchange: Exchange, observer: ExchangeObserver | None = None) -> bytes:
    with transport.send(exchange, observer or ExchangeObserver()) as response:
        return response.read(1000)


def test_an_abort_is_not_lost_while_a_kept_connection_is_checked(transport: Transport, target: ByteTarget) -> None:
    """It came before there was a socket to shut."""
    assert _ask(transport, _exchange(target, "/next")) == b"next"

    class Aborting(ExchangeObserver):
        def check_addresses(self, addresses: Sequence[str]) -> None:
            transport.abort()

    with pytest.raises(TransportFault, match="broken off"):
        _ask(transport, _exchange(target, "/next"), Aborting())
    assert len(target.requests) == 1


def test_an_abort_is_not_lost_while_a_new_connection_is_opened(transport: Transport, target: ByteTarget) -> None:
    """It comes right after the look whether one came: the socket is in reach by then."""

    class Aborting(ExchangeObserver):
        phase = Phase.NAME
        aborted = False

        def entered(self, phase: Phase) -> None:
            self.phase = phase

        def check_stop(self) -> None:
            if self.phase is Phase.CONNECT and not self.aborted:
                self.aborted = True
                transport.abort()

    observer = Aborting()
    with pytest.raises(TransportFault):
        _ask(transport, _exchange(target, "/next", connect_seconds=5.0), observer)
    assert observer.aborted
    assert target.requests == []


def test_an_abort_does_not_reach_a_connection_that_was_handed_back(transport: Transport, target: ByteTarget) -> None:
    """It may be another worker's already."""
    assert _ask(transport, _exchange(target, "/next")) == b"next"
    transport.abort()
    assert _ask(transport, _exchange(target, "/next")) == b"next"
    assert target.connections == 1


def test_a_response_that_is_not_handed_over_leaves_no_connection(transport: Transport, target: ByteTarget) -> None:
    """Whatever fails between the response's head and its caller."""

    class Failing(ExchangeObserver):
        def entered(self, phase: Phase) -> None:
            if phase is Phase.BODY:
                raise ValueError("what the target sent cannot be kept")

    with pytest.raises(ValueError, match="cannot be kept"):
        _ask(transport, _exchange(target, "/next"), Failing())
    target.wait_idle()


# --- names and their addresses ---


class Names:
    """Stands in for the system's resolver: names of the test mean what it says, in that order; `asked` counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> None:
        self.names = {f"{name}.lab.example": addresses for name, addresses in names.items()}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, *args: int, **kwargs: int) -> list[Any]:
        if host not in self.names:
            return self._real(host, port, *args, **kwargs)
        self.asked.append(host)
        return [entry for address in self.names[host] for entry in self._real(address, port, 0, socket.SOCK_STREAM)]


@pytest.mark.parametrize(
    "addresses",
    [
        ["169.254.169.254"],
        ["127.0.0.1", "169.254.169.254"],
        ["169.254.169.254", "127.0.0.1"],
        ["::ffff:169.254.169.254"],
        ["0.0.0.0"],
        ["::"],
        ["fe80::1"],
    ],
)
def test_name_of_a_denied_address_is_refused(
    relay: Relay, target: ByteTarget, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    """Every address a name resolves to is checked: EPOLICY, and nothing is sent to any of them."""
    Names(monkeypatch, rebind=addresses)
    answer = relay({"url": target.url("/next", host="rebind.lab.example"), "ignore_tls_certificate": True}, deadline=2.0)
    assert code(answer) == "EPOLICY"
    assert "169.254" not in answer["message"]
    assert target.connections == 0


def test_name_is_resolved_once_for_a_connection(relay: Relay, target: ByteTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked is what is connected to: there is no second look-up to answer otherwise."""
    names = Names(monkeypatch, dev=["127.0.0.1"])
    assert relay({"url": target.url("/next", host="dev.lab.example")}).get("body") == "next"
    assert names.asked == ["dev.lab.example"]
    assert target.last.get("Host") == f"dev.lab.example:{target.port}"


def test_next_address_is_tried(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first address of a name refuses, the others are tried."""
    with ByteTarget() as target:
        target.on("/", reply(200, body="ok"))
        Names(monkeypatch, multi=["127.0.0.9", "127.0.0.1"], none=["127.0.0.8", "127.0.0.9"])
        assert relay({"url": target.url(host="multi.lab.example")}).get("body") == "ok"
        assert code(relay({"url": target.url(host="none.lab.example")})) == "ECONNREFUSED"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def one_at_a_time() -> Iterator[str]:
    """A server without threads: it turns to the next connection when the one before is closed."""
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join(5)


def test_a_target_that_serves_one_connection_at_a_time_is_not_blocked_by_ours(relay: Relay) -> None:
    """Workers share their idle connections: a connection that one keeps open does not block another."""
    with one_at_a_time() as url:
        for worker in range(4):
            answer = relay({"url": url, "timeout": 2}, worker=worker)
            assert answer.get("statusCode") == 200, answer
        relay.close()  # it blocks in a read on the open connection
