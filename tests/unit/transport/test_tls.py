"""TLS contexts: which roots are trusted, and what is checked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
import trustme

from relay_agent.transport.tls import TlsContexts


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(tmp_path: Path, ca: trustme.CA) -> Iterator[Path]:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def _count(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509"]


def test_certifis_roots_are_trusted_by_default_and_ca_file_adds_to_them(ca_file: Path) -> None:
    plain = _count(TlsContexts().context(verify=True))
    assert plain > 50
    assert _count(TlsContexts(ca_file=ca_file).context(verify=True)) == plain + 1
    assert TlsContexts(ca_file=ca_file).roots == (Path(certifi.where()), ca_file)


def test_a_bundle_replaces_certifis_roots_and_ca_file_adds_to_it(ca_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    assert _count(TlsContexts(ca_bundle=ca_file).context(verify=True)) == 1
    assert _count(TlsContexts(ca_bundle=ca_file, ca_file=other).context(verify=True)) == 2


def test_the_verifying_context_checks_certificate_and_name() -> None:
    context = TlsContexts().context(verify=True)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def test_the_other_context_checks_neither_and_keeps_tls_1_2() -> None:
    context = TlsContexts().context(verify=False)
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_session_keys_are_written_to_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    trust = TlsContexts()
    assert [trust.context(verify).keylog_filename for verify in (True, False)] == [None, None]


def test_each_context_is_made_once_for_all_threads() -> None:
    trust, found = TlsContexts(), []
    threads = [threading.Thread(target=lambda: found.append(trust.context(verify=True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4 and len(set(map(id, found))) == 1
    assert trust.context(verify=False) is trust.context(verify=False) is not found[0]


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Do a handshake in memory, without sockets and threads."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=name), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0]


@pytest.fixture
def server(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    ca.issue_cert("lims.lab.example").configure_cert(context)
    return context


def test_a_private_ca_given_as_ca_file_is_trusted_for_its_names_only(ca_file: Path, server: ssl.SSLContext) -> None:
    context = TlsContexts(ca_file=ca_file).context(verify=True)
    assert _handshake(context, server, "lims.lab.example").selected_alpn_protocol() == "http/1.1"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(context, server, "other.lab.example")


def test_an_unknown_ca_is_refused_unless_verification_is_off(server: ssl.SSLContext) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(TlsContexts().context(verify=True), server, "lims.lab.example")
    assert _handshake(TlsContexts().context(verify=False), server, "other.lab.example").selected_alpn_protocol() == "http/1.1"


def test_an_issuing_ca_without_its_root_is_enough(ca: trustme.CA, tmp_path: Path) -> None:
    issuing = ca.create_child_ca()
    issuing.cert_pem.write_to_path(str(tmp_path / "issuing.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuing.issue_cert("lims.lab.example").configure_cert(server)
    assert _handshake(TlsContexts(ca_file=tmp_path / "issuing.pem").context(verify=True), server, "lims.lab.example").version() == "TLSv1.3"
