"""An answer as urllib3's response, which requests reads as that of a direct call.

Owns this translation. It must not decide what is sent, or sent again.
"""

from __future__ import annotations

import http.client
import io
from typing import BinaryIO

from requests import PreparedRequest
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.util import Retry

from relay_agent.pipelines.encoding import Answer


def received(request: PreparedRequest, answer: Answer, retries: Retry) -> HTTPResponse:
    """Return the response with its body unread; `retries` are those that were left when it was asked for.

    Raises:
        BadAnswer: the answer does not have the form of PROTOCOL §4.
    """
    headers = answer.headers()
    status = answer.status_code or 0
    return HTTPResponse(
        body=Body(answer.open()),  # type: ignore[arg-type]  # urllib3 asks for no more than `Body` has
        headers=HTTPHeaderDict(headers),
        status=status,
        version=11,
        version_string="HTTP/1.1",
        reason=http.client.responses.get(status, ""),
        preload_content=False,
        decode_content=False,
        enforce_content_length=False,  # The agent may have decoded a body, and its length with it.
        original_response=_Head(headers),  # type: ignore[arg-type]
        request_method=request.method,
        request_url=request.url,
        retries=retries,
    )


class Body:
    """A response's bytes, which count as closed once the last is read, as http.client's do.

    urllib3 reads until its file is closed: one that stayed open at its end would be read for ever.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = file.seek(0, io.SEEK_END)
        file.seek(0)

    @property
    def closed(self) -> bool:
        """Whether nothing more can be read."""
        return self._file.closed

    def read(self, amount: int | None = None) -> bytes:
        """Return that many bytes, fewer only at the end; all that are left without an amount."""
        if self.closed:
            return b""
        data = self._file.read(-1 if amount is None else amount)
        self._left -= len(data)
        if self._left <= 0:
            self.close()
        return data

    read1 = read

    def close(self) -> None:
        """Free the bytes."""
        self._file.close()


class _Head:
    """Stands in for http.client's response, from whose headers http.cookiejar reads the cookies."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self.msg = http.client.HTTPMessage()
        for name, value in headers:
            self.msg[name] = value

    def isclosed(self) -> bool:
        """Return True: there is no connection."""
        return True

    def close(self) -> None:
        """Do nothing: there is no connection."""
