"""The certificates that peers show at handshakes: each is read once, and remembered while it is in use.

Owns which of them count as in use, and how many are kept, since senders choose the hosts. It must not log, or wait for anything.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from relay_agent.core.clock import DAY_SECONDS, HOUR_SECONDS
from relay_agent.core.models import CertificateRole
from relay_agent.diagnostics.certificates import CertificateInUse, of_peer
from relay_agent.transport.x509 import read_certificate

MOST_PEERS = 256
"""How many hosts of a role are remembered: those that were called last."""
MOST_OF_A_PEER = 4
TOGETHER_SECONDS = HOUR_SECONDS
"""Two certificates that a host shows within this time are both in use: it is several machines. Else the newer one replaced the other."""
IN_USE_SECONDS = 30 * DAY_SECONDS
"""How long after its last handshake a certificate counts as in use."""
_Place = tuple[CertificateRole, str, int]


@dataclass(slots=True)
class _Shown:
    """A certificate that a peer shows, None if it cannot be read, and when it did last."""

    certificate: CertificateInUse | None
    at: float


class PeerCertificates:
    """Remembers the certificates of both legs. Any thread may call; a known certificate costs its digest and two lookups."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._peers: dict[CertificateRole, OrderedDict[_Place, dict[bytes, _Shown]]] = {role: OrderedDict() for role in CertificateRole}

    def leg(self, role: CertificateRole) -> PeerLeg:
        """Return the observer for a dialer whose hosts, except proxies, have this role."""
        return PeerLeg(self, role)

    def accepted(self, role: CertificateRole, host: str, port: int, der: bytes, leg: CertificateRole) -> None:
        """Take a certificate that was verified in a handshake."""
        digest, now, place = hashlib.sha256(der).digest(), self._monotonic(), (leg, host, port)
        with self._lock:
            known = self._peers[role].get(place)
            if known is not None:
                self._peers[role].move_to_end(place)
                if digest in known:
                    known[digest].at = now
                    return
        shown = read_certificate(der)
        certificate = of_peer(role, host, port, shown, leg) if shown is not None else None
        with self._lock:
            peers = self._peers[role]
            peers.setdefault(place, {})[digest] = _Shown(certificate, now)
            _keep(peers[place], now)
            if len(peers) > MOST_PEERS:
                peers.popitem(last=False)

    def in_use(self) -> list[CertificateInUse]:
        """Return the certificates that are in use."""
        now = self._monotonic()
        with self._lock:
            return [
                one.certificate
                for peers in self._peers.values()
                for shown in peers.values()
                for one in shown.values()
                if one.certificate is not None and _counts(one, shown, now)
            ]


@dataclass(frozen=True, slots=True)
class PeerLeg:
    """One leg's view (`dialer.PeerObserver`)."""

    peers: PeerCertificates
    role: CertificateRole

    def accepted(self, host: str, port: int, der: bytes, *, proxy: bool) -> None:
        """Take a certificate that was verified in a handshake."""
        self.peers.accepted(CertificateRole.PROXY if proxy else self.role, host, port, der, self.role)


def _counts(one: _Shown, shown: dict[bytes, _Shown], now: float) -> bool:
    return now - one.at < IN_USE_SECONDS and max(other.at for other in shown.values()) - one.at < TOGETHER_SECONDS


def _keep(shown: dict[bytes, _Shown], now: float) -> None:
    """Forget what a peer no longer shows, and the oldest if it shows too many."""
    gone = [digest for digest, one in shown.items() if not _counts(one, shown, now)]
    kept = sorted((digest for digest in shown if digest not in gone), key=lambda digest: shown[digest].at)
    for digest in [*gone, *kept[:-MOST_OF_A_PEER]]:
        del shown[digest]
