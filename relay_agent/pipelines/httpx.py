"""Transports for httpx that send through an agent, over the platform's command queue.

Owns the translation between httpx' objects and commands. It must not call the platform itself: a `Client` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error.name} is not installed; install it: pip install 'tdp-relay-agent[httpx]'", name=error.name) from None

from relay_agent.core.errors import RelayError
from relay_agent.pipelines.commands import DEFAULT_TIMEOUT_SECONDS, MAX_COMMAND_BYTES, Client, check_size
from relay_agent.pipelines.encoding import Answer, request_payload
from relay_agent.pipelines.failures import Kind, TooLarge, Trouble, trouble_of_answer, trouble_of_error
from relay_agent.pipelines.threads import Threads
from relay_agent.protocol.keyring import Keyring

PIECE_BYTES = 64 * 1024
MAX_REQUESTS = 64
"""How many requests of an AsyncClient may be under way at once, each on a thread."""
_FRAMING_HEADERS = frozenset({b"content-length", b"transfer-encoding"})

_CLASSES: dict[Kind, type[httpx.RequestError]] = {
    Kind.CONNECT: httpx.ConnectError,
    Kind.CONNECT_TIMEOUT: httpx.ConnectTimeout,
    Kind.PROXY: httpx.ProxyError,
    Kind.TLS: httpx.ConnectError,
    Kind.READ_TIMEOUT: httpx.ReadTimeout,
    Kind.LOST: httpx.ReadError,
    Kind.BODY: httpx.RemoteProtocolError,
    Kind.DECODING: httpx.DecodingError,
    Kind.REDIRECTS: httpx.TooManyRedirects,
    Kind.URL: httpx.UnsupportedProtocol,
    Kind.HEADER: httpx.LocalProtocolError,
    Kind.REFUSED: httpx.RequestError,
}


class _Relay:
    """What both transports do: a request as a payload, and its outcome as a response."""

    def __init__(self, client: Client, keyring: Keyring | None, retries: int, timeout_seconds: float, verify: bool) -> None:
        self._client = client
        self._keyring = keyring
        self._retries = retries
        self._timeout_seconds = timeout_seconds
        self._verify = verify

    def send(self, request: httpx.Request, body: bytes) -> httpx.Response:
        """Send a request, again while `retries` allow and it is certain that nothing was sent; return the response.

        Raises:
            httpx.RequestError: there is none.
        """
        seconds = self._seconds(request)
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw if _kept(name)]
        payload = request_payload(request.method, str(request.url), fields, body or None, seconds)
        payload["follow_redirects"] = False  # The client follows them itself.
        if not self._verify:
            payload["ignore_tls_certificate"] = True
        for left in range(self._retries, -1, -1):
            found = self._once(payload, seconds)
            if not isinstance(found, Trouble):
                break
            if not left or not found.nothing_sent:
                raise _CLASSES[found.kind](str(found), request=request)
        assert not isinstance(found, Trouble)
        return found

    def close(self) -> None:
        """Close the client's connections to the platform, as far as they are its own; the client stays usable."""
        close = getattr(self._client, "close", None)
        if close is not None:
            close()

    def _once(self, payload: dict[str, Any], seconds: float) -> httpx.Response | Trouble:
        secure = self._keyring is not None
        try:
            answer = self._client.exchange(payload, timeout_seconds=seconds, keyring=self._keyring)
            return _response(answer) if answer.http else trouble_of_answer(answer, secure=secure)
        except RelayError as error:
            return trouble_of_error(error, secure=secure)

    def _seconds(self, request: httpx.Request) -> float:
        read = dict(request.extensions.get("timeout") or {}).get("read")
        return self._timeout_seconds if read is None else float(read)


class RelayTransport(httpx.BaseTransport):
    """Sends a client's requests through the agent of `client`; `keyring` makes every one a secure command.

    The limit of the whole exchange at the target is the read timeout, if that is None `timeout_seconds`. `retries` is as in HTTPTransport:
    only what was surely not sent is sent again.
    """

    def __init__(
        self,
        client: Client,
        *,
        keyring: Keyring | None = None,
        retries: int = 0,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        verify: bool = True,
    ) -> None:
        self._relay = _Relay(client, keyring, retries, timeout_seconds, verify)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Have the agent send the request, and return the response.

        Raises:
            httpx.RequestError: the class that says the same of a direct call; the message begins with the code of PROTOCOL §4.
        """
        body = bytearray()
        for piece in request.stream:  # type: ignore[union-attr]  # a sync client's request
            _add(body, piece, request)
        return self._relay.send(request, bytes(body))

    def close(self) -> None:
        """Close the client's connections to the platform, as far as they are its own; the transport stays usable."""
        self._relay.close()


class AsyncRelayTransport(httpx.AsyncBaseTransport):
    """The same for an AsyncClient under asyncio. Each request waits on a thread of its own, at most `max_requests` at once; others wait.

    A request that is cancelled keeps its thread until its time is over, because the agent may be executing it; a program's end does not
    wait for it.
    """

    def __init__(
        self,
        client: Client,
        *,
        keyring: Keyring | None = None,
        retries: int = 0,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        verify: bool = True,
        max_requests: int = MAX_REQUESTS,
    ) -> None:
        if max_requests < 1:
            raise ValueError("max_requests must be at least 1")
        self._relay = _Relay(client, keyring, retries, timeout_seconds, verify)
        self._threads = Threads("relay-httpx", max_requests)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Have the agent send the request, and return the response.

        Raises:
            httpx.RequestError: the class that says the same of a direct call; the message begins with the code of PROTOCOL §4.
        """
        body = bytearray()
        async for piece in request.stream:  # type: ignore[union-attr]  # an async client's request
            _add(body, piece, request)
        try:
            return await asyncio.wrap_future(self._threads.run(lambda: self._relay.send(request, bytes(body))))
        except _Closed:
            raise httpx.ConnectError("the transport was closed before this request was sent", request=request) from None

    async def aclose(self) -> None:
        """End the requests that wait for a thread, and close the client's connections as `RelayTransport` does."""
        self._threads.cancel(_Closed())
        self._relay.close()


class _Closed(Exception):
    """Ends what waits for a thread when the transport is closed."""


class _Bytes(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response's bytes, for both kinds of client."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._file.read(PIECE_BYTES):
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self._file.close()

    async def aclose(self) -> None:
        self._file.close()


def _response(answer: Answer) -> httpx.Response:
    headers = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in answer.headers()]
    return httpx.Response(answer.status_code or 0, headers=headers, stream=_Bytes(answer.open()))


def _kept(name: bytes) -> bool:
    return name.lower() not in _FRAMING_HEADERS


def _add(body: bytearray, piece: bytes, request: httpx.Request) -> None:
    body += piece
    if len(body) > MAX_COMMAND_BYTES:
        try:
            check_size(len(body))
        except TooLarge as error:
            raise httpx.RequestError(str(trouble_of_error(error, secure=False)), request=request) from None
