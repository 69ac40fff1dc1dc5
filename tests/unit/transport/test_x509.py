"""What a certificate says of itself, as far as it is shown."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime

import pytest

from relay_agent.transport.x509 import read_certificate
from tests.bench.foreign import certificate
from tests.target_certificates import ca_pem


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


def test_names_and_numbers_of_any_certificate_are_read_only_as_far_as_they_are_shown() -> None:
    """An object identifier's numbers have no bound, and to decode one takes time in the square of its length."""

    def cpu_seconds(identifier: bytes) -> float:
        started = time.thread_time()
        found = read_certificate(certificate(b"a" * 60_000, identifier))
        assert found is not None and len(found.subject) <= 103
        return time.thread_time() - started

    ours = min(cpu_seconds(b"\x55\x04\x03") for _ in range(3))
    assert min(cpu_seconds(b"\xff" * 60_000 + b"\x01") for _ in range(3)) < 10 * ours
