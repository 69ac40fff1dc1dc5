"""The values that pass through the agent: command, request, response, failure, status update.

Frozen dataclasses. Field names on the wire belong to `protocol`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from relay_agent.core.failures import Code, FaultFacts

ACTION_HTTP = "TetraScience.Connector.gdc.HttpRequest"
ACTIONS_PLAIN = frozenset({ACTION_HTTP, "TetraScience.Connector.http.Request.V1"})
ACTION_SECURE = "TetraScience.Connector.http.Request.V2"
ACTIONS = ACTIONS_PLAIN | {ACTION_SECURE}
"""The actions for which the agent sends an HTTP request (PROTOCOL §3); it rejects any other."""


class Status(StrEnum):
    """A command's status as the agent reports it (PROTOCOL §2)."""

    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REJECTED = "REJECTED"


class CertificateRole(StrEnum):
    """Whose certificate it is: of a trusted CA, the agent's own for a target, or one that a peer shows."""

    CA = "ca"
    CLIENT = "client"
    TARGET = "target"
    PROXY = "proxy"
    PLATFORM = "platform"
    SYSLOG = "syslog"


@dataclass(frozen=True, slots=True)
class SyslogReceiver:
    """Where log lines go by syslog. `transport` is `udp`, `tcp` or `tls`; `host` is lower-case ASCII, an IPv6 address without brackets."""

    transport: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}:{self.port}"


def bracketed(host: str) -> str:
    """Return a host as it is written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def host_and_port(host: str, port: int) -> str:
    """Return `host:port` as it is written in a URL."""
    return f"{bracketed(host)}:{port}"


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http or https URL in its parts, with every byte of its path and query unchanged.

    `scheme` is lower case. `host` is lower-case ASCII (IDNA), an IPv6 address without brackets. `explicit_port` says whether the
    URL names the port. `target` is the request line's: path and query, non-ASCII percent-encoded as UTF-8, without the fragment.
    `authorization` is the value of the Authorization header for the user info, None if the URL has none.
    """

    scheme: str
    host: str
    port: int
    target: str
    explicit_port: bool = False
    authorization: str | None = field(default=None, repr=False)

    @property
    def netloc(self) -> str:
        """Host, and port if the URL names it: the value of a `Host` header."""
        return host_and_port(self.host, self.port) if self.explicit_port else bracketed(self.host)

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port. Credentials do not follow a redirect to another origin (docs/protocol.md, "Redirects")."""
        return (self.scheme, self.host, self.port)

    def __str__(self) -> str:
        """Return the URL without user info and fragment."""
        return f"{self.scheme}://{self.netloc}{self.target}"


Headers = tuple[tuple[str, str], ...]
"""Header fields in order, names as given, repeated names kept."""


def members(headers: Headers, name: str) -> set[str]:
    """Return the members of a field that is a list, in lower case; `name` is in lower case."""
    return {part.strip().lower() for key, value in headers if key.lower() == name for part in value.split(",")}


class Content(Protocol):
    """Bytes of a body, in memory or in a file, that can be read more than once."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes, in pieces of at most 64 KiB."""

    def close(self) -> None:
        """Free the memory or the file."""


Body = bytes | Content
"""A request's body, in memory or in a file."""


def size_of(body: Body | None) -> int:
    """Return the length of a body in bytes; 0 if it is None."""
    return 0 if body is None else len(body) if isinstance(body, bytes) else body.size


IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""The idempotent methods of RFC 9110 §9.2.2."""
RETURNS_REQUEST = frozenset({"TRACE", "TRACK"})
"""The methods that make a server send back the request: RFC 9110 §9.3.8, and IIS's name for the same."""


SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The methods that ask for no change at the target (RFC 9110 §9.2.1)."""


def may_repeat(method: str, headers: Headers) -> bool:
    """Return whether a request may be sent twice: its method is idempotent, or it has an `Idempotency-Key`."""
    return method in IDEMPOTENT or any(name.lower() == "idempotency-key" for name, _ in headers)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The HTTP request of a command (PROTOCOL §3).

    `timeout` is in seconds, for the whole exchange. `jti` is a secure command's, else None. The request is not started after
    `not_after`.
    """

    url: Url
    method: str = "GET"
    headers: Headers = field(default=(), repr=False)
    body: Body | None = field(default=None, repr=False)
    ignore_tls_certificate: bool = False
    timeout: float | None = None
    follow_redirects: bool = True
    encrypt_response: bool = False
    secure: bool = False
    jti: str | None = field(default=None, repr=False)
    not_after: datetime | None = None
    warnings: tuple[str, ...] = ()

    @property
    def harmless(self) -> bool:
        """Whether it asks for no change at the target and uses up no token, so that it may run again, recorded or not."""
        return self.method in SAFE and self.jti is None and self.body is None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The response of a target, or of a proxy that refused a tunnel (PROTOCOL §4).

    `headers` are as received, without those that decoding made untrue. `charset` is as the response names it, else None; `text`
    says whether the bytes are text in it.
    """

    status_code: int
    headers: Headers = field(repr=False)
    content: Content = field(repr=False)
    charset: str | None
    text: bool
    url: str = field(repr=False)
    elapsed_ms: int = 0
    bytes_out: int = 0
    would_refuse: str | None = None
    """The policy's rule that will refuse the call once the policy is enforced (mode `observe`)."""
    from_proxy: bool = False
    """Whether a proxy answered in the target's place, or may have."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no HTTP response. `message` holds no secret; `url` is the final URL, None if it is not known.

    `sealed` says that the failure is to be encrypted although the request that asks for it could not be decoded; `jti` is then
    the command's.
    """

    code: Code
    message: str
    url: str | None = field(default=None, repr=False)
    elapsed_ms: int = 0
    sealed: bool = False
    jti: str | None = field(default=None, repr=False)
    facts: FaultFacts | None = field(default=None, compare=False, repr=False)
    """For diagnostics only; never sent."""
    would_refuse: str | None = None
    """As in HttpResponse."""


@dataclass(frozen=True, slots=True)
class Command:
    """One message of the inbound queue (PROTOCOL §2), its payload not yet decoded."""

    id: str
    target_id: str
    action: str
    created_at: datetime | None = None
    expires_at: datetime | None = None
    payload: object = field(default=None, repr=False)
    body_url: str | None = field(default=None, repr=False)
    upload_url: str | None = field(default=None, repr=False)

    @property
    def secure(self) -> bool:
        """Whether its request is encrypted for this agent (PROTOCOL §5)."""
        return self.action == ACTION_SECURE


@dataclass(frozen=True, slots=True)
class Update:
    """One status update, ready for the outbound queue.

    `message` is the text of the queue message, `code` its error code or None. If the body is spooled, the gzip file `spool` is
    uploaded to `upload_url` first; `fallback` is sent instead if that does not succeed by `tell_by`, when the sender stops waiting.
    """

    command_id: str
    status: Status
    message: str = field(repr=False)
    spool: str | None = None
    upload_url: str | None = field(default=None, repr=False)
    fallback: str | None = field(default=None, repr=False)
    tell_by: datetime | None = None
    code: Code | None = field(default=None, compare=False)
