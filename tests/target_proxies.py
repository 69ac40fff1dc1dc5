"""Forward proxies for the tests, on loopback: HTTP (absolute-form and CONNECT, optionally over TLS) and SOCKS5.

They never connect beyond loopback: names resolve only through their `resolve` map.
"""

from __future__ import annotations

import base64
import contextlib
import selectors
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from tests.target_server import PATIENCE_SECONDS, Connection, RawRequest, Server

Address = tuple[str, int]
Auth = tuple[str, str]


@dataclass(frozen=True)
class Refusal:
    """What an HTTP proxy answers in place of doing what it is asked."""

    status: int
    body: bytes = b"refused"
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/plain"), ("X-Proxy", "yes"))


class _Proxy(Server):
    scheme = "http"

    def __init__(
        self, *, auth: Auth | None = None, resolve: Mapping[str, Address] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.auth = auth
        self.resolve = dict(resolve or {})
        self.asked: list[Address] = []
        super().__init__(tls)

    def url(self, auth: Auth | None = None, host: str = "127.0.0.1") -> str:
        """The proxy's URL, with the given user and password percent-encoded."""
        user = f"{quote(auth[0], safe='')}:{quote(auth[1], safe='')}@" if auth else ""
        return f"{self.scheme}://{user}{host}:{self.port}"

    def upstream(self, address: Address) -> socket.socket:
        """Connect to the address of a name or literal; names outside `resolve` and loopback do not exist."""
        self.asked.append(address)
        host, port = self.resolve.get(address[0], address)
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError("the proxy knows no such host")
        return socket.create_connection((host, port), PATIENCE_SECONDS)

    def _tunnel(self, conn: Connection, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            upstream.sendall(conn.take_buffered())
            pump(conn, upstream)


class HttpProxy(_Proxy):
    """An HTTP forward proxy; `seen` holds every request it was sent, `tunnels` counts the CONNECTs it granted."""

    def __init__(
        self,
        *,
        auth: Auth | None = None,
        refuse: Refusal | None = None,
        resolve: Mapping[str, Address] | None = None,
        tls: ssl.SSLContext | None = None,
        grant: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
    ) -> None:
        self.grant = grant
        self.scheme = "https" if tls else "http"
        self.refuse = refuse
        self.seen: list[RawRequest] = []
        self.tunnels = 0
        super().__init__(auth=auth, resolve=resolve, tls=tls)

    def serve(self, conn: Connection) -> None:
        """Refuse, tunnel, or forward one request and close."""
        request = conn.read_request()
        if request is None:
            return
        self.seen.append(request)
        refusal = self._refusal(request)
        if refusal is not None:
            conn.respond(refusal.status, [*refusal.headers, ("Connection", "close")], refusal.body, "Refused")
        elif request.method == "CONNECT":
            self._connect(conn, request)
        else:
            self._forward(conn, request)

    def _refusal(self, request: RawRequest) -> Refusal | None:
        if self.refuse is not None:
            return self.refuse
        if self.auth is None:
            return None
        expected = "Basic " + base64.b64encode(":".join(self.auth).encode()).decode()
        if request.get("Proxy-Authorization") == expected:
            return None
        return Refusal(407, b"who are you?", (("Proxy-Authenticate", 'Basic realm="lab"'), ("Content-Type", "text/plain")))

    def _connect(self, conn: Connection, request: RawRequest) -> None:
        host, _, port = request.target.rpartition(":")
        try:
            upstream = self.upstream((host.strip("[]"), int(port)))
        except OSError:
            conn.respond(502, [("Content-Type", "text/plain"), ("Connection", "close")], b"cannot reach it", "Bad Gateway")
            return
        with upstream:
            self.tunnels += 1
            conn.send(self.grant)
            self._tunnel(conn, upstream)

    def _forward(self, conn: Connection, request: RawRequest) -> None:
        parts = urlsplit(request.target)
        try:
            upstream = self.upstream((parts.hostname or "", parts.port or 80))
        except OSError:
            conn.respond(502, [("Content-Type", "text/plain"), ("Connection", "close")], b"cannot reach it", "Bad Gateway")
            return
        path = request.target.split("://", 1)[1]
        path = path[path.index("/") :] if "/" in path else "/"
        lines = [line for line in request.header_lines if not line.lower().startswith((b"proxy-", b"connection:"))]
        head = [f"{request.method} {path} HTTP/1.1".encode("latin-1"), *lines, b"Connection: close", b"", b""]
        with upstream:
            upstream.sendall(b"\r\n".join(head) + request.raw_body)
            with upstream.makefile("rb") as stream:
                conn.send(stream.readline() + b"Connection: close\r\n")
                while data := stream.read1(65536):
                    conn.send(data)


class Socks5Proxy(_Proxy):
    """A SOCKS5 proxy (RFC 1928, RFC 1929); `asked` holds each host and port as the client named it, `names` only names."""

    scheme = "socks5h"

    def __init__(self, *, auth: Auth | None = None, resolve: Mapping[str, Address] | None = None, refuse: int | None = None) -> None:
        self.names: list[str] = []
        self.refuse = refuse
        super().__init__(auth=auth, resolve=resolve)

    def serve(self, conn: Connection) -> None:
        """Negotiate, connect, tunnel."""
        if not self._greet(conn):
            return
        _, command, _, kind = conn.read_exactly(4)
        address = self._read_address(conn, kind)
        if self.refuse is not None or command != 1:
            conn.send(bytes([5, self.refuse or 7, 0, 1, 0, 0, 0, 0, 0, 0]))
            return
        try:
            upstream = self.upstream(address)
        except OSError:
            conn.send(b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00")
            return
        with upstream:
            conn.send(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            self._tunnel(conn, upstream)

    def _greet(self, conn: Connection) -> bool:
        _, count = conn.read_exactly(2)
        offered = conn.read_exactly(count)
        wanted = 2 if self.auth else 0
        if wanted not in offered:
            conn.send(b"\x05\xff")
            return False
        conn.send(bytes([5, wanted]))
        if self.auth is None:
            return True
        _, length = conn.read_exactly(2)
        user = conn.read_exactly(length).decode()
        password = conn.read_exactly(conn.read_exactly(1)[0]).decode()
        granted = (user, password) == self.auth
        conn.send(b"\x01\x00" if granted else b"\x01\x01")
        return granted

    def _read_address(self, conn: Connection, kind: int) -> Address:
        if kind == 3:
            host = conn.read_exactly(conn.read_exactly(1)[0]).decode("ascii")
            self.names.append(host)
        elif kind == 1:
            host = socket.inet_ntop(socket.AF_INET, conn.read_exactly(4))
        else:
            host = socket.inet_ntop(socket.AF_INET6, conn.read_exactly(16))
        return host, int.from_bytes(conn.read_exactly(2), "big")


def pump(conn: Connection, upstream: socket.socket) -> None:
    """Carry bytes both ways until one side ends; a TLS socket's own buffer is emptied before waiting again."""
    with selectors.DefaultSelector() as selector:
        selector.register(conn.sock, selectors.EVENT_READ, upstream)
        selector.register(upstream, selectors.EVENT_READ, conn.sock)
        while not conn.stopping.is_set():
            for key, _ in selector.select(PATIENCE_SECONDS):
                source = key.fileobj
                assert isinstance(source, socket.socket)
                while data := source.recv(65536):
                    key.data.sendall(data)
                    if not (isinstance(source, ssl.SSLSocket) and source.pending()):
                        break
                if not data:
                    return
