"""Opening a tunnel through an HTTP proxy (RFC 9110 §9.3.6)."""

from __future__ import annotations

import contextlib
import http
import ssl
from typing import Any

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.core.models import Headers
from relay_agent.transport.deadline_sockets import closed_on_failure
from relay_agent.transport.errors import ProxyFault, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.fault_mapping import os_fault
from relay_agent.transport.proxy import Proxy
from relay_agent.transport.response_parser import BadFraming, BadHead, Response

REFUSAL_SECONDS = 2.0
"""How long the body of a proxy's refusal is read."""
MAX_PROXY_ANSWER = 256 * 1024
"""Bytes of that body that are kept."""


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


def open_tunnel(sock: Any, proxy: Proxy, exchange: Exchange) -> None:
    """Ask an HTTP proxy for a tunnel (RFC 9110 §9.3.6); the socket is closed if that fails.

    Raises:
        TunnelRefused: the proxy did not answer 2xx.
        TransportFault: there was no usable answer.
        TimeoutError: the socket's deadline passed.
    """
    host = exchange.url.host if ":" not in exchange.url.host else f"[{exchange.url.host}]"
    where = f"{host}:{exchange.url.port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    broken: OSError | None = None
    with closed_on_failure(sock), contextlib.ExitStack() as after:
        try:
            sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        except ConnectionError as error:
            broken = error  # The proxy may have answered before it closed, or have sent a TLS alert.
        try:
            response = Response(sock, method="CONNECT")
            after.callback(response.close)
            response.begin()
            if not 200 <= response.status < 300:
                raise TunnelRefused(proxy, response.status, tuple(response.fields), read_refusal(sock, response))
        except TimeoutError:
            raise
        except OSError as error:
            why = error if broken is None or isinstance(error, ssl.SSLError) else broken
            raise os_fault(why, "tunnel", "the proxy").at(proxy.masked) from None
        except http.client.HTTPException as error:
            raise TransportFault(Code.EBADRESPONSE, str(error)).at(proxy.masked) from None


def read_refusal(sock: Any, response: Response) -> bytes:
    """Return the body of a proxy's refusal. It ends at REFUSAL_SECONDS if the proxy gives no length and does not close.

    Raises:
        BadHead: the connection ended before the body did, or the body's framing is invalid.
    """
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
        raise BadHead(f"{answered}, and the body is not framed as HTTP says") from None
    except (http.client.HTTPException, OSError):
        raise BadHead(f"{answered}, and closed before the end of the body") from None
    if response.length and len(body) < MAX_PROXY_ANSWER:
        raise BadHead(f"{answered}, and closed before the end of the body")
    return bytes(body)
