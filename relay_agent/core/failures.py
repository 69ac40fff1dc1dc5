"""What is known about a failure, as fields: codes, phases, certificates, obstacles, causes.

Inside the agent, code decides on these fields alone, never on a message's text. The sender's side gets only code and message, and
reads a message's first words (`pipelines.failures`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Why a command has no HTTP response (PROTOCOL §4)."""

    ENOTFOUND = "ENOTFOUND"
    EAI_AGAIN = "EAI_AGAIN"
    ECONNREFUSED = "ECONNREFUSED"
    ECONNRESET = "ECONNRESET"
    EHOSTUNREACH = "EHOSTUNREACH"
    ENETUNREACH = "ENETUNREACH"
    EPIPE = "EPIPE"
    ETIMEDOUT = "ETIMEDOUT"
    CERT_HAS_EXPIRED = "CERT_HAS_EXPIRED"
    DEPTH_ZERO_SELF_SIGNED_CERT = "DEPTH_ZERO_SELF_SIGNED_CERT"
    UNABLE_TO_VERIFY_LEAF_SIGNATURE = "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    ERR_TLS_CERT_ALTNAME_INVALID = "ERR_TLS_CERT_ALTNAME_INVALID"
    EPROTO = "EPROTO"
    ERESPONSETOOLARGE = "ERESPONSETOOLARGE"
    ETOOMANYREDIRECTS = "ETOOMANYREDIRECTS"
    EBADRESPONSE = "EBADRESPONSE"
    EBADCOMMAND = "EBADCOMMAND"
    EPOLICY = "EPOLICY"
    ENOKEY = "ENOKEY"
    EDECRYPT = "EDECRYPT"
    EREPLAY = "EREPLAY"
    EINTERRUPTED = "EINTERRUPTED"
    ESHUTDOWN = "ESHUTDOWN"
    EEXPIRED = "EEXPIRED"
    UNKNOWN_COMMAND = "UNKNOWN_COMMAND"


CERTIFICATE_CODES = frozenset(
    {Code.CERT_HAS_EXPIRED, Code.DEPTH_ZERO_SELF_SIGNED_CERT, Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, Code.ERR_TLS_CERT_ALTNAME_INVALID}
)
"""The codes of a certificate that is not trusted."""


class TableKey(StrEnum):
    """The keys of a `[[target]]` table that can forbid a call."""

    PIN_SHA256 = "pin_sha256"
    ALLOW_IGNORE_TLS = "allow_ignore_tls"


class TlsTrouble(StrEnum):
    """Why TLS failed, where the code of PROTOCOL §4 is less specific."""

    NOT_TLS = "not-tls"
    OLD_VERSION = "old-version"
    NO_COMMON_VERSION = "no-common-version"
    NO_COMMON_CIPHER = "no-common-cipher"
    WEAK_EXCHANGE = "weak-exchange"
    OLD_RENEGOTIATION = "old-renegotiation"
    UNKNOWN_NAME = "unknown-name"
    CLIENT_CERTIFICATE = "client-certificate"
    CLIENT_CERTIFICATE_ASKED = "client-certificate-asked"
    CLIENT_CERTIFICATE_REFUSED = "client-certificate-refused"
    NOT_YET_VALID = "not-yet-valid"
    WEAK_CERTIFICATE = "weak-certificate"
    BAD_CERTIFICATE = "bad-certificate"
    LONG_CHAIN = "long-chain"


class Phase(StrEnum):
    """What an exchange waits for; the value appears in the text of ETIMEDOUT."""

    NAME = "name resolution"
    CONNECT = "connect"
    TLS = "the TLS handshake"
    PROXY_NAME = "name resolution of the proxy"
    PROXY_CONNECT = "connect to the proxy"
    PROXY_TLS = "the TLS handshake with the proxy"
    TUNNEL = "the tunnel through the proxy"
    SENDING = "sending the request"
    FIRST_BYTE = "the first byte of the response"
    HEAD = "the header of the response"
    BODY = "the whole response"

    @property
    def of_proxy(self) -> bool:
        """Whether the exchange waits for the proxy."""
        return self in (Phase.PROXY_NAME, Phase.PROXY_CONNECT, Phase.PROXY_TLS, Phase.TUNNEL)

    @property
    def sent(self) -> bool:
        """Whether bytes of the request may have been sent."""
        return self in (Phase.SENDING, Phase.FIRST_BYTE, Phase.HEAD, Phase.BODY)

    @property
    def connected(self) -> bool:
        """Whether the host has accepted the connection."""
        return self is Phase.TLS or self.sent


@dataclass(frozen=True, slots=True)
class RefusedCertificate:
    """The certificate that a TLS handshake refused: its issuer, its names, its first and last day.

    `roots` names the trusted roots by the settings that give them; `of_table` says whether that is a `[[target]]` table's `ca_file`.
    """

    issuer: str
    names: str
    begins: str
    ends: str
    roots: str
    of_table: bool = False


@dataclass(frozen=True, slots=True)
class FaultFacts:
    """What is known about an exchange that got no response. A field is None if it is not known or does not apply."""

    code: Code | None
    """The code of PROTOCOL §4; None if a proxy answered in the host's place."""
    host: str = ""
    port: int | None = None
    phase: Phase | None = None
    """What the exchange waited for."""
    proxy: str | None = None
    """The masked URL of the proxy that is at fault."""
    status: int | None = None
    """The HTTP status that the proxy answered."""
    forwarded: bool = False
    """Whether the proxy had to forward the request itself, without a tunnel: its answer may then be the target's."""
    behind: bool = False
    """Whether the proxy answered that it cannot reach the host."""
    rule: str | None = None
    """The policy's rule that forbids the call."""
    table_key: TableKey | None = None
    """The key of the target's `[[target]]` table that forbids it, if no rule does."""
    trouble: TlsTrouble | None = None
    certificate: RefusedCertificate | None = None
    errno: int | None = None

    @property
    def late(self) -> bool:
        """Whether the time limit passed after the host had accepted the connection."""
        return self.code is Code.ETIMEDOUT and self.phase is not None and self.phase.connected


class StorageTrouble(StrEnum):
    """Why the journal cannot be used: the disk, or another program that uses it."""

    FULL = "full"
    READ_ONLY = "read-only"
    LOCKED = "locked"
    HANGS = "hangs"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why no command may be admitted: `reason` for people, `trouble` for code (None if it is not known)."""

    reason: str
    trouble: StorageTrouble | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause of a problem, and its cure. `id` is that of a check (docs/operations.md, "Checks"). `about` fills the names in braces."""

    id: str
    cause: str
    cure: str

    def about(self, **names: object) -> Cause:
        """Return the cause with the names in braces replaced."""
        return Cause(self.id, self.cause.format(**names), self.cure.format(**names))
