"""Who may ask for credentials during an exchange, the target (401) or an HTTP proxy (407), and what each is answered.

This module owns which header fields carry a handshake. It must not send them: `conversation` does, and `proxy_connect` before a tunnel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relay_agent.core.models import Headers, members
from relay_agent.transport.authentication import Call, Credentials
from relay_agent.transport.challenges import parse_challenges
from relay_agent.transport.exchange import Exchange

MAX_ROUNDS = 8
"""Requests of one exchange, whatever is asked for: a proxy's handshake, a target's, and an old nonce for each."""
MAX_CHALLENGE_BYTES = 256 * 1024
"""Bytes of a challenge's body that are read so that its connection can carry the next request."""
CHALLENGE_SECONDS = 10.0
"""How long they are read if the next request must use that connection."""
REPLACEABLE_SECONDS = 0.5
"""How long they are read if a new connection will do."""

_NOT_IN_OPENING = frozenset({"connection", "expect"})


class Side:
    """One who may ask for authentication during an exchange: the target or a proxy."""

    def __init__(self, credentials: Credentials, call: Call, *, proxy: bool = False) -> None:
        self.credentials = credentials
        self.proxy = proxy
        self._status = 407 if proxy else 401
        self._asks = "proxy-authenticate" if proxy else "www-authenticate"
        self._answers = "Proxy-Authorization" if proxy else "Authorization"
        self._handshake = credentials.handshake(call)

    def connected(self, certificate: bytes | None) -> None:
        """Restart the handshake on a new connection; the earlier exchange is discarded."""
        self._handshake.connected(certificate)

    def asks_again(self, status: int, fields: Headers) -> bool:
        """Return whether a response is a challenge of this side that the handshake can answer."""
        if status != self._status:
            return False
        return self._handshake.challenged(parse_challenges(value for name, value in fields if name.lower() == self._asks))

    @property
    def bound(self) -> bool:
        """Whether the next request must use the connection on which the challenge came."""
        return self._handshake.bound

    @property
    def opening(self) -> bool:
        """Whether the request that `applied` returned last only opens the handshake."""
        return self._handshake.opening

    def authorization(self) -> Headers:
        """Return the field that goes with the next request, none if no credentials do."""
        value = self._handshake.authorization()
        return () if value is None else ((self._answers, value),)

    def applied(self, headers: Headers) -> Headers:
        """Return a request's header fields with this side's credentials, in place of the request's own."""
        name = self._answers.lower()
        return (*(pair for pair in headers if pair[0].lower() != name), *self.authorization())


class Sides:
    """The sides of one exchange that have credentials, except the proxy of a tunnel, which asks before."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._sides: list[Side] = []
        method, url, proxy = exchange.method, exchange.url, exchange.proxy
        if proxy is not None and exchange.forwarded and exchange.proxy_auth is not None and not exchange.shows_proxy_secrets:
            self._sides.append(Side(exchange.proxy_auth, Call(method, str(url), proxy.host, proxy.port), proxy=True))
        if exchange.auth is not None:
            self._sides.append(Side(exchange.auth, Call(method, url.target, url.host, url.port)))

    def connected(self, sock: Any) -> None:
        """Restart the handshake on a new connection; the earlier exchange is discarded."""
        exchange = self._exchange
        for side in self._sides:
            scheme = exchange.proxy.scheme if side.proxy and exchange.proxy is not None else exchange.url.scheme
            side.connected(certificate_of(sock, scheme))

    def asking(self, status: int, fields: Headers) -> Side | None:
        """Return the side whose challenge a response is, if that can be answered."""
        # RFC 4559 §6: a proxy that does not say so may send the requests of others over the same connection to the target.
        pinned = not self._exchange.forwarded or "session-based-authentication" in members(fields, "proxy-support")
        able = (side for side in self._sides if side.proxy or pinned or not side.credentials.per_connection)
        return next((side for side in able if side.asks_again(status, fields)), None)

    @property
    def headers(self) -> Headers:
        """The request's header fields without credentials."""
        return self._exchange.headers

    def renew(self, headers: Headers) -> None:
        """Send these header fields from the next request on, in place of the exchange's; credentials are added to them."""
        self._exchange = replace(self._exchange, headers=headers)

    def next_request(self) -> Exchange:
        """Return the exchange as it is to be sent next: with credentials, without its body if it only opens a handshake."""
        exchange = self._exchange
        for side in self._sides:
            exchange = replace(exchange, headers=side.applied(exchange.headers))
        if any(side.opening for side in self._sides):
            # A peer that refuses may stop reading a body, which would break the connection that the handshake is bound to.
            exchange = replace(exchange, headers=_without_body(exchange.headers), body=None, repeatable=True)
        return exchange


def certificate_of(sock: Any, scheme: str) -> bytes | None:
    """Return the certificate that the peer of a connection has shown (DER), None without TLS."""
    return sock.getpeercert(True) or None if scheme == "https" else None


def _without_body(headers: Headers) -> Headers:
    """Return the header fields of a request that opens a handshake: no body, and its connection stays open."""
    return tuple(
        (name, "0" if name.lower() == "content-length" else value) for name, value in headers if name.lower() not in _NOT_IN_OPENING
    )
