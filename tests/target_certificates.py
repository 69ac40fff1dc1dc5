"""Certificates for test targets: a private authority and each fault of PROTOCOL §4. The system's trust store is not touched."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import ssl
import tempfile
import warnings
from typing import Literal

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.target_server import remember_server_name

Fault = Literal[
    "none", "expired", "not_yet_valid", "self_signed", "wrong_host", "incomplete_chain", "unknown_authority", "unknown_root_sent"
]
NAMES = ("localhost", "127.0.0.1", "::1", "*.lab.example")


@functools.cache
def authority() -> trustme.CA:
    """The one authority that tests trust."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def ca_pem() -> bytes:
    """The authority's certificate as PEM."""
    return authority().cert_pem.bytes()


def server_context(
    fault: Fault = "none",
    *,
    names: tuple[str, ...] = NAMES,
    oldest: ssl.TLSVersion | None = None,
    newest: ssl.TLSVersion | None = None,
    client_authority: bytes | None = None,
    days: float | None = None,
) -> ssl.SSLContext:
    """A server's TLS context with one fault; with `client_authority` (PEM) clients must show a certificate of it.

    `days` says in how many days a certificate without a fault ends.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, *_leaf(fault, names, days))
    context.sni_callback = remember_server_name
    if client_authority is not None:
        context.load_verify_locations(cadata=client_authority.decode("ascii"))
        context.verify_mode = ssl.CERT_REQUIRED
    with warnings.catch_warnings():  # TLS 1.0 and 1.1 are deprecated, but a target may support nothing else
        warnings.simplefilter("ignore", DeprecationWarning)
        if oldest is not None:
            context.minimum_version = oldest
        if newest is not None:
            context.maximum_version = newest
            if newest < ssl.TLSVersion.TLSv1_2:
                context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def client_certificate() -> tuple[bytes, bytes]:
    """A certificate chain and its key of the trusted authority, both PEM, for a client to show."""
    leaf = authority().issue_cert("agent.lab.example")
    return b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes()


def ca_that_ends(days: float, name: str = "Lab CA") -> bytes:
    """The certificate of an authority of that name which ends in so many days, as PEM; negative: it has ended."""
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - 400 * day).not_valid_after(now + days * day)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@functools.cache
def _leaf(fault: Fault, names: tuple[str, ...], days: float | None = None) -> tuple[bytes, bytes]:
    if fault == "self_signed":
        return _self_signed(names)
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    issuer = authority()
    if fault == "incomplete_chain":
        issuer = authority().create_child_ca()
    elif fault in ("unknown_authority", "unknown_root_sent"):
        issuer = trustme.CA(key_type=trustme.KeyType.ECDSA)
    if fault == "expired":
        leaf = issuer.issue_cert(*names, not_before=now - 30 * day, not_after=now - day)
    elif fault == "not_yet_valid":
        leaf = issuer.issue_cert(*names, not_before=now + day, not_after=now + 30 * day)
    elif fault == "wrong_host":
        leaf = issuer.issue_cert("elsewhere.lab.example")
    else:
        leaf = issuer.issue_cert(*names, not_after=None if days is None else now + days * day)
    chain = leaf.cert_chain_pems[:1] if fault in ("incomplete_chain", "unknown_authority") else leaf.cert_chain_pems
    root = issuer.cert_pem.bytes() if fault == "unknown_root_sent" else b""
    return b"".join(pem.bytes() for pem in chain) + root, leaf.private_key_pem.bytes()


def _self_signed(names: tuple[str, ...]) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a device that signed itself")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), private


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(key + chain)
        file.flush()
        context.load_cert_chain(file.name)
