"""A syslog receiver on loopback: UDP, TCP or TLS, with octet counting. It takes only what RFC 5424 allows.

Reads one connection after the other. What a message must look like is written down here once more, independent of the agent's code.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any, Self

from tests.target_certificates import server_context

PATIENCE_SECONDS = 20.0
# The ABNF of RFC 5424 §6, for messages without a byte order mark.
MESSAGE = re.compile(
    r"<(?P<priority>[1-9]?[0-9]|1[0-8][0-9]|19[01])>1"
    r" (?P<timestamp>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2}))"
    r" (?P<hostname>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<message_id>[!-~]{1,32})"
    r' (?P<data>-|(\[[!#-<>-\\^-~]{1,32}( [!#-<>-\\^-~]{1,32}="([^"\\\]]|\\["\\\]])*")*\])+)'
    r"( (?P<text>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Message:
    """One message."""

    facility: int
    severity: int
    timestamp: str
    hostname: str
    app: str
    process: str
    event: str
    data: str
    line: str


def parse(data: bytes) -> Message:
    """Read a message; fail if RFC 5424 does not allow it."""
    found = MESSAGE.fullmatch(data.decode("utf-8"))
    assert found is not None, data
    priority = int(found["priority"])
    fields = [found[name] for name in ("timestamp", "hostname", "app", "process", "message_id", "data", "text")]
    return Message(priority // 8, priority % 8, *fields)


class SyslogReceiver:
    """A receiver. Use it with `with`. `deaf` accepts connections and reads nothing; `curt` closes each as soon as it has read something."""

    def __init__(
        self, transport: str, port: int = 0, *, context: ssl.SSLContext | None = None, deaf: bool = False, curt: bool = False
    ) -> None:
        self.transport = transport
        self.messages: list[Message] = []
        self.connections = 0
        self._context = context or (server_context() if transport == "tls" else None)
        if self._context is not None:
            self._context.sni_callback = None  # It notes the name on connections of the targets' server.
        self._deaf = deaf
        self._curt = curt
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._open: list[socket.socket] = []
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if deaf:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.bind(("127.0.0.1", port))
        self._sock.settimeout(0.1)
        self.port = self._sock.getsockname()[1]
        self.url = f"{transport}://localhost:{self.port}"
        self._thread = threading.Thread(target=self._datagrams if transport == "udp" else self._connections, name="syslog-receiver")

    def __enter__(self) -> Self:
        if self.transport != "udp":
            self._sock.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()
        self._sock.close()
        for sock in self._open:
            sock.close()

    def wait(self, event: str, count: int = 1) -> list[Message]:
        """Wait for so many messages of an event; fail loudly if they do not come."""

        def found() -> list[Message]:
            return [message for message in self.messages if message.event == event]

        with self._changed:
            if not self._changed.wait_for(lambda: len(found()) >= count, PATIENCE_SECONDS):
                raise AssertionError(f"no {count} messages {event}: {[message.event for message in self.messages]}")
            return found()

    @property
    def lines(self) -> list[str]:
        """The log lines so far."""
        with self._changed:
            return [message.line for message in self.messages]

    def _take(self, data: bytes) -> None:
        with self._changed:
            self.messages.append(parse(data))
            self._changed.notify_all()

    def _datagrams(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                self._take(self._sock.recv(65536))

    def _connections(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                sock, _ = self._sock.accept()
                self.connections += 1
                self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        if self._deaf:
            self._open.append(sock)
            return
        sock.settimeout(0.1)
        with contextlib.closing(sock), contextlib.suppress(OSError):
            if self._context is not None:
                sock.settimeout(5.0)
                sock = self._context.wrap_socket(sock, server_side=True)
                sock.settimeout(0.1)
            self._read(sock)
            sock.close()

    def _read(self, sock: socket.socket) -> None:
        waiting = b""
        while not self._over.is_set():
            try:
                data = sock.recv(65536)
            except TimeoutError:
                continue
            if not data:
                return
            waiting += data
            while (found := re.match(rb"([1-9][0-9]*) ", waiting)) and len(waiting) >= found.end() + int(found[1]):
                end = found.end() + int(found[1])
                self._take(waiting[found.end() : end])
                waiting = waiting[end:]
            assert not waiting or re.match(rb"[1-9][0-9]*( |$)", waiting), waiting
            if self._curt:
                return
