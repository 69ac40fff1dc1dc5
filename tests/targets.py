"""The target that tests call: a raw TCP server whose behaviour is scripted path by path, down to the byte.

Also re-exports what tests import with it (proxies, certificates, gates). It uses no HTTP library: it sends exactly what the test says.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from tests.programs import free_ports
from tests.target_certificates import Fault, ca_pem, client_certificate, server_context
from tests.target_proxies import HttpProxy, Refusal, Socks5Proxy
from tests.target_server import PATIENCE_SECONDS, Connection, Gate, PeerGone, RawRequest, Server

__all__ = [
    "PATIENCE_SECONDS",
    "ByteTarget",
    "Connection",
    "Fault",
    "FullBacklog",
    "Gate",
    "Handler",
    "HttpProxy",
    "PeerGone",
    "RawRequest",
    "Refusal",
    "Socks5Proxy",
    "ca_pem",
    "client_certificate",
    "closed_port",
    "in_turn",
    "play",
    "raw",
    "redirect",
    "reply",
    "seen",
    "server_context",
]

Handler = Callable[[Connection, RawRequest], object]


def reply(status: int = 200, headers: Iterable[tuple[str, str]] = (), body: bytes | str = b"") -> Handler:
    """A handler that sends one well-formed response and keeps the connection."""
    lines = tuple(headers)
    data = body.encode() if isinstance(body, str) else body

    def handle(conn: Connection, request: RawRequest) -> None:
        conn.respond(status, lines, b"" if request.method == "HEAD" else data)

    return handle


def redirect(status: int, location: str, headers: Iterable[tuple[str, str]] = ()) -> Handler:
    """A handler that answers with a Location."""
    return reply(status, [("Location", location), *headers])


def raw(*pieces: bytes, then: str = "close") -> Handler:
    """A handler that sends exactly these bytes and then does `close`, `reset`, `half_close`, `hang` or `keep`."""

    def handle(conn: Connection, _request: RawRequest) -> None:
        conn.send(*pieces)
        if then != "keep":
            getattr(conn, then)()

    return handle


def in_turn(*handlers: Handler) -> Handler:
    """A handler that behaves differently each time; the last behaviour stays."""
    left = list(handlers)
    lock = threading.Lock()

    def handle(conn: Connection, request: RawRequest) -> None:
        with lock:
            handler = left.pop(0) if len(left) > 1 else left[0]
        handler(conn, request)

    return handle


def play(*steps: Callable[[Connection], object]) -> Callable[..., bool]:
    """Take these steps on a connection, one after the other: a handler, or an `on_accept` that ends the connection."""

    def run(conn: Connection, _request: RawRequest | None = None) -> bool:
        for step in steps:
            step(conn)
        return False

    return run


class ByteTarget(Server):
    """A scripted target; with `tls` it speaks HTTPS. `requests` holds what arrived, complete, in order."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[RawRequest] = []
        self.ca_pem = ca_pem()
        self.on_accept: Callable[[Connection], bool] | None = None
        self._handlers: dict[str, Handler] = {}
        self._gates: list[Gate] = []
        self._arrived = threading.Condition()
        super().__init__(tls)

    def on(self, path: str, handler: Handler) -> None:
        """Answer requests for `path` (the request target up to `?`) with `handler`; `*` takes what nothing else takes."""
        self._handlers[path] = handler

    def gate(self) -> Gate:
        """A gate that opens by itself when the target closes."""
        gate = Gate()
        self._gates.append(gate)
        return gate

    def url(self, path: str = "/", *, host: str = "127.0.0.1", scheme: str | None = None, userinfo: str | None = None) -> str:
        """This target's URL for a path, byte for byte."""
        who = f"{userinfo}@" if userinfo is not None else ""
        bracketed = f"[{host}]" if ":" in host else host
        return f"{scheme or ('https' if self._tls else 'http')}://{who}{bracketed}:{self.port}{path}"

    @property
    def last(self) -> RawRequest:
        """The request that arrived last."""
        if not self.requests:
            raise AssertionError("no request arrived")
        return self.requests[-1]

    def wait_requests(self, count: int, timeout: float = PATIENCE_SECONDS) -> list[RawRequest]:
        """Wait until `count` requests have arrived; fail loudly otherwise."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, timeout):
                raise AssertionError(f"{len(self.requests)} of {count} requests arrived within {timeout:g} s")
            return list(self.requests)

    def accepted(self, conn: Connection) -> bool:
        """Let `on_accept` see the bare connection first; False from it ends the connection."""
        return True if self.on_accept is None else self.on_accept(conn)

    def serve(self, conn: Connection) -> None:
        """Answer requests until somebody closes."""
        while not conn.closed and not self._stopping.is_set():
            request = conn.read_request()
            if request is None:
                return
            with self._arrived:
                self.requests.append(request)
                self._arrived.notify_all()
            self._handler(request)(conn, request)
            if (request.get("Connection") or "").lower() == "close":
                return

    def close(self) -> None:
        """Open the gates and stop; no thread survives."""
        for gate in self._gates:
            gate.release()
        super().close()

    def _handler(self, request: RawRequest) -> Handler:
        path = request.target.partition("?")[0]
        return self._handlers.get(path) or self._handlers.get("*") or reply(404, body="no handler")


class FullBacklog:
    """A loopback port that never completes a connection: its accept queue is full and no process accepts."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self._fillers = [socket.socket() for _ in range(8)]
        for filler in self._fillers:
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))

    def url(self, path: str = "/", scheme: str = "http") -> str:
        """A URL whose connect hangs."""
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        """Free the port."""
        for sock in (*self._fillers, self._listener):
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def closed_port() -> int:
    """A port of 127.0.0.1 that refuses connections."""
    (port,) = free_ports(1)
    return port


def seen(target: ByteTarget) -> Counter[str]:
    """How often each request arrived, as "METHOD target"."""
    return Counter(f"{request.method} {request.target}" for request in target.requests)
