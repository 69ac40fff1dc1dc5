"""The check of the syslog receiver, against receivers on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay_agent.cli.checks.result import Check, Status
from relay_agent.cli.checks.syslog_check import syslog
from relay_agent.core.clock import Clock
from tests.syslog_receiver import SyslogReceiver
from tests.target_certificates import ca_pem, server_context
from tests.targets import closed_port
from tests.unit.cli.checks.scenes import settings


@pytest.fixture
def roots(tmp_path: Path) -> str:
    path = tmp_path / "syslog-ca.pem"
    path.write_bytes(ca_pem())
    return str(path)


def checked(url: str, **more: Any) -> Check:
    return syslog(settings(RELAY_LOG_SYSLOG=url, **more), Clock().now, 5.0)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_receiver_that_is_there_is_ok_and_gets_nothing(roots: str, transport: str) -> None:
    with SyslogReceiver(transport) as receiver:
        found = checked(receiver.url, RELAY_CA_FILE=roots)
        assert (found.status, receiver.url in found.summary, receiver.messages) == (Status.OK, True, [])


def test_one_that_is_away_or_not_trusted_is_a_warning_with_its_cure() -> None:
    away = checked(f"tcp://127.0.0.1:{closed_port()}")
    with SyslogReceiver("tls") as receiver:
        strange = checked(receiver.url)
    for found, name in ((away, "RELAY_LOG_SYSLOG"), (strange, "RELAY_CA_FILE")):
        assert (found.status, name in str(found.cure)) == (Status.WARNING, True)


@pytest.mark.parametrize(
    ("options", "words"), [({"days": 10}, "expires on"), ({"client_authority": ca_pem()}, "requires a client certificate")]
)
def test_one_whose_certificate_ends_soon_or_that_wants_one_is_a_warning(roots: str, options: dict[str, Any], words: str) -> None:
    with SyslogReceiver("tls", context=server_context(**options)) as receiver:
        found = checked(receiver.url, RELAY_CA_FILE=roots)
    assert (found.status, words in str(found.cause)) == (Status.WARNING, True)
