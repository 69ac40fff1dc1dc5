"""What a TLS peer sends: its certificate, and its first bytes."""

from __future__ import annotations

import base64
import hashlib
import warnings

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay_agent.transport.handshake import MAX_FIRST, SentRecords, read_first
from relay_agent.transport.x509 import public_key_digest, read_certificate
from tests.bench.foreign import certificate as partial_certificate
from tests.fuzz.harness import Harness

# A certificate of trustme's with an elliptic key, for *.lab.example, 192.0.2.1 and ::1.
REAL = base64.b64decode("""
    MIICVzCCAf6gAwIBAgIUP80MLtIyL3gjtcqDjDpkQDNRjewwCgYIKoZIzj0EAwIwQDEXMBUGA1UECgwOdHJ1c3RtZSB2MS4yLjExJTAjBgNVBAsMHFRlc3Rp
    bmcgQ0EgIzNPWmF1RzJXZmlPWFRSS2kwIBcNMDAwMTAxMDAwMDAwWhgPMzAwMDAxMDEwMDAwMDBaMFExFzAVBgNVBAoMDnRydXN0bWUgdjEuMi4xMScwJQYD
    VQQLDB5UZXN0aW5nIGNlcnQgI2h4V2hJTTNnaUlSdExYdU8xDTALBgNVBAMMBGxpbXMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARowu/6M2VTE58Cd0TN
    +FBMSPxJxBqTwYBRBvVC/7LyKaFp6rwn86da+QjXJA6XKabz3eFD+hqM87ep0vFWBEm0o4HCMIG/MB0GA1UdDgQWBBRhbwQoeiUCJruyueGU02zECZM1OTAM
    BgNVHRMBAf8EAjAAMB8GA1UdIwQYMBaAFA+nUCN9ov68PB7YjsolqJrS5j1MMDMGA1UdEQEB/wQpMCeCDSoubGFiLmV4YW1wbGWHBMAAAgGHEAAAAAAAAAAA
    AAAAAAAAAAEwDgYDVR0PAQH/BAQDAgWgMCoGA1UdJQEB/wQgMB4GCCsGAQUFBwMCBggrBgEFBQcDAQYIKwYBBQUHAwMwCgYIKoZIzj0EAwIDRwAwRAIgHlpW
    bTPSqLqTOYIpqFY/BwU6zmM4G8izmev8jWh9a4gCIBVSk/c1yMr/rnLsF9zshHKw+IhWueOqyLleG2UpZE9V
    """)


def certificate(data: bytes) -> None:
    """A certificate is read to texts that can be shown, or not at all; its pin is that of the key which the handshake proves."""
    found = read_certificate(data)
    digest = public_key_digest(data)
    if found is not None:
        assert len(found.names) <= 100 and len(found.subject) <= 1500 and len(found.issuer) <= 1500
        assert all(text.isprintable() for text in (found.subject, found.issuer, *found.names))
        assert found.not_before.utcoffset() == found.not_after.utcoffset() is not None
    if digest is not None:
        assert key_of(data) in (None, digest), "the pin of another key"


def key_of(der: bytes) -> bytes | None:
    """The digest of the key that another library reads; None if it reads none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            key = x509.load_der_x509_certificate(der).public_key()
            return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    except (ValueError, UnsupportedAlgorithm):
        return None


def first_bytes(data: bytes) -> None:
    """The first bytes of a peer, and the records that are sent, are read whatever they are."""
    found = read_first(data[:MAX_FIRST])
    for shown in (found.protocol, found.version, found.cipher, found.alert):
        assert shown is None or (shown.isprintable() and len(shown) < 100)
    assert not (found.protocol and (found.cipher or found.alert))
    records = SentRecords()
    records.sent(data)
    records.handshake_done("TLSv1.3", ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256))


def certificate_seeds() -> list[bytes]:
    """A real certificate, and as much of others as is read."""
    return [
        REAL,
        partial_certificate(b"name"),
        partial_certificate(b"\xff\xfe"),
        partial_certificate(b"n", b"\xff\xff\x01"),
        b"0\x80\0\0",
        b"",
    ]


def first_seeds() -> list[bytes]:
    """The first bytes of servers of several protocols."""
    hello = bytes.fromhex("160303004a020000460303") + bytes(32) + b"\x20" + bytes(32) + b"\xc0\x2f\x00"
    return [
        hello,
        bytes.fromhex("160301") + hello[3:9] + b"\x03\x01" + hello[11:],
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x15\x03\x01\x00\x02\x02\xff",
        *(b"HTTP/1.1 400 Bad", b"<!DOCTYPE html>", b"SSH-2.0-x", b"220 mail", b"RFB 003.008\n", b"\x16\x03", b"\x17\x03\x03\xff\xff", b""),
    ]


HARNESSES = [Harness("certificate", certificate, certificate_seeds, 1024), Harness("handshake", first_bytes, first_seeds, 512)]
