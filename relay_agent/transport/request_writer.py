"""Writing a request, and watching for an answer that comes before it is written.

This module owns the bytes of a request. It must not read an answer, but for its status.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from relay_agent.core.failures import Code
from relay_agent.core.models import Content
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.response_parser import final_status

MAX_EARLY_BYTES = 256 * 1024
"""Bytes of an early answer that are kept while the request is still being sent."""
_ONE_WRITE = 64 * 1024
_LINE_BREAK = re.compile(r"[\r\n\x00]")


class EarlyAnswer:
    """Bytes that a target sends while the request is still being sent to it, and after them the rest: one stream.

    A final answer of 300 and above ends the sending: a target that refuses or redirects has no use for the rest. One of 2xx does
    not, as it may answer what was sent so far: the rest is sent for as long as the target takes it.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._data = bytearray()
        self._status: int | None = None
        self.came = False
        """Whether anything came."""

    def arrived(self, data: bytes) -> bool:
        """Take bytes that came (deadline_sockets.Watch)."""
        self.came = True
        self._data += data
        if self._status is None:
            self._status = final_status(self._data)
        return not data or (self._status is not None and not 200 <= self._status < 300)

    @property
    def full(self) -> bool:
        """Whether no more is kept: it waits in the system's buffers then."""
        return len(self._data) >= MAX_EARLY_BYTES

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        """The stream that http.client reads from."""
        stream: io.BufferedReader = self._sock.makefile(mode)
        return io.BufferedReader(_Ahead(self._data, stream.detach())) if self._data else stream


class _Ahead(io.RawIOBase):
    """Bytes that came before, and then the stream that they came from."""

    def __init__(self, data: bytearray, raw: Any) -> None:
        super().__init__()
        self._data = memoryview(bytes(data))
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not self._data:
            count: int | None = self._raw.readinto(buffer)
            return count
        count = min(len(self._data), len(buffer))
        buffer[:count], self._data = self._data[:count], self._data[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


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
    own = exchange.proxy.authorization if absolute and exchange.proxy is not None else None
    # Of two such fields a proxy may take either: the command's does not go beside the agent's own.
    lines += [f"{name}: {value}" for name, value in exchange.headers if own is None or name.lower() != "proxy-authorization"]
    if own is not None:
        lines.append(f"Proxy-Authorization: {own}")
    try:
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    except UnicodeEncodeError:
        head = b""
    if not head or any(_LINE_BREAK.search(line) for line in lines):
        # Whoever names a field refuses such a text; this is the last door, and nothing has left.
        raise TransportFault(Code.EBADCOMMAND, "the request's head holds a line break, or a character beyond ISO-8859-1")
    return head


def _read(body: Content) -> Iterator[bytes]:
    try:
        yield from body.chunks()
    except OSError as error:
        # Our disk's fault, not the target's: it must not read as if the connection had broken.
        raise DiskFault(Code.EINTERRUPTED, f"the agent's disk does not give the body: {error.strerror}") from None
