"""The faults of an exchange with another host, by the codes of PROTOCOL §4, and how their messages are made.

`fault_mapping` makes them of the errors that the system and libraries raise.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from relay_agent.core.errors import RelayError
from relay_agent.core.failures import CERTIFICATE_CODES, Code, FaultFacts, Phase, RefusedCertificate, TableKey, TlsTrouble

_CERTIFICATE_TROUBLES = frozenset({TlsTrouble.NOT_YET_VALID, TlsTrouble.WEAK_CERTIFICATE, TlsTrouble.BAD_CERTIFICATE})
_MAX_DETAIL = 300
"""Characters that a message repeats of a refused certificate."""
_CERTIFICATE_DETAILS: dict[str, Callable[[RefusedCertificate], str]] = {
    Code.CERT_HAS_EXPIRED: lambda it: f" (on {it.ends})",
    Code.DEPTH_ZERO_SELF_SIGNED_CERT: lambda it: f" ({it.issuer})",
    Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE: lambda it: f" ({it.issuer})",
    Code.ERR_TLS_CERT_ALTNAME_INVALID: lambda it: f", which is for {it.names}",
    TlsTrouble.NOT_YET_VALID: lambda it: f" (it begins on {it.begins})",
}


class TransportFault(RelayError):
    """An exchange got no response. `facts` is what is known about it.

    `text` is for people; it may contain addresses, but no queries or headers. `message` is made of both.
    """

    called: str | None = None
    """The URL that was called, if the catcher may not know it."""
    after = ""
    """What the exchange had already been answered before this ("a redirect"); empty if this was the first request."""
    ours = False
    """Whether the cause is on this machine, so that the fault says nothing about the network or the host."""

    def __init__(
        self,
        code: Code,
        text: str,
        trouble: TlsTrouble | None = None,
        *,
        rule: str | None = None,
        table_key: TableKey | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.facts = FaultFacts(code, rule=rule, table_key=table_key, trouble=trouble, errno=errno)

    def at(self, proxy: str | None) -> Self:
        """Set the masked URL of the proxy that is at fault, and return the fault itself."""
        self.facts = replace(self.facts, proxy=proxy)
        return self

    def during(self, phase: Phase) -> Self:
        """Set the phase unless it is already set, and return the fault itself."""
        if self.facts.phase is None:
            self.facts = replace(self.facts, phase=phase)
        return self

    def following(self, answer: str) -> Self:
        """Set what an earlier request of the same command was answered, and return the fault itself.

        It is said first if nothing of the last request was sent: the sender must not conclude that no target has received anything.
        """
        phase = self.facts.phase
        if self.code is not Code.EPOLICY and (phase is None or not phase.sent):
            self.after = self.after or answer
        return self

    def show(self, certificate: RefusedCertificate | None) -> None:
        """Set the certificate that was refused, so that the message shows it."""
        self.facts = replace(self.facts, certificate=certificate)

    @property
    def message(self) -> str:
        """The text for people: first the proxy if it is at fault, last the relevant detail of a refused certificate."""
        after = f"after {self.after}: " if self.after else ""
        return f"{after}{self._prefix()}{self.text}{self._detail()}"

    @property
    def at_certificate(self) -> bool:
        """Whether the host showed a certificate that is not trusted."""
        return self.code in CERTIFICATE_CODES or self.facts.trouble in _CERTIFICATE_TROUBLES

    def __str__(self) -> str:
        return self.message

    def _prefix(self) -> str:
        return "" if self.facts.proxy is None else f"proxy {self.facts.proxy}: "

    def _detail(self) -> str:
        detail = _CERTIFICATE_DETAILS.get(self.facts.trouble or self.code)
        certificate = self.facts.certificate
        return "" if certificate is None or detail is None else detail(certificate)[:_MAX_DETAIL]


class ProxyFault(TransportFault):
    """A proxy refused; `text` is what it did ("answered 403 to CONNECT")."""

    def __init__(
        self, code: Code, proxy: str, text: str, *, status: int | None = None, forwarded: bool = False, behind: bool = False
    ) -> None:
        super().__init__(code, text)
        self.facts = FaultFacts(code, proxy=proxy, status=status, forwarded=forwarded, behind=behind)

    def _prefix(self) -> str:
        return f"the proxy {self.facts.proxy} "


class DiskFault(TransportFault):
    """This machine's disk could not be read or written during an exchange."""

    ours = True


class ClientCertificateWanted(ssl.SSLError):
    """The peer asked for a client certificate, got none, and ended the session before it sent any data.

    `required` says whether an alert was its reason. Otherwise the peer may have ended for another one.
    """

    def __init__(self, *, required: bool) -> None:
        super().__init__()
        self.required = required


class ClientCertificateRefused(ssl.SSLError):
    """The peer ended the session because of the agent's client certificate; `alert` is its reason, as RFC 8446 §6 names it."""

    def __init__(self, alert: str) -> None:
        super().__init__()
        self.alert = alert
