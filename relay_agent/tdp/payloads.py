"""Bodies that travel through S3: downloads and uploads by presigned URL (PROTOCOL §2).

A presigned URL is a secret and carries its own authorization: no header of ours goes with it. This room must
not know what the bodies say.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

from relay_agent.codings import BadCoding, decode
from relay_agent.errors import PlatformError
from relay_agent.faults import TransportFault
from relay_agent.tdp.http import Answer, PlatformHttp, unreachable
from relay_agent.tdp.tally import Count, counted, nobody
from relay_agent.urls import BadUrl

_GZIP_MAGIC = b"\x1f\x8b"
_UPLOAD_HEADERS = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"))


class PayloadRefused(PlatformError):
    """S3 answered 4xx: the presigned URL has expired or was never right; trying again does not help."""


class Payloads:
    """Moves bodies. Any thread may call."""

    def __init__(
        self,
        http: PlatformHttp,
        max_bytes: int,
        count: Count = nobody,
        downloaded: Callable[[PlatformError | None], None] = lambda _error: None,
    ) -> None:
        """`downloaded` is told how each try to fetch a body went."""
        self._downloaded = downloaded
        self._http = http
        self._max_bytes = max_bytes
        self._count = count

    def download(self, url: str, seconds: float) -> bytes:
        """Fetch a command's body, gunzipped where it was gzip encoded, at most `max_bytes` of it.

        Raises:
            PayloadRefused: S3 refused, or the body is too large.
            PlatformError: it may work another time.
        """
        try:
            answer = self._send("payload download", "GET", url, (), None, seconds, self._max_bytes)
        except PlatformError as error:
            self._downloaded(error)
            raise
        self._downloaded(None)
        # S3 gives back the Content-Encoding that was stored with the object; where it was lost the bytes still tell.
        if answer.body.startswith(_GZIP_MAGIC):
            return _gunzip(answer.body, self._max_bytes)
        return answer.body

    def upload(self, url: str, path: Path, seconds: float) -> None:
        """Put a spooled answer, a gzip file, where the presigned URL says.

        Raises:
            PayloadRefused: S3 refused.
            PlatformError: it may work another time.
        """
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            self._send("payload upload", "PUT", url, _UPLOAD_HEADERS, data, seconds, 64 * 1024)

    def _send(
        self, call: str, method: str, url: str, headers: tuple[tuple[str, str], ...], body: mmap.mmap | None, seconds: float, max_bytes: int
    ) -> Answer:
        with counted(self._count, call):
            return self._exchange(call, method, url, headers, body, seconds, max_bytes)

    def _exchange(
        self, call: str, method: str, url: str, headers: tuple[tuple[str, str], ...], body: mmap.mmap | None, seconds: float, max_bytes: int
    ) -> Answer:
        try:
            answer = self._http.send(method, url, headers, body, seconds, max_bytes)
        except BadUrl:
            raise PayloadRefused(call, "the presigned URL is no URL") from None
        except TransportFault as fault:
            if fault.code == "ERESPONSETOOLARGE":
                raise PayloadRefused(call, f"larger than {max_bytes} bytes") from None
            raise unreachable(call, fault, url) from None
        if answer.is_web_page:
            raise PlatformError(call, f"a web page answered ({answer.status}) in Amazon S3's place", answer.status)
        if 200 <= answer.status < 300:
            return answer
        refused = 400 <= answer.status < 500 and answer.status not in (407, 408, 429)
        # S3 says so in its text: AccessDenied, "Request has expired", or ExpiredToken.
        expired = ": the presigned URL has expired" if refused and b"expired" in answer.body.lower() else ""
        raise (PayloadRefused if refused else PlatformError)(call, f"S3 answered {answer.status}{expired}", answer.status)


def _gunzip(data: bytes, max_bytes: int) -> bytes:
    unpacked = bytearray()
    try:
        for piece in decode([data], ["gzip"]):
            unpacked += piece
            if len(unpacked) > max_bytes:
                raise PayloadRefused("payload download", f"larger than {max_bytes} bytes")
    except BadCoding:
        raise PayloadRefused("payload download", "the body is damaged gzip") from None
    return bytes(unpacked)
