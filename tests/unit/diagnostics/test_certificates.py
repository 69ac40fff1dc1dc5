"""What ends soon, in which order, how many are shown, which row an end has, and which names the platform may read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from relay_agent.config.certificate_files import FileCertificate
from relay_agent.config.policy_file import LoadedPolicy
from relay_agent.core.models import CertificateRole
from relay_agent.diagnostics.certificates import (
    MOST_CHARACTERS,
    MOST_SHOWN,
    CertificateInUse,
    FilesInUse,
    ending,
    ending_soon,
    of_file,
    of_peer,
)
from relay_agent.diagnostics.local_causes import CA_ENDS, CLIENT_ENDS, TAKEN_AT_START, TAKEN_OVER
from relay_agent.diagnostics.network_causes import (
    CERTIFICATE_ENDS,
    MORE_CERTIFICATES,
    PLATFORM_CERTIFICATE_ENDS,
    PROXY_CERTIFICATE_ENDS,
)
from relay_agent.transport.x509 import Certificate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TARGET, PROXY, PLATFORM = CertificateRole.TARGET, CertificateRole.PROXY, CertificateRole.PLATFORM


def certificate(days: float, subject: str = "CN=a device") -> Certificate:
    return Certificate(subject, "CN=Lab CA", NOW - timedelta(days=400), NOW + timedelta(days=days), ())


def peer(days: float, host: str = "dev.lab.example", role: CertificateRole = TARGET, leg: CertificateRole = TARGET) -> CertificateInUse:
    return of_peer(role, host, 443, certificate(days), leg)


def file(days: float = 5, role: CertificateRole = CertificateRole.CA, subject: str = "CN=Lab CA", *, of_policy: bool = False) -> Any:
    return FileCertificate(role, "RELAY_CA_FILE", Path("/etc/ca.pem"), certificate(days, subject), of_policy)


@pytest.mark.parametrize("days, soon", [(-1, True), (0, True), (29.9, True), (30, False), (31, False)])
def test_a_certificate_ends_soon_from_30_days_before_and_ever_after(days: float, soon: bool) -> None:
    assert bool(ending_soon([peer(days)], NOW)) == soon


def test_those_that_end_first_come_first_and_the_rest_is_one_problem() -> None:
    found = ending([peer(days, f"host-{days}") for days in (20, 3, 7, -2, 9, 11, 13)], NOW)
    assert [problem.reason.split()[3] for problem in found[:MOST_SHOWN]] == [f"host-{days}:443" for days in (-2, 3, 7, 9, 11)]
    assert (found[MOST_SHOWN].reason, found[MOST_SHOWN].cause) == (
        "2 more certificates expire soon, or have expired",
        MORE_CERTIFICATES,
    )
    assert len(found) == MOST_SHOWN + 1
    assert len(ending([peer(3)] * MOST_SHOWN, NOW)) == MOST_SHOWN


@pytest.mark.parametrize("days, verb", [(-1, "expired"), (0, "expired"), (1, "expires")])
def test_an_end_is_told_as_past_or_to_come(days: float, verb: str) -> None:
    assert f" {verb} on {NOW + timedelta(days=days):%Y-%m-%d}" in peer(days).problem(NOW).reason
    assert verb in peer(days).cause(NOW).cause


@pytest.mark.parametrize(
    "role, leg, row, id_of",
    [
        (TARGET, TARGET, CERTIFICATE_ENDS, CERTIFICATE_ENDS),
        (PLATFORM, PLATFORM, PLATFORM_CERTIFICATE_ENDS, PLATFORM_CERTIFICATE_ENDS),
        (PROXY, PLATFORM, PROXY_CERTIFICATE_ENDS, PROXY_CERTIFICATE_ENDS),
        (PROXY, TARGET, PROXY_CERTIFICATE_ENDS, CERTIFICATE_ENDS),
    ],
)
def test_a_peer_s_row_is_its_role_s_and_a_proxy_counts_to_the_leg_that_it_serves(
    role: CertificateRole, leg: CertificateRole, row: Any, id_of: Any
) -> None:
    found = peer(3, role=role, leg=leg)
    assert (found.row.cause, found.row.cure, found.row.id) == (row.cause, row.cure, id_of.id)


@pytest.mark.parametrize(
    "role, of_policy, row, taken",
    [
        (CertificateRole.CA, False, CA_ENDS, TAKEN_AT_START),
        (CertificateRole.CA, True, CA_ENDS, TAKEN_OVER),
        (CertificateRole.CLIENT, True, CLIENT_ENDS, TAKEN_OVER),
    ],
)
def test_a_file_s_row_says_whether_a_renewed_one_is_taken_over(role: CertificateRole, of_policy: bool, row: Any, taken: str) -> None:
    found = of_file(file(role=role, of_policy=of_policy))
    assert found.row == row
    assert taken in found.cause(NOW).cure


def test_the_platform_must_not_read_names_that_secure_commands_or_the_policy_file_chose() -> None:
    shown = {
        "target": peer(3).private,
        "proxy": peer(3, role=PROXY).private,
        "platform": peer(3, role=PLATFORM, leg=PLATFORM).private,
        "file of the settings": of_file(file()).private,
        "file of the policy": of_file(file(of_policy=True)).private,
    }
    assert [name for name, private in shown.items() if private] == ["target", "file of the policy"]


def test_a_label_tells_the_certificates_of_one_file_apart_and_is_bounded() -> None:
    assert of_file(file()).label == "/etc/ca.pem (CN=Lab CA)"
    assert peer(3).label == "dev.lab.example:443"
    assert peer(3, "2001:db8::1").label == "[2001:db8::1]:443"
    long = of_file(file(subject="CN=" + "x" * 999))
    assert (len(long.label), len(long.subject)) == (MOST_CHARACTERS, MOST_CHARACTERS)


def test_files_are_read_again_only_if_the_policy_was() -> None:
    loaded = [cast("LoadedPolicy", object())]
    read: list[LoadedPolicy] = []

    def certificates(policy: LoadedPolicy) -> list[FileCertificate]:
        read.append(policy)
        return [file()]

    files = FilesInUse(certificates, lambda: loaded[-1])
    assert files.in_use() is files.in_use()
    assert len(read) == 1
    loaded.append(cast("LoadedPolicy", object()))
    assert [one.name for one in files.in_use()] == ["/etc/ca.pem"]
    assert read == loaded
