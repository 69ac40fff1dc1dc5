"""What can be known of a failure, as fields: codes, phases, certificates, causes."""

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


class TlsTrouble(StrEnum):
    """What a TLS session failed for, where a code of PROTOCOL §4 does not say it."""

    NOT_TLS = "not-tls"
    OLD_VERSION = "old-version"
    NO_COMMON_CIPHER = "no-common-cipher"
    WEAK_EXCHANGE = "weak-exchange"
    OLD_RENEGOTIATION = "old-renegotiation"
    UNKNOWN_NAME = "unknown-name"
    CLIENT_CERTIFICATE = "client-certificate"
    NOT_YET_VALID = "not-yet-valid"
    WEAK_CERTIFICATE = "weak-certificate"
    BAD_CERTIFICATE = "bad-certificate"
    LONG_CHAIN = "long-chain"


class Phase(StrEnum):
    """What an exchange waits for, as the text of ETIMEDOUT has it."""

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
        """Whether it is the proxy that is waited for."""
        return self in (Phase.PROXY_NAME, Phase.PROXY_CONNECT, Phase.PROXY_TLS, Phase.TUNNEL)

    @property
    def sent(self) -> bool:
        """Whether bytes of the request may have left."""
        return self in (Phase.SENDING, Phase.FIRST_BYTE, Phase.HEAD, Phase.BODY)

    @property
    def connected(self) -> bool:
        """Whether the connection to the host stands."""
        return self is Phase.TLS or self.sent


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate of a TLS handshake that was refused: its issuer, the names it is for, its first and last day; `roots` are
    the trusted ones, by the settings that give them.
    """

    issuer: str
    names: str
    begins: str
    ends: str
    roots: str


@dataclass(frozen=True, slots=True)
class FaultFacts:
    """What is known of an exchange that got no response: causes are told apart by this alone, never by a message.

    `code` is of PROTOCOL §4, None for an answer in the host's place; `host` and `port` are what was called, `phase` what was waited
    for. `proxy` is the masked URL of the proxy that is at fault, None where none is; `status` what it answered, `forwarded` whether it
    was to pass the request itself on, and so may have passed on an answer; `behind` says that it answered that it cannot get there
    itself. `rule` is the policy's that forbids the call, `trouble` what TLS failed for where the code does not say it, `certificate`
    the one that was refused, `errno` the system's number.
    """

    code: Code | None
    host: str = ""
    port: int | None = None
    phase: Phase | None = None
    proxy: str | None = None
    status: int | None = None
    forwarded: bool = False
    behind: bool = False
    rule: str | None = None
    trouble: TlsTrouble | None = None
    certificate: Shown | None = None
    errno: int | None = None

    @property
    def late(self) -> bool:
        """Whether the time was over when the connection stood."""
        return self.code is Code.ETIMEDOUT and self.phase is not None and self.phase.connected


class StorageTrouble(StrEnum):
    """Why the disk, or another program on it, does not let the journal be used."""

    FULL = "full"
    READ_ONLY = "read-only"
    LOCKED = "locked"
    HANGS = "hangs"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why nothing may be taken in: `reason` for people, `trouble` what it is, None where that is not known."""

    reason: str
    trouble: StorageTrouble | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """What lies behind something that is wrong, and what cures it. `id` is the check's (OPERATIONS §2).

    A row with names in braces is told with `about`.
    """

    id: str
    cause: str
    cure: str

    def about(self, **names: object) -> Cause:
        """The row with its braces filled."""
        return Cause(self.id, self.cause.format(**names), self.cure.format(**names))
