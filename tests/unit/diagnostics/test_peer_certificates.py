"""Which certificates of peers count as in use, and what a handshake costs that shows a known one."""

from __future__ import annotations

import ssl

import pytest

from relay_agent.core.models import CertificateRole
from relay_agent.diagnostics import peer_certificates
from relay_agent.diagnostics.peer_certificates import IN_USE_SECONDS, MOST_OF_A_PEER, MOST_PEERS, TOGETHER_SECONDS, PeerCertificates
from tests.counting import calls_of
from tests.target_certificates import ca_that_ends


def der(days: float, name: str = "a device") -> bytes:
    return ssl.PEM_cert_to_DER_cert(ca_that_ends(days, name).decode())


OLD, NEW = der(5, "old"), der(700, "new")


class World:
    """Peer certificates, and a time that the test advances."""

    def __init__(self) -> None:
        self.time = 0.0
        self.peers = PeerCertificates(lambda: self.time)
        self.targets = self.peers.leg(CertificateRole.TARGET)
        self.platform = self.peers.leg(CertificateRole.PLATFORM)

    def shown(self, der: bytes, host: str = "lims.lab.example", port: int = 443) -> None:
        self.targets.accepted(host, port, der, proxy=False)

    @property
    def subjects(self) -> list[str]:
        return sorted(one.subject for one in self.peers.in_use())


@pytest.fixture
def world() -> World:
    return World()


def test_each_peer_has_its_role_and_name_and_proxies_of_both_legs_are_distinguished(world: World) -> None:
    world.shown(OLD, "::1")
    world.platform.accepted("api.lab.example", 443, OLD, proxy=False)
    for leg in (world.targets, world.platform):
        leg.accepted("proxy.lab.example", 3129, OLD, proxy=True)
    assert {(one.role, one.name, one.row.id, one.private) for one in world.peers.in_use()} == {
        ("target", "[::1]:443", "target", True),
        ("platform", "api.lab.example:443", "platform", False),
        ("proxy", "proxy.lab.example:3129", "target", False),
        ("proxy", "proxy.lab.example:3129", "platform", False),
    }


def test_a_known_certificate_is_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = peer_certificates.read_certificate
    monkeypatch.setattr(peer_certificates, "read_certificate", lambda der: read.append(der) or original(der))
    for _ in range(100):
        world.shown(OLD)
        world.shown(b"no certificate", port=8443)
    assert read == [OLD, b"no certificate"]
    assert world.subjects == ["CN=old"]
    assert calls_of(lambda: world.shown(OLD)) < 15


def test_a_renewed_certificate_replaces_the_old_one_at_the_next_handshake_after_an_hour(world: World) -> None:
    world.shown(OLD)
    world.time += TOGETHER_SECONDS
    world.shown(NEW)
    assert world.subjects == ["CN=new"]


def test_two_machines_behind_one_name_both_count_while_both_are_met(world: World) -> None:
    for _ in range(5):
        world.shown(OLD)
        world.time += TOGETHER_SECONDS / 4
        world.shown(NEW)
        world.time += TOGETHER_SECONDS / 4
        assert world.subjects == ["CN=new", "CN=old"]
    world.time += TOGETHER_SECONDS
    world.shown(NEW)
    assert world.subjects == ["CN=new"]


def test_a_host_that_is_not_called_any_more_is_forgotten(world: World) -> None:
    world.shown(OLD)
    world.time += IN_USE_SECONDS - 1
    assert world.subjects == ["CN=old"]
    world.time += 1
    assert world.subjects == []


def test_hosts_and_certificates_of_one_host_are_bounded_and_senders_do_not_push_out_the_platform(world: World) -> None:
    world.platform.accepted("api.lab.example", 443, OLD, proxy=False)
    for number in range(MOST_PEERS + 50):
        world.shown(NEW, f"h{number}.lab.example")
    names = {one.name for one in world.peers.in_use()}
    assert len(names) == MOST_PEERS + 1
    assert {"api.lab.example:443", "h50.lab.example:443"} <= names and "h49.lab.example:443" not in names
    for number in range(MOST_OF_A_PEER + 3):
        world.shown(der(10, f"{number}"), "many.lab.example")
        world.time += 1
    many = [one.subject for one in world.peers.in_use() if one.name == "many.lab.example:443"]
    assert many == [f"CN={number}" for number in range(3, MOST_OF_A_PEER + 3)]
