"""An answer that arrives while the body is still being sent ends the sending and is the answer (PROTOCOL §3)."""

from __future__ import annotations

import contextlib
import gzip
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relay_agent.transport.response_parser import final_status
from tests.contract.relaying import Relay, code, field
from tests.target_certificates import server_context
from tests.target_proxies import HttpProxy, Refusal
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, reply

LARGE = 5_000_000
SOON_SECONDS = 15.0
"""Before the command's own limit, on a machine that does more than this."""


class EarlyTarget(ByteTarget):
    """Reads the head of a request and no more, and says what the test says; `/next` answers as others do."""

    def __init__(self, tls: bool) -> None:
        super().__init__(server_context() if tls else None)
        self.heads: list[bytes] = []
        self.say: Callable[[Connection], object] = lambda conn: None
        self.on("/next", reply(200, body="next"))
        self.end = self.gate()

    def stay(self, conn: Connection) -> None:
        """Read nothing more, and keep the connection."""
        conn.wait(self.end, 20)

    def serve(self, conn: Connection) -> None:
        head = conn.read_head()
        if head is None:
            return
        self.heads.append(head)
        self.say(conn)


@pytest.fixture(params=[False, True], ids=["http", "https"])
def target(request: pytest.FixtureRequest) -> Iterator[EarlyTarget]:
    with EarlyTarget(request.param) as server:
        yield server


def post(relay: Relay, target: ByteTarget, size: int = LARGE, **more: Any) -> dict[str, Any]:
    begun = time.monotonic()
    answer = relay({"url": target.url(), "method": "POST", "body": "x" * size, "timeout": 20, **more})
    assert time.monotonic() - begun < SOON_SECONDS
    return answer


@pytest.mark.parametrize("status", [400, 401, 413, 503, 507])
@pytest.mark.parametrize("then", ["stay", "close", "hang"])
def test_a_refusal_before_the_body_is_the_answer_at_once(relay: Relay, target: EarlyTarget, status: int, then: str) -> None:
    """With its body and its fields, whether the target keeps the connection or closes it."""

    def say(conn: Connection) -> None:
        conn.respond(status, [("Retry-After", "7")], b"too much")
        target.stay(conn) if then == "stay" else getattr(conn, then)()

    target.say = say
    answer = post(relay, target)
    assert (answer["statusCode"], answer["body"], field(answer, "Retry-After")) == (status, "too much", "7")


def test_an_answer_that_comes_later_ends_the_sending_then(relay: Relay, target: EarlyTarget) -> None:
    def say(conn: Connection) -> None:
        conn.read_exactly(1_000)
        for piece in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 5", b"03 Busy\r\nContent-Length: 4\r\n", b"\r\nbu"):
            conn.send(piece)
            conn.wait_read()
        conn.send(b"sy")
        target.stay(conn)

    target.say = say
    assert (answer := post(relay, target))["statusCode"] == 503
    assert answer["body"] == "busy"


def test_an_interim_answer_does_not_end_the_sending(relay: Relay, target: EarlyTarget) -> None:
    def say(conn: Connection) -> None:
        conn.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        conn.respond(200, body=str(len(conn.read_exactly(LARGE))).encode())

    target.say = say
    assert post(relay, target)["body"] == str(LARGE)


def test_a_success_that_begins_early_does_not_end_the_sending(relay: Relay, target: EarlyTarget) -> None:
    """A target may answer to what it has read so far, as a converter does."""

    def say(conn: Connection) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        total = 0
        while total < LARGE:
            total += len(conn.read_exactly(min(500_000, LARGE - total)))
            conn.send(b"4\r\nread\r\n")
        conn.send(b"0\r\n\r\n")

    target.say = say
    assert post(relay, target)["body"] == "read" * 10


def test_a_success_of_a_target_that_takes_no_more_and_stays_is_late(relay: Relay, target: EarlyTarget) -> None:
    """It might read on, and would miss what is no longer sent."""

    def say(conn: Connection) -> None:
        conn.respond(200, body=b"enough")
        target.stay(conn)

    target.say = say
    answer = post(relay, target, timeout=1)
    assert (code(answer), answer["message"].startswith("sending the request")) == ("ETIMEDOUT", True)


def test_interim_answers_without_end_do_not_hide_a_refusal(relay: Relay, target: EarlyTarget) -> None:
    def say(conn: Connection) -> None:
        conn.send(b"HTTP/1.1 102 Processing\r\nX-Filler: " + b"x" * 1_000 + b"\r\n\r\n", *[b"HTTP/1.1 102 Processing\r\n\r\n"] * 1_000)
        conn.respond(413, body=b"too much")
        target.stay(conn)

    target.say = say
    assert (answer := post(relay, target))["statusCode"] == 413
    assert answer["body"] == "too much"


