"""The certificates in the files that settings and policy file name: trusted CAs, and the agent's own.

Owns which of them count as in use. It must not judge when they end; `diagnostics.expiry_watch` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from relay_agent.config.policy_file import VARIABLE, LoadedPolicy
from relay_agent.config.settings import Settings
from relay_agent.core.files import read_regular
from relay_agent.core.models import CertificateRole
from relay_agent.transport.x509 import Certificate, certificates_in, read_certificate

FEW = 20
"""A bundle in place of certifi's roots counts only up to so many certificates: then it is a site's own. In a public one some always end,
and nobody at the site can renew them."""
MOST_OF_A_FILE = 200
"""How many certificates of a file are watched: those that end first."""
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileCertificate:
    """One certificate of a PEM file; `setting` says what names the file."""

    role: CertificateRole
    setting: str
    path: Path
    certificate: Certificate
    of_policy: bool = False
    """Whether the policy file names it: then the running agent uses a renewed file, and `setting` may name a target."""


def certificates_of(settings: Settings, loaded: LoadedPolicy) -> list[FileCertificate]:
    """Return every certificate in the files, each once; none for a file that cannot be read any more."""
    found: dict[tuple[CertificateRole, Path, bytes], FileCertificate] = {}
    for role, setting, path, of_policy in _files(settings, loaded):
        read = ((der, read_certificate(der)) for der in dict.fromkeys(_read(path)))
        readable = [(der, certificate) for der, certificate in read if certificate is not None]
        for der, certificate in sorted(readable, key=lambda one: one[1].not_after)[:MOST_OF_A_FILE]:
            found.setdefault((role, path, der), FileCertificate(role, setting, path, certificate, of_policy))
    return list(found.values())


def _files(settings: Settings, loaded: LoadedPolicy) -> Iterator[tuple[CertificateRole, str, Path, bool]]:
    if settings.ca_file is not None:
        yield CertificateRole.CA, "RELAY_CA_FILE", settings.ca_file, False
    if settings.ca_bundle is not None and len(_read(settings.ca_bundle)) <= FEW:
        yield CertificateRole.CA, "REQUESTS_CA_BUNDLE" if settings.requests_ca_bundle else "SSL_CERT_FILE", settings.ca_bundle, False
    own = {target.tls.client.certificate for target in loaded.rules.targets if target.tls is not None and target.tls.client is not None}
    for where, path in loaded.certificates:
        yield CertificateRole.CLIENT if path in own else CertificateRole.CA, f"{VARIABLE}: {where}", path, True


def _read(path: Path) -> list[bytes]:
    try:
        return certificates_in(read_regular(path, _MAX_BYTES))
    except OSError:
        return []
