"""Names to addresses: literals and localhost, names that cannot be, and look-ups that hang."""

from __future__ import annotations

import socket
import threading

import pytest

from relay_agent import resolver
from relay_agent.clock import Deadline
from relay_agent.faults import TransportFault
from relay_agent.models import Code
from relay_agent.resolver import MAX_LOOKUPS, Resolver


@pytest.mark.parametrize(
    ("host", "text"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "127.0.0.1"), ("0x7f.1", "127.0.0.1")]
)
def test_an_address_is_what_connect_takes(host: str, text: str) -> None:
    found = Resolver().resolve(host, 8080, Deadline(5))
    assert text in [address.text for address in found]
    assert all(address.sockaddr[1] == 8080 for address in found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("host", ["nowhere.invalid", "NOWHERE.INVALID.", "invalid"])
def test_a_name_that_never_exists_is_not_asked_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: pytest.fail("asked"))
    with pytest.raises(TransportFault) as caught:
        Resolver().resolve(host, 80, Deadline(5))
    assert caught.value.code == "ENOTFOUND"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "ENOTFOUND"),
        (socket.gaierror(socket.EAI_NODATA, "x"), "ENOTFOUND"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "EAI_AGAIN"),
        (socket.gaierror(socket.EAI_FAIL, "x"), "EAI_AGAIN"),
        (UnicodeError("label too long"), "ENOTFOUND"),
    ],
)
def test_what_the_resolver_says_is_one_of_two_codes(error: Exception, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_args: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(TransportFault) as caught:
        Resolver().resolve("name.example", 80, Deadline(5))
    assert caught.value.code == code


def test_a_look_up_that_hangs_ends_at_the_deadline_and_hanging_ones_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    release, places = threading.Event(), 2
    monkeypatch.setattr(resolver, "MAX_LOOKUPS", places)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: [] * release.wait(30))
    assert places < MAX_LOOKUPS
    hanging = Resolver()
    before = set(threading.enumerate())
    found = []
    for _ in range(places + 1):
        with pytest.raises(TransportFault) as caught:
            hanging.resolve("name.example", 80, Deadline(0.05))
        found.append(caught.value.code)
    assert found == ["ETIMEDOUT"] * places + ["EAI_AGAIN"]
    release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert hanging.resolve("name.example", 80, Deadline(5)) == []


def test_a_look_up_that_hangs_can_be_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: [] * release.wait(30))

    def check() -> None:
        raise TransportFault(Code.ECONNRESET, "broken off")

    with pytest.raises(TransportFault, match="broken off"):
        Resolver().resolve("name.example", 80, Deadline(30), check)
    release.set()
