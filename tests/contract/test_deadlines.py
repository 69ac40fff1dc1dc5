"""`timeout` and the time left until `expiresAt` as a wall-clock limit over everything (PROTOCOL §3-§4).

A slow target, proxy or resolver, stage by stage. No test waits longer than the limits it sets.
"""

from __future__ import annotations

import functools
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.relaying import Relay, code
from tests.target_certificates import server_context
from tests.target_proxies import HttpProxy, Socks5Proxy
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, FullBacklog, in_turn, play, raw, redirect, reply

LIMIT = 0.3
SLACK = 3.0
"""Ten times the limit, for a machine that does more than this."""
GENEROUS = 1.0
"""Enough for an answer that comes at once."""


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("/next", reply(200, body="next"))
        yield server


@pytest.fixture
def blocked_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A resolver that does not answer until the test ends."""
    release = threading.Event()
    real = socket.getaddrinfo

    def hang(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("127.0.0.1", "::1"):
            return real(host, *args, **kwargs)
        release.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield release
    release.set()


def timed(relay: Relay, payload: dict[str, Any], limit: float = LIMIT, **options: Any) -> dict[str, Any]:
    """Relay a command that must end with ETIMEDOUT, neither early nor late."""
    start = time.monotonic()
    answer = relay({"timeout": limit, **payload}, **options)
    elapsed = time.monotonic() - start
    assert code(answer) == "ETIMEDOUT", answer
    assert limit * 0.9 <= elapsed < limit + SLACK
    assert limit * 900 <= answer["elapsedMs"] < (limit + SLACK) * 1000
    assert "statusCode" not in answer
    return answer


def silent(conn: Connection) -> bool:
    """Accept and say nothing."""
    conn.hang()
    return False


def dripping(head: bytes, drops: bytes) -> Callable[[Connection, RawRequest], None]:
    """A handler that sends a beginning at once and the rest a byte at a time, far below any read's time-out."""

    def handle(conn: Connection, _request: RawRequest) -> None:
        conn.send(head)
        conn.drip(drops, 0.03)

    return handle


def test_connect_that_never_completes(relay: Relay) -> None:
    """A port that does not answer SYN: ETIMEDOUT, and the message says it was the connect."""
    with FullBacklog() as hole:
        assert "connect" in timed(relay, {"url": hole.url()})["message"]


def test_connect_has_a_limit_of_its_own(relay: Relay) -> None:
    """RELAY_CONNECT_TIMEOUT_SECONDS ends a connect long before the command's deadline."""
    with FullBacklog() as hole:
        answer = timed(relay, {"url": hole.url(), "timeout": 30}, connect_seconds=LIMIT, deadline=30.0)
        assert "connect" in answer["message"]


def test_handshake_that_never_completes(relay: Relay, target: ByteTarget) -> None:
    """TLS is within the limit."""
    target.on_accept = silent
    timed(relay, {"url": target.url(scheme="https")})


def test_handshake_that_drips(relay: Relay, target: ByteTarget) -> None:
    """A TLS record that comes a byte at a time is within the limit."""
    target.on_accept = play(lambda conn: conn.send(b"\x16\x03\x03\x40\x00"), lambda conn: conn.drip(b"\x02" * 400, 0.03))
    timed(relay, {"url": target.url(scheme="https")})


def test_name_that_never_resolves(relay: Relay, blocked_resolver: threading.Event) -> None:
    """Name resolution is within the limit."""
    timed(relay, {"url": "http://slow.lab.example/"})


def test_slow_name_does_not_hold_up_the_next_command(relay: Relay, target: ByteTarget, blocked_resolver: threading.Event) -> None:
    """While a look-up hangs, other commands are served."""
    timed(relay, {"url": "http://slow.lab.example/"})
    assert relay({"url": target.url("/next")}).get("body") == "next"


