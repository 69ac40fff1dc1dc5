"""Reading what a target, or a proxy in its place, answers: codings undone, counted, its charset looked at.

This module owns how an answer becomes an HttpResponse. It must not know redirects.
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
from relay_agent.transport.content_encoding import BadCoding, TooLarge, decodable, decode
from relay_agent.transport.errors import DiskFault, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.proxy_connect import TunnelRefused
from relay_agent.transport.streamed_response import StreamedResponse

MAX_REFUSAL_BYTES = 4 * 1024 * 1024
"""Bytes of a proxy's refusal, its codings undone, that are relayed."""
_READ = 64 * 1024


class ResponseReader:
    """Reads bodies into buffers of `buffer_dir`, up to `max_bytes` each, counted after decoding."""

    def __init__(self, max_bytes: int, buffer_dir: Path | None) -> None:
        self._max_bytes = max_bytes
        self._buffer_dir = buffer_dir

    def read(self, response: StreamedResponse, exchange: Exchange) -> HttpResponse:
        """Read the whole response.

        Raises:
            TransportFault: it broke off, is too large, or is not coded as it says.
            DiskFault: the disk does not take it.
        """
        headers = response.fields
        codings = _codings(headers)
        if not decodable(codings):
            codings = []
        check = TextCheck(charset := _charset(headers))
        buffer = Buffer(self._buffer_dir)
        try:
            self._read_body(response, buffer, check, codings)
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
        )

    def _read_body(self, response: StreamedResponse, buffer: Buffer, check: TextCheck, codings: list[str]) -> None:
        limit = self._max_bytes
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

    def read_refusal(self, refused: TunnelRefused, exchange: Exchange) -> HttpResponse:
        """Return what a proxy said when it refused a tunnel: it is the answer (PROTOCOL §4)."""
        headers, body = _uncoded(refused, exchange.deadline)
        buffer = Buffer(self._buffer_dir)
        buffer.write(body)
        charset = _charset(headers)
        check = TextCheck(charset)
        check.take(body)
        return HttpResponse(refused.status, headers, buffer, charset, check.is_text(), str(exchange.url), elapsed_ms(exchange.deadline))


def elapsed_ms(deadline: Deadline) -> int:
    """Return the milliseconds since the deadline was set."""
    return int(deadline.elapsed() * 1000)


def _uncoded(refused: TunnelRefused, deadline: Deadline) -> tuple[Headers, bytes]:
    """What a proxy said, its codings undone as any response's are; as it came where that cannot be: only its beginning may be here."""

    def in_time() -> None:
        if deadline.passed:
            raise BadCoding

    codings = _codings(refused.headers)
    if not decodable(codings) or not refused.body:
        return refused.headers, refused.body
    try:
        body = b"".join(decode([refused.body], codings, MAX_REFUSAL_BYTES, in_time))
    except (BadCoding, TooLarge):
        return refused.headers, refused.body
    return _without_coding(refused.headers), body


def _pieces(response: StreamedResponse) -> Iterator[bytes]:
    while data := response.read(_READ):
        yield data


def _keep(buffer: Buffer, data: bytes) -> None:
    try:
        buffer.write(data)
    except OSError as error:
        # Our disk's fault, not the target's: it must not read as if the connection had broken.
        raise DiskFault(Code.ERESPONSETOOLARGE, f"the agent's disk does not take the response: {error.strerror}") from None


def _without_coding(headers: Headers) -> Headers:
    return tuple(pair for pair in headers if pair[0].lower() not in ("content-encoding", "content-length"))


def _codings(received: Headers) -> list[str]:
    parts = [part.strip().lower() for value in field_values(received, "content-encoding") for part in value.split(",")]
    return [part for part in parts if part and part != "identity"]


def _charset(received: Headers) -> str | None:
    """The charset that the first Content-Type names."""
    content_type = next(iter(field_values(received, "content-type")), "")
    return parameter(content_type, "charset") or None
