"""The fields of a certificate that messages show."""

from __future__ import annotations

import base64
import ssl
import time
from datetime import UTC, datetime

import pytest

from relay_agent.transport.x509 import certificates_in, read_certificate
from tests.bench.foreign import certificate
from tests.target_certificates import ca_pem, ca_that_ends, client_certificate


def test_an_untrusted_certificate_is_read() -> None:
    found = read_certificate(ssl.PEM_cert_to_DER_cert(ca_pem().decode()))
    assert found is not None
    assert "trustme" in found.issuer
    assert found.not_before < datetime.now(UTC) < found.not_after


@pytest.mark.parametrize("cut", [0, 1, 10, 100, 200])
def test_other_data_is_not_read_as_a_certificate(cut: int) -> None:
    der = ssl.PEM_cert_to_DER_cert(ca_pem().decode())
    assert read_certificate(der[:cut]) is None
    assert read_certificate(b"\x30\x82\xff\xff" + der[:cut]) is None


def test_every_certificate_of_a_pem_file_is_found_and_a_key_is_passed_over() -> None:
    chain, key = client_certificate()
    other = ca_that_ends(10, "CN=x")
    found = certificates_in(b"# a comment\n" + key + chain + b"\r\n" + other.replace(b"\n", b"\r\n"))
    assert found == [ssl.PEM_cert_to_DER_cert(pem.decode()) for pem in (chain, other)]
    assert certificates_in(key) == []


def test_an_openssl_trusted_certificate_is_found_without_what_openssl_adds_to_it() -> None:
    der = ssl.PEM_cert_to_DER_cert(ca_pem().decode())
    text = base64.encodebytes(der + b"\x30\x0c\x30\x0a\x06\x08+\x06\x01\x05\x05\x07\x03\x01")
    (found,) = certificates_in(b"-----BEGIN TRUSTED CERTIFICATE-----\n" + text + b"-----END TRUSTED CERTIFICATE-----\n")
    assert found == der
    assert read_certificate(found) is not None


@pytest.mark.parametrize("damaged", [b"AAA", b"", b"MA==", b"MIL/////"])
def test_a_damaged_certificate_does_not_hide_the_next(damaged: bytes) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + damaged + b"\n-----END CERTIFICATE-----\n"
    readable = [der for der in certificates_in(pem + ca_pem()) if read_certificate(der) is not None]
    assert readable == [ssl.PEM_cert_to_DER_cert(ca_pem().decode())]


def test_names_and_numbers_of_any_certificate_are_read_only_as_far_as_they_are_shown() -> None:
    """The numbers of an object identifier have no bound, and decoding one takes time quadratic in its length."""

    def cpu_seconds(identifier: bytes) -> float:
        started = time.thread_time()
        found = read_certificate(certificate(b"a" * 60_000, identifier))
        assert found is not None and len(found.subject) <= 103
        return time.thread_time() - started

    ours = min(cpu_seconds(b"\x55\x04\x03") for _ in range(3))
    assert min(cpu_seconds(b"\xff" * 60_000 + b"\x01") for _ in range(3)) < 10 * ours