def test_first_byte_that_never_comes(relay: Relay, target: ByteTarget) -> None:
    """A target that takes the request and says nothing: the message names the first byte."""
    target.on("/", lambda conn, _: conn.hang())
    assert "first byte" in timed(relay, {"url": target.url()}, GENEROUS)["message"]


@pytest.mark.parametrize(
    ("head", "drops"),
    [
        (b"", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"y" * 500),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b"x" * 500),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 500),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"e" * 500),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"T: 1\r\n" * 100),
    ],
    ids=["head", "field", "interim", "length", "until close", "chunked", "extension", "trailers"],
)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_dripping_response(relay: Relay, head: bytes, drops: bytes, tls: bool) -> None:
    """A byte every 30 ms defeats a time-out per read, not the wall clock; the connection is closed then."""
    with ByteTarget(server_context() if tls else None) as target:
        target.on("/", dripping(head, drops))
        target.on("/next", reply(200, body="next"))
        timed(relay, {"url": target.url()})
        assert relay({"url": target.url("/next")}).get("body") == "next"
        assert target.connections == 2


def test_body_that_stops(relay: Relay, target: ByteTarget) -> None:
    """Half a body and silence: ETIMEDOUT, and the message does not blame the connect."""
    target.on("/", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", then="hang"))
    message = timed(relay, {"url": target.url()}, GENEROUS)["message"]
    assert "connect" not in message
    assert "first byte" not in message


def test_compressed_body_that_drips(relay: Relay, target: ByteTarget) -> None:
    """A decoder that waits for input waits within the limit."""
    target.on(
        "/",
        dripping(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 500\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
            b"\x00" * 490,
        ),
    )
    answer = relay({"url": target.url(), "timeout": LIMIT})
    assert code(answer) in {"ETIMEDOUT", "EBADRESPONSE"}


@functools.cache
def _empty_members(layers: int) -> bytes:
    """Less than 100 MB of gzip members with nothing in them, packed until they are a few bytes."""
    if layers == 1:
        return gzip.compress(b"", mtime=0) * 4_900_000
    return gzip.compress(_empty_members(layers - 1), compresslevel=1, mtime=0)


@pytest.mark.parametrize("layers", [2, 3])
def test_decoder_that_works_and_gives_nothing(relay: Relay, target: ByteTarget, layers: int) -> None:
    """What came at once and is unpacked for long is within the limit, though nothing comes out of it."""
    target.on("/", reply(200, [("Content-Encoding", ", ".join(["gzip"] * layers))], _empty_members(layers)))
    assert "the whole response from" in timed(relay, {"url": target.url()}, GENEROUS, max_response_bytes=1_000_000_000)["message"]


def test_decoder_that_gives_much(relay: Relay, target: ByteTarget) -> None:
    """What unpacks to gigabytes is within the limit, where their number is allowed."""
    packed = gzip.compress(gzip.compress(b"\0" * 4_000_000, mtime=0) * 500, mtime=0)
    target.on("/", reply(200, [("Content-Encoding", "gzip, gzip"), ("Content-Type", "text/plain; charset=gb18030")], packed))
    timed(relay, {"url": target.url()}, max_response_bytes=10_000_000_000)


def test_request_that_is_not_read(relay: Relay, target: ByteTarget) -> None:
    """A target that stops reading a large body stops only until the limit."""

    def stall(conn: Connection) -> bool:
        conn.read_head()
        conn.stopping.wait(LIMIT + SLACK)
        return False

    target.on_accept = stall
    timed(relay, {"url": target.url(), "method": "POST", "body": "x" * 10_000_000})


def test_all_hops_share_one_limit(relay: Relay, target: ByteTarget) -> None:
    """Redirects that each stay below the limit do not add up beyond it."""

    def slow(conn: Connection, _request: RawRequest) -> None:
        conn.stopping.wait(LIMIT / 2)
        conn.respond(302, [("Location", "/slow")])

    target.on("/slow", slow)
    timed(relay, {"url": target.url("/slow")})
    assert len(target.requests) <= 3


def test_what_is_left_until_expiry_bounds_a_longer_timeout(relay: Relay, target: ByteTarget) -> None:
    """`timeout` is at most what is left until expiresAt."""
    target.on("/", lambda conn, _: conn.hang())
    timed(relay, {"url": target.url(), "timeout": 60}, deadline=LIMIT)


def test_what_is_left_until_expiry_bounds_a_command_without_timeout(relay: Relay, target: ByteTarget) -> None:
    """A command that gives no `timeout` ends with its expiry."""
    target.on("/", lambda conn, _: conn.hang())
    timed(relay, {"url": target.url(), "timeout": None}, deadline=LIMIT)


def test_fast_answer_just_before_the_limit_is_an_answer(relay: Relay, target: ByteTarget) -> None:
    """The limit is a limit, not a length."""
    target.on("/", play(lambda conn: conn.stopping.wait(0.1), lambda conn: conn.respond(200, body=b"in time")))
    assert relay({"url": target.url(), "timeout": 2}).get("body") == "in time"


def test_limit_of_one_command_is_not_the_nexts(relay: Relay, target: ByteTarget) -> None:
    """A short limit does not stay on the kept connection."""
    target.on("/late", play(lambda conn: conn.stopping.wait(GENEROUS + 0.1), lambda conn: conn.respond(200, body=b"late")))
    assert relay({"url": target.url("/next"), "timeout": GENEROUS}).get("body") == "next"
    assert relay({"url": target.url("/late"), "timeout": 5}).get("body") == "late"
    assert target.connections == 1


def test_late_answer_does_not_reach_the_next_command(relay: Relay, target: ByteTarget) -> None:
    """An answer that arrives after a timeout is discarded."""
    gate = target.gate()
    target.on("/", play(lambda conn: conn.wait(gate), lambda conn: conn.respond(200, body=b"too late")))
    timed(relay, {"url": target.url()})
    gate.release()
    assert relay({"url": target.url("/next")}).get("body") == "next"


@pytest.mark.parametrize("tunnel", [True, False])
def test_proxy_that_never_answers(relay: Relay, target: ByteTarget, tunnel: bool) -> None:
    """CONNECT and forwarding are within the limit, and the message says proxy."""
    target.on_accept = silent
    answer = timed(relay, {"url": "https://x.lab.example/" if tunnel else "http://x.lab.example/"}, proxy=target.url())
    assert "proxy" in answer["message"].lower()


def test_proxy_that_drips_its_answer_to_connect(relay: Relay, target: ByteTarget) -> None:
    """A tunnel that is opened a byte at a time is within the limit."""
    target.on_accept = play(Connection.read_head, lambda conn: conn.drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100, 0.03))
    timed(relay, {"url": "https://x.lab.example/"}, proxy=target.url())


