"""What is said to a SOCKS5 proxy byte by byte, and which fault each of its answers is (RFC 1928, RFC 1929).

The conversation through a whole proxy is tested in `tests/contract/test_target_proxies.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.transport.deadline_sockets import DeadlineSocket
from relay_agent.transport.errors import ProxyFault, TransportFault
from relay_agent.transport.proxy import Proxy, parse_proxy
from relay_agent.transport.socks5 import ask_for_connection

PROXY = parse_proxy("socks5h://gate.lab.example:1080")
WITH_LOGIN = parse_proxy("socks5h://us:canary@gate.lab.example:1080")
PLAIN, LOGIN = b"\x05\x01\x00", b"\x05\x02\x00\x02"
NO_LOGIN, WANTS_LOGIN = b"\x05\x00", b"\x05\x02"
CREDENTIALS = b"\x01\x02us\x06canary"
GRANTED = b"\x05\x00\x00\x01\x0a\x00\x00\x01\x1f\x90"


class Peer:
    """A proxy on a socket pair that has said everything beforehand."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.ours = DeadlineSocket(fileno=ours.detach())
        self.ours.deadline = Deadline(10.0)

    def ask(self, said: bytes, host: str = "dev.lab.example", proxy: Proxy = PROXY, *, closes: bool = True) -> bytes:
        """Ask for a connection; return what the proxy got."""
        self.theirs.sendall(said)
        if closes:
            self.theirs.shutdown(socket.SHUT_WR)
        ask_for_connection(self.ours, proxy, host, 8080)
        return self.got()

    def got(self) -> bytes:
        self.theirs.setblocking(False)
        try:
            return self.theirs.recv(65536)
        except BlockingIOError:
            return b""

    def fault(self, said: bytes, host: str = "dev.lab.example", proxy: Proxy = PROXY) -> TransportFault:
        with pytest.raises(TransportFault) as caught:
            self.ask(said, host, proxy)
        return caught.value


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.ours.close()
    made.theirs.close()


# --- what is asked ---


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("dev.lab.example", b"\x03\x0fdev.lab.example"),
        ("dev.lab.example.", b"\x03\x10dev.lab.example."),
        ("a.b", b"\x03\x03a.b"),
        ("10.0.0.7", b"\x01\x0a\x00\x00\x07"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + b"\x00" * 11 + b"\x01"),
    ],
    ids=["name", "rooted name", "short labels", "IPv4", "IPv6"],
)
def test_a_name_goes_to_the_proxy_as_a_name_and_an_address_as_an_address(peer: Peer, host: str, address: bytes) -> None:
    assert peer.ask(NO_LOGIN + GRANTED, host) == PLAIN + b"\x05\x01\x00" + address + b"\x1f\x90"


def test_a_name_of_more_than_127_bytes_has_one_byte_for_its_length(peer: Peer) -> None:
    """PySocks, which this module replaces, writes two."""
    name = ".".join(["x" * 63] * 3 + ["y" * 61])
    assert peer.ask(NO_LOGIN + GRANTED, name).startswith(PLAIN + b"\x05\x01\x00\x03" + bytes([253]) + name.encode())


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", ".".join(["x" * 63] * 4), "m\u00fcll.example", ""])
def test_what_is_no_domain_name_is_not_asked_for(peer: Peer, host: str) -> None:
    fault = peer.fault(NO_LOGIN + GRANTED, host)
    assert (fault.code, fault.facts.proxy, peer.got()) == (Code.ENOTFOUND, None, b"")


def test_the_target_s_first_bytes_are_left_to_be_read(peer: Peer) -> None:
    peer.ask(NO_LOGIN + GRANTED + b"220 ready", closes=False)
    assert peer.ours.recv(100) == b"220 ready"


@pytest.mark.parametrize(
    "reply",
    [
        b"\x05\x00\x00\x01" + b"\x00" * 6,
        b"\x05\x00\x00\x04" + b"\x00" * 18,
        b"\x05\x00\x00\x03\x04gate\x00\x00",
        b"\x05\x00\x00\x03\x00\x00\x00",
    ],
    ids=["IPv4", "IPv6", "name", "empty name"],
)
def test_a_reply_ends_where_its_address_ends(peer: Peer, reply: bytes) -> None:
    peer.ask(NO_LOGIN + reply + b"!", closes=False)
    assert peer.ours.recv(100) == b"!"


class Piecewise(DeadlineSocket):
    """A socket that gives the first byte of what it is asked for alone, and then the rest."""

    alone = False

    def recv(self, *args: Any) -> bytes:
        self.alone = not self.alone
        return super().recv(1 if self.alone else args[0])


def test_an_answer_that_comes_in_pieces_is_read_to_its_last_byte_and_no_further(peer: Peer) -> None:
    peer.ours = Piecewise(fileno=peer.ours.detach())
    peer.ask(NO_LOGIN + GRANTED + b"!!!", closes=False)
    assert peer.ours.recv(1) + peer.ours.recv(100) == b"!!!"


# --- the login ---


