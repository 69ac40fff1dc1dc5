"""What one client of the pages may take: a connection, its time, and the form of what it sends.

This room owns those limits, on top of waitress, which has none for a client that is slow. It must not know what the pages show.
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
"""For each way in, so that the clients of one cannot close the other."""
REQUEST_SECONDS = 10.0
"""From a connection, or the first byte of a later request, to the request's last byte."""
ANSWER_SECONDS = 30.0
"""From there to the last byte of the answer that the client has taken."""
IDLE_SECONDS = 30.0
"""From there to the next request."""
REFUSED_SECONDS = 1.0
"""How long nothing is accepted after the system refused to: a listener that stays readable would spin."""
QUIET_SECONDS = 60.0
"""How often it is said, at most, that further clients wait."""
_SIZES: dict[str, Any] = {
    "threads": 2,
    "max_request_header_size": 16 * 1024,
    "max_request_body_size": 16 * 1024,
    "outbuf_overflow": 16 * 1024 * 1024,  # An answer never waits in a file: a page is looked at when the disk hangs.
    "ident": None,
    "expose_tracebacks": False,
    "clear_untrusted_proxy_headers": True,
    "log_socket_errors": False,  # A client that leaves is no news.
}
# waitress' own patterns take time that grows with the square of a request line that does not fit, or of a run of spaces: 24 s for 16 KB.
_FIRST_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]\r\n")
_UNFIT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|[ \t]{32}|\r\n[ \t]")


class Request(HTTPRequestParser):
    """One request. Its head is checked in linear time first, and nothing is read ahead behind it."""

    def received(self, data: bytes) -> int:
        """Take what belongs to this request; what a client sent behind it is dropped, and the connection ends with the answer."""
        taken = super().received(data)
        if not self.completed or self.empty or taken == len(data):
            return taken
        # One answer at a time bounds a connection's memory, and no task thread waits for a slow reader. RFC 9112 §9.3.2: clients ask again.
        cast("dict[str, str]", self.headers)["CONNECTION"] = "close"
        return len(data)

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head.

        Raises:
            ParsingError: it is not one; answered with 400.
        """
        if not _FIRST_LINE.match(header_plus) or _UNFIT.search(header_plus):
            raise ParsingError("The request's head is malformed")
        try:
            super().parse_header(header_plus)
        except ValueError:  # of a URL's brackets, a Content-Length of thousands of digits
            raise ParsingError("The request's head is malformed") from None


class Connection(HTTPChannel):
    """One client. It is closed when it is late, whatever it does in the meantime."""

    parser_class = Request
    server: Server

    def __init__(self, server: Server, sock: socket.socket, addr: Any, adj: Adjustments, map: Any = None) -> None:
        self._monotonic = server.monotonic
        self._until = self._monotonic() + REQUEST_SECONDS
        self._answering = False
        super().__init__(server, sock, addr, adj, map)

    def received(self, data: bytes) -> bool:
        """Read on. No byte gives more time, but the last of a request."""
        self._settle()
        self._until = min(self._until, self._monotonic() + REQUEST_SECONDS)
        return super().received(data)

    def complete(self) -> None:
        """Note that a request is complete, and will be answered."""
        self._answering = True
        self._until = self._monotonic() + ANSWER_SECONDS

    def close_if_late(self) -> None:
        """Close it if its time is up; not by `will_close`, which waits for a client that takes bytes."""
        self._settle()
        if self._monotonic() >= self._until:
            self.handle_close()

    def handle_expt(self) -> None:
        """Close a connection with urgent data, which nobody reads: `poll` would report it for ever."""
        self.handle_close()

    def _settle(self) -> None:
        if self._answering and not self.requests and not self.total_outbufs_len:
            self._answering = False
            self._until = self._monotonic() + IDLE_SECONDS


class Server(BaseWSGIServer):
    """One way in, with connections of its own."""

    channel_class = Connection
    address: str
    events_log: Logger
    monotonic: Callable[[], float]
    _refused_until = _quiet_until = float("-inf")

    def readable(self) -> bool:
        """Whether a further client is accepted now."""
        full = self.connections >= CONNECTIONS
        if full and self.accepting:
            self._say_that_clients_wait(f"{CONNECTIONS} connections are open, as many as may be")
        return self.accepting and not full and self.monotonic() >= self._refused_until

    def accept(self) -> tuple[socket.socket, Any] | None:
        """Accept a client, unless the system refuses: for want of file descriptors, say."""
        try:
            return super().accept()
        except OSError as error:
            self._say_that_clients_wait(error.strerror or str(error))
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
        """How many are open."""
        return len(self._open)

    def _say_that_clients_wait(self, reason: str) -> None:
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
    """Serve the pages on a socket that listens, in the loop over `sockets`."""
    kind = _Unix if sock.family == socket.AF_UNIX else _Tcp
    about = (sock.family, sock.type, sock.proto, sock.getsockname())
    server = kind(pages, sockets, False, sock, adj=Adjustments(**_SIZES), bind_socket=False, sockinfo=about)
    server.address, server.events_log, server.monotonic = address, log, monotonic
    server.accept_connections()
    return server
