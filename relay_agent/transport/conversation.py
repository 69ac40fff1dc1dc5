"""One exchange on one connection: take a kept one or dial, send, read the response's head, keep the connection or close it.

This module owns when a connection may be used, and when a request may go out again: on a new connection, or with credentials. It must
not follow redirects or read bodies, but for those of challenges.
"""

from __future__ import annotations

import http.client
import ssl
from typing import Any

from relay_agent.core.failures import Code, Phase
from relay_agent.core.models import members, size_of
from relay_agent.transport.connection_pool import MAX_AGE_SECONDS, ConnectionPool
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.early_answer import EarlyAnswer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.fault_mapping import explain
from relay_agent.transport.progress import Progress
from relay_agent.transport.request_writer import write_request
from relay_agent.transport.response_parser import BadHead, Response
from relay_agent.transport.sides import CHALLENGE_SECONDS, MAX_CHALLENGE_BYTES, MAX_ROUNDS, REPLACEABLE_SECONDS, Side, Sides
from relay_agent.transport.streamed_response import StreamedResponse

MARGIN_SECONDS = 1.0
"""How long before a target closes an idle connection, by its own words (`Keep-Alive: timeout=`), it is no longer used."""

PAUSE_SECONDS = 0.005
"""For how many seconds after a look a kept connection counts as open."""