def test_socks_proxy_that_never_answers(relay: Relay, target: ByteTarget) -> None:
    """SOCKS negotiation is within the limit."""
    target.on_accept = silent
    timed(relay, {"url": "http://x.lab.example/"}, proxy=f"socks5h://127.0.0.1:{target.port}")


def test_proxy_that_drips_socks(relay: Relay, target: ByteTarget) -> None:
    """SOCKS answers that drip are within the limit."""
    target.on_accept = play(lambda conn: conn.drip(b"\x05\x00\x05\x00\x00\x03\xff" + b"x" * 300, 0.03))
    timed(relay, {"url": "http://x.lab.example/"}, proxy=f"socks5h://127.0.0.1:{target.port}", deadline=1.5)


def test_proxy_that_never_ends_its_refusal(relay: Relay, target: ByteTarget) -> None:
    """A refusal whose body stops is reported by its status, or ends at the time limit."""
    target.on_accept = play(
        Connection.read_head, lambda conn: conn.send(b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\npart"), Connection.hang
    )
    start = time.monotonic()
    answer = relay({"url": "https://x.lab.example/", "timeout": LIMIT}, proxy=target.url())
    assert time.monotonic() - start < LIMIT + SLACK
    assert answer.get("statusCode") == 503 or code(answer) == "ETIMEDOUT"


@pytest.mark.parametrize("kind", ["http", "socks5h"])
def test_proxy_that_never_accepts(relay: Relay, kind: str) -> None:
    """A proxy whose connect hangs is reported as a timeout of connecting to the proxy."""
    with FullBacklog() as hole:
        answer = timed(relay, {"url": "http://x.lab.example/"}, proxy=f"{kind}://127.0.0.1:{hole.port}")
        assert "proxy" in answer["message"].lower()


@pytest.mark.parametrize("kind", [HttpProxy, Socks5Proxy])
def test_target_behind_a_proxy_that_never_answers(relay: Relay, target: ByteTarget, kind: type[HttpProxy | Socks5Proxy]) -> None:
    """The limit holds through a tunnel and TLS in it."""
    target.on_accept = silent
    with kind() as proxy:
        timed(relay, {"url": target.url(scheme="https")}, proxy=proxy.url())


PROXIES: dict[str, Callable[[], HttpProxy | Socks5Proxy]] = {
    "http": HttpProxy,
    "https": lambda: HttpProxy(tls=server_context()),
    "socks5h": Socks5Proxy,
}


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_dripping_body_through_a_proxy(relay: Relay, kind: str, tls: bool) -> None:
    """The limit holds for every way a response comes, and what was cut off is not used again."""
    with ByteTarget(server_context() if tls else None) as target, PROXIES[kind]() as proxy:
        target.on("/", dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b"x" * 500))
        target.on("/next", reply(200, body="next"))
        timed(relay, {"url": target.url()}, proxy=proxy.url())
        assert relay({"url": target.url("/next")}, proxy=proxy.url()).get("body") == "next"


