"""What can go wrong between us and another host, with the codes of PROTOCOL §4.

This room owns the faults, what is known of each, and how their messages are put together. It must not know the system's or a library's
errors (that is `fault_mapping`), nor whether the other host is a target or the platform.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from relay_agent.core.errors import RelayError
from relay_agent.core.failures import Code, FaultFacts, Phase, RefusedCertificate, TlsTrouble


class TransportFault(RelayError):
    """One exchange got no response; `facts` say what is known of it.

    `text` is for people, and names addresses, never queries or headers; `message` is made of both, when somebody reads it.
    """

    called: str | None = None
    """The URL that was called, where whoever tells of the fault may not know it."""
    ours = False
    """Whether it is this machine's fault, and says nothing of the way."""

    def __init__(
        self, code: Code, text: str, trouble: TlsTrouble | None = None, *, rule: str | None = None, errno: int | None = None
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.facts = FaultFacts(code, rule=rule, trouble=trouble, errno=errno)

    def at(self, proxy: str | None) -> Self:
        """The same, said of that proxy (its masked URL)."""
        self.facts = replace(self.facts, proxy=proxy)
        return self

    def during(self, phase: Phase) -> Self:
        """The same, with what was waited for, where that is not noted yet."""
        if self.facts.phase is None:
            self.facts = replace(self.facts, phase=phase)
        return self

    def show(self, certificate: RefusedCertificate | None) -> None:
        """Add the certificate that was refused."""
        self.facts = replace(self.facts, certificate=certificate)

    @property
    def message(self) -> str:
        """For people: the proxy that is at fault comes first (SECURITY §1), of a certificate follows what a person looks at first."""
        return f"{self._begin()}{self.text}{self._end()}"

    def __str__(self) -> str:
        return self.message

    def _begin(self) -> str:
        return "" if self.facts.proxy is None else f"proxy {self.facts.proxy}: "

    def _end(self) -> str:
        said = _OF_CERTIFICATE.get(self.facts.trouble or self.code)
        shown = self.facts.certificate
        return "" if shown is None or said is None else said(shown)[:_MOST_SAID]

    @property
    def at_certificate(self) -> bool:
        """Whether TLS was spoken, and the certificate was not to be trusted."""
        return self.code in _CERTIFICATE_CODES or self.facts.trouble in _CERTIFICATE_TROUBLES


class ProxyFault(TransportFault):
    """A proxy said no; `text` is what it did ("answered 403 to CONNECT")."""

    def __init__(
        self, code: Code, proxy: str, text: str, *, status: int | None = None, forwarded: bool = False, behind: bool = False
    ) -> None:
        super().__init__(code, text)
        self.facts = FaultFacts(code, proxy=proxy, status=status, forwarded=forwarded, behind=behind)

    def _begin(self) -> str:
        return f"the proxy {self.facts.proxy} "


class DiskFault(TransportFault):
    """This machine's disk did not take, or give, what is exchanged."""

    ours = True


class ClientCertificateWanted(ssl.SSLError):
    """The other side asked for a client certificate, was shown none, and ended the session before it said anything."""


_CERTIFICATE_TROUBLES = frozenset({TlsTrouble.NOT_YET_VALID, TlsTrouble.WEAK_CERTIFICATE, TlsTrouble.BAD_CERTIFICATE})
_MOST_SAID = 300
"""Characters of a refused certificate that a text repeats."""
_OF_CERTIFICATE: dict[str, Callable[[RefusedCertificate], str]] = {
    Code.CERT_HAS_EXPIRED: lambda it: f" (on {it.ends})",
    Code.DEPTH_ZERO_SELF_SIGNED_CERT: lambda it: f" ({it.issuer})",
    Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE: lambda it: f" ({it.issuer})",
    Code.ERR_TLS_CERT_ALTNAME_INVALID: lambda it: f", which is for {it.names}",
    TlsTrouble.NOT_YET_VALID: lambda it: f" (it begins on {it.begins})",
}
_CERTIFICATE_CODES = frozenset(
    {Code.CERT_HAS_EXPIRED, Code.DEPTH_ZERO_SELF_SIGNED_CERT, Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, Code.ERR_TLS_CERT_ALTNAME_INVALID}
)
