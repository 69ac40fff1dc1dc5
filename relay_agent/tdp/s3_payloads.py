"""Bodies that travel through S3: downloads and uploads by presigned URL (PROTOCOL §2).

A presigned URL is a secret and carries its own authorization: no header of ours goes with it. This room must
not know what the bodies say.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TypeVar

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import Call, NotThePlatform, PayloadFault, PayloadRefused, PlatformError
from relay_agent.core.failures import Code, Phase
from relay_agent.core.urls import BadUrl
from relay_agent.storage.buffer import Filed
from relay_agent.tdp.call_outcomes import Count, counted, nobody
from relay_agent.tdp.platform_http import Answer, PlatformHttp, unreachable
from relay_agent.transport.content_encoding import BadCoding, TooLarge, decode
from relay_agent.transport.errors import DiskFault, TransportFault

T = TypeVar("T")
_MAX_ANSWER = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_UPLOAD_HEADERS = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"))


_NOT_S3S = frozenset({PayloadFault.DAMAGED, PayloadFault.FORBIDDEN})
"""What is no fault of S3: it gave what its sender had put there, or was not asked."""


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

    def download(self, url: str, seconds: float, keep: Callable[[Iterator[bytes]], T]) -> T:
        """Fetch a command's body and give what `keep` makes of its pieces: gunzipped where it was gzip encoded, `max_bytes` at most.

        Raises:
            PayloadRefused: S3 refused, or the body is too large or damaged.
            PlatformError: it may work another time.
        """
        try:
            with counted(self._count, Call.DOWNLOAD), _told_as(Call.DOWNLOAD, url, self._max_bytes):
                kept = self._kept(url, seconds, keep)
        except PlatformError as error:
            self._downloaded(None if isinstance(error, PayloadRefused) and error.why in _NOT_S3S else error)
            raise
        self._downloaded(None)
        return kept

    def upload(self, url: str, path: Path, seconds: float) -> None:
        """Put a spooled answer, a gzip file, where the presigned URL says.

        Raises:
            PayloadRefused: S3 refused.
            PlatformError: it may work another time.
            OSError: the file cannot be read.
        """
        content = Filed(path)
        if not content.size:
            raise OSError(errno.EIO, "an empty file is no gzip")
        with counted(self._count, Call.UPLOAD), _told_as(Call.UPLOAD, url, _MAX_ANSWER):
            _check(Call.UPLOAD, self._http.send("PUT", url, _UPLOAD_HEADERS, content, seconds, _MAX_ANSWER))

    def _kept(self, url: str, seconds: float, keep: Callable[[Iterator[bytes]], T]) -> T:
        deadline = Deadline(seconds)
        with self._http.stream("GET", url, (), None, seconds, self._max_bytes) as answer:
            if not 200 <= answer.status < 300:
                _check(Call.DOWNLOAD, answer.whole())
            head = next(answer.pieces, b"")
            _check(Call.DOWNLOAD, Answer(answer.status, answer.headers, head))
            pieces = chain([head], answer.pieces)
            # S3 gives back the Content-Encoding that was stored with the object; where it was lost the bytes still tell.
            return keep(_unpacked(pieces, self._max_bytes, deadline) if head.startswith(_GZIP_MAGIC) else pieces)


@contextmanager
def _told_as(call: Call, url: str, max_bytes: int) -> Iterator[None]:
    """Say what goes wrong on the way as the platform's errors."""
    try:
        yield
    except BadUrl:
        raise PayloadRefused(call, "the presigned URL is no URL", why=PayloadFault.BAD_URL) from None
    except DiskFault as fault:
        raise OSError(errno.EIO, fault.message) from None
    except TransportFault as fault:
        if fault.code == Code.EPOLICY:
            raise PayloadRefused(call, fault.message, why=PayloadFault.FORBIDDEN) from None
        if fault.code == Code.ERESPONSETOOLARGE:
            raise PayloadRefused(call, f"larger than {max_bytes} bytes", why=PayloadFault.TOO_LARGE) from None
        raise unreachable(call, fault, url) from None


def _check(call: Call, answer: Answer) -> None:
    if answer.is_web_page:
        raise NotThePlatform(call, f"a web page answered ({answer.status}) in Amazon S3's place", answer.status)
    if 200 <= answer.status < 300:
        return
    refused = 400 <= answer.status < 500 and answer.status not in (407, 408, 429)
    # S3 says so in its text: AccessDenied, "Request has expired", or ExpiredToken.
    why = PayloadFault.EXPIRED if refused and b"expired" in answer.body.lower() else PayloadFault.ANSWERED
    said = f"S3 answered {answer.status}{': the presigned URL has expired' if why is PayloadFault.EXPIRED else ''}"
    if refused:
        raise PayloadRefused(call, said, answer.status, why=why)
    raise PlatformError(call, said, answer.status)


def _unpacked(pieces: Iterable[bytes], max_bytes: int, deadline: Deadline) -> Iterator[bytes]:
    def check() -> None:
        if deadline.passed:
            raise TransportFault(Code.ETIMEDOUT, f"the whole body took longer than {deadline.seconds:g} s").during(Phase.BODY)

    try:
        yield from decode(pieces, ["gzip"], max_bytes, check)
    except TooLarge:
        raise PayloadRefused(Call.DOWNLOAD, f"larger than {max_bytes} bytes", why=PayloadFault.TOO_LARGE) from None
    except BadCoding:
        raise PayloadRefused(Call.DOWNLOAD, "the body is damaged gzip", why=PayloadFault.DAMAGED) from None
