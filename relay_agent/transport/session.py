"""One HTTP/1.1 exchange with requests, within one wall-clock deadline, changing nothing that it carries.

A `requests.Session` with an adapter of our own: requests' own would rewrite URLs, join header fields, read
`~/.netrc`, and its time-outs are per read. This room owns connections: opening, proxies' tunnels, TLS, keeping
them alive. It must not follow redirects or read bodies, and it knows neither commands nor the platform.
One Transport belongs to one thread; only `abort` may be called from another.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.util.wait import wait_for_read

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code, Phase
from relay_agent.core.models import Content, Headers
from relay_agent.transport.connection_pool import MAX_AGE_SECONDS, ConnectionPool
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import Exchange, nothing
from relay_agent.transport.fault_mapping import explain
from relay_agent.transport.proxy import Proxy
from relay_agent.transport.response_parser import BadHead, Response, final_status

DRAIN_BYTES = 64 * 1024
DRAIN_SECONDS = 0.1
MARGIN_SECONDS = 1.0
"""How long before a target closes an idle connection, by its own words (`Keep-Alive: timeout=`), it is no longer used."""


class _Prepared(requests.PreparedRequest):
    """What requests passes to the adapter; the exchange rides along, so that nothing is parsed twice."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.method = exchange.method
        self.url = str(exchange.url)
        self.headers = CaseInsensitiveDict(exchange.headers)
        self.body = None  # The exchange has it; requests has no use for it.


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that there is none: requests would read the whole body of a redirect before we see it."""


class Transport:
    """Sends exchanges, one at a time, and keeps connections alive between them."""

    def __init__(self, dialer: Dialer, idle: ConnectionPool | None = None) -> None:
        """`idle` is the pool to share with other transports; its owner closes it. Without one it keeps its own."""
        self._own_pool = ConnectionPool() if idle is None else None
        self._adapter = _Adapter(dialer, idle or self._own_pool or ConnectionPool())
        self._session = _Session()
        self._session.trust_env = False
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)

    @contextmanager
    def send(self, exchange: Exchange) -> Iterator[requests.Response]:
        """Send the exchange and yield the response, its body unread; afterwards the connection is kept or closed.

        Raises:
            TransportFault: there is no response.
        """
        try:
            response = self._session.send(_Prepared(exchange), stream=True, allow_redirects=False, proxies=cast("Any", _NO_PROXIES))
        except BaseException:
            self._adapter.drop()  # requests looks at the response before it gives it to us.
            raise
        try:
            yield response
        finally:
            self._adapter.finish(response)

    def drain(self, response: requests.Response) -> None:
        """Read the short body of a response that nobody wants, so that its connection can be kept; a long or slow one is not worth it."""
        self._adapter.hurry(DRAIN_SECONDS)
        with contextlib.suppress(urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
            if len(response.raw.read(DRAIN_BYTES, decode_content=False)) == DRAIN_BYTES:
                response.raw.read(1, decode_content=False)

    def abort(self) -> None:
        """Break off the exchange that is under way, from another thread; it ends with a TransportFault."""
        self._adapter.abort()

    def close(self) -> None:
        """Close every connection that is its own."""
        self._session.close()
        if self._own_pool is not None:
            self._own_pool.close()


_ONE_WRITE = 64 * 1024
MAX_EARLY_BYTES = 256 * 1024
"""Bytes of an early answer that are kept while the request is still being sent."""
_LINE_BREAK = re.compile(r"[\r\n\x00]")
_NO_PROXIES: dict[str, str] = {}
_Key = tuple[tuple[str, str, int], bool, Proxy | None]


class _Stale(Exception):
    """A kept connection turned out to be closed, and the request may be sent again."""


class _Adapter(HTTPAdapter):
    """The adapter that requests' Session calls."""

    def __init__(self, dialer: Dialer, idle: ConnectionPool) -> None:
        super().__init__()
        self._dialer = dialer
        self._idle = idle
        self._key: _Key | None = None
        self._current: Any = None
        self._aborted = False
        self._closing = False
        self._handing_over = threading.Lock()
        """Held while a socket is shut or leaves this adapter's hands: one that is kept may be another worker's at once."""

    def send(self, request: requests.PreparedRequest, *_args: Any, **_kwargs: Any) -> requests.Response:
        """Send over a kept connection or a new one (requests' adapter interface)."""
        exchange = cast("_Prepared", request).exchange
        self._aborted = False
        self._key = (exchange.url.origin, exchange.verify, exchange.proxy)
        self._closing = "close" in _listed(exchange.headers, "connection")  # RFC 9112 §9.6: the command says that it is the last.
        kept = self._take(self._key, exchange)
        if kept is not None:
            try:
                return self._build(request, exchange, self._converse(kept, exchange, reused=True))
            except _Stale:
                self._go_on(exchange)  # The connection was good where it was shut on purpose: the exchange is not made again.
                exchange.before_send = nothing  # It was called, and it is true of the second try as well.
        self._idle.opening(self._key)
        try:
            original = self._converse(self._dial(exchange), exchange, reused=False)
        finally:
            self._idle.opened(self._key)
        return self._build(request, exchange, original)

    def _dial(self, exchange: Exchange) -> Any:
        """Open a connection, each of its sockets in reach of `abort` while it is waited for."""
        permit = exchange.opened

        def opened(sock: Any) -> None:
            permit(sock)
            self._current = sock  # First, since an abort between the two would else find neither the socket nor be seen.
            self._go_on(exchange)

        exchange.opened, exchange.waiting = opened, lambda: self._go_on(exchange)
        try:
            return self._dialer.dial(exchange)
        except BaseException:
            self._current = None
            raise

    def _go_on(self, exchange: Exchange) -> None:
        if self._aborted:
            raise TransportFault(Code.ECONNRESET, f"the exchange with {exchange.peer} was broken off")

    def finish(self, response: requests.Response) -> None:
        """Keep the response's connection where it is whole and clean, else close it."""
        original = _original(response)
        try:
            original.close()
        except BaseException:
            self.drop()
            raise
        seconds = _keep_seconds(original)
        if original.broken or original.will_close or original.tainted or self._aborted or self._closing or seconds <= 0:
            self.drop()
        elif (sock := self._let_go()) is not None and self._key is not None:
            self._idle.keep(self._key, sock, seconds)

    def drop(self) -> None:
        """Close the connection in use, where there is one."""
        sock = self._let_go()
        if sock is not None:
            sock.close()

    def _let_go(self) -> Any:
        with self._handing_over:
            sock, self._current = self._current, None
        return sock

    def hurry(self, seconds: float) -> None:
        """Give the exchange under way this much time and no more."""
        if self._current is not None:
            self._current.deadline = Deadline(seconds)

    def abort(self) -> None:
        """Shut the socket that is in use; the thread that waits on it, or for its name, wakes with an error."""
        with self._handing_over:
            self._aborted = True
            if self._current is not None:
                with contextlib.suppress(OSError):  # It was closed meanwhile, which is what was wanted.
                    self._current.shutdown(socket.SHUT_RDWR)

    def _take(self, key: _Key, exchange: Exchange) -> Any:
        """A kept connection, where the request may go out twice: a target may give one up without a word, and nobody can know.

        What must not go out twice gets a new one. The kept one is closed for it, since many an instrument serves one at a time.
        """
        if not exchange.safe:
            sock = self._idle.take(key)
            if sock is not None:
                sock.close()
            return None
        while (sock := self._idle.take(key)) is not None:
            if self._usable(sock, exchange):
                sock.deadline = exchange.deadline
                return sock
            sock.close()
        return None

    @staticmethod
    def _usable(sock: Any, exchange: Exchange) -> bool:
        try:
            if exchange.proxy is None:
                exchange.check_address(sock.getpeername()[0])
            return not _closed_or_noisy(sock)
        except (OSError, TransportFault):
            return False  # A new connection finds out, and says, what is wrong.

    def _converse(self, sock: Any, exchange: Exchange, *, reused: bool) -> Response:
        self._current = sock
        try:
            self._go_on(exchange)
            exchange.before_send()
            if reused and _closed_or_noisy(sock):
                raise _Stale
            return _send_and_read_head(sock, exchange, reused=reused)
        except BaseException:
            self.drop()
            raise

    def _build(self, request: requests.PreparedRequest, exchange: Exchange, original: Response) -> requests.Response:
        exchange.enter(Phase.BODY)
        return self.build_response(request, cast("Any", _Raw(original, exchange.method)))


