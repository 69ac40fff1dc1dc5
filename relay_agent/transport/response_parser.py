"""Parses HTTP/1.1 responses within bounds, and keeps every header field as received (RFC 9112).

A subclass of `http.client`'s parser, which reads at most 100 fields, takes `103` for the final response, merges lines that it cannot
parse, and does not notice bytes after the body.
"""

from __future__ import annotations

import http.client
import io
import re
import ssl
from collections.abc import Iterator
from typing import Any

MAX_HEAD_BYTES = 256 * 1024
MAX_FIELDS = 1000
"""Bounds on the header block (docs/threat-model.md)."""

# White space of any kind after the first space, and before and in the reason phrase: servers send it, and all clients accept it (RFC
# 9112 §4). Curl refuses a tab directly after the version.
_BLANK = rb"[ \t\v\f\r]"
_STATUS_LINE = re.compile(rb"HTTP/(1)\.(\d) " + _BLANK + rb"*+([1-9]\d\d)(?:" + _BLANK + rb"([^\n]*))?")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_FINAL_STATUS = re.compile(rb"HTTP/1\.\d " + _BLANK + rb"*+([1-9]\d\d)")
_BLANK_LINE = re.compile(rb"\n\r*+\n")
_NO_CODINGS = frozenset({"identity", "none"})
"""Names of no transfer-coding: RFC 2616's, and one that servers invent. All clients read both."""
_EMPTY = http.client.HTTPMessage()
_LONGEST_STATUS_LINE = 16 * 1024
_LONGEST_INTERIM = 16 * 1024


class BadHead(http.client.HTTPException):
    """The head of the response cannot be relayed; the text says why."""


class BadFraming(http.client.HTTPException):
    """The body's chunks are not as RFC 9112 §7.1 says."""


