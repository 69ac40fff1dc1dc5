"""A transport adapter for requests that sends through an agent, by way of the platform's command queue.

This module owns the translation between requests' objects and commands. It must not call the platform itself: `client` does.
"""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import requests
from requests import PreparedRequest, Response
from requests import exceptions as failures
from requests.adapters import BaseAdapter
from requests.cookies import extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict, HTTPResponse

from relay_agent.core.errors import PlatformError, RelayError
from relay_agent.pipelines.client import CommandClient, NoAnswer
from relay_agent.pipelines.encoding import Answer, request_payload
from relay_agent.protocol.keyring import Keyring

DEFAULT_TIMEOUT_SECONDS = 60.0

_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})
"""Not passed on: the agent frames the body itself (PROTOCOL §3)."""


class RelayAdapter(BaseAdapter):
    """Sends a session's requests through the agent of `client`; `keyring` makes every one a secure command.

    `timeout` becomes the limit in seconds for the whole exchange: a pair (connect, read) counts as their sum, None as
    `timeout_seconds`. `verify=False` is passed on; the path of a CA bundle, `cert` and `proxies` are not, since the agent uses its
    own towards the target.
    """

    def __init__(self, client: CommandClient, *, keyring: Keyring | None = None, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        super().__init__()
        self._client = client
        self._keyring = keyring
        self._timeout_seconds = timeout_seconds

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Have the agent send the request, and return the response.

        Raises:
            requests.RequestException: the class that a direct call would raise; the message begins with the code of PROTOCOL §4.
        """
        seconds = _seconds(timeout, self._timeout_seconds)
        payload = _payload(request, seconds)
        payload["follow_redirects"] = False  # The session follows them itself.
        if verify is False:
            payload["ignore_tls_certificate"] = True
        try:
            answer = self._client.exchange(payload, timeout_seconds=seconds, keyring=self._keyring)
            if answer.http:
                return self._response(request, answer)
        except NoAnswer as error:
            raise failures.ReadTimeout(str(error), request=request) from error
        except PlatformError as error:
            raise failures.ConnectionError(str(error), request=request) from error
        except RelayError as error:
            raise failures.RequestException(str(error), request=request) from error
        kind = _failure(answer)
        if kind is failures.ConnectTimeout and self._keyring is not None and not answer.sealed:
            kind = failures.ReadTimeout  # It may be forged, so it must not say that a retry is safe.
        raise kind(f"{answer.code}: {answer.message}", request=request)

    def close(self) -> None:
        """Do nothing: the caller owns the client's session."""

    def _response(self, request: PreparedRequest, answer: Answer) -> Response:
        raw = _raw(request, answer)
        response = Response()
        response.status_code = raw.status
        response.headers = CaseInsensitiveDict(raw.headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = raw
        response.reason = raw.reason or ""
        response.url = request.url or ""
        response.request = request
        response.connection = self  # type: ignore[assignment]  # typed as HTTPAdapter, used as any adapter
        response.elapsed = timedelta(milliseconds=answer.elapsed_ms)
        extract_cookies_to_jar(response.cookies, request, raw)  # type: ignore[no-untyped-call]
        return response


class _Received:
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


def _raw(request: PreparedRequest, answer: Answer) -> HTTPResponse:
    headers = answer.headers()
    status = answer.status_code or 0
    return HTTPResponse(
        body=io.BytesIO(answer.content()),
        headers=HTTPHeaderDict(headers),
        status=status,
        version=11,
        reason=http.client.responses.get(status, ""),
        preload_content=False,
        enforce_content_length=False,  # The agent may have decoded a body, and its length with it.
        original_response=_Received(headers),  # type: ignore[arg-type]
        request_method=request.method,
    )


def _payload(request: PreparedRequest, seconds: float) -> dict[str, Any]:
    headers = [(_latin(name), _latin(value)) for name, value in request.headers.items()]
    kept = [(name, value) for name, value in headers if name.lower() not in _FRAMING_HEADERS]
    return request_payload(request.method or "GET", request.url or "", kept, _body(request.body), seconds)


def _latin(text: str | bytes) -> str:
    return text.decode("latin-1") if isinstance(text, bytes) else text


def _body(body: Any) -> bytes | None:
    """Return the whole body, from any form that requests accepts: text, bytes, a file, or an iterable of text or bytes."""
    if body is None:
        return None
    if isinstance(body, str):
        return body.encode("utf-8")
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    pieces: Iterator[str | bytes] = iter([body.read()] if hasattr(body, "read") else body)
    return b"".join(piece.encode("utf-8") if isinstance(piece, str) else piece for piece in pieces)


def _seconds(timeout: Any, default: float) -> float:
    """Return one limit for the whole exchange, from any form of timeout that requests accepts."""
    if timeout is None:
        return default
    if isinstance(timeout, tuple):
        if len(timeout) != 2:
            raise ValueError("timeout must be seconds, or a pair (connect, read)")
        parts = list(timeout)
    elif hasattr(timeout, "connect_timeout"):  # urllib3's Timeout
        parts = [timeout.total] if timeout.total is not None else [timeout.connect_timeout, timeout.read_timeout]
    else:
        parts = [timeout]
    if hasattr(timeout, "connect_timeout"):  # urllib3 has a sentinel for what was not given.
        parts = [part if part is None or isinstance(part, int | float) else None for part in parts]
    if not all(part is None or isinstance(part, int | float) for part in parts):
        raise ValueError("Timeout value must be an int, float or None, or a pair of them")
    if any(part is not None and part <= 0 for part in parts):
        raise ValueError("timeout must be more than 0 seconds")
    # Without a limit on reading, one on connecting does not limit the whole.
    return default if parts[-1] is None else float(sum(part for part in parts if part is not None))


_BY_CODE: dict[str, type[requests.RequestException]] = {
    "CERT_HAS_EXPIRED": failures.SSLError,
    "DEPTH_ZERO_SELF_SIGNED_CERT": failures.SSLError,
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE": failures.SSLError,
    "ERR_TLS_CERT_ALTNAME_INVALID": failures.SSLError,
    "EPROTO": failures.SSLError,
    "ETIMEDOUT": failures.ReadTimeout,
    "ETOOMANYREDIRECTS": failures.TooManyRedirects,
    "EEXPIRED": failures.ConnectTimeout,  # It was never executed, so a retry is safe, as after a ConnectTimeout.
    "EXPIRED": failures.ReadTimeout,
    "EBADCOMMAND": failures.RequestException,
    "ENOKEY": failures.RequestException,
    "EDECRYPT": failures.RequestException,
    "EREPLAY": failures.RequestException,
    "UNKNOWN_COMMAND": failures.RequestException,
}

# Two cases of one code differ only by the message (PROTOCOL §4, SECURITY §1).
_BY_MESSAGE: tuple[tuple[str, re.Pattern[str], type[requests.RequestException]], ...] = (
    ("EBADCOMMAND", re.compile(r"url\b"), failures.InvalidURL),
    ("EBADCOMMAND", re.compile(r"headers\b"), failures.InvalidHeader),
    ("EBADRESPONSE", re.compile(r".*Content-Length", re.DOTALL), failures.InvalidHeader),
    ("EBADRESPONSE", re.compile(r".*within the header block", re.DOTALL), failures.ChunkedEncodingError),
    ("EBADRESPONSE", re.compile(r".*Content-Encoding", re.DOTALL), failures.ContentDecodingError),
    ("EBADRESPONSE", re.compile(r".*\bbody\b", re.DOTALL), failures.ChunkedEncodingError),
    ("ETIMEDOUT", re.compile(r"connect\b|name resolution|the TLS handshake|the tunnel|proxy\b"), failures.ConnectTimeout),
)
_PROXY = re.compile(r"(the )?proxy\b")


def _failure(answer: Answer) -> type[requests.RequestException]:
    for code, pattern, kind in _BY_MESSAGE:
        if answer.code == code and pattern.match(answer.message):
            return kind
    kind = _BY_CODE.get(answer.code, failures.ConnectionError)
    if kind in (failures.ConnectionError, failures.SSLError) and _PROXY.match(answer.message):
        return failures.ProxyError
    return kind
