"""Which certificates the dialer reports as in use: each that a handshake accepts, of targets and proxies, and no other."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.urls import parse_url
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.proxy import parse_proxy
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.tls import TlsContexts
from relay_agent.transport.x509 import read_certificate
from tests.target_certificates import Fault, ca_pem, server_context
from tests.target_proxies import HttpProxy
from tests.targets import ByteTarget

Reported = tuple[str, int, bool]


class Noting:
    """The dialer, and what it reported."""

    def __init__(self, ca_file: Path) -> None:
        self.reported: list[Reported] = []
        self.ders: list[bytes] = []
        self._trust = TlsContexts(ca_file=ca_file)
        self._dialer = Dialer(self._trust, Resolver(), self)

    def accepted(self, host: str, port: int, der: bytes, *, proxy: bool) -> None:
        self.reported.append((host, port, proxy))
        self.ders.append(der)

    def dial(self, url: str, proxy: str | None = None, *, verify: bool = True, tls: TlsContexts | None = None) -> None:
        via = None if proxy is None else parse_proxy(proxy)
        self._dialer.dial(Exchange("GET", parse_url(url), (), None, Deadline(8), verify=verify, proxy=via, tls=tls)).close()


@pytest.fixture
def noting(tmp_path: Path) -> Noting:
    (tmp_path / "ca.pem").write_bytes(ca_pem())
    return Noting(tmp_path / "ca.pem")


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget(server_context(days=10)) as running:
        yield running


def test_each_handshake_reports_the_certificate_that_the_target_shows(noting: Noting, target: ByteTarget) -> None:
    for _ in range(2):
        noting.dial(target.url("/"))
    assert noting.reported == [("127.0.0.1", target.port, False)] * 2
    shown = read_certificate(noting.ders[0])
    assert shown is not None and "*.lab.example" in shown.names


def test_the_certificates_of_a_tls_proxy_and_of_the_target_behind_it_are_distinguished(noting: Noting, target: ByteTarget) -> None:
    with HttpProxy(tls=server_context()) as proxy:
        noting.dial(target.url("/"), f"https://127.0.0.1:{proxy.port}")
        noting.dial("http://127.0.0.1:9/", f"https://127.0.0.1:{proxy.port}")
    assert noting.reported == [("127.0.0.1", proxy.port, True), ("127.0.0.1", target.port, False), ("127.0.0.1", proxy.port, True)]


def test_without_tls_nothing_is_reported(noting: Noting) -> None:
    with ByteTarget() as plain:
        noting.dial(plain.url("/"))
    assert noting.reported == []


def test_a_certificate_whose_end_does_not_matter_is_not_reported(noting: Noting, target: ByteTarget) -> None:
    """A command with `ignore_tls_certificate` goes through whatever the certificate says."""
    noting.dial(target.url("/"), verify=False)
    assert noting.reported == []


@pytest.mark.parametrize("fault", ["expired", "self_signed", "unknown_authority", "wrong_host"])
def test_a_refused_certificate_is_not_reported(noting: Noting, fault: Fault) -> None:
    with ByteTarget(server_context(fault)) as refused, pytest.raises(TransportFault):
        noting.dial(refused.url("/"))
    assert noting.reported == []


def test_a_certificate_whose_key_is_not_pinned_is_not_reported(noting: Noting, target: ByteTarget, tmp_path: Path) -> None:
    pinned = TlsContexts(ca_file=tmp_path / "ca.pem", minimum=ssl.TLSVersion.TLSv1_2, pins=frozenset({b"another key"}))
    with pytest.raises(TransportFault, match="pin_sha256"):
        noting.dial(target.url("/"), tls=pinned)
    assert noting.reported == []
