"""The description of one HTTP/1.1 exchange, and the observer by which its sender follows or forbids its steps.

This module owns the exchange's data. It must not open, send or read anything.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Phase
from relay_agent.core.models import RETURNS_REQUEST, Body, Headers, Url, may_repeat
from relay_agent.transport.authentication import Credentials
from relay_agent.transport.proxy import Proxy
from relay_agent.transport.tls import TlsContexts


class EarlyStore(Protocol):
    """Keeps what a peer answers while its request is still being sent, within the bounds of whoever asked."""

    def write(self, data: bytes) -> None:
        """Append the bytes. Whatever it raises ends the exchange and reaches the sender."""

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes, in pieces of at most 64 KiB; what it raises reaches the sender as it is, unless it is an OSError."""

    def close(self) -> None:
        """Free the memory or the file."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as it is to go out: its field lines are complete and in order."""

    method: str
    url: Url
    headers: Headers = field(repr=False)
    """Those that the policy file adds are secrets."""
    body: Body | None = field(repr=False)
    deadline: Deadline
    verify: bool = True
    proxy: Proxy | None = None
    connect_seconds: float = 30.0
    tls: TlsContexts | None = None
    """What TLS with the target trusts and requires, if that is not the same for all (`TargetSettings`)."""
    repeatable: bool = False
    """Whether it may be sent twice, whatever its method says."""
    auth: Credentials | None = None
    """What answers a 401 of the target; the request's own Authorization is not sent."""
    proxy_auth: Credentials | None = None
    """What answers a 407 of an HTTP proxy, in place of user and password of the proxy's URL."""
    early_store: Callable[[], EarlyStore] | None = None
    """Makes what keeps an answer that comes while the request is still being sent; None: a little memory is enough."""

    @property
    def forwarded(self) -> bool:
        """Whether an HTTP proxy reads the request, and may answer it itself (RFC 9112 §3.2.2)."""
        return self.proxy is not None and self.url.scheme == "http" and self.proxy.scheme in ("http", "https")

    @property
    def shows_proxy_secrets(self) -> bool:
        """Whether the answer would show the credentials that the agent sends to the proxy: TRACE returns the request (RFC 9110 §9.3.8).

        A sender can have the proxy answer in the target's place, with `Max-Forwards: 0`.
        """
        return self.forwarded and self.method.upper() in RETURNS_REQUEST

    @property
    def connection_key(self) -> Hashable:
        """What exchanges must have in common to use the same connection, which may have been authenticated."""
        return self.url.origin, self.verify, self.proxy, self.tls, self.auth, self.proxy_auth

    @property
    def proxy_authorization(self) -> str | None:
        """The Proxy-Authorization that an HTTP proxy gets without asking, None if there is none."""
        if self.proxy is None or self.proxy_auth is not None or self.shows_proxy_secrets:
            return None
        return self.proxy.authorization

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again, and so over a kept connection, which may turn out to be closed."""
        return self.repeatable or may_repeat(self.method, self.headers)

    @property
    def peer(self) -> str:
        """The peer named in error messages: the target, or the target through a proxy."""
        where = f"{self.url.host}:{self.url.port}"
        return where if self.proxy is None else f"{where} through the proxy {self.proxy.masked}"


class ExchangeObserver:
    """Lets the sender of an exchange follow its steps, or forbid them; this one does nothing.

    Each method is called on the sender's thread. None must wait, but for `before_send`, which may wait for the disk. Whatever they raise
    ends the exchange and reaches the sender.
    """

    def entered(self, phase: Phase) -> None:
        """Called when the exchange begins to wait for something else."""

    def check_addresses(self, addresses: Sequence[str]) -> None:
        """Raise TransportFault if the call must not be made; `addresses` are all those to which the URL's host resolves."""

    def check_stop(self) -> None:
        """Raise whatever ends the exchange early. Called for each socket, and every 0.1 s while there is no socket to shut down."""

    def challenged(self, fields: Headers, headers: Headers) -> Headers:
        """Return the header fields with which the request is sent again, without credentials, which are added to them.

        Called when the target's challenge, whose header fields are `fields`, is answered; `headers` are the request's until then.
        """
        return headers

    def before_send(self) -> None:
        """Called once, when there is a connection and before the first byte of the request leaves."""

    def after_send(self) -> None:
        """Called when the whole request was written, or as much of it as the peer accepts."""
