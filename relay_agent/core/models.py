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

ACTIONS_PLAIN = frozenset({"TetraScience.Connector.gdc.HttpRequest", "TetraScience.Connector.http.Request.V1"})
ACTION_SECURE = "TetraScience.Connector.http.Request.V2"
ACTIONS = ACTIONS_PLAIN | {ACTION_SECURE}
"""The actions for which the agent sends an HTTP request (PROTOCOL §2); it rejects any other."""


class Status(StrEnum):
    """A command's status as the agent reports it (PROTOCOL §2)."""

    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http or https URL in its parts, with every byte of its path and query unchanged.

    `scheme` is lower case. `host` is lower-case ASCII (IDNA), an IPv6 address without brackets. `explicit_port` says whether the
    URL names the port. `target` is the request line's: path and query, non-ASCII percent-encoded as UTF-8, without the fragment.
    `authorization` is the value of the Authorization header that the user info stands for, None if there is none.
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
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.explicit_port else host

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port. Credentials do not follow a redirect to another origin (SECURITY §2)."""
        return (self.scheme, self.host, self.port)

    def __str__(self) -> str:
        """Return the URL without user info and fragment."""
        return f"{self.scheme}://{self.netloc}{self.target}"


Headers = tuple[tuple[str, str], ...]
"""Header fields in order, names as given, repeated names kept."""


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
