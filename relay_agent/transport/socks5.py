"""Asks a SOCKS5 proxy for a connection, over an open socket (RFC 1928, RFC 1929).

Not by PySocks: it encodes lengths above 127 as two bytes, raises UnicodeError, and gives the proxy's reply only in its text.
"""

from __future__ import annotations

import ipaddress

from relay_agent.core.failures import Code
from relay_agent.core.urls import MAX_HOST, MAX_LABEL, literal_address
from relay_agent.transport.deadline_sockets import DeadlineSocket
from relay_agent.transport.errors import ProxyFault, TransportFault
from relay_agent.transport.fault_mapping import os_fault
from relay_agent.transport.proxy import Proxy

_VERSION, _LOGIN_VERSION = 5, 1
_NO_LOGIN, _LOGIN = 0, 2
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_GRANTED = 0
_MOST_BYTES = 255
_REFUSALS = {
    2: Code.EHOSTUNREACH,
    3: Code.ENETUNREACH,
    4: Code.EHOSTUNREACH,
    5: Code.ECONNREFUSED,
    6: Code.ETIMEDOUT,
}
"""Codes of the reply field (RFC 1928 §6); the other replies are ECONNREFUSED."""


def ask_for_connection(sock: DeadlineSocket, proxy: Proxy, host: str, port: int) -> None:
    """Have the proxy connect to host and port; the proxy resolves a name.

    Raises:
        TransportFault: the proxy refuses or fails; the fault names it.
        TimeoutError: the socket's deadline passed.
    """
    where = _address(host) + port.to_bytes(2, "big")
    try:
        _log_in(sock, proxy)
        sock.sendall(bytes([_VERSION, _CONNECT, 0]) + where)
        _read_reply(sock, proxy)
    except TimeoutError:
        raise
    except OSError as error:
        raise os_fault(error, "connect").at(proxy.masked) from None


def _address(host: str) -> bytes:
    literal = literal_address(host)
    if literal is not None:
        return bytes([_IPV4 if isinstance(literal, ipaddress.IPv4Address) else _IPV6]) + literal.packed
    name = host.removesuffix(".")
    labels = name.split(".")
    if not host.isascii() or len(name) > MAX_HOST or not all(0 < len(label) <= MAX_LABEL for label in labels):
        raise TransportFault(Code.ENOTFOUND, f"{host} cannot be resolved: it is not a domain name (RFC 1035 §2.3.4)")
    return bytes([_NAME, len(host)]) + host.encode("ascii")


def _log_in(sock: DeadlineSocket, proxy: Proxy) -> None:
    """Agree on an authentication method, and authenticate."""
    user, password = ((text or "").encode() for text in (proxy.username, proxy.password))
    offered = [_NO_LOGIN] if proxy.username is None else [_NO_LOGIN, _LOGIN]
    sock.sendall(bytes([_VERSION, len(offered), *offered]))
    version, chosen = _read(sock, 2, proxy)
    if version != _VERSION:
        raise _not_socks(proxy)
    if chosen not in offered:
        raise ProxyFault(Code.ECONNREFUSED, proxy.masked, "refused every authentication method that it was offered")
    if chosen == _NO_LOGIN:
        return
    if max(len(user), len(password)) > _MOST_BYTES:
        raise ProxyFault(Code.ECONNREFUSED, proxy.masked, "cannot be given a user or password of more than 255 bytes")
    sock.sendall(bytes([_LOGIN_VERSION, len(user)]) + user + bytes([len(password)]) + password)
    _, status = _read(sock, 2, proxy)
    if status != _GRANTED:
        raise ProxyFault(Code.ECONNREFUSED, proxy.masked, "refused the user and password")


def _read_reply(sock: DeadlineSocket, proxy: Proxy) -> None:
    version, reply, _, kind = _read(sock, 4, proxy)
    if version != _VERSION:
        raise _not_socks(proxy)
    if reply != _GRANTED:
        code = _REFUSALS.get(reply)
        if code is not None:
            raise ProxyFault(code, proxy.masked, f"answered {code}", behind=True)
        raise ProxyFault(Code.ECONNREFUSED, proxy.masked, f"refused: reply {reply}")
    sizes = {_IPV4: 4, _IPV6: 16}
    size = _read(sock, 1, proxy)[0] if kind == _NAME else sizes.get(kind)
    if size is None:
        raise _not_socks(proxy)
    _read(sock, size + 2, proxy)  # The address and port, which end the reply: the next byte is the target's.


def _read(sock: DeadlineSocket, count: int, proxy: Proxy) -> bytes:
    found = b""
    while len(found) < count:
        data = sock.recv(count - len(found))
        if not data:
            raise TransportFault(Code.ECONNRESET, "connect ECONNRESET: closed without an answer").at(proxy.masked)
        found += data
    return found


def _not_socks(proxy: Proxy) -> TransportFault:
    return TransportFault(Code.EBADRESPONSE, "the answer is not SOCKS5").at(proxy.masked)
