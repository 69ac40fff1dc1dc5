"""A connection without a network: the peer's bytes are available from the start, and sent bytes are recorded."""

from __future__ import annotations

import io
import socket
from typing import Any

from relay_agent.core.clock import Deadline
from relay_agent.core.urls import parse_url
from relay_agent.transport.deadline_sockets import Watch
from relay_agent.transport.exchange import Exchange


class FakeSocket:
    """Provides `answer` for reading. The bytes of `early` arrive while a body is being sent."""

    def __init__(self, answer: bytes = b"", early: bytes = b"", error: OSError | None = None, *, stale: bool = False) -> None:
        self.answer = answer
        self.stale = stale
        """Whether it can be read before anything is sent."""
        self.early = early
        self.error = error
        """Raised once `answer` has been read, in place of the connection's end."""
        self.sent = b""
        self.shut: list[int] = []
        self.closed = False
        self.deadline: Deadline | None = None
        self.resolved: tuple[str, ...] = ("192.0.2.1",)

    @property
    def bytes_sent(self) -> int:
        return len(self.sent)

    def readable(self) -> bool:
        return self.stale

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def send_watching(self, data: bytes, watch: Watch) -> bool:
        early, self.early = self.early, b""
        if early and watch.arrived(early):
            return False
        self.sent += data
        return True

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self.answer, self.error))

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_RDWR
        self.shut.append(how)

    def close(self) -> None:
        self.closed = True


class _Incoming(io.RawIOBase):
    def __init__(self, data: bytes, error: OSError | None) -> None:
        super().__init__()
        self._data = io.BytesIO(data)
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._data.readinto(buffer)
        if not count and self._error is not None:
            raise self._error
        return count


def exchange(url: str = "http://dev.lab.example/a", **options: Any) -> Exchange:
    """An exchange that requests this URL."""
    parsed = parse_url(url)
    given: dict[str, Any] = {
        "method": "GET",
        "url": parsed,
        "headers": (("Host", parsed.netloc),),
        "body": None,
        "deadline": Deadline(60.0),
        **options,
    }
    return Exchange(**given)
