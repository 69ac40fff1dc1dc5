"""A TLS session over a socket with a deadline, which may itself be a TLS session with a proxy. Every wait is the socket's below."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast, overload

from relay_agent.core.clock import Deadline
from relay_agent.transport.deadline_sockets import RECEIVE_BYTES, DeadlineSocket, Watch
from relay_agent.transport.errors import ClientCertificateRefused, ClientCertificateWanted
from relay_agent.transport.handshake import MAX_FIRST, FirstReceived, SentRecords, alert, read_first

_PIECE = 16 * 1024
"""Plain text of one TLS record at most; so much is encrypted or decrypted between two checks of the deadline."""
VERDICT_SECONDS = 2.0
"""How soon a peer ends a session because it got no client certificate: at the handshake, or at the request's head.

One that ends it later, without an alert, has been at work on the request, and has another reason.
"""
_CERTIFICATE_REQUIRED = "certificate_required"
_CERTIFICATE_ALERTS = frozenset(
    {
        _CERTIFICATE_REQUIRED,
        "no_certificate",
        "bad_certificate",
        "unsupported_certificate",
        "certificate_revoked",
        "certificate_expired",
        "certificate_unknown",
        "unknown_ca",
    }
)
"""Alerts that a server can send only because of a client's certificate, or of its lack."""
_ASKED_ALERTS = _CERTIFICATE_ALERTS | {"handshake_failure", "access_denied"}
"""Alerts that mean this if the peer asked for one; TLS 1.2 has none for the lack alone."""

_T = TypeVar("_T")


