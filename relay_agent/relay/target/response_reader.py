"""Reads the response of a target, or of a proxy in its place: decodes it, limits its size, and determines its charset.

This module owns how a response becomes an HttpResponse. It must not know redirects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.core.models import Headers, HttpResponse, size_of
from relay_agent.protocol.charsets import TextCheck
from relay_agent.protocol.media_types import parameter
from relay_agent.relay.target.redirects import field_values
from relay_agent.storage.buffer import Buffer
from relay_agent.transport.content_encoding import BadCoding, CutShort, TooLarge, decodable, decode
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import EarlyStore, Exchange
from relay_agent.transport.proxy_connect import TunnelRefused
from relay_agent.transport.streamed_response import StreamedResponse

MAX_REFUSAL_BYTES = 4 * 1024 * 1024
"""The largest decoded body of a proxy's refusal, in bytes; a longer one is relayed undecoded."""
REFUSAL_DECODING_SECONDS = 1.0
"""How long a refusal may at least be decoded: its body may have been read until the command's deadline."""
EARLY_FACTOR = 2
"""How many times the limit of a response an early one may have as it came: chunks of a few bytes double it, a coding hardly adds."""
_READ = 64 * 1024


class ResponseReader:
    """Reads bodies into buffers of `buffer_dir`, up to `max_bytes` each, counted after decoding."""

    def __init__(self, max_bytes: int, buffer_dir: Path | None) -> None:
        self._max_bytes = max_bytes
        self._buffer_dir = buffer_dir

    def early_store(self, max_bytes: int | None = None) -> EarlyStore:
        """Return what keeps the answer of a target that has not read its whole request yet; `max_bytes` as of `read`."""
        return _EarlyBytes(Buffer(self._buffer_dir), EARLY_FACTOR * (max_bytes or self._max_bytes))

    def read(self, response: StreamedResponse, exchange: Exchange, max_bytes: int | None = None) -> HttpResponse:
        """Read the whole response; `max_bytes` replaces the reader's own limit.

        Raises:
            TransportFault: it is incomplete, too large, or not in its Content-Encoding.
            DiskFault: the disk cannot store it.
        """
        headers = response.fields
        codings = _codings(headers)
        if not decodable(codings):
            codings = []
        check = TextCheck(charset := _charset(headers))
        buffer = Buffer(self._buffer_dir)
        try:
            self._read_body(response, buffer, check, codings, max_bytes or self._max_bytes)
        except BaseException:
            buffer.close()
            raise
        if codings and response.body_began:
            headers = _without_coding(headers)
        return HttpResponse(
            status_code=response.status_code,
            headers=headers,
            content=buffer,
            charset=charset,
            text=check.is_text(),
            url=str(exchange.url),
            elapsed_ms=elapsed_ms(exchange.deadline),
            bytes_out=size_of(exchange.body),
            from_proxy=_may_be_a_proxy_s(response.status_code, exchange),
        )

    def _read_body(self, response: StreamedResponse, buffer: Buffer, check: TextCheck, codings: list[str], limit: int) -> None:
        too_large = TransportFault(Code.ERESPONSETOOLARGE, f"the response is larger than {limit} bytes")
        if not codings and response.announced_length > limit:
            raise too_large
        try:
            # The socket keeps the time while it is read; a decoder works for long on what came at once.
            for data in decode(_pieces(response), codings, limit, response.check_deadline):
                if buffer.size + len(data) > limit:
                    raise too_large
                _keep(buffer, data)
                check.take(data)
                response.check_deadline()
        except TooLarge:
            raise too_large from None
        except BadCoding as error:
            raise TransportFault(Code.EBADRESPONSE, str(error)) from None

    def read_refusal(self, refused: TunnelRefused, exchange: Exchange, max_bytes: int | None = None) -> HttpResponse:
        """Return a proxy's response that refuses a tunnel: it is the answer (PROTOCOL §4), its body cut at the limit."""
        limit = max_bytes or self._max_bytes
        headers, body = _uncoded(refused, exchange.deadline, limit)
        body = body[:limit]
        buffer = Buffer(self._buffer_dir)
        buffer.write(body)
        charset = _charset(headers)
        check = TextCheck(charset)
        check.take(body)
        return HttpResponse(
            refused.status, headers, buffer, charset, check.is_text(), str(exchange.url), elapsed_ms(exchange.deadline), from_proxy=True
        )