class _Raw(urllib3.HTTPResponse):
    """The body for requests to read. Of the fields it is told the length alone, as it was understood.

    It has no `original_response`, out of which requests would take cookies, twice, into jars that nobody here reads: a field of 250 KB
    costs it seconds. Nor has requests a use for the other fields but to read a charset from them.
    """

    def __init__(self, original: Response, method: str) -> None:
        known = original.length is not None and not original.chunked
        super().__init__(
            body=cast("Any", original),
            headers={"Content-Length": str(original.length)} if known else None,
            status=original.status,
            version=original.version,
            reason=original.reason,
            preload_content=False,
            decode_content=False,
            request_method=method,
        )
        self.original = original


def _original(response: requests.Response) -> Response:
    return cast("_Raw", response.raw).original


def _send_and_read_head(sock: Any, exchange: Exchange, *, reused: bool) -> Response:
    before = sock.bytes_sent
    broken: Exception | None = None
    early = _Early(sock)
    whole = False
    exchange.enter(Phase.SENDING)
    try:
        whole = _write(sock, exchange, early)
    except OSError as error:
        if not _hung_up(error):
            raise explain(error, exchange) from None
        broken = error  # The peer may have answered before it closed: 413 and the like.
    exchange.after_send()
    exchange.enter(Phase.FIRST_BYTE)
    response = Response(early, method=exchange.method)
    try:
        response.begin()
        response.tainted = response.tainted or early.came or not whole
        if response.status >= 300 and exchange.body is not None:
            # Who has no use for a body and closes with some of it unread resets the connection (RFC 9112 §9.6): so ends what it said.
            response.end_at_reset()
    except (OSError, http.client.HTTPException) as error:
        if response.head_started:
            exchange.enter(Phase.HEAD)
        response.close()
        if reused and _is_stale(broken or error, response, exchange, nothing_sent=sock.bytes_sent == before):
            raise _Stale from None
        raise explain(error if broken is None or _says_why(error) else broken, exchange) from None
    return response


