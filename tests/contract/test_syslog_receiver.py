"""Syslog over real sockets: datagrams, octet counting over TCP and TLS, whom TLS trusts, and that every wait ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay_agent.core.failures import Code, TlsTrouble
from relay_agent.core.models import SyslogReceiver as Place
from relay_agent.transport import syslog_connection
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.syslog_connection import SyslogConnection
from relay_agent.transport.tls import TlsContexts
from tests.syslog_receiver import SyslogReceiver
from tests.target_certificates import ca_pem, server_context
from tests.targets import closed_port

LONG = 8192


def message(text: str) -> str:
    return f'<30>1 2026-11-23T03:13:00.123Z h relay-agent a x [meta sequenceId="1"] {text}'


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(ca_pem())
    return path


def connection(transport: str, port: int, ca_file: Path | None = None, host: str = "localhost") -> SyslogConnection:
    resolver = Resolver()
    return SyslogConnection(Place(transport, host, port), Dialer(TlsContexts(None, ca_file, protocol=None), resolver), resolver)


@pytest.fixture(params=["udp", "tcp", "tls"])
def receiver(request: pytest.FixtureRequest) -> Iterator[SyslogReceiver]:
    with SyslogReceiver(request.param) as running:
        yield running


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_messages_arrive_whole_in_order_and_however_long(receiver: SyslogReceiver, ca_file: Path, host: str) -> None:
    texts = ["{}", "x" * LONG, "", "y"]
    with closing(connection(receiver.transport, receiver.port, ca_file, host)) as to:
        to.open()
        for text in texts:
            to.send(message(text))
        receiver.wait("x", len(texts))
        to.look()
        assert to.is_open
    assert receiver.lines == texts


def test_the_end_of_a_connection_is_seen_before_a_message_is_lost_on_it(ca_file: Path) -> None:
    for transport in ("tcp", "tls"):
        with SyslogReceiver(transport, curt=True) as receiver, closing(connection(transport, receiver.port, ca_file)) as to:
            to.open()
            to.send(message("a"))
            receiver.wait("x")
            with pytest.raises(TransportFault) as found:
                to.look(5.0)
            assert (found.value.code, found.value.facts.port, to.is_open) == (Code.ECONNRESET, receiver.port, False)


def test_a_datagram_to_nobody_is_noticed_after_it() -> None:
    with closing(connection("udp", closed_port(), host="127.0.0.1")) as to:
        to.open()
        to.send(message("a"))
        with pytest.raises(TransportFault) as found:
            to.look(5.0)
        assert found.value.code is Code.ECONNREFUSED


def test_a_receiver_that_is_not_there_is_named() -> None:
    port = closed_port()
    with pytest.raises(TransportFault) as found:
        connection("tcp", port).open()
    assert (found.value.code, found.value.facts.host, found.value.facts.port) == (Code.ECONNREFUSED, "localhost", port)
    with pytest.raises(TransportFault) as found:
        connection("udp", port, host="nowhere.invalid").open()
    assert found.value.code is Code.ENOTFOUND


def test_tls_trusts_only_the_settings_roots_and_only_for_its_name(ca_file: Path) -> None:
    with SyslogReceiver("tls") as receiver, pytest.raises(TransportFault) as found:
        connection("tls", receiver.port).open()
    assert found.value.code is Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE
    with SyslogReceiver("tls", context=server_context("wrong_host")) as receiver, pytest.raises(TransportFault) as found:
        connection("tls", receiver.port, ca_file).open()
    assert found.value.code is Code.ERR_TLS_CERT_ALTNAME_INVALID
    with SyslogReceiver("tls", context=server_context("expired")) as receiver, pytest.raises(TransportFault) as found:
        connection("tls", receiver.port, ca_file).open()
    assert found.value.code is Code.CERT_HAS_EXPIRED


def test_a_receiver_that_wants_a_client_certificate_is_recognised(ca_file: Path) -> None:
    context = server_context(client_authority=ca_pem())
    with SyslogReceiver("tls", context=context) as receiver, closing(connection("tls", receiver.port, ca_file)) as to:
        with pytest.raises(TransportFault) as found:
            to.open()
            to.look(5.0)
        assert found.value.facts.trouble is TlsTrouble.CLIENT_CERTIFICATE


def test_a_receiver_that_reads_nothing_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog_connection, "SEND_SECONDS", 0.3)
    with SyslogReceiver("tcp", deaf=True) as receiver, closing(connection("tcp", receiver.port)) as to:
        to.open()
        began = time.monotonic()
        with pytest.raises(TransportFault) as found:
            for _ in range(10_000):
                to.send(message("x" * LONG))
        assert (found.value.code, to.is_open) == (Code.ETIMEDOUT, False)
        assert time.monotonic() - began < 20


def test_another_thread_can_end_the_wait() -> None:
    with SyslogReceiver("tcp", deaf=True) as receiver, closing(connection("tcp", receiver.port)) as to:
        to.open()
        timer = threading.Timer(0.5, to.abort)
        timer.start()
        began = time.monotonic()
        with pytest.raises(TransportFault):
            for _ in range(10_000):
                to.send(message("x" * LONG))
        timer.join()
        assert time.monotonic() - began < syslog_connection.SEND_SECONDS