class _EarlyBytes:
    """Keeps an answer as it came, with codings and chunks, up to `limit` bytes."""

    def __init__(self, buffer: Buffer, limit: int) -> None:
        self._buffer = buffer
        self._limit = limit

    def write(self, data: bytes) -> None:
        """Append the bytes.

        Raises:
            TransportFault: they are too many.
            DiskFault: the disk cannot store them.
        """
        if self._buffer.size + len(data) > self._limit:
            raise TransportFault(Code.ERESPONSETOOLARGE, f"the response is larger than {self._limit} bytes, before it is decoded")
        _keep(self._buffer, data)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes.

        Raises:
            DiskFault: the disk cannot give them.
        """
        try:
            yield from self._buffer.chunks()
        except OSError as error:
            raise DiskFault(Code.EBADRESPONSE, f"the response cannot be read from the agent's disk: {error.strerror}") from None

    def close(self) -> None:
        """Free the memory and the file."""
        self._buffer.close()


def elapsed_ms(deadline: Deadline) -> int:
    """Return the milliseconds since the deadline was set."""
    return int(deadline.elapsed() * 1000)


def _may_be_a_proxy_s(status: int, exchange: Exchange) -> bool:
    # A proxy that forwards a request answers errors of its own with any status from 400 on; they look like the target's.
    proxy = exchange.proxy
    return status >= 400 and proxy is not None and exchange.url.scheme == "http" and proxy.scheme != "socks5h"


def _uncoded(refused: TunnelRefused, deadline: Deadline, enough: int) -> tuple[Headers, bytes]:
    """Return headers and body of a proxy's refusal, decoded if possible; else as received.

    Decoding ends once there are `enough` bytes. Of a body that was cut, what can be decoded is returned.
    """
    limit = Deadline(max(deadline.remaining(), REFUSAL_DECODING_SECONDS))

    def in_time() -> None:
        if limit.passed:
            raise CutShort

    codings = _codings(refused.headers)
    if not decodable(codings) or not refused.body:
        return refused.headers, refused.body
    body = bytearray()
    try:
        for data in decode([refused.body], codings, MAX_REFUSAL_BYTES, in_time):
            body += data
            if len(body) >= enough:
                break
    except CutShort:
        if not body:
            return refused.headers, refused.body
    except (BadCoding, TooLarge):
        return refused.headers, refused.body
    return _without_coding(refused.headers), bytes(body)


def _pieces(response: StreamedResponse) -> Iterator[bytes]:
    while data := response.read(_READ):
        yield data


def _keep(buffer: Buffer, data: bytes) -> None:
    try:
        buffer.write(data)
    except OSError as error:
        # The agent's disk fails, not the target: the error must not look like a broken connection.
        raise DiskFault(Code.ERESPONSETOOLARGE, f"the agent's disk cannot store the response: {error.strerror}") from None


def _without_coding(headers: Headers) -> Headers:
    return tuple(pair for pair in headers if pair[0].lower() not in ("content-encoding", "content-length"))


def _codings(received: Headers) -> list[str]:
    parts = [part.strip().lower() for value in field_values(received, "content-encoding") for part in value.split(",")]
    return [part for part in parts if part and part != "identity"]


def _charset(received: Headers) -> str | None:
    """Return the charset that the first Content-Type names."""
    content_type = next(iter(field_values(received, "content-type")), "")
    return parameter(content_type, "charset") or None
