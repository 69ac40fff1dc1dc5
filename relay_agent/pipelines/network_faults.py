"""Why the platform was not reached: the reason for people, the code, and which exception a direct call would raise.

Owns the reading of what requests raises. It must not call anything.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

import requests
from requests import exceptions
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProtocolError

from relay_agent.pipelines.failures import Kind, Unreached

_KINDS: tuple[tuple[type[requests.RequestException], Kind], ...] = (
    (exceptions.ProxyError, Kind.PROXY),
    (exceptions.SSLError, Kind.TLS),
    (exceptions.ConnectTimeout, Kind.CONNECT_TIMEOUT),
    (exceptions.Timeout, Kind.READ_TIMEOUT),
    (exceptions.ContentDecodingError, Kind.DECODING),
    (exceptions.InvalidURL, Kind.URL),
    (exceptions.MissingSchema, Kind.URL),
    (exceptions.InvalidSchema, Kind.URL),
)
_BEFORE_SENDING = (NewConnectionError, ConnectTimeoutError, ssl.SSLCertVerificationError)
"""What fails only before a request leaves. An errno such as EHOSTUNREACH, and any other fault of TLS, may come while the answer is read.
So may what urllib3 calls a fault of the proxy: it forgets on a lost connection that this had reached the proxy."""
_NO_TUNNEL = "Tunnel connection failed"
"""How http.client says that a proxy refused a tunnel; the exception, an OSError, gives nothing else."""
_DEFAULT_CODES = {
    Kind.TLS: "EPROTO",
    Kind.CONNECT_TIMEOUT: "ETIMEDOUT",
    Kind.READ_TIMEOUT: "ETIMEDOUT",
    Kind.URL: "EBADCOMMAND",
    Kind.PROXY: "ECONNREFUSED",
    Kind.DECODING: "EBADRESPONSE",
}
_PROXY_FAILS = "the proxy for {host} cannot be reached or refuses: check {proxies}"
_TLS_FAILS = "TLS with {host} fails: check the port and the scheme of {address}"
_SLOW_TO_TAKE = "{host} did not take the request in time: is the line too slow for its size?"
_SLOW_TO_ANSWER = "{host} did not answer in time: check {address} and the proxy settings"
_CLOSED = "{host} closed the connection before its answer was complete: send again; is there a proxy in between?"
_NOT_HTTP = "what came from {host} is not a whole HTTP answer: send again; is there a proxy in between?"
_OUT_OF_REACH = "cannot reach {host}: check {address}, the name resolution and the proxy settings"


def unreached(
    call: str,
    error: requests.RequestException,
    host: str,
    *,
    address: str = "API_TARGET",
    proxies: str = "https_proxy, RELAY_PLATFORM_PROXY",
) -> Unreached:
    """Return the failure of a call to `host` that ended with this exception.

    `address` and `proxies` name the settings that the caller can check.
    """
    root = _root(error)
    kind = next((kind for known, kind in _KINDS if isinstance(error, known)), Kind.LOST)
    unsent = any(isinstance(part, _BEFORE_SENDING) for part in _chain(error)) or _refused_tunnel(root)
    if kind is Kind.PROXY and not unsent:
        kind = Kind.LOST
    if kind is Kind.LOST and unsent:
        kind = Kind.CONNECT
    if kind is Kind.LOST and isinstance(root, TimeoutError):
        kind = Kind.READ_TIMEOUT  # requests has classes for two of the places where time can pass.
    reason = _reason(error, root, kind).format(host=host, address=address, proxies=proxies)
    return Unreached(call, reason, kind, _code(root, kind), certain=unsent)


def _refused_tunnel(root: BaseException) -> bool:
    return isinstance(root, OSError) and root.errno is None and str(root).startswith(_NO_TUNNEL)


def too_slow(call: str, host: str) -> Unreached:
    """Return the failure of a call to `host` that nobody waits for any more."""
    return Unreached(call, _SLOW_TO_ANSWER.format(host=host, address="API_TARGET"), Kind.READ_TIMEOUT, "ETIMEDOUT")


def _code(root: BaseException, kind: Kind) -> str:
    if isinstance(root, socket.gaierror):
        return "EAI_AGAIN" if root.errno == socket.EAI_AGAIN else "ENOTFOUND"
    if isinstance(root, ssl.SSLError):
        return "UNABLE_TO_VERIFY_LEAF_SIGNATURE" if isinstance(root, ssl.SSLCertVerificationError) else "EPROTO"
    number = root.errno if isinstance(root, OSError) else None
    return errno.errorcode.get(number or 0, "") or _DEFAULT_CODES.get(kind) or ("EBADRESPONSE" if _not_http(root) else "ECONNRESET")


def _reason(error: requests.RequestException, root: BaseException, kind: Kind) -> str:
    """Return the reason, with places for the host and the settings."""
    if isinstance(root, ssl.SSLCertVerificationError):
        peer = "the proxy" if isinstance(error, exceptions.ProxyError) else "{host}"
        detail = root.verify_message.replace("{", "(").replace("}", ")")
        cure = "set REQUESTS_CA_BUNDLE, or RELAY_CA_FILE for relay-agent, if a proxy re-signs TLS"
        return f"the certificate of {peer} is not trusted: {cure} ({detail})"
    detail = root.strerror if isinstance(root, OSError) and root.strerror else type(root).__name__
    return f"{_fault(error, root, kind)} ({detail.replace('{', '(').replace('}', ')')})"


def _fault(error: requests.RequestException, root: BaseException, kind: Kind) -> str:
    if kind is Kind.PROXY:
        return _PROXY_FAILS
    if kind is Kind.TLS:
        return _TLS_FAILS
    if kind in (Kind.READ_TIMEOUT, Kind.CONNECT_TIMEOUT):
        sending = not isinstance(error, exceptions.Timeout) and any(isinstance(value, ProtocolError) for value in error.args)
        return _SLOW_TO_TAKE if sending else _SLOW_TO_ANSWER
    if kind is Kind.LOST and isinstance(root, ConnectionError):
        return _CLOSED
    if kind is Kind.URL:
        return "cannot call {host}"
    return _NOT_HTTP if _not_http(root) else _OUT_OF_REACH


def _not_http(root: BaseException) -> bool:
    """Return whether the connection held, and what came was wrong."""
    return not isinstance(root, OSError)  # As requests' own exceptions are.


def _root(error: BaseException) -> BaseException:
    """Return the original error, which urllib3 and requests wrap several times."""
    return list(_chain(error))[-1]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those that it wraps, from the outside to the original one."""
    for _ in range(10):
        yield error
        inner = [*error.args, getattr(error, "reason", None), error.__cause__, error.__context__]
        causes = [value for value in inner if isinstance(value, BaseException)]
        if not causes:
            return
        error = causes[0]