class TlsSocket:
    """A TLS session. With `ragged_ends`, a connection may end without close_notify.

    Only `shutdown` may be called from another thread.
    """

    # Not ssl.SSLSocket: OpenSSL reads from its socket for as long as records without content arrive, past any deadline; it cannot
    # use another session as its socket; and after its `shutdown` other threads may continue unencrypted. Not urllib3's SSLTransport:
    # it cannot be shut down, accepts any end of the connection, and does not say how many bytes it has not yet decrypted.

    def __init__(
        self,
        below: DeadlineSocket | TlsSocket,
        context: ssl.SSLContext,
        server_hostname: str,
        *,
        ragged_ends: bool,
        shows_certificate: bool = False,
    ) -> None:
        """Prepare a session over a connected socket; nothing is sent before `do_handshake`.

        `shows_certificate` says whether the context has a client certificate, which a context does not tell.

        Raises:
            ValueError: no certificate can be for the name.
        """
        self._below = below
        self._ragged_ends = ragged_ends
        self._shows_certificate = shows_certificate
        self._received = ssl.MemoryBIO()
        self._to_send = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._received, self._to_send, server_hostname=server_hostname)
        self._sent = SentRecords()
        self._first = b""
        self._last_sent = time.monotonic()

    # --- send and receive ---

    def do_handshake(self) -> None:
        """Do the handshake, within the deadline; an alert informs the peer why its certificate is refused.

        Raises:
            ClientCertificateWanted: the peer ended it because it got no client certificate. ClientCertificateRefused: it refuses the
                one that it got. In TLS 1.3 the first read may raise them instead.
        """
        try:
            self._until_done(self._session.do_handshake)
        except OSError as error:
            if isinstance(error, ssl.SSLError):
                with contextlib.suppress(OSError):
                    self._flush()
            self._raise_if_about_client(error)
            raise
        self._flush()
        self._sent.handshake_done(self.version(), self.cipher())

    def recv(self, size: int = _PIECE, flags: int = 0) -> bytes:
        """Receive as SSLSocket.recv does, within the deadline."""
        buffer = bytearray(min(size, _PIECE))
        return bytes(buffer[: self.recv_into(buffer, flags=flags)])

    def recv_into(self, buffer: Any, size: int | None = None, flags: int = 0) -> int:
        """Receive as SSLSocket.recv_into does, within the deadline; returns 0 at the end of the session.

        Raises:
            ssl.SSLEOFError: the connection ended without close_notify.
            ClientCertificateWanted: the peer asked for a client certificate, got none, and ended the connection before any data, by an
                alert or within VERDICT_SECONDS. ClientCertificateRefused: it ended it by an alert about the one that it got.
        """
        _refuse_flags(flags)
        with memoryview(buffer) as view, view.cast("B") as plain:
            wanted = min(size or len(plain), _PIECE)
            if not wanted:
                return 0
            try:
                count = self._read(wanted, plain)
            except OSError as error:
                self._raise_if_about_client(error)
                raise
            if count:
                self._sent.asked = False
            elif self._misses_certificate():
                raise ClientCertificateWanted(required=False)
            return count

    def _read(self, wanted: int, plain: memoryview) -> int:
        read = cast("Callable[[int, memoryview], int]", self._session.read)
        try:
            return self._until_done(lambda: read(wanted, plain))
        except ssl.SSLZeroReturnError:
            return 0
        except ssl.SSLEOFError:
            if self._ragged_ends:
                return 0
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        """Send as SSLSocket.send does, within the deadline; at most one record."""
        _refuse_flags(flags)
        with memoryview(data) as view, view.cast("B") as plain:
            sent = self._until_done(lambda: self._session.write(plain[:_PIECE])) if len(plain) else 0
        self._flush()
        return sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send as SSLSocket.sendall does, within the deadline."""
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            while done < len(rest):
                done += self.send(rest[done : done + _PIECE], flags)

    def send_watching(self, data: Any, watch: Watch) -> bool:
        """Send as DeadlineSocket.send_watching does, and give `watch` what was decrypted."""
        decrypting = _DecryptingWatch(self, watch)
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            while done < len(rest):
                piece = rest[done : done + _PIECE]
                done += self._until_done(lambda piece=piece: self._session.write(piece))  # type: ignore[misc]
                if self._to_send.pending and not self._below.send_watching(self._records(), decrypting):
                    return False
        return True

    def decrypt(self, records: bytes) -> bytes | None:
        """Decrypt records that were received (none at the end of the connection); returns None if they have no data, b"" at the end."""
        if records:
            self._received.write(records)
        else:
            self._received.write_eof()
        plain: list[bytes] = []
        try:
            while data := self._session.read(_PIECE):
                plain.append(data)
        except ssl.SSLWantReadError:
            return b"".join(plain) or None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        except ssl.SSLError as error:
            if not plain:
                self._raise_if_about_client(error)
            raise
        finally:
            self._sent.asked &= not plain
        return b"".join(plain)

    def pending(self) -> int:
        """Return how many received bytes are buffered, decrypted or not, in this session and those below."""
        return self._session.pending() + self._received.pending + self._below.pending()

    def readable(self) -> bool:
        """Return whether there are bytes to decrypt or to read, the connection's end, or an error."""
        return bool(self.pending()) or self._below.readable()

    def makefile(self, mode: str = "rb", buffering: int | None = None) -> io.BufferedReader:
        """Return a stream for http.client to read from. Closing it leaves the socket open; closing the socket ends it."""
        if mode != "rb":
            raise ValueError("the stream can only be opened for reading bytes")
        return io.BufferedReader(socket.SocketIO(self, "r"), buffering or io.DEFAULT_BUFFER_SIZE)  # type: ignore[arg-type]

    def _decref_socketios(self) -> None:
        """Do nothing; socket.SocketIO calls it when a stream is closed."""

    # --- the connection below ---

    @property
    def deadline(self) -> Deadline | None:
        """The deadline of every wait."""
        return self._below.deadline

    @deadline.setter
    def deadline(self, deadline: Deadline | None) -> None:
        self._below.deadline = deadline

    @property
    def resolved(self) -> tuple[str, ...]:
        """All addresses to which the name of the peer resolved; empty if a proxy made the connection."""
        return self._below.resolved

    @property
    def bytes_sent(self) -> int:
        """Bytes that the system has accepted, with the records of this session and those below."""
        return self._below.bytes_sent

    def check_deadline(self) -> None:
        """Raise TimeoutError if the deadline has passed."""
        self._below.check_deadline()

    def fileno(self) -> int:
        """Return the descriptor of the socket below."""
        return self._below.fileno()

    def getpeername(self) -> Any:
        """Return the peer's address."""
        return self._below.getpeername()

    def shutdown(self, how: int, /) -> None:
        """Shut the connection down, without close_notify. Any thread may call."""
        self._below.shutdown(how)

    def close(self) -> None:
        """Close the connection, without close_notify."""
        self._below.close()

    # --- the peer ---

    @overload
    def getpeercert(self, binary_form: Literal[False] = False) -> dict[str, Any] | None: ...
    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...
    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the peer's certificate as SSLSocket.getpeercert does."""
        return self._session.getpeercert(binary_form)

    def version(self) -> str | None:
        """Return the TLS version in use."""
        return self._session.version()

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher in use."""
        return self._session.cipher()

    @property
    def first_received(self) -> FirstReceived:
        """What the first bytes of the peer say."""
        return read_first(self._first)

    def _raise_if_about_client(self, error: OSError) -> None:
        """Raise ClientCertificateRefused or ClientCertificateWanted if that is why the peer ended the session."""
        name = alert(error) if isinstance(error, ssl.SSLError) else None
        if name is not None:
            about_client = name in (_ASKED_ALERTS if self._sent.asked else _CERTIFICATE_ALERTS)
            if about_client and self._shows_certificate:
                raise ClientCertificateRefused(name) from None
            if about_client and (self._sent.asked or name == _CERTIFICATE_REQUIRED):
                raise ClientCertificateWanted(required=True) from None
        elif isinstance(error, ConnectionError | ssl.SSLEOFError | ssl.SSLZeroReturnError) and self._misses_certificate():
            raise ClientCertificateWanted(required=False) from None

    def _misses_certificate(self) -> bool:
        """Whether a peer that ends the session now, without a word, may do so because it got no certificate."""
        soon = time.monotonic() - self._last_sent <= VERDICT_SECONDS
        return self._sent.asked and not self._shows_certificate and soon

    # --- details ---

    def _until_done(self, step: Callable[[], _T]) -> _T:
        """Repeat a step of the session until it needs no more data from the peer; the deadline is checked before each try."""
        while True:
            self._below.check_deadline()
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()

    def _receive(self) -> None:
        try:
            data = self._below.recv(RECEIVE_BYTES)
        except ssl.SSLEOFError:
            data = b""  # This session decides itself whether it is complete: its records cannot be cut unnoticed.
        if data:
            self._first += data[: MAX_FIRST - len(self._first)]
            self._received.write(data)
        else:
            self._received.write_eof()

    def _flush(self) -> None:
        if self._to_send.pending:
            self._below.sendall(self._records())

    def _records(self) -> bytes:
        records = self._to_send.read()
        self._sent.sent(records)
        self._last_sent = time.monotonic()
        return records


class _DecryptingWatch:
    """Decrypts what the socket below receives while sending, and gives it to another watch."""

    def __init__(self, session: TlsSocket, watch: Watch) -> None:
        self._session = session
        self._watch = watch

    def arrived(self, data: bytes) -> bool:
        """Take records that were received; return whether sending must stop."""
        plain = self._session.decrypt(data)
        return False if plain is None else self._watch.arrived(plain)


def _refuse_flags(flags: int) -> None:
    if flags:
        raise ValueError("a TLS session supports no flags")
