"""A transport adapter for requests that sends through an agent, over the platform's command queue.

This module owns the translation between requests' objects and commands. It must not call the platform itself: a `Client` does.

The adapter is an `HTTPAdapter` whose connections are commands. So `responses`, which replaces `HTTPAdapter.send`, also works beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import requests
from requests import PreparedRequest, Response
from requests import exceptions as failures
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, ProtocolError
from urllib3.exceptions import SSLError as TlsError
from urllib3.util import Retry

from relay_agent.core.errors import RelayError
from relay_agent.pipelines.commands import DEFAULT_TIMEOUT_SECONDS, Client, check_size, check_timeout
from relay_agent.pipelines.encoding import request_payload
from relay_agent.pipelines.failures import Kind, TooLarge, Trouble, trouble_of_answer, trouble_of_error
from relay_agent.pipelines.received import received
from relay_agent.protocol.keyring import Keyring

_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})
"""Not passed on: the agent frames the body itself (PROTOCOL §3)."""
_PIECE_BYTES = 64 * 1024


def relay_session(client: Client, *, keyring: Keyring | None = None, retries: int | Retry | None = None) -> requests.Session:
    """Return a session whose requests go through the agent of `client`; a `keyring` makes every one a secure command.

    `retries` is what an HTTPAdapter takes as `max_retries`. Proxies, certificates and `.netrc` of this machine's environment are not used.
    """
    session = requests.Session()
    session.trust_env = False
    adapter = _SessionAdapter(client, keyring=keyring, max_retries=0 if retries is None else retries)
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return session


def as_sent(url: str) -> str:
    """Return the URL as a session of requests sends it, which may rewrite it."""
    return requests.Request("GET", url).prepare().url or url


def can_send(url: str) -> bool:
    """Return whether requests accepts the URL: it refuses, for example, a host that begins with a dot, which the agent does not."""
    try:
        as_sent(url)
    except (requests.RequestException, ValueError):
        return False
    return True


class RelayAdapter(HTTPAdapter):
    """Sends a session's requests through the agent of `client`; `keyring` makes every one a secure command.

    `timeout` is the limit in seconds for the whole exchange at the target; of a pair (connect, read) the second value counts; None means
    `timeout_seconds`. `max_retries` is as in HTTPAdapter, but a failure that leaves open whether the target acted is repeated only for the
    methods that the Retry allows. `verify=False` is passed on; a path is refused, except the one that a session with `trust_env` takes
    from the environment. `proxies` are ignored: the agent has its own towards the target.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "_client", "_keyring", "_timeout_seconds"]  # noqa: RUF012  # as HTTPAdapter declares it

    def __init__(
        self,
        client: Client,
        *,
        keyring: Keyring | None = None,
        max_retries: int | Retry = 0,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> None:
        super().__init__(max_retries=max_retries)
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
            ValueError: `cert` or a path as `verify` is given, or `timeout` is none.
        """
        if cert:
            raise ValueError("cert: client certificates are the agent's; its policy file names the one for each target")
        if isinstance(verify, str | os.PathLike) and os.fspath(verify) not in self._bundles_of_the_environment():
            raise ValueError("verify: the agent verifies with its own roots (RELAY_CA_FILE at the agent); give True or False")
        _seconds(timeout, self._timeout_seconds)
        try:
            return super().send(request, stream=stream, timeout=timeout, verify=bool(verify), cert=None, proxies=None)
        except _Failed as failed:
            failure = failed.failure
        try:
            raise failure
        finally:
            del failure  # Otherwise this frame and the exception would keep each other.

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Mapping[str, str] | None = None, cert: Any = None
    ) -> Any:
        """Return what HTTPAdapter takes for a pool of connections to the request's host."""
        return _Exchange(self._client, self._keyring, self._timeout_seconds, request, verify=bool(verify))

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Do nothing: the agent verifies."""

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        """Return the whole URL, for which no proxy of this machine counts."""
        return request.url or ""

    def close(self) -> None:
        """Close the client's connections to the platform, as far as they are its own; the adapter stays usable."""
        super().close()
        close = getattr(self._client, "close", None)
        if close is not None:
            close()

    def _bundles_of_the_environment(self) -> set[str]:
        """Return the paths that a session with `trust_env` puts in the place of `verify=True`; nobody meant them for the target."""
        return {os.environ.get(name, "") for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}  # noqa: TID251  # requests reads them too


class _SessionAdapter(RelayAdapter):
    """The adapter of `relay_session`, which takes nothing from the environment: any path as `verify` is its caller's."""

    def _bundles_of_the_environment(self) -> set[str]:
        return set()


class _Failed(Exception):
    """Carries a failure out of HTTPAdapter, which would take any exception of requests for a ConnectionError."""

    def __init__(self, failure: requests.RequestException) -> None:
        super().__init__()
        self.failure = failure


class _Exchange:
    """One request of a session, with its repetitions, in the place of urllib3's pool of connections."""

    def __init__(self, client: Client, keyring: Keyring | None, timeout_seconds: float, request: PreparedRequest, *, verify: bool) -> None:
        self._client = client
        self._keyring = keyring
        self._timeout_seconds = timeout_seconds
        self._request = request
        self._verify = verify

    def urlopen(self, *, method: str, url: str, body: Any, headers: Any, retries: Retry, timeout: Any, **_: Any) -> HTTPResponse:
        """Send the request, again as long as `retries` allow, and return the response with its body unread.

        Raises:
            _Failed: there is none.
        """
        seconds = _seconds(timeout, self._timeout_seconds)
        payload = self._payload(method, url, body, headers, seconds)
        while True:
            found = self._once(payload, seconds, retries)
            if isinstance(found, Trouble):
                retries = self._after_trouble(method, url, retries, found)
                retries.sleep()
                continue
            if not retries.is_retry(method, found.status, bool(found.headers.get("Retry-After"))):
                return found
            following = self._after_status(method, url, retries, found)
            if following is None:
                return found
            retries = following
            found.close()
            retries.sleep(found)

    def _payload(self, method: str, url: str, body: Any, headers: Any, seconds: float) -> dict[str, Any]:
        fields = [(_latin(name), _latin(value)) for name, value in headers.items()]
        kept = [(name, value) for name, value in fields if name.lower() not in _FRAMING_HEADERS]
        try:
            payload = request_payload(method or "GET", url, kept, _body(body), seconds)
        except TooLarge as error:
            self._fail(trouble_of_error(error, secure=False))
        payload["follow_redirects"] = False  # The session follows them itself.
        if not self._verify:
            payload["ignore_tls_certificate"] = True
        return payload

    def _once(self, payload: dict[str, Any], seconds: float, retries: Retry) -> HTTPResponse | Trouble:
        secure = self._keyring is not None
        try:
            answer = self._client.exchange(payload, timeout_seconds=seconds, keyring=self._keyring)
            return received(self._request, answer, retries) if answer.http else trouble_of_answer(answer, secure=secure)
        except RelayError as error:
            return trouble_of_error(error, secure=secure)

    def _after_trouble(self, method: str, url: str, retries: Retry, trouble: Trouble) -> Retry:
        if not trouble.repeatable:
            self._fail(trouble)
        try:
            return retries.increment(method, url, error=_as_urllib3_has_it(trouble))
        except HTTPError:
            self._fail(trouble)

    def _after_status(self, method: str, url: str, retries: Retry, response: HTTPResponse) -> Retry | None:
        """Return the retries that are left, None if the response itself is to be returned."""
        try:
            return retries.increment(method, url, response=response)
        except MaxRetryError as error:
            if not retries.raise_on_status:
                return None
            reason = error.reason
        response.close()
        raise _Failed(failures.RetryError(f"{response.status}: {reason}", request=self._request))

    def _fail(self, trouble: Trouble) -> NoReturn:
        raise _Failed(_CLASSES[trouble.kind](str(trouble), request=self._request))


_CLASSES: dict[Kind, type[requests.RequestException]] = {
    Kind.CONNECT: failures.ConnectionError,
    Kind.CONNECT_TIMEOUT: failures.ConnectTimeout,
    Kind.PROXY: failures.ProxyError,
    Kind.TLS: failures.SSLError,
    Kind.READ_TIMEOUT: failures.ReadTimeout,
    Kind.LOST: failures.ConnectionError,
    Kind.BODY: failures.ChunkedEncodingError,
    Kind.DECODING: failures.ContentDecodingError,
    Kind.REDIRECTS: failures.TooManyRedirects,
    Kind.URL: failures.InvalidURL,
    Kind.HEADER: failures.InvalidHeader,
    Kind.REFUSED: failures.RequestException,
}


def _as_urllib3_has_it(trouble: Trouble) -> Exception:
    """Return the error by which urllib3's Retry knows whether the request was sent."""
    if not trouble.nothing_sent:
        return ProtocolError(str(trouble))
    return TlsError(str(trouble)) if trouble.kind is Kind.TLS else ConnectTimeoutError(str(trouble))


def _latin(text: str | bytes) -> str:
    return text.decode("latin-1") if isinstance(text, bytes) else text


def _body(body: Any) -> bytes | None:
    """Return the whole body, from any form that requests accepts: text, bytes, a file, or an iterable of text or bytes.

    Raises:
        TooLarge: it does not fit into a command; no more of it is read.
    """
    if body is None:
        return None
    if isinstance(body, str):
        return _checked(body.encode("utf-8"))
    if isinstance(body, bytes | bytearray | memoryview):
        return _checked(bytes(body))
    whole = bytearray()
    for piece in _pieces(body):
        whole += piece.encode("utf-8") if isinstance(piece, str) else piece
        check_size(len(whole))
    return bytes(whole)


def _checked(body: bytes) -> bytes:
    check_size(len(body))
    return body


def _pieces(body: Any) -> Iterator[str | bytes]:
    if not hasattr(body, "read"):
        yield from body
        return
    while True:
        piece = body.read(_PIECE_BYTES)  # A pipe or a download may return less than was asked for.
        if piece is None:
            raise ValueError("the body's file has nothing to read yet: give one that blocks")
        if not piece:
            return
        yield piece


def _seconds(timeout: Any, default: float) -> float:
    """Return the limit for the whole exchange, from any form of timeout that requests accepts; of a pair it is the second."""
    if isinstance(timeout, tuple):
        if len(timeout) != 2:
            raise ValueError(f"Invalid timeout {timeout}. Pass a (connect, read) timeout tuple, or a single float.")
        parts = list(timeout)
    elif hasattr(timeout, "connect_timeout"):  # urllib3's Timeout, which has a sentinel for what was not given
        given = [timeout.connect_timeout, timeout.read_timeout if timeout.total is None else timeout.total]
        parts = [part if part is None or isinstance(part, int | float) else None for part in given]
    else:
        parts = [timeout]
    if not all(part is None or (isinstance(part, int | float) and not isinstance(part, bool)) for part in parts):
        raise ValueError("Timeout value must be an int, float or None, or a pair of them")
    for part in parts:
        if part is not None:
            check_timeout(part)
    return default if parts[-1] is None else float(parts[-1])
