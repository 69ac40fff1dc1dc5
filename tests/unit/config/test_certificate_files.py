"""Which certificates of files count as in use: those that settings and policy file name, not a public bundle's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import certifi
import pytest

from relay_agent.config import certificate_files
from relay_agent.config.certificate_files import FEW, FileCertificate, certificates_of
from relay_agent.config.network import load_rules
from relay_agent.core.models import CertificateRole
from tests.target_certificates import ca_that_ends, client_certificate
from tests.unit.cli.checks.scenes import settings

pytestmark = pytest.mark.usefixtures("environment")


def found(**variables: str) -> list[FileCertificate]:
    given = settings(**variables)
    return certificates_of(given, load_rules(given))


def write(path: Path, *pems: bytes) -> str:
    path.write_bytes(b"".join(pems))
    return str(path)


def test_without_files_of_its_own_an_agent_has_no_certificates_in_use() -> None:
    assert found() == []


def test_every_certificate_of_ca_file_counts(tmp_path: Path) -> None:
    file = write(tmp_path / "ca.pem", *(ca_that_ends(10, f"CA {number}") for number in range(FEW + 5)))
    certificates = found(RELAY_CA_FILE=file)
    assert [one.certificate.subject for one in certificates] == [f"CN=CA {number}" for number in range(FEW + 5)]
    assert {(one.role, one.setting, one.path, one.of_policy) for one in certificates} == {
        (CertificateRole.CA, "RELAY_CA_FILE", Path(file), False)
    }


def test_of_a_long_file_those_are_watched_that_end_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_files, "MOST_OF_A_FILE", 3)
    late = [ca_that_ends(3650, f"late {number}") for number in range(5)]
    file = write(tmp_path / "ca.pem", *late, ca_that_ends(10, "soon"))
    certificates = found(RELAY_CA_FILE=file)
    assert (len(certificates), certificates[0].certificate.subject) == (3, "CN=soon")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_bundle_counts_only_if_it_is_a_site_s_own(tmp_path: Path, variable: str) -> None:
    few = write(tmp_path / "few.pem", *(ca_that_ends(10, f"CA {number}") for number in range(FEW)))
    many = write(tmp_path / "many.pem", Path(few).read_bytes(), ca_that_ends(10, "one more"))
    assert [one.setting for one in found(**{variable: few})] == [variable] * FEW
    assert found(**{variable: many}) == []
    assert found(**{variable: certifi.where()}) == []


def test_the_policy_file_s_cas_and_client_certificates_count_once_however_often_it_names_them(tmp_path: Path) -> None:
    chain, key = client_certificate()
    write(tmp_path / "agent.pem", chain, key)
    write(tmp_path / "lab.pem", ca_that_ends(10))
    table = '[[target]]\nhosts = ["{}"]\nca_file = "lab.pem"\nclient_cert = "agent.pem"\n'
    policy = write(tmp_path / "policy.toml", *(table.format(host).encode() for host in ("lims.lab.example", "eln.lab.example")))
    certificates = found(RELAY_POLICY_FILE=policy)
    assert {(one.role, one.path.name, one.of_policy) for one in certificates} == {
        (CertificateRole.CA, "lab.pem", True),
        (CertificateRole.CLIENT, "agent.pem", True),
    }
    assert len(certificates) == 2
    assert {one.setting.rpartition(" ")[2] for one in certificates} == {"ca_file", "client_cert"}


@pytest.mark.parametrize("instead", [lambda _path: None, os.mkfifo], ids=["nothing", "a named pipe"])
def test_a_file_that_has_gone_has_no_certificates(tmp_path: Path, instead: Callable[[Path], None]) -> None:
    given = settings(RELAY_CA_FILE=write(tmp_path / "ca.pem", ca_that_ends(10)))
    (tmp_path / "ca.pem").unlink()
    instead(tmp_path / "ca.pem")
    assert certificates_of(given, load_rules(given)) == []
