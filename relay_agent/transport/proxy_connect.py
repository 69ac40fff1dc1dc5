"""Opening a tunnel through an HTTP proxy (RFC 9110 §9.3.6)."""

from __future__ import annotations

import contextlib
import http
import ssl
from dataclasses import dataclass
from typing import Any

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.core.models import Headers, host_and_port
from relay_agent.transport.authentication import Call
from relay_agent.transport.deadline_sockets import closed_on_failure
from relay_agent.transport.errors import ProxyFault, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.fault_mapping import os_fault
from relay_agent.transport.proxy import Proxy
from relay_agent.transport.response_parser import BadFraming, BadHead, Response
from relay_agent.transport.sides import MAX_ROUNDS, Side, certificate_of

REFUSAL_SECONDS = 2.0
"""How long the body of a proxy's refusal is read if nothing says where it ends: the proxy may keep the connection open for ever."""
MAX_PROXY_ANSWER = 256 * 1024
"""Bytes of that body that are kept."""
_DISCONNECTS = frozenset({Code.ECONNRESET, Code.EPIPE})
"""The codes of a connection that the peer closed without an answer."""


class ProxyRefused(ProxyFault):
    """A proxy answered in the target's place; `to` is CONNECT, or the method of a request that it had to forward."""

    def __init__(self, proxy: Proxy, status: int, to: str) -> None:
        super().__init__(Code.EBADRESPONSE, proxy.masked, f"answered {status} to {to}", status=status, forwarded=to != "CONNECT")
        self.status = status


class TunnelRefused(ProxyRefused):
    """A proxy did not answer CONNECT with 2xx; its response is the command's (PROTOCOL §4)."""

    def __init__(self, proxy: Proxy, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(proxy, status, "CONNECT")
        self.headers = headers
        self.body = body


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A proxy's refusal, and what may follow it."""

    fault: TunnelRefused
    again: bool
    """Whether it is a challenge that can be answered."""
    goes_on: bool
    """Whether another request may follow on its connection."""


class Tunnel:
    """The tunnel of one exchange: what its proxy is asked, on one connection or on several, until it opens one."""

    def __init__(self, proxy: Proxy, exchange: Exchange) -> None:
        self._where = host_and_port(exchange.url.host, exchange.url.port)
        self._proxy = proxy
        self._exchange = exchange
        auth = exchange.proxy_auth
        self._side = None if auth is None else Side(auth, Call("CONNECT", self._where, proxy.host, proxy.port), proxy=True)
        self._rounds = 0

    def open(self, sock: Any) -> bool:
        """Ask for the tunnel on a new connection (RFC 9110 §9.3.6); the socket is closed if that fails.

        Returns False if the proxy wants credentials, on another connection.

        Raises:
            TunnelRefused: the proxy did not answer 2xx.
            TransportFault: there was no usable answer.
            TimeoutError: the socket's deadline passed.
        """
        limit = sock.deadline
        if self._side is not None:
            self._side.connected(certificate_of(sock, self._proxy.scheme))
        replaceable = False
        with closed_on_failure(sock):
            while True:
                try:
                    refusal = self._ask(sock)
                except TransportFault as fault:
                    # The proxy gave the connection up with its challenge. A CONNECT may be repeated, as it reaches no target.
                    if replaceable and fault.code in _DISCONNECTS:
                        sock.close()
                        return False
                    raise
                if refusal is None:
                    return True
                sock.deadline = limit
                if not refusal.again or (self._bound and not refusal.goes_on):
                    raise refusal.fault
                if not refusal.goes_on:
                    sock.close()
                    return False
                replaceable = not self._bound

    @property
    def _bound(self) -> bool:
        """Whether the next CONNECT must use the connection on which the challenge came."""
        return self._side is not None and self._side.bound

    def _asks_again(self, response: Response) -> bool:
        """Take a refusal; return whether it is a challenge that can be answered."""
        self._rounds += 1
        if self._side is None or self._rounds >= MAX_ROUNDS:
            return False
        return self._side.asks_again(response.status, tuple(response.fields))

    def _ask(self, sock: Any) -> _Refusal | None:
        """Send one CONNECT; return the refusal, None if there is none."""
        lines = [f"CONNECT {self._where} HTTP/1.1", f"Host: {self._where}"]
        lines += [f"{name}: {value}" for name, value in self._credentials()]
        broken: OSError | None = None
        with contextlib.ExitStack() as after:
            try:
                sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            except ConnectionError as error:
                broken = error  # The proxy may have answered before it closed, or have sent a TLS alert.
            try:
                response = Response(sock, method="CONNECT")
                after.callback(response.close)
                response.begin()
                if 200 <= response.status < 300:
                    return None
                again = self._asks_again(response)
                # A challenge that does not bind its connection can be answered on a new one, before its body has come.
                body = read_refusal(sock, response, whole=response.delimited and (self._bound or not again))
                fault = TunnelRefused(self._proxy, response.status, tuple(response.fields), body)
                if response.length == 0:
                    response.read(0)  # read1 does not see that this is the end.
                return _Refusal(fault, again, response.isclosed() and not (response.broken or response.will_close or response.tainted))
            except TimeoutError:
                raise
            except OSError as error:
                why = error if broken is None or isinstance(error, ssl.SSLError) else broken
                raise os_fault(why, "tunnel", "the proxy").at(self._proxy.masked) from None
            except http.client.HTTPException as error:
                raise TransportFault(Code.EBADRESPONSE, str(error)).at(self._proxy.masked) from None

    def _credentials(self) -> Headers:
        if self._side is not None:
            return self._side.authorization()
        own = self._exchange.proxy_authorization
        return (("Proxy-Authorization", own),) if own else ()


def read_refusal(sock: Any, response: Response, *, whole: bool) -> bytes:
    """Return the body of a proxy's refusal, or what came of it until the socket's deadline; after REFUSAL_SECONDS if not `whole`.

    Raises:
        BadHead: the connection ended before the body did, or the body's framing is invalid.
    """
    if not whole:
        sock.deadline = Deadline(min(REFUSAL_SECONDS, sock.deadline.remaining()))
    response.end_at_reset()
    answered = f"it answered {response.status} to CONNECT"
    body = bytearray()
    try:
        while len(body) < MAX_PROXY_ANSWER and (piece := response.read1(MAX_PROXY_ANSWER - len(body))):
            body += piece
    except TimeoutError:
        return bytes(body)
    except BadFraming:
        raise BadHead(f"{answered}, and the framing of the body is not valid HTTP") from None
    except (http.client.HTTPException, OSError):
        raise BadHead(f"{answered}, and closed before the end of the body") from None
    if response.length and len(body) < MAX_PROXY_ANSWER:
        raise BadHead(f"{answered}, and closed before the end of the body")
    return bytes(body)
