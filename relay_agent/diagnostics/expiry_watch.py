"""The token and the certificates in use that expire soon: logged at the start and once a day from 30 days before, and shown.

docs/operations.md, "Certificates and token", says what is watched.

Owns when a line is due, and how many there may be. It must not read a certificate, or judge whether the agent is ready.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay_agent.core.clock import DAY_SECONDS, Clock, iso
from relay_agent.core.models import CertificateRole
from relay_agent.diagnostics.causes import Problem, ends_soon
from relay_agent.diagnostics.certificates import CertificateInUse, ending, ending_soon
from relay_agent.diagnostics.local_causes import token_ends as token_cause
from relay_agent.telemetry.logger import WITHHELD, Logger

LINES_A_DAY = 40
"""For all certificates together, those that end first: at most 40 KB a day, whatever senders request."""
MOST_SERIES = 50
"""How many certificates of a role the metrics have: those that end first."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Something that expires soon, or has expired: `role` is `token`, or the certificate's."""

    role: str
    name: str
    ends: datetime
    remark: str


class ExpiryWatch:
    """Looks on the thread `environment`; any thread may read what ends."""

    def __init__(
        self,
        *,
        certificates: Callable[[], Iterable[CertificateInUse]],
        token_ends: Callable[[], datetime | None],
        log: Logger,
        clock: Clock,
    ) -> None:
        """`certificates` returns those in use, `token_ends` when the token does; None if it does not say."""
        self._certificates = certificates
        self._token_ends = token_ends
        self._log = log
        self._clock = clock
        self._logged: dict[Hashable, float] = {}

    # --- the thread `environment` ---

    def look(self) -> None:
        """Log what is due."""
        now, at = self._clock.now(), self._clock.monotonic()
        self._logged = {key: when for key, when in self._logged.items() if at - when < DAY_SECONDS}
        token = self._token_ends()
        if token is not None and ends_soon(token, now) and token not in self._logged:
            cause = token_cause(token, now)
            self._log.warning("token-ends-soon", **_when(token, now), cause=cause.cause, cure=cause.cure)
            self._logged[token] = at
        for certificate in ending_soon(self._certificates(), now):
            if len(self._logged) >= LINES_A_DAY:
                break
            if certificate not in self._logged:
                self._say(certificate, now)
                self._logged[certificate] = at

    def _say(self, certificate: CertificateInUse, now: datetime) -> None:
        cause = certificate.cause(now)
        self._log.warning(
            "certificate-ends-soon",
            role=certificate.role,
            name=certificate.name,
            subject=certificate.subject,
            **_when(certificate.ends, now),
            cause=cause.cause,
            cure=cause.cure,
            **({WITHHELD: "name.subject.ends.cause.cure"} if certificate.private else {}),
        )

    # --- any thread ---

    def problems(self) -> list[Problem]:
        """Return the certificates that end soon; the page itself shows the token's end."""
        return ending(self._certificates(), self._clock.now())

    def ending(self) -> list[Ending]:
        """Return everything that expires soon, in words."""
        now, token = self._clock.now(), self._token_ends()
        found = []
        if token is not None and ends_soon(token, now):
            found.append(Ending("token", "JWT", token, token_cause(token, now).cause))
        return found + [
            Ending(one.role, one.name, one.ends, one.cause(now).cause) for one in ending_soon(self._certificates(), now)[:MOST_SERIES]
        ]

    def timestamps(self) -> dict[tuple[str, str], float]:
        """Return the ends of certificates by role and name, in seconds since 1970."""
        soonest = sorted(self._certificates(), key=lambda one: one.ends)
        found: dict[tuple[str, str], float] = {}
        for role in CertificateRole:
            for one in itertools.islice((one for one in soonest if one.role is role), MOST_SERIES):
                found.setdefault((role.value, one.label), one.ends.timestamp())
        return found


def _when(ends: datetime, now: datetime) -> dict[str, Any]:
    return {"ends": iso(ends, "seconds"), "days": (ends - now).days}
