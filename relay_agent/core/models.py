"""What flows through the agent: plain frozen values.

This room owns the vocabulary of a command's life. It must not know the wire's field names (that is
`codec`), threads, or files.
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
"""The actions that ask for an HTTP request (PROTOCOL §2); any other is rejected."""


class Status(StrEnum):
    """A command's status as the agent reports it (PROTOCOL §2)."""

    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http or https URL, taken apart without changing a byte of its path and query.

    `scheme` is lower case; `host` is lower case ASCII (IDNA), an IPv6 address without brackets;
    `port` is always set; `explicit_port` says whether the URL named it; `target` is what stands in
    the request line (path and query, non-ASCII percent-encoded as UTF-8, no fragment);
    `authorization` is the Basic credentials of the user info, already encoded.
    """

    scheme: str
    host: str
    port: int
    target: str
    explicit_port: bool = False
    authorization: str | None = field(default=None, repr=False)

    @property
    def netloc(self) -> str:
        """Host and, where the URL named one, port: what a `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.explicit_port else host

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: another origin is another host for redirects (SECURITY §2)."""
        return (self.scheme, self.host, self.port)

    def __str__(self) -> str:
        """The URL without user info and fragment."""
        return f"{self.scheme}://{self.netloc}{self.target}"


Headers = tuple[tuple[str, str], ...]
"""Header fields in order, names as given, repeats kept."""


class Content(Protocol):
    """Bytes of a body, in memory or in a file, that can be read more than once."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, in pieces of at most 64 KiB."""

    def close(self) -> None:
        """Free what holds the bytes."""


Body = bytes | Content
"""A request's body: the bytes, or where they lie."""


def size_of(body: Body | None) -> int:
    """The bytes that a body has; 0 where there is none."""
    return 0 if body is None else len(body) if isinstance(body, bytes) else body.size


IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 §9.2.2: sending one twice is as sending it once."""


def may_repeat(method: str, headers: Headers) -> bool:
    """Whether sending a request twice is as sending it once: by its method, or because its sender says so."""
    return method in IDEMPOTENT or any(name.lower() == "idempotency-key" for name, _ in headers)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request as a command asks for it (PROTOCOL §3). `timeout` is in seconds, in all; `jti` is a secure command's own;
    after `not_after` it is not started any more.
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
    """What a target, or a proxy that refused a tunnel, answered (PROTOCOL §4).

    `headers` are as received, without those the agent undid by decoding; `charset` is the name the
    response gives, None where it names none; `text` says whether the bytes decode in it.
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
    """Why there is no HTTP response. `message` holds no secret; `url` is the final URL, where known.

    `sealed` says that it is to be encrypted, though the request that asks for that cannot be read; `jti` is that command's own.
    """

    code: Code
    message: str
    url: str | None = field(default=None, repr=False)
    elapsed_ms: int = 0
    sealed: bool = False
    jti: str | None = field(default=None, repr=False)
    facts: FaultFacts | None = field(default=None, compare=False, repr=False)
    """For whoever explains it; no answer carries it."""


@dataclass(frozen=True, slots=True)
class Command:
    """One message of the inbound queue (PROTOCOL §2), its payload not yet looked at."""

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
    """One status update, complete as it goes onto the outbound queue.

    `message` is the queue message's text, `code` the error code that it tells. Where the body was spooled, `spool` is the gzip file that
    goes to `upload_url` first, and `fallback` the message to send instead when it cannot be uploaded before
    `tell_by`, after which its sender has stopped waiting.
    """

    command_id: str
    status: Status
    message: str = field(repr=False)
    spool: str | None = None
    upload_url: str | None = field(default=None, repr=False)
    fallback: str | None = field(default=None, repr=False)
    tell_by: datetime | None = None
    code: Code | None = field(default=None, compare=False)