def test_interim_answers_without_end_do_not_end_the_sending(relay: Relay, target: EarlyTarget) -> None:
    def say(conn: Connection) -> None:
        first = len(conn.read_exactly(5_000))
        conn.send(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 12_000)
        conn.respond(200, body=str(first + len(conn.read_exactly(LARGE - first))).encode())

    target.say = say
    assert post(relay, target).get("body") == str(LARGE)


@pytest.mark.parametrize("status", [200, 300, 503])
def test_a_reset_ends_a_refusal_without_a_length(relay: Relay, target: EarlyTarget, status: int) -> None:
    """Who closes with a part of the request unread resets the connection (RFC 9112 §9.6); half a success is none."""

    def say(conn: Connection) -> None:
        conn.read_exactly(LARGE if status == 200 else 1_000)
        conn.send(b"HTTP/1.1 %d X\r\n\r\nsaid" % status)
        conn.wait_read()
        conn.reset()

    target.say = say
    answer = post(relay, target)
    assert answer.get("body") == "said" if status != 200 else code(answer) == "ECONNRESET"


def test_a_redirect_before_the_body_is_followed(relay: Relay, target: EarlyTarget) -> None:
    with ByteTarget() as other:
        other.on("/", lambda conn, request: conn.respond(200, body=str(len(request.body)).encode()))

        def say(conn: Connection) -> None:
            conn.respond(307, [("Location", other.url())])
            target.stay(conn)

        target.say = say
        assert post(relay, target)["body"] == str(LARGE)


def test_the_connection_of_an_early_answer_is_not_used_again(relay: Relay, target: EarlyTarget) -> None:
    """What is left of the request belongs to it."""
    target.say = lambda conn: (conn.respond(413, body=b"no"), target.stay(conn))
    assert post(relay, target)["statusCode"] == 413
    target.say = lambda conn: conn.respond(200, body=b"new")
    assert relay({"url": target.url("/other")})["body"] == "new"
    assert len(target.heads) == 2


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 4"])
def test_a_target_that_gives_up_without_an_answer_is_a_reset(relay: Relay, target: EarlyTarget, said: bytes) -> None:
    target.say = lambda conn: (conn.send(said), conn.close())
    assert code(post(relay, target)) in {"ECONNRESET", "EPIPE", "EBADRESPONSE"}


def test_a_target_that_neither_reads_nor_answers_is_late(relay: Relay, target: EarlyTarget) -> None:
    target.say = target.stay
    answer = post(relay, target, timeout=1)
    assert (code(answer), "sending the request" in answer["message"]) == ("ETIMEDOUT", True)


def test_an_invalid_answer_ends_the_sending_and_is_not_relayed(relay: Relay, target: EarlyTarget) -> None:
    target.say = lambda conn: (conn.send(b"SSH-2.0-OpenSSH\r\n"), target.stay(conn))
    assert code(post(relay, target)) == "EBADRESPONSE"


@pytest.mark.parametrize("factor", [1, 5])
def test_a_target_may_answer_any_length_while_it_reads(relay: Relay, target: EarlyTarget, factor: int) -> None:
    """As a converter does: it reads on only as its answer is taken, whatever fits into the buffers between."""

    def say(conn: Connection) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(LARGE // 100_000):
            piece = conn.read_exactly(100_000) * factor
            conn.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        conn.send(b"0\r\n\r\n")

    target.say = say
    answer = post(relay, target)
    assert (answer.get("statusCode"), answer.get("body") == "x" * LARGE * factor) == (200, True), str(answer)[:300]


def test_a_flood_while_the_body_is_sent_ends_at_twice_the_limit_of_a_response(relay: Relay, target: EarlyTarget) -> None:
    """It is on the disk, as a response is; the target reads nothing meanwhile."""

    def say(conn: Connection) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                conn.send(b"10000\r\n" + b"y" * 0x10000 + b"\r\n")

    target.say = say
    begun = time.monotonic()
    answer = relay({"url": target.url(), "method": "POST", "body": "x" * LARGE}, deadline=20.0, max_response_bytes=2_000_000)
    assert (code(answer), "4000000 bytes" in answer["message"]) == ("ERESPONSETOOLARGE", True)
    assert time.monotonic() - begun < SOON_SECONDS


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", None),
        (b"HTTP/1.1 413", None),
        (b"HTTP/1.1 413 Too\r\n", 413),
        (b"HTTP/1.1  200\n", 200),
        (b"HTTP/1.1 \t413 Too\r\n", 413),
        (b"HTTP/1.1 100 Continue\r\n\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 No\r\n", 401),
        (b"HTTP/1.1 100 Continue\r\n\r\r\nHTTP/1.1 401 No\r\n\r\n", 401),
        (b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 P\n\nHTTP/1.1 204 No\r\n", 204),
        (b"HTTP/1.1 103 Hints\r\nLink: a\r\n", None),
        (b"HTTP/1.1 101 Switching\r\n", 101),
        (b"SSH-2.0\r\n", 0),
        (b"x" * 20_000, 0),
        (b"HTTP/1.1 103 Hints\r\n" + b"Link: a\r\n" * 2_000, 0),
    ],
)
def test_the_status_of_what_came_so_far(data: bytes, status: int | None) -> None:
    assert final_status(bytearray(data)) == status


