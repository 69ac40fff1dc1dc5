"""CONNECT: what the proxy is asked, and what each of its answers means; the byte stream is the test's.

Whole conversations through a proxy are tested in `tests/contract/test_target_proxies.py`.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydantic import SecretStr

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.transport.digest import Digest
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.proxy import Proxy, parse_proxy
from relay_agent.transport.proxy_connect import MAX_PROXY_ANSWER, REFUSAL_SECONDS, ProxyRefused, Tunnel, TunnelRefused
from tests.unit.transport.fake_socket import FakeSocket, exchange

PROXY = parse_proxy("http://gate.lab.example:3128")
WITH_LOGIN = parse_proxy("http://user:canary@gate.lab.example:3128")
GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def opened(sock: FakeSocket, url: str = "https://dev.lab.example/a", proxy: Proxy = PROXY) -> None:
    sock.deadline = Deadline(60.0)
    assert Tunnel(proxy, exchange(url, proxy=proxy)).open(sock)


def refusal(answer: bytes, **more: Any) -> TunnelRefused:
    sock = FakeSocket(answer, **more)
    with pytest.raises(TunnelRefused) as caught:
        opened(sock)
    assert sock.closed
    return caught.value


def fault(sock: FakeSocket) -> TransportFault:
    with pytest.raises(TransportFault) as caught:
        opened(sock)
    assert sock.closed
    assert caught.value.facts.proxy == PROXY.masked
    return caught.value


# --- what is asked ---


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("https://dev.lab.example/a", "dev.lab.example:443"),
        ("https://dev.lab.example:8443/a", "dev.lab.example:8443"),
        ("https://[2001:db8::1]/", "[2001:db8::1]:443"),
    ],
)
def test_the_tunnel_is_asked_for_by_host_and_port_and_the_path_stays_secret(url: str, where: str) -> None:
    sock = FakeSocket(GRANTED)
    opened(sock, url)
    assert sock.sent == f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
    assert not sock.closed


def test_the_proxy_gets_its_user_and_password() -> None:
    sock = FakeSocket(GRANTED)
    opened(sock, proxy=WITH_LOGIN)
    assert f"\r\nProxy-Authorization: {WITH_LOGIN.authorization}\r\n\r\n".encode() in sock.sent


@pytest.mark.parametrize("status", [200, 201, 299])
def test_every_2xx_opens_the_tunnel_and_has_no_body(status: int) -> None:
    opened(FakeSocket(b"HTTP/1.1 %d OK\r\nContent-Length: 5\r\n\r\n" % status))


# --- refusals ---


@pytest.mark.parametrize("status", [300, 403, 407, 502])
def test_any_other_status_is_a_refusal_with_the_proxy_s_answer(status: int) -> None:
    found = refusal(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\nX-Why: policy\r\n\r\nno" % status)
    assert (found.status, found.body, dict(found.headers)["X-Why"]) == (status, b"no", "policy")
    assert (found.facts.status, found.facts.proxy, found.facts.forwarded) == (status, PROXY.masked, False)
    assert found.message == f"the proxy {PROXY.masked} answered {status} to CONNECT"


def test_a_proxy_that_had_to_forward_the_request_itself_is_distinguished() -> None:
    assert ProxyRefused(PROXY, 502, "GET").facts.forwarded
    assert not ProxyRefused(PROXY, 502, "CONNECT").facts.forwarded


def test_of_a_refusal_without_a_length_what_came_in_time_is_kept() -> None:
    assert refusal(b"HTTP/1.1 403 No\r\n\r\nwords", error=TimeoutError()).body == b"words"


def test_a_refusal_without_a_length_may_end_with_a_reset() -> None:
    assert refusal(b"HTTP/1.1 403 No\r\n\r\nwords", error=ConnectionResetError()).body == b"words"


def test_of_a_long_refusal_the_beginning_is_kept() -> None:
    size = MAX_PROXY_ANSWER + 1000
    assert refusal(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size).body == b"x" * MAX_PROXY_ANSWER


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nab", "it answered 403 to CONNECT, and closed before the end of the body"),
        (
            b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "it answered 403 to CONNECT, and closed before the end of the body",
        ),
        (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "and the framing of the body is not valid HTTP"),
    ],
    ids=["length", "chunks", "no chunks"],
)
def test_a_refusal_whose_body_is_cut_or_malformed_is_no_answer(answer: bytes, words: str) -> None:
    found = fault(FakeSocket(answer))
    assert (found.code, isinstance(found, TunnelRefused)) == (Code.EBADRESPONSE, False)
    assert words in found.message


# --- no usable answer ---


def test_a_proxy_that_does_not_speak_http_is_a_bad_response() -> None:
    assert fault(FakeSocket(b"SSH-2.0-x\r\n")).code is Code.EBADRESPONSE


def test_a_proxy_that_closes_or_resets_at_once_is_named() -> None:
    assert fault(FakeSocket(b"")).code is Code.ECONNRESET
    assert fault(FakeSocket(b"", error=ConnectionResetError(104, "reset"))).code is Code.ECONNRESET


def test_a_deadline_that_passes_is_left_to_the_caller() -> None:
    sock = FakeSocket(b"HTTP/1.1 2", error=TimeoutError())
    with pytest.raises(TimeoutError):
        opened(sock)
    assert sock.closed


class Breaking(FakeSocket):
    """The peer has closed its side before the request could be sent."""

    def sendall(self, data: bytes) -> None:
        raise BrokenPipeError(32, "broken pipe")


def test_an_answer_that_came_before_the_request_could_be_sent_counts() -> None:
    sock = Breaking(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(TunnelRefused):
        opened(sock)


def test_without_such_an_answer_the_failed_send_is_the_fault() -> None:
    assert fault(Breaking(b"", error=ConnectionResetError(104, "reset"))).code is Code.EPIPE


class Pausing(FakeSocket):
    """Pauses for longer than REFUSAL_SECONDS before the end of its answer: a reader with less time than that does not get it."""

    def __init__(self, answer: bytes, rest: bytes) -> None:
        super().__init__(answer)
        self.rest = rest

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Paused(self))


class _Paused(io.RawIOBase):
    def __init__(self, sock: Pausing) -> None:
        super().__init__()
        self._pieces = [sock.answer, sock.rest]
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        deadline = self._sock.deadline
        assert deadline is not None
        if len(self._pieces) == 1 and deadline.remaining() <= REFUSAL_SECONDS:
            raise TimeoutError
        piece = self._pieces.pop(0) if self._pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize(
    ("head", "answer", "rest", "body"),
    [
        (b"Content-Length: 10", b"hello", b"world", b"helloworld"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n", b"5\r\nworld\r\n0\r\n\r\n", b"helloworld"),
        (b"X-Why: policy", b"hello", b"world", b"hello"),
    ],
    ids=["length", "chunks", "no end"],
)
def test_a_refusal_that_pauses_is_read_to_its_end_if_it_has_one(head: bytes, answer: bytes, rest: bytes, body: bytes) -> None:
    sock = Pausing(b"HTTP/1.1 403 No\r\n" + head + b"\r\n\r\n" + answer, rest)
    with pytest.raises(TunnelRefused) as caught:
        opened(sock)
    assert caught.value.body == body


def test_a_challenge_that_pauses_is_not_waited_for_if_a_new_connection_will_do() -> None:
    head = b'HTTP/1.1 407 No\r\nProxy-Authenticate: Digest realm="r", nonce="n"\r\nContent-Length: 10\r\n\r\n'
    sock = Pausing(head + b"hello", b"world")
    sock.deadline = Deadline(60.0)
    tunnel = Tunnel(PROXY, exchange("https://dev.lab.example/a", proxy=PROXY, proxy_auth=Digest("agent", SecretStr("pw"))))
    assert not tunnel.open(sock)
    assert sock.closed


def test_of_a_refusal_with_a_length_what_came_until_the_deadline_is_kept() -> None:
    assert refusal(b"HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\nhello", error=TimeoutError()).body == b"hello"


class Once(FakeSocket):
    """Gives its answer to the first request, and its end to the next."""

    def makefile(self, mode: str) -> io.BufferedReader:
        stream, self.answer = super().makefile(mode), b""
        return stream


DIGEST = b'HTTP/1.1 407 No\r\nProxy-Authenticate: Digest realm="r", nonce="n"\r\nContent-Length: 0\r\n\r\n'


@pytest.mark.parametrize("error", [None, ConnectionResetError(104, "reset")], ids=["closed", "reset"])
def test_a_connection_that_the_proxy_gave_up_with_its_challenge_is_replaced(error: OSError | None) -> None:
    credentials = Digest("agent", SecretStr("pw"))
    tunnel = Tunnel(PROXY, exchange("https://dev.lab.example/a", proxy=PROXY, proxy_auth=credentials))
    old, new = Once(DIGEST, error=error), FakeSocket(GRANTED)
    old.deadline = new.deadline = Deadline(60.0)
    assert not tunnel.open(old)
    assert old.closed
    assert tunnel.open(new)
    assert b"Proxy-Authorization: Digest" in new.sent


def test_a_connection_that_the_proxy_closes_before_any_challenge_is_a_fault_whatever_the_credentials() -> None:
    tunnel = Tunnel(PROXY, exchange("https://dev.lab.example/a", proxy=PROXY, proxy_auth=Digest("agent", SecretStr("pw"))))
    sock = FakeSocket()
    sock.deadline = Deadline(60.0)
    with pytest.raises(TransportFault) as caught:
        tunnel.open(sock)
    assert (caught.value.code, sock.closed) == (Code.ECONNRESET, True)
