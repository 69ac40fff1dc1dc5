"""A small HTTP and HTTPS server to send requests to, for the demo and for tests.

This module owns correct answers, and gates that hold a request until they are released. It must not break HTTP: the tests have a
target of their own for that. Threads: `sandbox-target-http`, `sandbox-target-https`, and one `sandbox-target-connection` for each
connection; `stop` joins them all.
"""

from __future__ import annotations

import json
import socket
import ssl
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

from relay_agent.sandbox.hosting import HOST

BINARY = bytes(range(256)) * 256
_BIG = 5_000_000
_LINE = b'{"sample":"S-000000","well":"A01","absorbance":0.4217,"unit":"AU"}\n'
_IDLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as received; `headers` in order, with the case of their names."""

    method: str
    path: str
    headers: list[tuple[str, str]] = field(repr=False)
    body: bytes = field(repr=False)


class Gate:
    """Holds every request to `/gate/<name>` until it is released. `entered` is set when the first one arrives."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def release(self) -> None:
        """Let every request pass, now and later."""
        self._open.set()

    def hold(self) -> None:
        """Wait until the gate is released."""
        self.entered.set()
        self._open.wait()


class DemoTarget:
    """The target: `with DemoTarget() as target: ...`. `seen` keeps the last 10,000 requests.

    Routes: `/json`, `/echo`, `/status/<code>`, `/slow?seconds=`, `/binary`, `/big?bytes=`, `/redirect`, `/cookies`, `/gate/<name>`.
    """

    def __init__(self, http_port: int = 0, https_port: int = 0) -> None:
        self.seen: deque[Seen] = deque(maxlen=10_000)
        self._ports = (http_port, https_port)
        self._gates: dict[str, Gate] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._servers: list[_Server] = []
        self._threads: list[threading.Thread] = []
        self._files = tempfile.TemporaryDirectory(prefix="relay-target-")
        self.ca_file = str(Path(self._files.name) / "ca.pem")
        self.http_url = ""
        self.https_url = ""

    def start(self) -> DemoTarget:
        """Listen on both ports.

        Raises:
            OSError: a port is taken.
        """
        context = self._certificate()
        for scheme, port, tls in (("http", self._ports[0], None), ("https", self._ports[1], context)):
            server = _Server((HOST, port), self, tls)
            self._servers.append(server)
            name = f"sandbox-target-{scheme}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self.http_url = f"http://{HOST}:{self._servers[0].server_port}"
        self.https_url = f"https://localhost:{self._servers[1].server_port}"
        return self

    def stop(self) -> None:
        """Close every connection and join every thread. May be called twice."""
        self._stopping.set()
        with self._lock:
            gates = list(self._gates.values())
        for gate in gates:
            gate.release()
        for server in self._servers:
            server.shutdown()
            server.close_connections()
            server.server_close()
        for thread in self._threads:
            thread.join()
        self._servers, self._threads = [], []
        self._files.cleanup()

    def __enter__(self) -> DemoTarget:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def gate(self, name: str) -> Gate:
        """Return the gate of this name, closed until it is released."""
        with self._lock:
            gate = self._gates.setdefault(name, Gate())
        if self._stopping.is_set():
            gate.release()
        return gate

    def count(self, path: str) -> int:
        """Return how many requests for a path, compared without its query, arrived."""
        return sum(1 for seen in list(self.seen) if seen.path.partition("?")[0] == path)

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until `stop`."""
        self._stopping.wait(seconds)

    def _certificate(self) -> ssl.SSLContext:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", HOST, "::1").configure_cert(context)
        return context


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], target: DemoTarget, tls: ssl.SSLContext | None) -> None:
        self.target = target
        self._tls = tls
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.settimeout(_IDLE_SECONDS)
        # Header and body are two writes, and the second must not wait for an ACK.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            # The handshake happens in the connection's own thread, at its first read.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._guard:
            self._connections.add(connection)
        return connection, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        threading.current_thread().name = "sandbox-target-connection"
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End every connection, idle ones too, so that their threads end."""
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "demo-target"
    sys_version = ""

    def log_message(self, format: str, *args: object) -> None:
        """Do not log."""

    def answer_any(self) -> None:
        """Answer a request with any method."""
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else self._chunks()
        self.server.target.seen.append(Seen(self.command, self.path, list(self.headers.items()), body))
        parts = urlsplit(self.path)
        first, _, rest = parts.path.strip("/").partition("/")
        route = _ROUTES.get(first)
        if route is None:
            self.reply(404, b'{"message":"no such route"}')
            return
        route(self, rest, {name: values[-1] for name, values in parse_qs(parts.query).items()}, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer_any

    def reply(self, status: int, body: bytes, content_type: str = "application/json", headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        bodiless = status in (204, 304) or status < 200
        if not bodiless:
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not bodiless and self.command != "HEAD":
            self.wfile.write(body)

    def _chunks(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return b""
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


Query = dict[str, str]
Route = Callable[[_Handler, str, Query, bytes], None]


def _json(handler: _Handler, _rest: str, _query: Query, _body: bytes) -> None:
    handler.reply(200, b'{"instrument":"plate reader","serial":"PR-1042","status":"idle"}')


def _echo(handler: _Handler, _rest: str, _query: Query, body: bytes) -> None:
    echo = {
        "method": handler.command,
        "path": handler.path,
        "headers": [list(item) for item in handler.headers.items()],
        "body": body.decode("utf-8", "backslashreplace"),
    }
    handler.reply(200, json.dumps(echo).encode())


def _status(handler: _Handler, rest: str, _query: Query, _body: bytes) -> None:
    code = int(rest) if rest.isdigit() and 200 <= int(rest) <= 599 else 400
    handler.reply(code, json.dumps({"status": code}).encode())


def _slow(handler: _Handler, _rest: str, query: Query, _body: bytes) -> None:
    seconds = min(float(query.get("seconds", "1")), 600.0)
    handler.server.target.pause(seconds)
    handler.reply(200, json.dumps({"seconds": seconds}).encode())


def _binary(handler: _Handler, _rest: str, _query: Query, _body: bytes) -> None:
    handler.reply(200, BINARY, "application/octet-stream")


def _big(handler: _Handler, _rest: str, query: Query, _body: bytes) -> None:
    size = min(int(query.get("bytes", _BIG)), 200_000_000)
    handler.reply(200, (_LINE * (size // len(_LINE) + 1))[:size], "text/plain; charset=utf-8")


def _redirect(handler: _Handler, _rest: str, _query: Query, _body: bytes) -> None:
    handler.reply(302, b"", headers=(("Location", "/cookies"), ("Set-Cookie", "session=demo; Path=/"), ("Set-Cookie", "step=1; Path=/")))


def _cookies(handler: _Handler, _rest: str, _query: Query, _body: bytes) -> None:
    handler.reply(200, json.dumps({"cookie": handler.headers.get("cookie", "")}).encode())


def _gate(handler: _Handler, rest: str, _query: Query, _body: bytes) -> None:
    handler.server.target.gate(rest).hold()
    handler.reply(200, json.dumps({"gate": rest}).encode())


_ROUTES: dict[str, Route] = {
    "json": _json,
    "echo": _echo,
    "status": _status,
    "slow": _slow,
    "binary": _binary,
    "big": _big,
    "redirect": _redirect,
    "cookies": _cookies,
    "gate": _gate,
}