def test_a_refused_tunnel_in_gzip_is_text_like_any_response(relay: Relay) -> None:
    page = gzip.compress(b"<p>not allowed")
    refusal = Refusal(403, page, (("Content-Type", "text/html"), ("Content-Encoding", "gzip")))
    with HttpProxy(refuse=refusal) as proxy:
        answer = relay({"url": "https://target.example/"}, proxy=proxy.url())
    assert (answer["statusCode"], answer["body"], answer["bodyEncoding"]) == (403, "<p>not allowed", "utf-8")
    assert (field(answer, "Content-Encoding"), field(answer, "Content-Type")) == (None, "text/html")


def test_a_tunnel_refusal_in_broken_gzip_is_passed_on_as_received(relay: Relay) -> None:
    refusal = Refusal(403, b"\x1f\x8bbroken!", (("Content-Encoding", "gzip"),))
    with HttpProxy(refuse=refusal) as proxy:
        answer = relay({"url": "https://target.example/"}, proxy=proxy.url())
    assert (answer["statusCode"], answer["bodyEncoding"], field(answer, "Content-Encoding")) == (403, "base64", "gzip")


# --- keep-alive as the target announces it ---


def kept(relay: Relay, target: ByteTarget, *fields: tuple[str, str], **payload: Any) -> int:
    """How many connections a GET of `/kept`, whose answer has these fields, and then another request take."""
    target.on("/kept", reply(200, fields, b"first"))
    assert relay({"url": target.url("/kept"), "headers": payload.pop("first", None)})["body"] == "first"
    assert relay({"url": target.url("/kept"), **payload})["statusCode"] == 200
    return target.connections


@pytest.fixture
def plain() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        yield server


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_kept_connection_is_used_by_what_may_go_out_twice(relay: Relay, plain: ByteTarget, method: str) -> None:
    assert kept(relay, plain, method=method) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "BREW"])
def test_what_must_not_go_out_twice_gets_a_new_connection(relay: Relay, plain: ByteTarget, method: str) -> None:
    assert kept(relay, plain, method=method) == 2


def test_an_idempotency_key_makes_a_kept_connection_good_enough(relay: Relay, plain: ByteTarget) -> None:
    assert kept(relay, plain, method="POST", headers={"Idempotency-Key": "k"}) == 1


@pytest.mark.parametrize(
    ("value", "connections"),
    [
        *[("timeout=5, max=100", 1), ("timeout=1", 2), ("timeout=0", 2), ("max=0", 2), ("max=1", 2), ("Timeout=60", 1), ("seconds=1", 1)],
        *[('timeout="1"', 2), ('timeout="60"', 1), ("timeout=60; max=1", 2), ("timeout=x", 2), ("max=", 2), ("timeout", 2)],
    ],
)
def test_a_connection_is_kept_as_the_target_says(relay: Relay, plain: ByteTarget, value: str, connections: int) -> None:
    assert kept(relay, plain, ("Keep-Alive", value)) == connections


@pytest.mark.parametrize("lines", [["close", "Keep-Alive"], ["keep-alive", "X-Other, Close"], ["keep-alive, close"]])
def test_a_target_that_says_close_in_any_of_its_fields_closes(relay: Relay, plain: ByteTarget, lines: list[str]) -> None:
    assert kept(relay, plain, *(("Connection", line) for line in lines)) == 2


def test_a_command_that_says_close_ends_its_connection(relay: Relay, plain: ByteTarget) -> None:
    """RFC 9112 §9.6: nothing follows on it."""
    assert kept(relay, plain, first={"Connection": "close"}) == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_if_a_target_closes_a_kept_connection_when_the_next_request_comes_the_request_is_repeated(
    relay: Relay, plain: ByteTarget, method: str, how: str
) -> None:
    seen: list[RawRequest] = []

    def handle(conn: Connection, request: RawRequest) -> None:
        seen.append(request)
        if len(seen) == 2:
            getattr(conn, how)()
        else:
            conn.respond(200, body=request.method.encode())

    plain.on("/", handle)
    assert relay({"url": plain.url()})["body"] == "GET"
    assert relay({"url": plain.url(), "method": method, "body": "x" * 300_000})["body"] == method
    assert [request.method for request in seen] == ["GET", method, method]
    assert len(seen[2].body) == 300_000
