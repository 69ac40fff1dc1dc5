"""What a policy file says about TLS: client certificates that can be used, and pins."""

from __future__ import annotations

import base64
import hashlib
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from relay_agent.transport.x509 import public_key_digest
from tests.target_certificates import client_certificate
from tests.unit.config.policies import CANARY, TARGET, Directory


@pytest.fixture
def policy(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


# --- client certificates ---


@pytest.mark.parametrize(
    "keys",
    [
        'client_cert = "both.pem"',
        'client_cert = "agent.pem"\nclient_key = "agent.key"',
        'client_cert = "agent.pem"\nclient_key = "sealed.key"\nclient_key_password_file = "password"',
        'client_cert = "agent.pem"\nclient_key = "old-sealed.key"\nclient_key_password_file = "password"',
        'client_cert = "agent.pem"\nclient_key = "agent.key"\nclient_key_password_file = "password"',
    ],
    ids=["one file", "two files", "encrypted", "encrypted in the old format", "a password that is not needed"],
)
def test_a_client_certificate_is_loaded(policy: Directory, keys: str) -> None:
    tls = policy.target(keys).tls
    assert tls is not None and tls.client is not None
    assert CANARY not in repr(tls.client)


_ENCRYPTED = "client_key: the key is encrypted: name its password's file with `client_key_password_file`"
_WRONG_PASSWORD = "client_key_password_file: the password is wrong, or the key is damaged"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ('client_cert = "agent.pem"\nclient_key = "sealed.key"', _ENCRYPTED),
        ('client_cert = "agent.pem"\nclient_key = "old-sealed.key"', _ENCRYPTED),
        ('client_cert = "agent.pem"\nclient_key = "sealed.key"\nclient_key_password_file = "wrong-password"', _WRONG_PASSWORD),
        ('client_cert = "agent.pem"\nclient_key = "old-sealed.key"\nclient_key_password_file = "wrong-password"', _WRONG_PASSWORD),
        ('client_cert = "agent.pem"\nclient_key = "ca.pem"', "client_key: it is no PEM key"),
        ('client_cert = "agent.pem"\nclient_key = "damaged.key"', "client_key: its key is damaged"),
        ('client_cert = "agent.pem"\nclient_key = "a\\u0000"', "client_key: the name of a file cannot contain a NUL character"),
        ('client_cert = "agent.pem"', "client_cert contains no private key; name it with `client_key`"),
        ('client_cert = "agent.pem"\nclient_key = "other.key"', "client_key: it is not the key of client_cert"),
        ('client_cert = "agent.pem"\nclient_key = "no.key"', "client_key: cannot read {}/no.key (No such file or directory)"),
        ('client_cert = "no.pem"\nclient_key = "agent.key"', "client_cert: cannot read {}/no.pem (No such file or directory)"),
        ('client_cert = "agent.key"\nclient_key = "agent.key"', "client_cert: {}/agent.key contains no PEM certificate"),
        ('client_key = "agent.key"', "client_key: there is no client_cert"),
        ('client_key_password_file = "password"', "client_key_password_file: there is no client_cert"),
        (
            'client_cert = "agent.pem"\nclient_key = "sealed.key"\nclient_key_password_file = "sub/no.txt"',
            "client_key_password_file: cannot read {}/sub/no.txt (No such file or directory)",
        ),
        (
            'client_cert = "agent.pem"\nclient_key = "sealed.key"\nclient_key_password_file = "empty"',
            "client_key_password_file: {}/empty is empty",
        ),
    ],
)
def test_a_client_certificate_that_cannot_be_used_is_named_with_the_reason(policy: Directory, keys: str, says: str) -> None:
    assert policy.mistake(TARGET + keys) == f"[[target]] 1 (lims.lab.example): {says.format(policy.path)}"


def test_a_password_is_never_asked_for_at_the_terminal(policy: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL would open /dev/tty: a start in a terminal would wait for ever."""
    asked: list[object] = []
    real = ssl.SSLContext.load_cert_chain

    def noted(context: ssl.SSLContext, certificate: Any, key: Any = None, password: Any = None) -> None:
        asked.append(password)
        real(context, certificate, key, password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", noted)
    policy.mistakes(TARGET + 'client_cert = "agent.pem"\nclient_key = "sealed.key"')
    assert asked
    assert None not in asked


def test_what_was_loaded_stays_in_force_when_its_files_become_unusable(policy: Directory) -> None:
    """The agent keeps the old policy then, also for a target that is called for the first time."""
    tls = policy.target('ca_file = "ca.pem"\nclient_cert = "agent.pem"\nclient_key = "agent.key"').tls
    assert tls is not None
    for name in ("ca.pem", "agent.pem", "agent.key"):
        (policy.path / name).write_text("damaged")
    for verify, names in ((True, True), (True, False), (False, True)):
        assert tls.context(verify, names=names)


# --- pins ---


def digest() -> bytes:
    certificate = x509.load_pem_x509_certificate(client_certificate()[0])
    key = certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    found = hashlib.sha256(key).digest()
    assert public_key_digest(certificate.public_bytes(serialization.Encoding.DER)) == found
    return found


@pytest.mark.parametrize("pin", [digest(), b"\xff" * 32, b"\xfb" + b"\xff" * 31, bytes(32)], ids=["key", "slash", "plus", "zero"])
@pytest.mark.parametrize("lead", ["", "sha256/", "sha256//"])
def test_a_pin_is_base64_as_rfc_7469_and_curl_write_it(policy: Directory, pin: bytes, lead: str) -> None:
    """A digest in base64 may itself begin with a slash."""
    tls = policy.target(f'pin_sha256 = ["{lead}{base64.b64encode(pin).decode()}"]').tls
    assert tls is not None
    assert tls.pins == {pin}


@pytest.mark.parametrize(
    "pin",
    [
        *("x", "sha256/", "a" * 64, "A" * 44, base64.b64encode(bytes(31)).decode(), base64.b64encode(bytes(33)).decode()),
        *("-" * 43 + "=", "sha1/" + "A" * 43 + "=", "A" * 43 + "= ", "A" * 43 + "=\\n", "Ä" * 43 + "=", "A" * 43, "AA:BB"),
    ],
)
def test_what_is_no_pin_is_a_mistake(policy: Directory, pin: str) -> None:
    said = policy.mistake(TARGET + f'pin_sha256 = ["{pin}"]')
    expected = "must be the SHA-256 digest of a public key in base64, 44 characters (RFC 7469)"
    assert said == f"[[target]] 1 (lims.lab.example): pin_sha256: {expected}"