def _is_stale(error: Exception, response: Response, exchange: Exchange, *, nothing_sent: bool) -> bool:
    """Whether what went wrong on a kept connection is the connection's fault, and the request may go out again."""
    safe = exchange.safe
    if isinstance(error, BadHead):
        return safe and not response.fields  # What came first may be the rest of an earlier answer.
    return (safe or nothing_sent) and not response.head_started and _hung_up(error)


def fields(response: requests.Response) -> Headers:
    """The response's header fields in order, names and repeats as received."""
    return tuple(_original(response).fields)


def announced_length(response: requests.Response) -> int:
    """The bytes of body that the response says it has, 0 where it does not say."""
    return _original(response).length or 0


class _Early:
    """What a target says while the request is still being sent to it, and what it says then: the whole as one stream.

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
        """Take bytes that came (sockets.Watch)."""
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


def _listed(headers: Headers, name: str) -> set[str]:
    """The members of a field that is a list, in lower case."""
    return {part.strip().lower() for key, value in headers if key.lower() == name for part in value.split(",")}


def _keep_seconds(response: Response) -> float:
    """How long the connection of a response may wait for the next request: as the target says, and MAX_AGE_SECONDS at most."""
    seconds = MAX_AGE_SECONDS
    for parameter in _listed(tuple(response.fields), "keep-alive"):
        for part in parameter.split(";"):
            name, _, value = (text.strip(' \t"') for text in part.partition("="))
            if name in ("timeout", "max"):
                # What cannot be read is taken for the least that it can mean.
                number = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
                seconds = min(seconds, number - MARGIN_SECONDS if name == "timeout" else (number - 1) * MAX_AGE_SECONDS)
    return seconds


def _write(sock: Any, exchange: Exchange, early: _Early) -> bool:
    """Write the request exactly as the exchange has it; nothing is added but the proxy's own credentials.

    Whether all of it was written: not where an early answer made an end of it.
    """
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
    body = exchange.body or b""
    if not body:
        sock.sendall(head)
        return True
    if isinstance(body, bytes) and len(body) <= _ONE_WRITE:
        return bool(sock.send_watching(head + body, early))
    sock.sendall(head)
    return all(sock.send_watching(piece, early) for piece in ([body] if isinstance(body, bytes) else _read(body)))


def _read(body: Content) -> Iterator[bytes]:
    try:
        yield from body.chunks()
    except OSError as error:
        # Our disk's fault, not the target's: it must not read as if the connection had broken.
        raise DiskFault(Code.EINTERRUPTED, f"the agent's disk does not give the body: {error.strerror}") from None


def _closed_or_noisy(sock: Any) -> bool:
    """Whether an idle connection was closed by the peer, or holds bytes that nobody asked for."""
    if sock is None:
        return True
    try:
        return bool(sock.pending()) or wait_for_read(sock, timeout=0.0)
    except (OSError, ValueError):
        return True


def _says_why(error: Exception) -> bool:
    """Whether TLS tells more than that the connection broke: an alert, or what it was asked for before."""
    return isinstance(error, ssl.SSLError) and not _hung_up(error)


def _hung_up(error: Exception) -> bool:
    return isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError | ssl.SSLEOFError)
