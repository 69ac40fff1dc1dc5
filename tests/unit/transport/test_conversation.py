"""One exchange on one connection: what is reported to its observer, and whether the connection is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from pydantic import SecretStr

from relay_agent.core.failures import Code, Phase
from relay_agent.transport.connection_pool import ROOM_SECONDS, ConnectionPool
from relay_agent.transport.conversation import Conversation
from relay_agent.transport.deadline_sockets import Watch
from relay_agent.transport.digest import Digest
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.progress import Progress
from relay_agent.transport.proxy import parse_proxy
from relay_agent.transport.session import Transport
from tests.unit.transport.fake_socket import FakeSocket, exchange

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"


class Dialer:
    """Replaces the dialer: returns the given sockets one after the other."""

    def __init__(self, *sockets: FakeSocket) -> None:
        self.sockets = list(sockets)

    def dial(self, _exchange: Exchange, progress: Progress) -> FakeSocket:
        sock = self.sockets.pop(0)
        progress.hold(sock)
        return sock


class Noting(ExchangeObserver):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def entered(self, phase: Phase) -> None:
        self.seen.append(phase)

    def before_send(self) -> None:
        self.seen.append("before")

    def after_send(self) -> None:
        self.seen.append("after")


def transport(pool: ConnectionPool, *sockets: FakeSocket) -> Transport:
    return Transport(cast("Any", Dialer(*sockets)), pool)


def kept(pool: ConnectionPool, asked: Exchange) -> object:
    return pool.take(asked.connection_key)


def test_the_observer_sees_each_step_and_the_connection_is_kept() -> None:
    pool, sock, observer, asked = ConnectionPool(), FakeSocket(OK + b"\r\nhi"), Noting(), exchange()
    with transport(pool, sock).send(asked, observer) as response:
        assert response.read(10) == b"hi"
    assert observer.seen == ["before", Phase.SENDING, "after", Phase.FIRST_BYTE, Phase.BODY]
    assert kept(pool, asked) is sock
    assert not sock.closed


@pytest.mark.parametrize(
    ("answer", "headers"),
    [
        (OK + b"Connection: close\r\n\r\nhi", ()),
        (OK + b"Keep-Alive: timeout=1\r\n\r\nhi", ()),
        (OK + b"Keep-Alive: max=1\r\n\r\nhi", ()),
        (OK + b"Keep-Alive: timeout=soon\r\n\r\nhi", ()),
        (OK + b"\r\nhi and more", ()),
        (OK + b"\r\nhi", (("Connection", "close"),)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", ()),
        (b"HTTP/1.1 200 OK\r\n\r\nhi", ()),
    ],
)
def test_a_connection_that_is_said_to_close_or_is_not_clean_is_closed(answer: bytes, headers: tuple[tuple[str, str], ...]) -> None:
    pool, sock, asked = ConnectionPool(), FakeSocket(answer), exchange(headers=headers)
    with transport(pool, sock).send(asked) as response:
        assert response.read(2) == b"hi"
        response.read(100)
    assert sock.closed
    assert kept(pool, asked) is None


def _unread(_: Transport) -> None:
    pass


def _abort(sending: Transport) -> None:
    sending.abort()


def _fail(_: Transport) -> None:
    raise ValueError("the reader")


@pytest.mark.parametrize("act", [_unread, _abort, _fail])
def test_a_connection_whose_body_was_not_read_is_closed(act: Callable[[Transport], None]) -> None:
    pool, sock, asked = ConnectionPool(), FakeSocket(OK + b"\r\nhi"), exchange()
    sending = transport(pool, sock)
    try:
        with sending.send(asked):
            act(sending)
    except ValueError:
        assert act is _fail
    assert sock.closed
    assert len(sock.shut) == (act is _abort)


def test_a_connection_that_was_aborted_after_its_body_is_not_kept() -> None:
    pool, sock, asked = ConnectionPool(), FakeSocket(OK + b"\r\nhi"), exchange()
    sending = transport(pool, sock)
    with sending.send(asked) as response:
        response.read(10)
        sending.abort()
    assert sock.closed
    sending.abort()


def test_an_observer_that_refuses_the_sending_leaves_nothing_sent_and_no_connection() -> None:
    class Refusing(ExchangeObserver):
        def before_send(self) -> None:
            raise RuntimeError("the journal is full")

    sock = FakeSocket(OK + b"\r\nhi")
    with pytest.raises(RuntimeError, match="journal is full"), transport(ConnectionPool(), sock).send(exchange(), Refusing()):
        pass
    assert (sock.sent, sock.closed) == (b"", True)


def test_kept_connections_that_the_target_has_closed_are_passed_over_unused() -> None:
    pool, asked, open_one = ConnectionPool(), exchange(), FakeSocket(OK + b"\r\nhi")
    stale = [FakeSocket(stale=True), FakeSocket(stale=True)]
    for sock in (open_one, *stale):
        pool.keep(asked.connection_key, sock)
    with transport(pool).send(asked) as response:
        assert response.read(10) == b"hi"
    assert [(sock.closed, sock.sent) for sock in stale] == [(True, b"")] * 2


def test_a_request_whose_kept_connections_are_closed_counts_as_started_once_a_new_one_is_open() -> None:
    pool, asked, seen = ConnectionPool(), exchange(), list[str]()
    pool.keep(asked.connection_key, FakeSocket(stale=True))
    dialer, observer = Dialer(FakeSocket(OK + b"\r\nhi")), Noting()
    dial, observer.before_send = dialer.dial, lambda: seen.append("started")  # type: ignore[method-assign]
    dialer.dial = lambda *given: (seen.append("dialled"), dial(*given))[1]  # type: ignore[method-assign]
    with Transport(cast("Any", dialer), pool).send(asked, observer):
        assert seen == ["dialled", "started"]


def test_a_kept_connection_that_the_target_closes_while_the_start_is_recorded_is_not_used() -> None:
    now, asked, kept_one, new = [0.0], exchange(), FakeSocket(), FakeSocket(OK + b"\r\nhi")
    pool, observer = ConnectionPool(monotonic=lambda: now[0]), Noting()
    pool.keep(asked.connection_key, kept_one)

    def record() -> None:
        kept_one.stale = True
        now[0] += 0.01

    observer.before_send = record  # type: ignore[method-assign]
    with transport(pool, new).send(asked, observer) as response:
        assert response.read(10) == b"hi"
    assert (kept_one.closed, kept_one.sent) == (True, b"")


def test_a_request_is_sent_at_most_twice_however_many_connections_are_kept() -> None:
    """The target closes each connection in place of an answer."""
    pool, asked = ConnectionPool(), exchange()
    sockets = [FakeSocket(b"") for _ in range(4)]
    for sock in sockets[:3]:
        pool.keep(asked.connection_key, sock)
    with pytest.raises(TransportFault), transport(pool, sockets[3]).send(asked):
        pass
    assert [bool(sock.sent) for sock in sockets] == [False, False, True, True]


def test_without_an_answer_there_is_a_fault_that_says_when() -> None:
    for answer, phase in ((b"", Phase.FIRST_BYTE), (b"HTTP/1.1 200 OK\r\n", Phase.HEAD)):
        sock = FakeSocket(answer, error=ConnectionResetError(104, "reset"))
        with pytest.raises(TransportFault) as caught, transport(ConnectionPool(), sock).send(exchange()):
            pass
        assert (caught.value.code, caught.value.facts.phase, sock.closed) == (Code.ECONNRESET, phase, True)


def test_an_answer_to_half_a_request_is_read_and_the_connection_closed() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    sock, asked = FakeSocket(refusal[30:], early=refusal[:30]), exchange(method="PUT", body=b"b" * 100_000)
    with transport(ConnectionPool(), sock).send(asked) as response:
        assert (response.status_code, response.read(10)) == (413, b"no")
    assert sock.closed


def test_what_kept_an_early_answer_is_closed_whatever_ends_the_exchange() -> None:
    class Store:
        closed = False

        def write(self, data: bytes) -> None:
            raise TransportFault(Code.ERESPONSETOOLARGE, "full")

        def chunks(self) -> Iterator[bytes]:
            return iter(())

        def close(self) -> None:
            self.closed = True

    class Talking(FakeSocket):
        def send_watching(self, data: bytes, watch: Watch) -> bool:
            return not watch.arrived(OK + b"\r\n") and not watch.arrived(b"hi")

    store, sock = Store(), Talking()
    asked = exchange(method="PUT", body=b"b", early_store=lambda: store)
    with pytest.raises(TransportFault, match="full"), transport(ConnectionPool(), sock).send(asked):
        pass
    assert (store.closed, sock.closed) == (True, True)


def test_what_must_not_go_out_twice_gets_a_new_connection_and_the_kept_one_is_closed() -> None:
    pool, old, new = ConnectionPool(), FakeSocket(), FakeSocket(OK + b"\r\nhi")
    asked = exchange(method="POST")
    pool.keep(asked.connection_key, old)
    conversation = Conversation(asked, ExchangeObserver(), cast("Any", Dialer(new)), pool)
    assert conversation.begin().status_code == 200
    conversation.end()
    assert (old.closed, new.closed) == (True, True)


CHALLENGE = b'HTTP/1.1 %d No\r\n%s-Authenticate: Digest realm="r", nonce="n"\r\nContent-Length: 0\r\n\r\n'


@pytest.mark.parametrize(
    ("challenge", "more"),
    [
        (CHALLENGE % (401, b"WWW"), {"auth": Digest("agent", SecretStr("pw"))}),
        (CHALLENGE % (407, b"Proxy"), {"proxy_auth": Digest("agent", SecretStr("pw")), "proxy": parse_proxy("http://127.0.0.1:3128")}),
    ],
    ids=["target", "forwarding proxy"],
)
def test_what_must_not_go_out_twice_leaves_the_connection_of_a_challenge_that_does_not_bind_it(
    challenge: bytes, more: dict[str, Any]
) -> None:
    """The peer may have closed it meanwhile; the old one is closed first, for instruments that serve only one at a time."""
    old, new = FakeSocket(challenge), FakeSocket(OK + b"\r\nhi")
    with transport(ConnectionPool(), old, new).send(exchange(method="POST", body=b"b", **more)) as response:
        assert (response.status_code, old.closed, new.closed) == (200, True, False)
    assert (b"uthorization: Digest" in old.sent, b"uthorization: Digest" in new.sent) == (False, True)


def test_an_answer_to_another_worker_after_a_challenge_does_not_show_that_the_target_serves_several() -> None:
    """The connection of the challenge was closed before: a target that serves one at a time may answer the other worker's then."""
    now = 0.0
    pool, idle = ConnectionPool(monotonic=lambda: now), FakeSocket()
    asked = exchange(method="POST", body=b"b", auth=Digest("agent", SecretStr("pw")))
    key = asked.connection_key

    class Meanwhile(Dialer):
        def dial(self, exchange: Exchange, progress: Progress) -> FakeSocket:
            if len(self.sockets) == 1:
                pool.answering(key, reused_at=None)
                pool.answered(key)
            return super().dial(exchange, progress)

    dialer = Meanwhile(FakeSocket(CHALLENGE % (401, b"WWW")), FakeSocket(OK + b"\r\nhi"))
    with Transport(cast("Any", dialer), pool).send(asked, ExchangeObserver()) as response:
        assert response.status_code == 200
    with pool.opening(key):
        now += ROOM_SECONDS * 1.5
        pool.keep(key, idle)
    assert idle.closed
