"""The description of one HTTP/1.1 exchange, and what its sender wants to know of its way or forbids.

This module owns the exchange's data. It must not open, send or read anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Phase
from relay_agent.core.models import Body, Headers, Url, may_repeat
from relay_agent.transport.proxy import Proxy


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as it is to go out: its field lines are complete and in order."""

    method: str
    url: Url
    headers: Headers
    body: Body | None
    deadline: Deadline
    verify: bool = True
    proxy: Proxy | None = None
    connect_seconds: float = 30.0
    repeatable: bool = False
    """Whether it may be sent twice, whatever its method says."""

    @property
    def forwarded(self) -> bool:
        """Whether an HTTP proxy reads the request, and may answer it itself (RFC 9112 §3.2.2)."""
        return self.proxy is not None and self.url.scheme == "http" and self.proxy.scheme in ("http", "https")

    @property
    def safe(self) -> bool:
        """Whether it may be sent again, and so over a kept connection, which may turn out to be closed."""
        return self.repeatable or may_repeat(self.method, self.headers)

    @property
    def peer(self) -> str:
        """The peer named in error messages: the target, or the target through a proxy."""
        where = f"{self.url.host}:{self.url.port}"
        return where if self.proxy is None else f"{where} through the proxy {self.proxy.masked}"


class ExchangeObserver:
    """What the sender of an exchange wants to know of its way, or forbids; this one does nothing.

    Each method is called on the sender's thread and must not wait. Whatever it raises ends the exchange and reaches the sender.
    """

    def entered(self, phase: Phase) -> None:
        """Called when the exchange begins to wait for something else."""

    def check_address(self, address: str) -> None:
        """Raise TransportFault for an address that must not be connected to."""

    def check_stop(self) -> None:
        """Raise whatever ends the exchange early. Called for each socket, and every tenth of a second while no socket can be shut."""

    def before_send(self) -> None:
        """Called once, when there is a connection and before the first byte of the request leaves."""

    def after_send(self) -> None:
        """Called when the whole request was written, or as much of it as the peer takes."""
