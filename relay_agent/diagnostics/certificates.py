"""A certificate in use: what it is called, when it ends, and what follows from that.

Made of the files that settings name, and of what peers show at handshakes. It must not read a file or decide what is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from relay_agent.config.certificate_files import FileCertificate
from relay_agent.config.policy_file import LoadedPolicy
from relay_agent.core.failures import Cause
from relay_agent.core.models import CertificateRole, host_and_port
from relay_agent.diagnostics.causes import Problem, ends_soon, when_ends
from relay_agent.diagnostics.local_causes import CA_ENDS, CLIENT_ENDS, TAKEN_AT_START, TAKEN_OVER
from relay_agent.diagnostics.network_causes import (
    CERTIFICATE_ENDS,
    MORE_CERTIFICATES,
    PLATFORM_CERTIFICATE_ENDS,
    PROXY_CERTIFICATE_ENDS,
    SYSLOG_CERTIFICATE_ENDS,
)
from relay_agent.transport.x509 import Certificate

MOST_SHOWN = 5
MOST_CHARACTERS = 200
_OF_FILES = {CertificateRole.CA: CA_ENDS, CertificateRole.CLIENT: CLIENT_ENDS}
_OF_PEERS = {
    CertificateRole.TARGET: CERTIFICATE_ENDS,
    CertificateRole.PROXY: PROXY_CERTIFICATE_ENDS,
    CertificateRole.PLATFORM: PLATFORM_CERTIFICATE_ENDS,
    CertificateRole.SYSLOG: SYSLOG_CERTIFICATE_ENDS,
}


@dataclass(frozen=True, slots=True)
class CertificateInUse:
    """One certificate. `name` is the file, or host and port of the peer."""

    role: CertificateRole
    name: str
    subject: str
    ends: datetime
    row: Cause
    facts: Mapping[str, object] = field(hash=False, compare=False)
    """What fills the row's names in braces, besides `when`."""
    private: bool = False
    """Whether the platform must not read its name: secure commands may have chosen it, or an administrator for them."""

    def cause(self, now: datetime) -> Cause:
        """Return cause and cure of its end."""
        return self.row.about(when=when_ends(self.ends, now), **self.facts)

    def problem(self, now: datetime) -> Problem:
        """Return its end as a problem."""
        verb = "expired" if self.ends <= now else "expires"
        return Problem(f"the certificate of {self.name} {verb} on {self.ends:%Y-%m-%d}", self.cause(now))

    @property
    def label(self) -> str:
        """What distinguishes it from the others of its role; a file may contain several."""
        return (f"{self.name} ({self.subject})" if self.role in _OF_FILES else self.name)[:MOST_CHARACTERS]


def of_file(found: FileCertificate) -> CertificateInUse:
    """Return the certificate of a file."""
    subject = found.certificate.subject[:MOST_CHARACTERS]
    return CertificateInUse(
        role=found.role,
        name=str(found.path),
        subject=subject,
        ends=found.certificate.not_after,
        row=_OF_FILES[found.role],
        facts={
            "subject": subject,
            "path": found.path,
            "setting": found.setting,
            "taken": TAKEN_OVER if found.of_policy else TAKEN_AT_START,
        },
        private=found.of_policy,
    )


class FilesInUse:
    """The certificates of files, read again only if the policy was. Any thread may ask."""

    def __init__(self, read: Callable[[LoadedPolicy], list[FileCertificate]], loaded: Callable[[], LoadedPolicy]) -> None:
        self._read = read
        self._loaded = loaded
        self._known: tuple[LoadedPolicy, list[CertificateInUse]] | None = None

    def in_use(self) -> list[CertificateInUse]:
        """Return the certificates in the files of the settings and of the policy in force."""
        loaded, known = self._loaded(), self._known
        if known is None or known[0] is not loaded:
            known = self._known = loaded, [of_file(found) for found in self._read(loaded)]
        return known[1]


def of_peer(role: CertificateRole, host: str, port: int, shown: Certificate, leg: CertificateRole) -> CertificateInUse:
    """Return the certificate of a peer; `leg` is the role of the host behind, if the peer is a proxy."""
    row = _OF_PEERS[role]
    if role is CertificateRole.PROXY and leg is CertificateRole.TARGET:
        row = replace(row, id=CERTIFICATE_ENDS.id)
    return CertificateInUse(
        role=role,
        name=host_and_port(host, port),
        subject=shown.subject[:MOST_CHARACTERS],
        ends=shown.not_after,
        row=row,
        facts={"host": host},
        private=role is CertificateRole.TARGET,
    )


def ending_soon(certificates: Iterable[CertificateInUse], now: datetime) -> list[CertificateInUse]:
    """Return those that end soon or have ended, those that end first at the beginning."""
    return sorted((one for one in certificates if ends_soon(one.ends, now)), key=lambda one: one.ends)


def ending(certificates: Iterable[CertificateInUse], now: datetime) -> list[Problem]:
    """Return the ends of certificates that end soon or have ended as problems, at most MOST_SHOWN and one for all others."""
    found = ending_soon(certificates, now)
    problems = [one.problem(now) for one in found[:MOST_SHOWN]]
    more = len(found) - len(problems)
    return [*problems, Problem(f"{more} more certificates expire soon, or have expired", MORE_CERTIFICATES)] if more else problems
