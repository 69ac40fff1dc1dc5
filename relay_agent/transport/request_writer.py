"""Writes a request. It stops when an early answer says so (`early_answer`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from relay_agent.core.failures import Code
from relay_agent.core.models import Content
from relay_agent.transport.early_answer import EarlyAnswer
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import Exchange

_ONE_WRITE = 64 * 1024
_LINE_BREAK = re.compile(r"[\r\n\x00]")


def write_request(sock: Any, exchange: Exchange, early: EarlyAnswer) -> bool:
    """Write the request exactly as the exchange has it; nothing is added but the proxy's own credentials.

    Returns whether all of it was written: an early answer may have ended it.

    Raises:
        TransportFault: it cannot be written, and nothing of it was.
        DiskFault: its body cannot be read.
        OSError: as the system says.
    """
    head = _head(exchange)
    body = exchange.body or b""
    if not body:
        sock.sendall(head)
        return True
    if isinstance(body, bytes) and len(body) <= _ONE_WRITE:
        return bool(sock.send_watching(head + body, early))
    sock.sendall(head)
    return all(sock.send_watching(piece, early) for piece in ([body] if isinstance(body, bytes) else _read(body)))


def _head(exchange: Exchange) -> bytes:
    absolute = exchange.forwarded  # Then the request names the whole URL.
    lines = [f"{exchange.method} {exchange.url if absolute else exchange.url.target} HTTP/1.1"]
    own = exchange.proxy_authorization if absolute else None
    # Of two such fields a proxy may use either, so the command's is not sent with the agent's own.
    lines += [f"{name}: {value}" for name, value in exchange.headers if own is None or name.lower() != "proxy-authorization"]
    if own is not None:
        lines.append(f"Proxy-Authorization: {own}")
    try:
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    except UnicodeEncodeError:
        head = b""
    if not head or any(_LINE_BREAK.search(line) for line in lines):
        # Whoever names a field refuses such a text; this is the last check; nothing has been sent yet.
        raise TransportFault(Code.EBADCOMMAND, "the request's head holds a line break, or a character beyond ISO-8859-1")
    return head


def _read(body: Content) -> Iterator[bytes]:
    try:
        yield from body.chunks()
    except OSError as error:
        # Our disk's fault, not the target's: it must not read as if the connection had broken.
        raise DiskFault(Code.EINTERRUPTED, f"the body cannot be read from the agent's disk: {error.strerror}") from None
