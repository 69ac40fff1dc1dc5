"""What the dialer remembers: the address that answered first, and the certificate that was refused, each for its time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.failures import Code, Phase, RefusedCertificate
from relay_agent.transport import dialer
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.resolver import Address
from relay_agent.transport.tls import DEFAULT_ROOTS, Roots, TlsContexts
from tests.unit.transport.fake_socket import FakeSocket, exchange
from tests.unit.transport.racing import address

A, B, SIX = "192.0.2.1", "192.0.2.2", "2001:db8::1"


class Names:
    """A resolver whose name has the addresses that a test gives."""

    def __init__(self, *texts: str) -> None:
        self.addresses = [address(text) for text in texts]

    def resolve(self, *_: object) -> list[Address]:
        return self.addresses


class World:
    """A dialer whose connections go to the address that a test lets answer, in a time that the test owns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
        self.time = 1000.0
        self.answers = texts[0]
        self.tried: list[list[str]] = []
        self.names = Names(*texts)
        self.dialer = Dialer(TlsContexts(), self.names)  # type: ignore[arg-type]
        monkeypatch.setattr(dialer.time, "monotonic", lambda: self.time)
        monkeypatch.setattr(dialer, "connect", self._connect)

    def dial(self) -> list[str]:
        """Dial; return the addresses in the order in which they would be tried."""
        self.dialer.dial(exchange())
        return self.tried[-1]

    def _connect(self, addresses: list[Address], *_: object) -> tuple[Any, Address]:
        self.tried.append([each.text for each in addresses])
        return FakeSocket(), next(each for each in addresses if each.text == self.answers)


def test_the_address_that_answered_is_tried_first_for_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, A, B)
    world.answers = B
    assert world.dial() == [A, B]
    world.time += 599.0
    assert world.dial() == [B, A]
    world.time += 601.0
    assert world.dial() == [A, B]


def test_whoever_answers_later_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, A, B)
    world.answers = B
    world.dial()
    world.answers = A
    assert [world.dial(), world.dial()] == [[B, A], [A, B]]


def test_families_alternate_and_one_address_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert World(monkeypatch, A, B, SIX).dial() == [A, SIX, B]
    world = World(monkeypatch, A)
    assert [world.dial(), world.dial()] == [[A], [A]]


def test_a_refused_certificate_is_read_once_in_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    world, read = World(monkeypatch, A), list[str]()
    certificate = RefusedCertificate("CN=a device", "dev", "2026-01-01", "2026-12-31", roots="")

    def refuse(_exchange: object, progress: Any) -> Any:
        progress.enter(Phase.TLS)
        raise TransportFault(Code.CERT_HAS_EXPIRED, "over")

    def look(look_at: Any, _progress: object) -> RefusedCertificate:
        read.append(look_at.url.host)
        return certificate

    monkeypatch.setattr(world.dialer, "_dial", refuse)
    monkeypatch.setattr(world.dialer, "_read_certificate", look)
    for passed in (0.0, 299.0, 2.0):
        world.time += passed
        with pytest.raises(TransportFault) as caught:
            world.dialer.dial(exchange())
        assert caught.value.facts.certificate == replace(certificate, roots=DEFAULT_ROOTS)
    assert len(read) == 2


def test_the_roots_of_a_refused_certificate_are_those_of_the_call_and_not_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, A)

    def refuse(_exchange: object, progress: Any) -> Any:
        progress.enter(Phase.TLS)
        raise TransportFault(Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, "unknown")

    certificate = RefusedCertificate("CN=a device", "dev", "2026-01-01", "2026-12-31", roots="")
    monkeypatch.setattr(world.dialer, "_dial", refuse)
    monkeypatch.setattr(world.dialer, "_read_certificate", lambda *_: certificate)
    own = Roots((Path("/site/ca.pem"),), "/site/ca.pem", of_table=True)
    both = Roots((Path("/site/ca.pem"), Path("/site/added.pem")), "/site/ca.pem and /site/added.pem", of_table=True)
    found = []
    for roots in (None, own, both, None):
        with pytest.raises(TransportFault) as caught:
            world.dialer.dial(replace(exchange(), tls=None if roots is None else TlsContexts(trusted=roots)))
        shown = caught.value.facts.certificate
        assert shown is not None
        found.append((shown.roots, shown.of_table))
    table = "the ca_file of its [[target]] table"
    assert found == [(DEFAULT_ROOTS, False), (table, True), (f"{table} and RELAY_CA_FILE", True), (DEFAULT_ROOTS, False)]