@pytest.mark.parametrize("kind", PROXIES)
def test_limit_of_one_command_is_not_the_nexts_through_a_proxy(relay: Relay, kind: str) -> None:
    """A kept tunnel takes each command's own limit, longer or shorter than the one it was opened with."""
    with ByteTarget(server_context()) as target, PROXIES[kind]() as proxy:
        target.on("/next", reply(200, body="next"))
        target.on("/late", play(lambda conn: conn.stopping.wait(GENEROUS + 0.1), lambda conn: conn.respond(200, body=b"late")))
        target.on("/never", play(Connection.hang))
        assert relay({"url": target.url("/next"), "timeout": GENEROUS}, proxy=proxy.url()).get("body") == "next"
        assert relay({"url": target.url("/late"), "timeout": 5}, proxy=proxy.url()).get("body") == "late"
        assert target.connections == 1
        timed(relay, {"url": target.url("/never")}, proxy=proxy.url())


def test_name_that_does_not_exist(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's two errors are distinguished: the name does not exist, and no answer now."""

    def fail_with(number: int) -> None:
        def fail(*_args: object, **_kwargs: object) -> None:
            raise socket.gaierror(number, "resolver says no")

        monkeypatch.setattr(socket, "getaddrinfo", fail)

    fail_with(socket.EAI_NONAME)
    assert code(relay({"url": "http://dev.lab.example/"})) == "ENOTFOUND"
    assert code(relay({"url": "http://no-such-host.invalid/"})) == "ENOTFOUND"
    fail_with(socket.EAI_AGAIN)
    assert code(relay({"url": "http://dev.lab.example/"})) == "EAI_AGAIN"


def test_redirect_to_a_slow_target_says_where(relay: Relay, target: ByteTarget) -> None:
    """The failure's url is the hop that was slow."""
    target.on("/start", redirect(302, "/slow"))
    target.on("/slow", in_turn(lambda conn, _: conn.hang()))
    assert timed(relay, {"url": target.url("/start")})["url"] == target.url("/slow")
