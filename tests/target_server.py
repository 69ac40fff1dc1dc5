"""A threaded TCP server on loopback that stops cleanly: the base of the byte-level target and the test proxies.

Listening, one thread per connection, exact byte I/O and stopping. Of HTTP it knows only where a message ends.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 10.0
"""No read, write or wait of a test server lasts longer than this."""


class PeerGone(ConnectionError):
    """The other side closed before the message was complete."""


class Gate:
    """A point that a handler reaches and stays at until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = threading.Event()

    def wait_reached(self, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until a handler reaches the gate; fail loudly if none does."""
        if not self._reached.wait(timeout):
            raise AssertionError(f"no request reached the gate within {timeout:g} s")

    @property
    def reached(self) -> bool:
        """Whether a handler has reached the gate."""
        return self._reached.is_set()

    def release(self) -> None:
        """Let every handler pass, now and later."""
        self._released.set()

    def pass_through(self, timeout: float = PATIENCE_SECONDS) -> bool:
        """Stand at the gate until released; False when `timeout` seconds passed first."""
        self._reached.set()
        return self._released.wait(timeout)


@dataclass(frozen=True)
class RawRequest:
    """One HTTP request with the exact bytes of its head; `body` is unchunked, `raw_body` is as it came."""

    head: bytes
    body: bytes = b""
    raw_body: bytes = b""
    connection: int = 0
    server_name: str | None = None
    tls_version: str | None = None
    trailers: tuple[bytes, ...] = ()

    @property
    def line(self) -> bytes:
        """The request line, without its line end."""
        return self.head.split(b"\r\n", 1)[0]

    @property
    def method(self) -> str:
        """The first word of the request line."""
        return self.line.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        """What stands between method and version in the request line, byte for byte."""
        return self.line.split(b" ", 1)[1].rsplit(b" ", 1)[0].decode("latin-1")

    @property
    def version(self) -> str:
        """The last word of the request line."""
        return self.line.rsplit(b" ", 1)[-1].decode("latin-1")

    @property
    def header_lines(self) -> list[bytes]:
        """Every header line in order, exactly as received, without its line end."""
        return [line for line in self.head.split(b"\r\n")[1:] if line]

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names as received and values without the white space around them, as latin-1."""
        pairs = (line.partition(b":") for line in self.header_lines)
        return [(name.decode("latin-1"), value.strip(b" \t").decode("latin-1")) for name, _, value in pairs]

    @property
    def names(self) -> list[str]:
        """The header names in order, lower case."""
        return [name.lower() for name, _ in self.headers]

    def get_all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The first value of a header, None where it is missing."""
        return next(iter(self.get_all(name)), None)


@dataclass(eq=False)
class Connection:
    """One accepted connection, in the hands of one handler thread; only `abort` is called from another."""

    sock: socket.socket
    number: int
    stopping: threading.Event
    server_name: str | None = None
    closed: bool = False
    _buffer: bytearray = field(default_factory=bytearray)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # -- writing ---------------------------------------------------------------------------------

    def send(self, *pieces: bytes) -> None:
        """Send exactly these bytes, each piece in a write of its own."""
        for piece in pieces:
            self.sock.sendall(piece)

    def drip(self, data: bytes, interval: float = 0.02, size: int = 1) -> None:
        """Send `size` bytes every `interval` seconds; end early if the server stops or the peer closes."""
        for start in range(0, len(data), size):
            try:
                self.send(data[start : start + size])
            except OSError:
                return
            if self.stopping.wait(interval):
                return

    def respond(
        self, status: int = 200, headers: Iterable[tuple[str, str]] = (), body: bytes = b"", reason: str = "Reason", version: str = "1.1"
    ) -> None:
        """Send a well-formed response; Content-Length is added unless the headers frame the body themselves."""
        lines = list(headers)
        framed = {name.lower() for name, _ in lines} & {"content-length", "transfer-encoding"}
        if not framed and status >= 200 and status not in (204, 304):
            lines.append(("Content-Length", str(len(body))))
        head = [f"HTTP/{version} {status} {reason}", *(f"{name}: {value}" for name, value in lines), "", ""]
        self.send("\r\n".join(head).encode("latin-1") + body)
        if any(name.lower() == "connection" and value.lower() == "close" for name, value in lines):
            self.close()

    # -- waiting ---------------------------------------------------------------------------------

    def wait(self, gate: Gate, timeout: float = PATIENCE_SECONDS) -> bool:
        """Stand at a gate; False when it was not released in time or the server stops."""
        return gate.pass_through(timeout) and not self.stopping.is_set()

    def hang(self, timeout: float = PATIENCE_SECONDS) -> None:
        """Say nothing until the peer hangs up, the server stops or `timeout` seconds passed."""
        with contextlib.suppress(OSError):
            self.sock.settimeout(timeout)
            while self.sock.recv(65536):
                pass

    def wait_read(self, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until the peer, a socket of this machine, has read all that was sent; fail loudly when it does not."""
        ours, theirs = (_in_proc_net_tcp(address) for address in (self.sock.getsockname(), self.sock.getpeername()))
        end = time.monotonic() + timeout
        while _queue(ours, theirs)[0] or _queue(theirs, ours)[1]:
            assert time.monotonic() < end, "the peer does not read"
            self.stopping.wait(0.01)

    # -- ending ----------------------------------------------------------------------------------

    def half_close(self) -> None:
        """Send FIN and keep reading."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close without a TLS goodbye."""
        with self._lock:
            self.closed = True
            self.sock.close()

    def finish_tls(self) -> None:
        """Say goodbye in TLS (close_notify), then close."""
        if isinstance(self.sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self.sock.settimeout(0.2)
                self.sock.unwrap()
        self.close()

    def abort(self) -> None:
        """Wake whatever the handler waits for on this connection. Any thread."""
        with self._lock, contextlib.suppress(OSError):
            if not self.closed:
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    # -- reading ---------------------------------------------------------------------------------

    def read_request(self) -> RawRequest | None:
        """Read one whole request; None when the peer hung up instead of starting one."""
        head = self.read_head()
        if head is None:
            return None
        request = RawRequest(head)
        raw, body, trailers = self._read_body(request)
        tls = self.sock.version() if isinstance(self.sock, ssl.SSLSocket) else None
        return RawRequest(head, body, raw, self.number, self.server_name, tls, trailers)

    def read_head(self) -> bytes | None:
        """Read up to and with the empty line; None at a clean end of the stream."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                if self._buffer:
                    raise PeerGone("in the middle of a head")
                return None
        return self._take(self._buffer.index(b"\r\n\r\n") + 4)

    def read_exactly(self, count: int) -> bytes:
        """Read `count` bytes."""
        while len(self._buffer) < count:
            if not self._fill():
                raise PeerGone("in the middle of a body")
        return self._take(count)

    def read_line(self) -> bytes:
        """Read up to and with CRLF."""
        while b"\r\n" not in self._buffer:
            if not self._fill():
                raise PeerGone("in the middle of a line")
        return self._take(self._buffer.index(b"\r\n") + 2)

    def take_buffered(self) -> bytes:
        """Return what was read ahead, for a tunnel that continues with it."""
        return self._take(len(self._buffer))

    def _read_body(self, request: RawRequest) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        if "chunked" in (request.get("Transfer-Encoding") or "").lower():
            return self._read_chunked()
        body = self.read_exactly(int(request.get("Content-Length") or 0))
        return body, body, ()

    def _read_chunked(self) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        raw, body = bytearray(), bytearray()
        while True:
            line = self.read_line()
            size = int(line.split(b";")[0], 16)
            data = self.read_exactly(size + 2) if size else b""
            raw += line + data
            body += data[:-2]
            if not size:
                break
        trailers: list[bytes] = []
        while (line := self.read_line()) != b"\r\n":
            trailers.append(line.rstrip(b"\r\n"))
            raw += line
        return bytes(raw + b"\r\n"), bytes(body), tuple(trailers)

    def _fill(self) -> bool:
        data = self.sock.recv(262144)
        self._buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _in_proc_net_tcp(address: tuple[str, int]) -> str:
    """An IPv4 address as the kernel writes it there."""
    return f"{int.from_bytes(socket.inet_aton(address[0]), sys.byteorder):08X}:{address[1]:04X}"


def _queue(local: str, remote: str) -> tuple[int, int]:
    """How many bytes a socket of this machine has not sent, and has not delivered to its reader; 0 if it is closed."""
    for line in Path("/proc/net/tcp").read_text().splitlines():
        _, here, there, _, queues, *_ = line.split()
        if (here, there) == (local, remote):
            sending, receiving = queues.split(":")
            return int(sending, 16), int(receiving, 16)
    return 0, 0


class Server:
    """Listens on 127.0.0.1 and, where the machine has it, on ::1, with one port; `serve` is one connection's life."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self._tls = tls
        self._stopping = threading.Event()
        self._live: set[Connection] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wake_out, self._wake_in = socket.socketpair()
        self._listeners = _listen()
        self.port: int = self._listeners[0].getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name=f"{type(self).__name__}-accept")
        self._acceptor.start()

    def serve(self, conn: Connection) -> None:
        """Live through one connection, after the TLS handshake where there is one."""
        raise NotImplementedError

    def accepted(self, conn: Connection) -> bool:
        """See a connection before anything is read, TLS included; False ends it."""
        return True

    @property
    def open_connections(self) -> int:
        """How many connections are open right now."""
        with self._lock:
            return len(self._live)

    def wait_idle(self, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until no connection is open; fail loudly otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._live, timeout):
                raise AssertionError(f"{len(self._live)} connections are still open after {timeout:g} s")

    def close(self) -> None:
        """Stop listening, end every connection and join every thread."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        with contextlib.suppress(OSError):  # the acceptor noticed the stop and has closed it
            self._wake_in.send(b".")
        self._acceptor.join(PATIENCE_SECONDS)
        with self._lock:
            live, threads = list(self._live), list(self._threads)
        for conn in live:
            conn.abort()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        survivors = [thread.name for thread in (*threads, self._acceptor) if thread.is_alive()]
        if survivors:
            raise AssertionError(f"threads survive: {survivors}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            for listener in (*self._listeners, self._wake_out):
                selector.register(listener, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select(PATIENCE_SECONDS):
                    if isinstance(key.fileobj, socket.socket) and key.fileobj is not self._wake_out:
                        self._start(key.fileobj)
        for sock in (*self._listeners, self._wake_out, self._wake_in):
            sock.close()

    def _start(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        sock.settimeout(PATIENCE_SECONDS)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self.connections += 1
            conn = Connection(sock, self.connections, self._stopping)
            thread = threading.Thread(target=self._live_through, args=(conn,), name=f"{type(self).__name__}-{conn.number}")
            self._live.add(conn)
            self._threads.add(thread)
        thread.start()

    def _live_through(self, conn: Connection) -> None:
        try:
            if self.accepted(conn) and not conn.closed and self._shake_hands(conn):
                self.serve(conn)
        except (OSError, ValueError):
            pass  # the peer has gone, or the server is stopping
        finally:
            conn.close()
            with self._lock:
                self._live.discard(conn)
                self._threads.discard(threading.current_thread())
                self._changed.notify_all()

    def _shake_hands(self, conn: Connection) -> bool:
        if self._tls is None:
            return True
        with conn._lock:
            wrapped = self._tls.wrap_socket(conn.sock, server_side=True, do_handshake_on_connect=False)
            conn.sock = wrapped
        _NAMES.conn = conn
        wrapped.do_handshake()
        return not self._stopping.is_set()


_NAMES = threading.local()


def remember_server_name(_socket: object, name: str | None, _context: object) -> None:
    """Note the SNI name on the connection whose handshake runs on this thread (an SSLContext.sni_callback)."""
    _NAMES.conn.server_name = name


def _listen() -> list[socket.socket]:
    for _ in range(20):
        first = socket.create_server(("127.0.0.1", 0), backlog=128)
        try:
            return [first, socket.create_server(("::1", first.getsockname()[1]), family=socket.AF_INET6, backlog=128)]
        except OSError as error:
            if error.errno != 98:  # EADDRINUSE: another process has that port on ::1
                return [first]
            first.close()
    raise AssertionError("no port is free on both loopback addresses")
