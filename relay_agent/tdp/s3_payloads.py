"""Downloads and uploads of bodies in S3 by presigned URL (PROTOCOL §2).

This module owns these two calls. It must not know what the bodies say, or send the agent's token: a presigned URL is a secret that
carries its own authorization.
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
from relay_agent.protocol.messages import UPLOAD_HEADERS
from relay_agent.storage.buffer import Filed
from relay_agent.tdp.call_outcomes import Count, count_nothing, count_outcome
from relay_agent.tdp.platform_http import Answer, PlatformHttp, unreachable
from relay_agent.transport.content_encoding import GZIP_MAGIC, BadCoding, TooLarge, decode
from relay_agent.transport.errors import DiskFault, TransportFault

T = TypeVar("T")
_MAX_ANSWER = 64 * 1024
_NOT_S3S = frozenset({PayloadFault.DAMAGED, PayloadFault.FORBIDDEN})
"""Faults that are not S3's: it returned what the sender had uploaded, or was not called."""


class Payloads:
    """Downloads and uploads bodies. Any thread may call."""

    def __init__(
        self,
        http: PlatformHttp,
        max_bytes: int,
        count: Count = count_nothing,
        downloaded: Callable[[PlatformError | None], None] = lambda _error: None,
    ) -> None:
        """`max_bytes` limits an unpacked body; `downloaded` is called after each download with S3's error, None if it has none."""
        self._downloaded = downloaded
        self._http = http
        self._max_bytes = max_bytes
        self._count = count

    def download(self, url: str, seconds: float, keep: Callable[[Iterator[bytes]], T]) -> T:
        """Download a command's body within `seconds` and return what `keep` returns for its pieces, unpacked if it is gzip.

        Raises:
            PayloadRefused: S3 refused, or the body is too large or damaged; a retry does not help.
            PlatformError: a retry may help.
        """
        try:
            with count_outcome(self._count, Call.DOWNLOAD), _as_platform_errors(Call.DOWNLOAD, url, self._max_bytes):
                kept = self._download(url, seconds, keep)
        except PlatformError as error:
            self._downloaded(None if isinstance(error, PayloadRefused) and error.why in _NOT_S3S else error)
            raise
        self._downloaded(None)
        return kept

    def upload(self, url: str, path: Path, seconds: float) -> None:
        """Upload a spooled answer, a gzip file, within `seconds`.

        Raises:
            PayloadRefused: S3 refused; a retry does not help.
            PlatformError: a retry may help.
            OSError: the file cannot be read.
        """
        content = Filed(path)
        if not content.size:
            raise OSError(errno.EIO, "an empty file is not gzip")
        with count_outcome(self._count, Call.UPLOAD), _as_platform_errors(Call.UPLOAD, url, _MAX_ANSWER):
            _check(Call.UPLOAD, self._http.send("PUT", url, UPLOAD_HEADERS, content, seconds, _MAX_ANSWER))

    def _download(self, url: str, seconds: float, keep: Callable[[Iterator[bytes]], T]) -> T:
        deadline = Deadline(seconds)
        with self._http.stream("GET", url, (), None, seconds, self._max_bytes) as answer:
            if not 200 <= answer.status < 300:
                _check(Call.DOWNLOAD, answer.whole())
            head = next(answer.pieces, b"")
            _check(Call.DOWNLOAD, Answer(answer.status, answer.headers, head))
            pieces = chain([head], answer.pieces)
            # Decided by the bytes, since the Content-Encoding stored with the object may be lost.
            return keep(_unpacked(pieces, self._max_bytes, deadline) if head.startswith(GZIP_MAGIC) else pieces)


@contextmanager
def _as_platform_errors(call: Call, url: str, max_bytes: int) -> Iterator[None]:
    """Translate errors of the transport and the disk."""
    try:
        yield
    except BadUrl:
        raise PayloadRefused(call, "the presigned URL is not a URL", why=PayloadFault.BAD_URL) from None
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
    # The status is the same; S3's text distinguishes them: AccessDenied with "Request has expired", or ExpiredToken.
    why = PayloadFault.EXPIRED if refused and b"expired" in answer.body.lower() else PayloadFault.ANSWERED
    reason = f"S3 answered {answer.status}{': the presigned URL has expired' if why is PayloadFault.EXPIRED else ''}"
    if refused:
        raise PayloadRefused(call, reason, answer.status, why=why)
    raise PlatformError(call, reason, answer.status)


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
