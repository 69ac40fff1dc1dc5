"""Limits for clients of the pages: the number of connections, their time, and the form of requests.

waitress itself has no limits for a slow client. This module must not know what the pages show.
Threads: everything here runs on `admin`; waitress' task threads only run the application and fill a connection's output.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any, cast
from wsgiref.types import WSGIApplication

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import BaseWSGIServer, TcpWSGIServer, UnixWSGIServer

from relay_agent.telemetry.logger import Logger

CONNECTIONS = 100
"""For each of the two sockets, so that the clients of one cannot block the other."""
REQUEST_SECONDS = 10.0
"""From the connection, or from the first byte of a later request, to the request's last byte."""
ANSWER_SECONDS = 30.0
"""From the request's last byte until the client has read the last byte of the response."""
IDLE_SECONDS = 30.0
"""From the end of a response to the next request."""
REFUSED_SECONDS = 1.0
"""The pause after the system refused to accept a client: the listener stays readable, and the loop would spin."""
QUIET_SECONDS = 60.0
"""The least time between two log lines that say that further clients wait."""
_SIZES: dict[str, Any] = {
    "threads": 2,
    "max_request_header_size": 16 * 1024,
    "max_request_body_size": 16 * 1024,
    "outbuf_overflow": 16 * 1024 * 1024,  # No response is written to a file: the pages must work when the disk hangs.
    "ident": None,
    "expose_tracebacks": False,
    "clear_untrusted_proxy_headers": True,
    "log_socket_errors": False,  # A client that disconnects is not worth a line.
}
# For a malformed request line or a run of spaces, waitress' own patterns take time quadratic in the length: 24 s for 16 KB.
_FIRST_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]\r\n")
_UNFIT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|[ \t]{32}|\r\n[ \t]")


class Request(HTTPRequestParser):
    """One request. Its head is first checked in linear time; nothing behind it is read ahead."""

    def received(self, data: bytes) -> int:
        """Take the bytes of this request; bytes behind it are dropped, and the connection ends after the response."""
        taken = super().received(data)
        if not self.completed or self.empty or taken == len(data):
            return taken
        # One response at a time bounds a connection's memory, and no task thread waits for a slow reader. Clients repeat the rest (RFC 9112
        # §9.3.2).
        cast("dict[str, str]", self.headers)["CONNECTION"] = "close"
        return len(data)

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head.

        Raises:
            ParsingError: it is malformed; answered with 400.
        """
        if not _FIRST_LINE.match(header_plus) or _UNFIT.search(header_plus):
            raise ParsingError("The request's head is malformed")
        try:
            super().parse_header(header_plus)
        except ValueError:  # from brackets in a URL, or a Content-Length of thousands of digits
            raise ParsingError("The request's head is malformed") from None


class Connection(HTTPChannel):
    """One client's connection. It is closed when its time is up, whatever the client does meanwhile."""

    parser_class = Request
    server: Server

    def __init__(self, server: Server, sock: socket.socket, addr: Any, adj: Adjustments, map: Any = None) -> None:
        self._monotonic = server.monotonic
        self._until = self._monotonic() + REQUEST_SECONDS
        self._answering = False
        super().__init__(server, sock, addr, adj, map)

    def received(self, data: bytes) -> bool:
        """Read more bytes. Only the last byte of a request extends the time."""
        self._settle()
        self._until = min(self._until, self._monotonic() + REQUEST_SECONDS)
        return super().received(data)

    def complete(self) -> None:
        """Record that a request is complete, and will be answered."""
        self._answering = True
        self._until = self._monotonic() + ANSWER_SECONDS

    def close_if_late(self) -> None:
        """Close it if its time is up; not with `will_close`, which would wait for a client that still reads."""
        self._settle()
        if self._monotonic() >= self._until:
            self.handle_close()

    def handle_expt(self) -> None:
        """Close a connection with urgent data: nothing reads that data, and `poll` would report it forever."""
        self.handle_close()

    def _settle(self) -> None:
        if self._answering and not self.requests and not self.total_outbufs_len:
            self._answering = False
            self._until = self._monotonic() + IDLE_SECONDS


class Server(BaseWSGIServer):
    """One of the two sockets, with its own connections."""

    channel_class = Connection
    address: str
    events_log: Logger
    monotonic: Callable[[], float]
    _refused_until = _quiet_until = float("-inf")

    @property
    def idle(self) -> bool:
        """Whether it has no connection whose time runs, and does not pause."""
        return not self.connections and self.monotonic() >= self._refused_until

    def readable(self) -> bool:
        """Whether a further client is accepted now."""
        full = self.connections >= CONNECTIONS
        if full and self.accepting:
            self._log_waiting_clients(f"all {CONNECTIONS} connections are in use")
        return self.accepting and not full and self.monotonic() >= self._refused_until

    def accept(self) -> tuple[socket.socket, Any] | None:
        """Accept a client, unless the system refuses, for example without free file descriptors."""
        try:
            return super().accept()
        except OSError as error:
            self._log_waiting_clients(error.strerror or str(error))
            self._refused_until = self.monotonic() + REFUSED_SECONDS
            return None

    def add_task(self, task: Any) -> None:
        """Let a task thread answer a connection's request."""
        task.complete()
        super().add_task(task)

    def close_late(self) -> None:
        """Close every connection whose time is up."""
        for connection in list(self._open.values()):
            connection.close_if_late()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def _log_waiting_clients(self, reason: str) -> None:
        now = self.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            self.events_log.warning("admin-waits", address=self.address, reason=reason)

    @property
    def _open(self) -> dict[int, Connection]:
        return cast("dict[int, Connection]", self.active_channels)


class _Tcp(Server, TcpWSGIServer):
    pass


class _Unix(Server, UnixWSGIServer):
    pass


def serve(
    pages: WSGIApplication, sock: socket.socket, sockets: dict[int, Any], *, address: str, log: Logger, monotonic: Callable[[], float]
) -> Server:
    """Serve the pages on a listening socket, in the loop over `sockets`."""
    kind = _Unix if sock.family == socket.AF_UNIX else _Tcp
    about = (sock.family, sock.type, sock.proto, sock.getsockname())
    server = kind(pages, sockets, False, sock, adj=Adjustments(**_SIZES), bind_socket=False, sockinfo=about)
    server.address, server.events_log, server.monotonic = address, log, monotonic
    server.accept_connections()
    return server
