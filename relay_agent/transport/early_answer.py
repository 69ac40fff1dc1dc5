"""What a peer answers while its request is still being sent. This module owns those bytes until the response is parsed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

from relay_agent.core.failures import Code
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import EarlyStore
from relay_agent.transport.response_parser import final_status

MAX_EARLY_BYTES = 256 * 1024
"""Bytes of an early answer that are kept in memory if the exchange has no store for more: what the platform answers is smaller."""


class EarlyAnswer:
    """Bytes that a target sends while the request is still being sent to it, and after them the rest: one stream.

    A final answer of 300 and above ends the sending: a target that refuses or redirects has no use for the rest. One of 2xx does
    not, as it may answer what was sent so far: the rest is sent for as long as the target takes it, and all that it answers meanwhile
    is taken, or neither side would go on.
    """

    def __init__(self, sock: Any, new_store: Callable[[], EarlyStore] | None = None) -> None:
        """`new_store` makes the store (`Exchange.early_store`)."""
        self._sock = sock
        self._new_store = new_store or _Memory
        self._store: EarlyStore | None = None
        self._data = bytearray()
        self._status: int | None = None
        self.received = False
        """Whether any bytes were received."""

    def arrived(self, data: bytes) -> bool:
        """Take received bytes (`deadline_sockets.Watch`)."""
        self.received = True
        if self._status is None:
            self._data += data
            self._status = final_status(self._data)
        elif data:
            self._keep(data)
        return not data or (self._status is not None and not 200 <= self._status < 300)

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        """The stream that http.client reads from. Closing it closes this answer, but not the socket."""
        stream: io.BufferedReader = self._sock.makefile(mode)
        return io.BufferedReader(_PrefixedStream(self, stream.detach())) if self._data else stream

    def pieces(self) -> Iterator[bytes]:
        """Yield what was received early, and free it."""
        yield bytes(self._data)
        if self._store is not None:
            yield from self._store.chunks()
        self.close()

    def close(self) -> None:
        """Free what was received early."""
        if self._store is not None:
            self._store.close()

    def _keep(self, data: bytes) -> None:
        if self._store is None:
            self._store = self._new_store()
        self._store.write(data)


class _Memory:
    """A store for answers that are small."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        if len(self._data) + len(data) > MAX_EARLY_BYTES:
            text = f"answered more than {MAX_EARLY_BYTES} bytes before it had read the whole request"
            raise TransportFault(Code.ERESPONSETOOLARGE, f"the target {text}")
        self._data += data

    def chunks(self) -> Iterator[bytes]:
        yield bytes(self._data)

    def close(self) -> None:
        self._data.clear()


class _PrefixedStream(io.RawIOBase):
    """The bytes that were received early, then the rest of their stream."""

    def __init__(self, early: EarlyAnswer, raw: Any) -> None:
        super().__init__()
        self._early = early
        self._pieces = early.pieces()
        self._data = memoryview(b"")
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        while not self._data:
            piece = next(self._pieces, None)
            if piece is None:
                count: int | None = self._raw.readinto(buffer)
                return count
            self._data = memoryview(piece)
        count = min(len(self._data), len(buffer))
        buffer[:count], self._data = self._data[:count], self._data[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._early.close()
            self._raw.close()
        super().close()