class _Stale(Exception):
    """A kept connection turned out to be closed, and the request may be sent again. `sent` says whether it had been sent."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__()
        self.sent = sent


class Conversation:
    """Carries out one exchange. Belongs to the thread that sends; only `progress.abort` may be called from another."""

    def __init__(self, exchange: Exchange, observer: ExchangeObserver, dialer: Dialer, pool: ConnectionPool) -> None:
        self.exchange = exchange
        self.progress = Progress(exchange, observer)
        self._observer = observer
        self._dialer = dialer
        self._pool = pool
        self._key = exchange.connection_key
        self._sides = Sides(exchange)
        self._sent = exchange
        """The exchange as it was sent last: with credentials, and without its body if it only opened a handshake."""
        self._begun = False
        self._answering = False
        self._response: Response | None = None

    def begin(self) -> StreamedResponse:
        """Send the request and read the head of its response. The caller must call `end` afterwards, even after an error.

        Raises:
            TransportFault: there is no response.
        """
        response = self._first()
        for _ in range(MAX_ROUNDS - 1):
            side = self._asks_again(response)
            if side is None:
                break
            response = self._again(response, side)
        return response

    def _first(self) -> StreamedResponse:
        while (kept := self._take()) is not None:
            try:
                return self._converse(kept, reused=True, known=False)
            except _Stale as stale:
                self.progress.check_stop()  # It was no stale connection if it was shut on purpose.
                if stale.sent:
                    break
        return self._on_new_connection()

    def _on_new_connection(self) -> StreamedResponse:
        with self._pool.opening(self._key):
            return self._converse(self._dialer.dial(self.exchange, self.progress), reused=False, known=False)

    def end(self) -> None:
        """Keep the connection if it is whole and clean, else close it."""
        response = self._response
        try:
            if response is not None:
                response.close()
        finally:
            self._answer_ended()
            seconds = 0.0 if response is None else self._reusable_seconds(response)
            sock = self.progress.release()
            if sock is not None and seconds > 0 and not self.progress.aborted:
                self._pool.keep(self._key, sock, seconds)
            elif sock is not None:
                sock.close()

    def _take(self) -> Any:
        """Return a kept connection if the request may be sent twice, because the target may have closed it unnoticed; otherwise None.

        Any other request gets a new connection. The kept one is closed first, because some instruments serve only one at a time.
        """
        if not self.exchange.may_repeat:
            sock = self._pool.take(self._key)
            if sock is not None:
                sock.close()
            return None
        while (sock := self._pool.take(self._key)) is not None:
            if self._allowed(sock):
                sock.deadline = self.exchange.deadline
                return sock
            sock.close()
        return None

    def _allowed(self, sock: Any) -> bool:
        try:
            if self.exchange.proxy is None:
                self.progress.check_addresses(sock.resolved)
            return True
        except TransportFault:
            return False  # A new connection finds out, and says, what is wrong.

    # --- authentication ---

    def _asks_again(self, response: StreamedResponse) -> Side | None:
        """Return the side whose challenge a response is, if it can be answered.

        Raises:
            TransportFault: it answers a request that was sent without its body.
        """
        status, fields = response.status_code, response.fields
        if self._sent.body is None and size_of(self.exchange.body) and status < 400:
            text = f"answered {status} to the first, empty message of the authentication handshake, so it cannot have received the body"
            raise TransportFault(Code.EBADRESPONSE, f"the target {text}")
        side = self._sides.asking(status, fields)
        return side if side is not None and (not side.bound or self._goes_on(response.raw)) else None

    def _again(self, challenge: StreamedResponse, side: Side) -> StreamedResponse:
        """Send the request once more: on the connection of the challenge if it must or may be there, otherwise on a new one.

        The peer may have given up the connection with its challenge, unnoticed. So a request that may not be repeated uses it only if
        the handshake is bound to it.
        """
        if not side.proxy:
            self._sides.renew(self._observer.challenged(challenge.fields, self._sides.headers))
        sock = self._used_up(challenge, CHALLENGE_SECONDS if side.bound else REPLACEABLE_SECONDS)
        self._answer_ended()  # Before the connection ends: from then on the target may answer another.
        if sock is not None and not (side.bound or self.exchange.may_repeat):
            sock.close()  # First: some instruments serve only one connection at a time.
            sock = None
        if sock is not None:
            try:
                return self._converse(sock, reused=True, known=True)
            except _Stale:
                self.progress.check_stop()
        try:
            return self._on_new_connection()
        except TransportFault as fault:
            raise fault.following("a challenge") from None

    def _used_up(self, challenge: StreamedResponse, seconds: float) -> Any:
        """Read the body of a challenge for so long, and return its connection, or close that and return None.

        Raises:
            TransportFault: the deadline passed meanwhile. The target has received a request, so a connection must not be blamed for it.
        """
        raw = challenge.raw
        if self._goes_on(raw):
            challenge.drain(MAX_CHALLENGE_BYTES, seconds)
        challenge.check_deadline()
        raw.close()
        sock = self.progress.release()
        if sock is None or not self._goes_on(raw):
            if sock is not None:
                sock.close()
            return None
        sock.deadline = self.exchange.deadline
        return sock

    # --- one request ---

    def _converse(self, sock: Any, *, reused: bool, known: bool) -> StreamedResponse:
        """Send the request and read the head of its response; `known` says whether this exchange has used the connection before."""
        early = EarlyAnswer(sock, self.exchange.early_store)
        reused_at = self._pool.monotonic() if reused else None
        try:
            self.progress.hold(sock)
            # First: only a request that has a connection counts as started.
            if reused and _closed_or_readable(sock):
                raise _Stale(sent=False)
            if not known:
                self._sides.connected(sock)
            self._sent = self._sides.next_request()
            if not self._begun:
                self._observer.before_send()
                self._begun = True
            # Look again if recording the start took long: it may wait for the disk or other threads.
            if reused_at is not None and self._pool.monotonic() - reused_at > PAUSE_SECONDS and _closed_or_readable(sock):
                raise _Stale(sent=False)
            response = self._send_and_read_head(sock, early, reused=reused)
            if self._goes_on(response):
                self._pool.answering(self._key, reused_at=reused_at)
                self._answering = True
            self.progress.enter(Phase.BODY)
            return StreamedResponse(response, self.exchange, sock)
        except BaseException:
            self.progress.release()
            sock.close()
            early.close()
            raise

    def _send_and_read_head(self, sock: Any, early: EarlyAnswer, *, reused: bool) -> Response:
        exchange, progress = self._sent, self.progress
        before = sock.bytes_sent
        broken: Exception | None = None
        whole = False
        progress.enter(Phase.SENDING)
        try:
            whole = write_request(sock, exchange, early)
        except OSError as error:
            if not _is_disconnect(error):
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
                raise _Stale(sent=True) from None
            raise explain(error if broken is None or _has_tls_reason(error) else broken, exchange, progress.phase) from None
        response.tainted = response.tainted or early.received or not whole
        if response.status >= 300 and exchange.body is not None:
            # A server that closes with part of the body unread resets the connection (RFC 9112 §9.6): the reset ends its response.
            response.end_at_reset()
        return response

    def _answer_ended(self) -> None:
        """Stop counting the answer on this connection, if it was counted."""
        if self._answering:
            self._answering = False
            self._pool.answered(self._key)

    def _reusable_seconds(self, response: Response) -> float:
        """How long the connection may wait for the next request; 0 if it must not be used again."""
        return _keep_seconds(response) if self._goes_on(response) else 0.0

    def _goes_on(self, response: Response) -> bool:
        """Whether another request may follow on the connection of a response."""
        if response.broken or response.will_close or response.tainted:
            return False
        return "close" not in members(self._sent.headers, "connection")  # RFC 9112 §9.6: the command says that it is the last.


def _is_stale(error: Exception, response: Response, exchange: Exchange, *, nothing_sent: bool) -> bool:
    """Whether the error comes from a stale kept connection, so that the request may be sent again."""
    safe = exchange.may_repeat
    if isinstance(error, BadHead):
        return safe and not response.fields  # The first bytes may be the rest of an earlier answer.
    return (safe or nothing_sent) and not response.head_started and _is_disconnect(error)


def _keep_seconds(response: Response) -> float:
    """How long the connection of a response may wait for the next request: as the target says, and MAX_AGE_SECONDS at most."""
    seconds = MAX_AGE_SECONDS
    for parameter in members(tuple(response.fields), "keep-alive"):
        for part in parameter.split(";"):
            name, _, value = (text.strip(' \t"') for text in part.partition("="))
            if name in ("timeout", "max"):
                # What cannot be read is taken for the least that it can mean.
                number = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
                seconds = min(seconds, number - MARGIN_SECONDS if name == "timeout" else (number - 1) * MAX_AGE_SECONDS)
    return seconds


def _closed_or_readable(sock: Any) -> bool:
    """Whether an idle connection was closed by the peer, or holds unsolicited bytes."""
    try:
        return bool(sock.readable())
    except (OSError, ValueError):
        return True


def _has_tls_reason(error: Exception) -> bool:
    """Whether TLS gives more information than that the connection broke: an alert, or an earlier request for a client certificate."""
    return isinstance(error, ssl.SSLError) and not _is_disconnect(error)


def _is_disconnect(error: Exception) -> bool:
    return isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError | ssl.SSLEOFError)
