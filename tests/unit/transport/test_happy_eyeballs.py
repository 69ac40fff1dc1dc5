"""Which of a name's addresses is connected to, when the next is tried, and which of several faults is reported (RFC 8305)."""

from __future__ import annotations

import errno
import socket

import pytest

from relay_agent.core.failures import Code
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.happy_eyeballs import KEEP_ALIVE_AGAIN_SECONDS, KEEP_ALIVE_SECONDS, interleaved, most_telling
from tests.unit.transport.racing import Network, address

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


def test_the_next_address_is_tried_every_250_ms_beside_those_that_are_silent(network: Network) -> None:
    network.answers = {C: 0.1}
    sock, answered = network.connect(A, B, C)
    assert network.begun == [(A, 0.0), (B, 0.25), (C, 0.5)]
    assert (answered.text, sock.to, round(network.time, 2)) == (C, C, 0.6)


def test_an_early_address_may_still_win_after_the_next_was_begun(network: Network) -> None:
    network.answers = {A: 0.3, B: 0.2}
    assert network.connect(A, B, C)[1].text == A
    assert [text for text, _ in network.begun] == [A, B]


def test_the_next_address_is_tried_at_once_when_one_refuses(network: Network) -> None:
    network.answers, network.errors = {A: 0.01, C: 0.01}, {A: errno.ECONNREFUSED}
    network.at_once = {B: errno.ENETUNREACH}
    assert network.connect(A, B, C)[1].text == C
    assert network.begun == [(A, 0.0), (B, 0.01), (C, 0.01)]


def test_the_connection_that_wins_is_held_and_every_other_is_closed(network: Network) -> None:
    network.answers = {B: 0.05}
    sock, _ = network.connect(A, B)
    assert network.held[-1] is sock
    assert [(each.to, each.closed) for each in network.sockets] == [(A, True), (B, False)]
    assert sock.deadline.seconds == 10.0
    assert sock.options[socket.IPPROTO_TCP, socket.TCP_NODELAY] == 1


def test_the_system_is_told_to_probe_a_silent_connection(network: Network) -> None:
    network.answers = {A: 0.0}
    options = network.connect(A)[0].options
    assert options[socket.SOL_SOCKET, socket.SO_KEEPALIVE] == 1
    assert options[socket.IPPROTO_TCP, socket.TCP_KEEPIDLE] == KEEP_ALIVE_SECONDS == 60
    assert options[socket.IPPROTO_TCP, socket.TCP_KEEPINTVL] == KEEP_ALIVE_AGAIN_SECONDS


def test_addresses_that_are_all_silent_are_a_time_out_when_the_limit_passes(network: Network) -> None:
    with pytest.raises(TransportFault, match=r"3 addresses were tried") as caught:
        network.connect(A, B, C, seconds=2.0)
    assert (caught.value.code, round(network.time, 2)) == (Code.ETIMEDOUT, 2.0)
    assert all(sock.closed for sock in network.sockets)


def test_a_limit_that_has_passed_lets_nothing_begin(network: Network) -> None:
    with pytest.raises(TimeoutError):
        network.connect(A, seconds=0.0)
    assert network.begun == []


def test_a_machine_without_a_free_descriptor_goes_on_with_the_next_address(network: Network) -> None:
    network.no_sockets, network.answers = 1, {B: 0.0}
    assert network.connect(A, B)[1].text == B


def test_a_connection_that_is_reset_at_once_is_a_fault_and_closed(network: Network) -> None:
    network.answers, network.resets = {A: 0.0}, {A}
    with pytest.raises(TransportFault) as caught:
        network.connect(A)
    assert (caught.value.code, network.sockets[0].closed) == (Code.ECONNRESET, True)


def test_a_fault_names_the_address_and_the_proxy_if_it_is_one_s(network: Network) -> None:
    network.answers = {"2001:db8::1": 0.0}
    network.errors = {"2001:db8::1": errno.ECONNREFUSED}
    with pytest.raises(TransportFault, match=r"\[2001:db8::1\]:80") as caught:
        network.connect("2001:db8::1", proxy="http://proxy.lab.example:3128")
    assert caught.value.facts.proxy == "http://proxy.lab.example:3128"


def test_a_stop_ends_the_race_and_closes_every_connection(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = iter([False, False, True])

    def check_stop() -> None:
        if next(stops):
            raise InterruptedError

    monkeypatch.setattr(network.progress, "check_stop", check_stop)
    with pytest.raises(InterruptedError):
        network.connect(A, B)
    assert [sock.closed for sock in network.sockets] == [True] * len(network.sockets)


@pytest.mark.parametrize(
    "given, ordered",
    [
        (["192.0.2.1"], ["192.0.2.1"]),
        (["::1", "::2", "192.0.2.1"], ["::1", "192.0.2.1", "::2"]),
        (["192.0.2.1", "192.0.2.2", "192.0.2.3", "::1"], ["192.0.2.1", "::1", "192.0.2.2", "192.0.2.3"]),
        (["192.0.2.1", "192.0.2.2"], ["192.0.2.1", "192.0.2.2"]),
    ],
)
def test_the_families_alternate_beginning_with_the_first_one_s(given: list[str], ordered: list[str]) -> None:
    assert [each.text for each in interleaved([address(text) for text in given])] == ordered


@pytest.mark.parametrize(
    "codes, told",
    [
        ([Code.ECONNREFUSED], 0),
        ([Code.ECONNREFUSED, Code.ETIMEDOUT, Code.ENETUNREACH], 0),
        ([Code.ECONNREFUSED, Code.ECONNRESET, Code.ETIMEDOUT], 1),
        ([Code.ETIMEDOUT, Code.EHOSTUNREACH], 0),
        ([Code.ETIMEDOUT, Code.ETIMEDOUT, Code.ENETUNREACH], 1),
        ([Code.ENETUNREACH, Code.EHOSTUNREACH], 1),
    ],
)
def test_the_last_answer_is_told_else_the_last_time_out_else_the_last_missing_route(codes: list[Code], told: int) -> None:
    faults = [TransportFault(code, f"fault {place}") for place, code in enumerate(codes)]
    found = most_telling(faults)
    assert found is faults[told]
    assert ("addresses were tried" in found.text) == (len(codes) > 1)