class _Wire(io.RawIOBase):
    """The socket's byte stream; while `probing`, it returns None instead of waiting."""

    def __init__(self, raw: Any) -> None:
        super().__init__()
        self._raw = raw
        self.probing = False
        self.reset_ends = False
        """Whether a reset of the connection counts as its end."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.probing:
            return None
        try:
            count: int | None = self._raw.readinto(buffer)
        except (ConnectionResetError, ssl.SSLEOFError):
            if not self.reset_ends:
                raise
            return 0
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def final_status(data: bytearray) -> int | None:
    """Return the status of the response that `data` begins with, after removing complete 1xx responses.

    Returns None if the data do not reach that far, 0 if they are not HTTP.
    """
    while True:
        if b"\n" not in data:
            return None if len(data) <= _LONGEST_STATUS_LINE else 0
        found = _FINAL_STATUS.match(data)
        if found is None:
            return 0
        status = int(found[1])
        if status >= 200 or status == 101:
            return status
        end = _BLANK_LINE.search(data)
        if end is None:
            return None if len(data) <= _LONGEST_INTERIM else 0
        del data[: end.end()]


class Response(http.client.HTTPResponse):
    """One response. `fields` has names and values in order, as received (ISO-8859-1); `headers` stays empty."""

    fields: list[tuple[str, str]]
    tainted = False
    """Whether the peer sent bytes after this response: the connection must not be used again."""
    broken = False
    """Whether the body was not read to its end: the connection must not be used again."""
    head_started = False
    """Whether at least one byte was received."""

    def __init__(self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._wire = _Wire(self.fp.detach())
        self.fp = io.BufferedReader(self._wire, 16 * 1024)
        self.fields = []
        self._left = MAX_HEAD_BYTES
        self._is_connect = method == "CONNECT"

    def begin(self) -> None:
        """Read status line and fields, after skipping 1xx responses (RFC 9110 §15.2).

        Raises:
            BadHead: it is not HTTP/1.x, or exceeds a bound.
            http.client.RemoteDisconnected: the peer closed the connection before the first byte.
        """
        if self.headers is not None:
            return
        status = self._status_line()
        while 100 <= status < 200 and status != 101:
            self._fields()
            status = self._status_line()
        self.code = self.status = status
        self.fields = self._fields()
        self.headers = self.msg = _EMPTY
        self._framing()

    @property
    def delimited(self) -> bool:
        """Whether length or chunks say where the body ends, so that its end need not be that of the connection."""
        return self.chunked or self.length is not None

    def end_at_reset(self) -> None:
        """Let a reset of the connection end the body, if nothing else says where it ends."""
        self._wire.reset_ends = not self.delimited

    def read(self, amt: int | None = None) -> bytes:
        """Read as http.client does, but do not accept a body that ends before its Content-Length.

        Raises:
            http.client.IncompleteRead: the connection ended before the body did.
        """
        data = super().read(amt)
        if amt and not data and self.length:
            self.broken = True
            raise http.client.IncompleteRead(b"", self.length)
        return data

    def close(self) -> None:
        """Close the stream; if the body was not read to its end, the response is `broken`."""
        self.broken = self.broken or self.fp is not None
        super().close()

    def _status_line(self) -> int:
        line = self._line()
        if not line and self.head_started:
            raise BadHead("the connection was closed after an interim response")
        if not line:
            raise http.client.RemoteDisconnected("the connection was closed without an answer")
        match = _STATUS_LINE.fullmatch(line.rstrip(b"\r\n"))
        if match is None:
            raise BadHead("the answer is not an HTTP/1.x response")
        self.version = 10 if match[2] == b"0" else 11
        self.reason = (match[4] or b"").decode("latin-1").replace("\r", " ").strip()
        return int(match[3])

    def _fields(self) -> list[tuple[str, str]]:
        fields: list[tuple[str, list[str]]] = []
        while True:
            line = self._line()
            if not line:
                raise BadHead("the connection was closed within the header block")
            # RFC 9112 §2.2, RFC 9110 §5.5: a bare CR or a NUL in a field counts as a space.
            text = line.decode("latin-1").rstrip("\r\n").replace("\r", " ").replace("\0", " ")
            if not text:
                return [(name, " ".join(lines).strip(" ")) for name, lines in fields]
            if text[0] in " \t" and fields:  # obs-fold, RFC 9112 §5.2
                folded = text.strip(" \t")
                fields[-1][1].extend([folded] if folded else [])
                continue
            name, colon, value = text.partition(":")
            if colon and name.strip(" \t"):
                fields.append((name.strip(" \t"), [value.strip(" \t")]))
            if len(fields) > MAX_FIELDS:
                raise BadHead(f"the response has more than {MAX_FIELDS} header fields")

    def _line(self) -> bytes:
        line = self.fp.readline(self._left + 1)
        self.head_started = self.head_started or bool(line)
        self._left -= len(line)
        if self._left < 0:
            raise BadHead(f"the response's header block is larger than {MAX_HEAD_BYTES} bytes")
        return line

    def _framing(self) -> None:
        """Decide where the body ends (RFC 9112 §6.3)."""
        self.chunked, self.chunk_left, self.length = False, None, None
        codings = [part.strip().lower() for value in self._all("transfer-encoding") for part in value.split(",") if part.strip()]
        codings = [coding for coding in codings if coding not in _NO_CODINGS]
        if any(coding != "chunked" for coding in codings):
            raise BadHead("the response has a transfer-coding other than chunked")
        self.chunked = bool(codings)
        # "chunked" twice means once: a server and a proxy in front of it both add the field. If not, the connection cannot be used again.
        self.will_close = self._says_close() or len(codings) > 1
        lengths = set(self._lengths())
        if self.chunked and lengths:
            self.will_close = True  # RFC 9112 §6.1: such a response may be an attack; do not use the connection again.
        if self._has_no_body():
            self.chunked, self.length = False, 0
        elif not self.chunked and lengths:
            self.length = self._length(lengths)
        if (not self.chunked and self.length is None) or self.status == 101 or (self._is_connect and self.status < 300):
            self.will_close = True  # Nothing follows on the connection, or nothing that is HTTP.

    def _says_close(self) -> bool:
        """Return whether the peer will close the connection (RFC 9112 §9.3)."""
        options = {part.strip().lower() for value in self._all("connection") for part in value.split(",")}
        return "close" in options or (self.version == 10 and "keep-alive" not in options)

    def _has_no_body(self) -> bool:
        bodiless = self.status in (204, 304) or 100 <= self.status < 200 or self._method == "HEAD"  # type: ignore[attr-defined]
        return bodiless or (self._is_connect and 200 <= self.status < 300)

    def _lengths(self) -> Iterator[str]:
        for value in self._all("content-length"):
            # Empty elements of a list are ignored (RFC 9110 §5.6.1.2); a field with only such elements is not a valid length.
            yield from [part.strip() for part in value.split(",") if part.strip()] or [""]

    def _length(self, lengths: set[str]) -> int:
        found: set[str] = set()
        for text in lengths:
            digits = text.lstrip("0") or text[:1]
            # The length first: int() is slow for many digits, and fails with another error above 4,300.
            if len(digits) > 15 or not (digits.isascii() and digits.isdigit()):
                raise BadHead("the response has a Content-Length that is not a number")
            found.add(digits)
        if len(found) > 1:
            raise BadHead("the response has conflicting Content-Length fields")
        return int(found.pop())

    def _all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name]

    def _get_chunk_left(self) -> int | None:
        """Return the bytes left of the current chunk, None after the last; framing is checked strictly (RFC 9112 §7.1)."""
        left: int | None = self.chunk_left
        if left:
            return left
        if left is not None and (end := self.fp.readline(3)) not in (b"\r\n", b"\n"):
            raise self._bad_framing(closed=not end)
        size = self._read_next_chunk_size()
        if size == 0:
            self._read_trailer()
            self._close_conn()
        self.chunk_left = size or None
        return size or None

    def _read_next_chunk_size(self) -> int:
        # Hex digits only: int() also accepts signs, inner spaces and underscores.
        line = self.fp.readline(65537)
        size = line.split(b";", 1)[0].strip(b" \t\r\n")
        if not line:
            raise self._bad_framing(closed=True)
        digits = size.lstrip(b"0") or size[:1]  # RFC 9112 §7.1: there may be any number of leading zeros.
        if not line.endswith(b"\n") or not _CHUNK_SIZE.fullmatch(digits):
            raise self._bad_framing()
        return int(digits, 16)

    def _read_trailer(self) -> None:
        """Skip the trailer section; a connection that ends in it is an error."""
        left = MAX_HEAD_BYTES
        while (line := self.fp.readline(left + 1)) not in (b"\r\n", b"\n"):
            left -= len(line)
            if left < 0 or not line.endswith(b"\n"):
                raise self._bad_framing(closed=not line)

    def _bad_framing(self, *, closed: bool = False) -> http.client.HTTPException:
        self.broken = True
        return http.client.IncompleteRead(b"") if closed else BadFraming("chunk")

    def _close_conn(self) -> None:
        # Before the stream is released, check without waiting whether the peer has sent more than this response.
        if self.fp is not None and not self.fp.closed:
            self._wire.probing = True
            self.tainted = self.tainted or bool(self.fp.peek(1))
            self._wire.probing = False
        super()._close_conn()  # type: ignore[misc]
