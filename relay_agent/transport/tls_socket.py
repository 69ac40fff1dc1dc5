"""TLS over a socket that keeps a deadline, which may itself be a TLS session with a proxy.

This room owns the session's records, and passes every wait to the socket below. It must not open connections, nor
decide whom to trust.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast, overload

from relay_agent.core.clock import Deadline
from relay_agent.transport.deadline_sockets import DeadlineSocket, Watch
from relay_agent.transport.errors import ClientCertificateWanted
from relay_agent.transport.handshake import MAX_FIRST, Heard, OwnRecords, alert, heard

_PIECE = 16 * 1024
"""The plain text of one TLS record at most: what is encrypted, or decrypted, before the deadline is looked at again."""
_FETCH = 64 * 1024
"""Bytes that are taken from the socket below at a time."""

_OF_OUR_CERTIFICATE = frozenset(
    {
        "handshake_failure",
        "no_certificate",
        "bad_certificate",
        "unsupported_certificate",
        "certificate_revoked",
        "certificate_expired",
        "certificate_unknown",
        "unknown_ca",
        "access_denied",
    }
)
"""Alerts by which a peer that asked for a client certificate, and got none, may say so; TLS 1.3 has one of its own."""
_REQUIRED = "certificate_required"

_T = TypeVar("_T")


class TlsSocket:
    """A TLS session. With `ragged_ends` a connection that ends without a goodbye (close_notify) ends properly.

    Not ssl.SSLSocket: OpenSSL reads from its socket for as long as records without content come, whatever the time;
    it cannot stand on another session; and its `shutdown` lets other threads go on in plain. Not urllib3's SSLTransport:
    it cannot be shut down, takes any end for a proper one, and does not say what it holds undecrypted.
    Only `shutdown` may be called from another thread.
    """

    def __init__(self, below: DeadlineSocket | TlsSocket, context: ssl.SSLContext, server_hostname: str, *, ragged_ends: bool) -> None:
        """Stand on a connected socket; nothing is sent before `do_handshake`.

        Raises:
            ValueError: the name cannot be one of a certificate.
        """
        self._below = below
        self._ragged_ends = ragged_ends
        self._received = ssl.MemoryBIO()
        self._to_send = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._received, self._to_send, server_hostname=server_hostname)
        self._own = OwnRecords()
        self._first = b""

    # --- the exchange ---

    def do_handshake(self) -> None:
        """Shake hands, within the deadline; the other side is told why its certificate is refused.

        Raises:
            ClientCertificateWanted: the other side ended it for want of one. In TLS 1.3 the first read may raise it in place of this.
        """
        try:
            self._until_done(self._session.do_handshake)
        except OSError as error:
            if isinstance(error, ssl.SSLError):
                with contextlib.suppress(OSError):
                    self._flush()
            self._judge(error)
            raise
        self._flush()
        self._own.stands(self.version(), self.cipher())

    def recv(self, size: int = _PIECE, flags: int = 0) -> bytes:
        """As SSLSocket.recv, within the deadline."""
        buffer = bytearray(min(size, _PIECE))
        return bytes(buffer[: self.recv_into(buffer, flags=flags)])

    def recv_into(self, buffer: Any, size: int | None = None, flags: int = 0) -> int:
        """As SSLSocket.recv_into, within the deadline: 0 at a proper end.

        Raises:
            ssl.SSLEOFError: the connection ended without a goodbye.
            ClientCertificateWanted: it ended, however, before a byte came, after a client certificate was asked for.
        """
        _refuse(flags)
        with memoryview(buffer) as view, view.cast("B") as plain:
            wanted = min(size or len(plain), _PIECE)
            if not wanted:
                return 0
            try:
                count = self._read(wanted, plain)
            except OSError as error:
                self._judge(error)
                raise
            if count:
                self._own.asked = False
            elif self._own.asked:
                raise ClientCertificateWanted
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
        """As SSLSocket.send, within the deadline: one record at most."""
        _refuse(flags)
        with memoryview(data) as view, view.cast("B") as plain:
            taken = self._until_done(lambda: self._session.write(plain[:_PIECE])) if len(plain) else 0
        self._flush()
        return taken

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As SSLSocket.sendall, within the deadline."""
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            while done < len(rest):
                done += self.send(rest[done : done + _PIECE], flags)

    def send_watching(self, data: Any, watch: Watch) -> bool:
        """As ClockedSocket.send_watching."""
        inside = _Inside(self, watch)
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            while done < len(rest):
                piece = rest[done : done + _PIECE]
                done += self._until_done(lambda piece=piece: self._session.write(piece))  # type: ignore[misc]
                if self._to_send.pending and not self._below.send_watching(self._records(), inside):
                    return False
        return True

    def heard(self, records: bytes) -> bytes | None:
        """Give the session what came, and what that says in plain; None where it says nothing yet, nothing at the end."""
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
                self._judge(error)
            raise
        finally:
            self._own.asked &= not plain
        return b"".join(plain)

    def pending(self) -> int:
        """Bytes that the system has handed over and nobody has read, decrypted or not, in any session."""
        return self._session.pending() + self._received.pending + self._below.pending()

    def makefile(self, mode: str = "rb", buffering: int | None = None) -> io.BufferedReader:
        """The stream that http.client reads from. Closing it leaves the socket open; closing the socket ends it."""
        if mode != "rb":
            raise ValueError("the stream is for reading bytes")
        return io.BufferedReader(socket.SocketIO(self, "r"), buffering or io.DEFAULT_BUFFER_SIZE)  # type: ignore[arg-type]

    def _decref_socketios(self) -> None:
        """Take note, as socket.SocketIO demands, that a stream was closed: nothing waits for it."""

    # --- the connection under it ---

    @property
    def deadline(self) -> Deadline | None:
        """The limit of every wait."""
        return self._below.deadline

    @deadline.setter
    def deadline(self, deadline: Deadline | None) -> None:
        self._below.deadline = deadline

    @property
    def bytes_sent(self) -> int:
        """Bytes that the system took: of records, here and below."""
        return self._below.bytes_sent

    def arm(self) -> None:
        """As Clocked.arm."""
        self._below.arm()

    def settimeout(self, value: float | None, /) -> None:
        """As socket.settimeout."""
        self._below.settimeout(value)

    def gettimeout(self) -> float | None:
        """As socket.gettimeout."""
        return self._below.gettimeout()

    def fileno(self) -> int:
        """As socket.fileno."""
        return self._below.fileno()

    def getpeername(self) -> Any:
        """As socket.getpeername."""
        return self._below.getpeername()

    def shutdown(self, how: int, /) -> None:
        """Break the connection off, without a goodbye. Any thread."""
        self._below.shutdown(how)

    def close(self) -> None:
        """Close the connection, without a goodbye."""
        self._below.close()

    # --- the other side ---

    @overload
    def getpeercert(self, binary_form: Literal[False] = False) -> dict[str, Any] | None: ...
    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...
    def getpeercert(self, binary_form: bool = False) -> Any:
        """The other side's certificate, as SSLSocket.getpeercert."""
        return self._session.getpeercert(binary_form)

    def version(self) -> str | None:
        """The version of TLS that is spoken."""
        return self._session.version()

    def cipher(self) -> tuple[str, str, int] | None:
        """The cipher in use."""
        return self._session.cipher()

    @property
    def first_heard(self) -> Heard:
        """What the other side said first."""
        return heard(self._first)

    def _judge(self, error: OSError) -> None:
        """Raise ClientCertificateWanted where that is what an end, by alert or without a word, is about."""
        said = alert(error) if isinstance(error, ssl.SSLError) else None
        ended = isinstance(error, ConnectionError | ssl.SSLEOFError | ssl.SSLZeroReturnError) or said in _OF_OUR_CERTIFICATE
        if said == _REQUIRED or (ended and self._own.asked):
            raise ClientCertificateWanted from None

    # --- both ---

    def _until_done(self, step: Callable[[], _T]) -> _T:
        """Repeat a step of the session until it needs nothing more from the other side; each repetition looks at the deadline."""
        while True:
            self._below.arm()
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                self._fetch()

    def _fetch(self) -> None:
        """Hand the session what comes next; how a connection ends is for the session to judge, since its records cannot be cut unseen."""
        try:
            data = self._below.recv(_FETCH)
        except ssl.SSLEOFError:
            data = b""
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
        self._own.note(records)
        return records


class _Inside:
    """A watch over what a session's records say."""

    def __init__(self, session: TlsSocket, watch: Watch) -> None:
        self._session = session
        self._watch = watch

    def arrived(self, data: bytes) -> bool:
        """Take records that came."""
        plain = self._session.heard(data)
        return False if plain is None else self._watch.arrived(plain)

    @property
    def full(self) -> bool:
        """As the watch over it says."""
        return self._watch.full


def _refuse(flags: int) -> None:
    if flags:
        raise ValueError("TLS knows no flags")
