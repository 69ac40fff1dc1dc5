"""One exchange on one connection: take a kept one or dial, send, read the response's head, keep the connection or close it.

This module owns when a connection may be used, and when a request may go out again. It must not follow redirects or read bodies.
"""

from __future__ import annotations

import http.client
import ssl
from typing import Any

from urllib3.util.wait import wait_for_read

from relay_agent.core.failures import Phase
from relay_agent.core.models import Headers
from relay_agent.transport.connection_pool import MAX_AGE_SECONDS, ConnectionPool
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.fault_mapping import explain
from relay_agent.transport.progress import Progress
from relay_agent.transport.request_writer import EarlyAnswer, write_request
from relay_agent.transport.response_parser import BadHead, Response
from relay_agent.transport.streamed_response import StreamedResponse

MARGIN_SECONDS = 1.0
"""How long before a target closes an idle connection, by its own words (`Keep-Alive: timeout=`), it is no longer used."""


class _Stale(Exception):
    """A kept connection turned out to be closed, and the request may be sent again."""


class Conversation:
    """Carries out one exchange. Belongs to the thread that sends; only `progress.abort` may be called from another."""

    def __init__(self, exchange: Exchange, observer: ExchangeObserver, dialer: Dialer, pool: ConnectionPool) -> None:
        self.exchange = exchange
        self.progress = Progress(exchange, observer)
        self._observer = observer
        self._dialer = dialer
        self._pool = pool
        self._key = (exchange.url.origin, exchange.verify, exchange.proxy)
        self._begun = False
        self._response: Response | None = None

    def begin(self) -> StreamedResponse:
        """Send the request and read the head of its response. Whatever comes of it, `end` is to be called.

        Raises:
            TransportFault: there is no response.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._converse(kept, reused=True)
            except _Stale:
                self.progress.check_stop()  # It was no stale connection if it was shut on purpose.
        self._pool.opening(self._key)
        try:
            return self._converse(self._dialer.dial(self.exchange, self.progress), reused=False)
        finally:
            self._pool.opened(self._key)

    def end(self) -> None:
        """Keep the connection if it is whole and clean, else close it."""
        response = self._response
        try:
            if response is not None:
                response.close()
        finally:
            seconds = 0.0 if response is None else self._reusable_seconds(response)
            sock = self.progress.release()
            if sock is not None and seconds > 0 and not self.progress.aborted:
                self._pool.keep(self._key, sock, seconds)
            elif sock is not None:
                sock.close()

    def _take(self) -> Any:
        """A kept connection, where the request may go out twice: a target may give one up without a word, and nobody can know.

        What must not go out twice gets a new one. The kept one is closed for it, since many an instrument serves one at a time.
        """
        if not self.exchange.safe:
            sock = self._pool.take(self._key)
            if sock is not None:
                sock.close()
            return None
        while (sock := self._pool.take(self._key)) is not None:
            if self._usable(sock):
                sock.deadline = self.exchange.deadline
                return sock
            sock.close()
        return None

    def _usable(self, sock: Any) -> bool:
        try:
            if self.exchange.proxy is None:
                self.progress.check_address(sock.getpeername()[0])
            return not _closed_or_noisy(sock)
        except (OSError, TransportFault):
            return False  # A new connection finds out, and says, what is wrong.

    def _converse(self, sock: Any, *, reused: bool) -> StreamedResponse:
        try:
            self.progress.hold(sock)
            if not self._begun:
                self._observer.before_send()
                self._begun = True
            if reused and _closed_or_noisy(sock):
                raise _Stale
            response = self._send_and_read_head(sock, reused=reused)
            self.progress.enter(Phase.BODY)
            return StreamedResponse(response, self.exchange, sock)
        except BaseException:
            self.progress.release()
            sock.close()
            raise

    def _send_and_read_head(self, sock: Any, *, reused: bool) -> Response:
        exchange, progress = self.exchange, self.progress
        before = sock.bytes_sent
        broken: Exception | None = None
        early = EarlyAnswer(sock)
        whole = False
        progress.enter(Phase.SENDING)
        try:
            whole = write_request(sock, exchange, early)
        except OSError as error:
            if not _hung_up(error):
                raise explain(error, exchange, progress.phase) from None
            broken = error  # The peer may have answered before it closed: 413 and the like.
        self._observer.after_send()
        progress.enter(Phase.FIRST_BYTE)
        response = self._response = Response(early, method=exchange.method)
        try:
            response.begin()
        except (OSError, http.client.HTTPException) as error:
            if response.head_started:
                progress.enter(Phase.HEAD)
            response.close()
            if reused and _is_stale(broken or error, response, exchange, nothing_sent=sock.bytes_sent == before):
                raise _Stale from None
            raise explain(error if broken is None or _says_why(error) else broken, exchange, progress.phase) from None
        response.tainted = response.tainted or early.came or not whole
        if response.status >= 300 and exchange.body is not None:
            # Who has no use for a body and closes with some of it unread resets the connection (RFC 9112 §9.6): so ends what it said.
            response.end_at_reset()
        return response

    def _reusable_seconds(self, response: Response) -> float:
        """How long the connection may wait for the next request; 0 if it must not be used again."""
        if response.broken or response.will_close or response.tainted:
            return 0.0
        if "close" in _listed(self.exchange.headers, "connection"):
            return 0.0  # RFC 9112 §9.6: the command says that it is the last.
        return _keep_seconds(response)


def _is_stale(error: Exception, response: Response, exchange: Exchange, *, nothing_sent: bool) -> bool:
    """Whether what went wrong on a kept connection is the connection's fault, and the request may go out again."""
    safe = exchange.safe
    if isinstance(error, BadHead):
        return safe and not response.fields  # What came first may be the rest of an earlier answer.
    return (safe or nothing_sent) and not response.head_started and _hung_up(error)


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


def _listed(headers: Headers, name: str) -> set[str]:
    """The members of a field that is a list, in lower case."""
    return {part.strip().lower() for key, value in headers if key.lower() == name for part in value.split(",")}


def _closed_or_noisy(sock: Any) -> bool:
    """Whether an idle connection was closed by the peer, or holds bytes that nobody asked for."""
    try:
        return bool(sock.pending()) or wait_for_read(sock, timeout=0.0)
    except (OSError, ValueError):
        return True


def _says_why(error: Exception) -> bool:
    """Whether TLS tells more than that the connection broke: an alert, or what it was asked for before."""
    return isinstance(error, ssl.SSLError) and not _hung_up(error)


def _hung_up(error: Exception) -> bool:
    return isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError | ssl.SSLEOFError)
