"""A target and a proxy that demand NTLM or Negotiate, by pyspnego's server side; users stand in the file of NTLM_USER_FILE."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import spnego
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import SpnegoError

from tests.target_proxies import HttpProxy
from tests.target_server import Connection, RawRequest
from tests.targets import Handler

SCHEMES = {"ntlm": "NTLM", "negotiate": "Negotiate"}


class Demand:
    """Admits the requests of a connection once a handshake on it has succeeded."""

    def __init__(self, scheme: str, *, proxy: bool = False, bindings: GssChannelBindings | None = None) -> None:
        self._scheme = scheme
        self.bindings = bindings
        self._status, self._asks, self._answers = (
            (407, "Proxy-Authenticate", "Proxy-Authorization") if proxy else (401, "WWW-Authenticate", "Authorization")
        )
        self._contexts: dict[int, Any] = {}
        self.admitted: dict[int, str] = {}
        """The users, by the number of their connection."""
        self.more: list[tuple[str, str]] = []
        """Fields of each challenge."""
        self.spoil: Callable[[bytes], bytes] = lambda token: token

    def admits(self, conn: Connection, request: RawRequest) -> bool:
        """Return whether a request may be answered; if not, it has got its challenge."""
        if conn.number in self.admitted:
            return True
        scheme, _, token = (request.get(self._answers) or "").partition(" ")
        if scheme != SCHEMES[self._scheme]:
            self._ask(conn, b"")
            return False
        context = self._contexts.get(conn.number)
        if context is None:
            context = self._contexts[conn.number] = spnego.server(protocol=self._scheme, channel_bindings=self.bindings)
        try:
            answer = context.step(base64.b64decode(token)) or b""
        except SpnegoError:
            del self._contexts[conn.number]
            self._ask(conn, b"")
            return False
        if context.complete:
            self.admitted[conn.number] = context.client_principal
            return True
        self._ask(conn, answer)
        return False

    def before(self, handler: Handler) -> Handler:
        """Return a handler that answers only requests that are admitted."""

        def handle(conn: Connection, request: RawRequest) -> None:
            if self.admits(conn, request):
                handler(conn, request)

        return handle

    def _ask(self, conn: Connection, token: bytes) -> None:
        value = f"{SCHEMES[self._scheme]} {base64.b64encode(self.spoil(token)).decode()}".strip() if token else SCHEMES[self._scheme]
        conn.respond(self._status, [(self._asks, value), ("Content-Type", "text/plain"), *self.more], b"who are you?" * 100)


class DemandingProxy(HttpProxy):
    """An HTTP proxy that forwards, or opens a tunnel, only on connections that have passed a handshake."""

    def __init__(self, demand: Demand, **options: Any) -> None:
        self.demand = demand
        super().__init__(**options)

    def serve(self, conn: Connection) -> None:
        while (request := conn.read_request()) is not None:
            self.seen.append(request)
            if self.demand.admits(conn, request):
                (self._connect if request.method == "CONNECT" else self._forward)(conn, request)
                return
            if conn.closed:
                return
