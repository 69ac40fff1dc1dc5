"""One HTTP/1.1 exchange as whoever opens its connection, sends it and explains it needs to know it.

This room owns the exchange's data. It must not open, send or read anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Phase
from relay_agent.core.models import Body, Headers, Url, may_repeat
from relay_agent.transport.proxy import Proxy


def nothing() -> None:
    """Do nothing, where nobody wants to be called."""


def _any_socket(_sock: Any) -> None:
    return None


def _any_address(_address: str) -> None:
    return None


@dataclass
class Exchange:
    """One request as it is to go out: field lines complete but for none, in order.

    `before_send` is called once, when a connection stands and before the first byte of the request leaves, `after_send`
    when the whole request was written.
    `check_address` raises TransportFault for an address that must not be connected to.
    """

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
    before_send: Callable[[], None] = nothing
    after_send: Callable[[], None] = nothing
    opened: Callable[[Any], None] = _any_socket
    waiting: Callable[[], None] = nothing
    check_address: Callable[[str], None] = _any_address
    phase: Phase = Phase.CONNECT
    """What is being waited for."""

    def enter(self, phase: Phase) -> None:
        """Note what is waited for from now on."""
        self.phase = phase

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
        """Whom a fault is told of: the target, or the target through a proxy."""
        where = f"{self.url.host}:{self.url.port}"
        return where if self.proxy is None else f"{where} through the proxy {self.proxy.masked}"