def test_user_and_password_are_given_only_to_a_proxy_that_asks_for_them(peer: Peer) -> None:
    assert peer.ask(NO_LOGIN + GRANTED, proxy=WITH_LOGIN).startswith(LOGIN + b"\x05\x01\x00\x03")
    other = Peer()
    try:
        assert other.ask(WANTS_LOGIN + b"\x01\x00" + GRANTED, proxy=WITH_LOGIN).startswith(LOGIN + CREDENTIALS + b"\x05\x01\x00\x03")
    finally:
        other.ours.close()
        other.theirs.close()


def test_a_refused_login_names_the_proxy_and_no_password(peer: Peer) -> None:
    fault = peer.fault(WANTS_LOGIN + b"\x01\x01", proxy=WITH_LOGIN)
    assert (fault.code, fault.facts.proxy, fault.facts.behind) == (Code.ECONNREFUSED, WITH_LOGIN.masked, False)
    assert "refused the user and password" in fault.message
    assert "canary" not in fault.message


@pytest.mark.parametrize(
    ("proxy", "chosen"),
    [(PROXY, b"\x05\x02"), (PROXY, b"\x05\xff"), (WITH_LOGIN, b"\x05\x01"), (WITH_LOGIN, b"\x05\xff")],
)
def test_a_method_that_was_not_offered_is_a_refusal(peer: Peer, proxy: Proxy, chosen: bytes) -> None:
    assert "refused every authentication method" in peer.fault(chosen, proxy=proxy).message
    assert peer.got() == (PLAIN if proxy is PROXY else LOGIN)


@pytest.mark.parametrize("secret", ["u:" + "p" * 256, "u" * 256 + ":p"], ids=["password", "user"])
def test_a_login_of_more_than_255_bytes_cannot_be_given(peer: Peer, secret: str) -> None:
    fault = peer.fault(WANTS_LOGIN + b"\x01\x00" + GRANTED, proxy=parse_proxy(f"socks5h://{secret}@gate.lab.example:1080"))
    assert (fault.code, peer.got()) == (Code.ECONNREFUSED, LOGIN)


def test_a_login_of_255_bytes_is_given_whole(peer: Peer) -> None:
    proxy = parse_proxy(f"socks5h://{'u' * 255}:{'p' * 255}@gate.lab.example:1080")
    assert peer.ask(WANTS_LOGIN + b"\x01\x00" + GRANTED, proxy=proxy).startswith(LOGIN + b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255)


# --- refusals and faults ---


@pytest.mark.parametrize(
    ("reply", "code"),
    [(2, Code.EHOSTUNREACH), (3, Code.ENETUNREACH), (4, Code.EHOSTUNREACH), (5, Code.ECONNREFUSED), (6, Code.ETIMEDOUT)],
)
def test_a_reply_about_the_target_has_the_code_of_a_direct_call_and_lies_behind_the_proxy(peer: Peer, reply: int, code: Code) -> None:
    fault = peer.fault(NO_LOGIN + bytes([5, reply, 0, 1]) + b"\x00" * 6)
    assert isinstance(fault, ProxyFault)
    assert (fault.code, fault.facts.proxy, fault.facts.behind) == (code, PROXY.masked, True)


@pytest.mark.parametrize("reply", [1, 7, 8, 255])
def test_any_other_reply_is_the_proxy_s_own_refusal(peer: Peer, reply: int) -> None:
    fault = peer.fault(NO_LOGIN + bytes([5, reply, 0, 1]) + b"\x00" * 6)
    assert (fault.code, fault.facts.behind) == (Code.ECONNREFUSED, False)
    assert f"reply {reply}" in fault.message


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n", NO_LOGIN + b"\x04\x00\x00\x01" + b"\x00" * 6, NO_LOGIN + b"\x05\x00\x00\x02" + b"\x00" * 6],
    ids=["another protocol", "another version in the reply", "an unknown kind of address"],
)
def test_what_is_not_socks5_is_a_bad_response_of_the_proxy(peer: Peer, said: bytes) -> None:
    fault = peer.fault(said)
    assert (fault.code, fault.facts.proxy) == (Code.EBADRESPONSE, PROXY.masked)


@pytest.mark.parametrize("length", range(len(NO_LOGIN + GRANTED)))
def test_a_proxy_that_closes_early_is_a_reset_by_the_proxy(peer: Peer, length: int) -> None:
    fault = peer.fault((NO_LOGIN + GRANTED)[:length])
    assert (fault.code, fault.facts.proxy) == (Code.ECONNRESET, PROXY.masked)


def test_an_error_of_the_socket_is_a_fault_of_the_proxy(peer: Peer) -> None:
    peer.theirs.close()
    with pytest.raises(TransportFault) as caught:
        ask_for_connection(peer.ours, PROXY, "dev.lab.example", 80)
    assert (caught.value.code, caught.value.facts.proxy) == (Code.EPIPE, PROXY.masked)


def test_a_deadline_that_passes_is_left_to_the_caller(peer: Peer) -> None:
    peer.ours.deadline = Deadline(0.0)
    with pytest.raises(TimeoutError):
        ask_for_connection(peer.ours, PROXY, "dev.lab.example", 80)
