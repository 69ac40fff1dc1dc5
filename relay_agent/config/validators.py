"""Checks of single values of settings, beyond their type.

It must not read the environment, and no error may repeat a value that may contain a secret.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections import deque
from pathlib import Path

from relay_agent.config.secrets import shown_path
from relay_agent.core.files import as_file, how_to_allow, read_regular
from relay_agent.core.models import SyslogReceiver
from relay_agent.core.urls import BadUrl, normal_host, parse_url
from relay_agent.transport.proxy import parse_proxy

LEAST_BYTES, MOST_BYTES = 1024, 10**12
"""The bounds of every limit in bytes; the upper one is more than any disk of an agent keeps, so a larger number is a slip."""
# Placeholders that people forget to replace in a copied example: the whole value, or `<...>` at its start or at the start of the host, but
# not inside a password.
_PLACEHOLDER = re.compile(r"(\w+://)?<[^<>]*>[^@]*|(\w+://)?your[_-].*|change[_-]?me|x{3,}|\.{3}|…", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9][0-9_]*(\.[0-9]+)?")
_LOADED: deque[bytes] = deque(maxlen=64)
"""Digests of the PEM files that OpenSSL has loaded."""
_CERTIFICATE = re.compile(rb"-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----")
_QUOTED = re.compile(r"(['\"]).*\1", re.DOTALL)


def is_placeholder(text: str) -> bool:
    """Whether a value is a placeholder of the example."""
    return _PLACEHOLDER.fullmatch(text) is not None


def is_quoted(text: str) -> bool:
    """Whether the value is in quotes: `docker run --env-file` keeps them, a shell and `.env` do not."""
    return _QUOTED.fullmatch(text) is not None


def check_number(value: object) -> object:
    """Refuse numbers that pydantic accepts and a person hardly means, such as `1e3` or `nan`.

    Raises:
        ValueError: it is not a decimal number.
    """
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError("is not a number")
    return value


def check_truth(value: object) -> object:
    """Read `true` and `false`, and nothing else that pydantic takes for a truth value.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str):
        return value
    if value.lower() not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return value.lower() == "true"


def check_identifier(value: str) -> str:
    """Accept an organisation's or an agent's identifier, which is used in headers and paths.

    Raises:
        ValueError: it contains another character, or is too long.
    """
    if value.startswith("eyJ") and "." in value:
        raise ValueError("looks like a token; set the token as JWT")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", value):
        raise ValueError("must consist of at most 128 letters, digits, '.', '_' and '-'")
    return value


def check_proxy(value: str) -> str:
    """Accept a proxy URL or `none`.

    Raises:
        ValueError: the message says what is wrong, but never repeats the value, since it may contain a password.
    """
    if value.lower() == "none":
        return "none"
    parse_proxy(value)
    return value


def check_plain_url(value: str) -> str:
    """Accept an http or https URL without user, query and fragment, and remove the slashes at its end.

    Raises:
        ValueError: it is something else, or contains more.
    """
    url = parse_url(value)
    if url.authorization is not None or "@" in value or "?" in value or "#" in value:
        raise ValueError("must not contain a user, a query or a fragment")
    return value.rstrip("/")


def listen_address(value: str) -> tuple[str, int]:
    """Split `host:port` into a host (IPv6 without brackets) and a port.

    Port 0, any free one, is refused: the policy denies the pages to commands by their port, which would not be known.

    Raises:
        ValueError: it is something else.
    """
    host, _, port = value.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("is not host:port with a port from 1 to 65535")
    if ":" in host and not host.startswith("["):
        raise ValueError("contains an IPv6 address without brackets; write [::1]:8089")
    try:
        return normal_host(host), int(port)
    except BadUrl as error:
        raise ValueError(str(error)) from None


def syslog_receiver(value: str) -> SyslogReceiver:
    """Split `udp://host:port`, or the same with `tcp` or `tls`.

    Raises:
        ValueError: it is something else.
    """
    scheme, separator, rest = value.partition("://")
    if not separator or scheme.lower() not in ("udp", "tcp", "tls"):
        raise ValueError("does not begin with udp://, tcp:// or tls://")
    if any(mark in rest for mark in "/?#@"):
        raise ValueError("must contain only a host and a port after ://")
    host, port = listen_address(rest)
    if not port:
        raise ValueError("needs a port above 0")
    return SyslogReceiver(scheme.lower(), host, port)


def _load(certificates: bytes) -> None:
    """Let OpenSSL load PEM certificates: once, since several settings and tables name the same file and a system's roots take 20 ms.

    Raises:
        ssl.SSLError, OSError: it cannot.
    """
    digest = hashlib.sha256(certificates).digest()
    if digest not in _LOADED:
        with as_file(certificates) as copy:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=copy)
        _LOADED.append(digest)


def check_certificates(path: Path) -> Path:
    """Accept a PEM file that OpenSSL can load.

    Raises:
        ValueError: it cannot be read or contains no certificate; the message names the file.
    """
    read_certificates(path)
    return path


def read_certificates(path: Path, beside: Path | None = None) -> bytes:
    """Return the content of a PEM file that OpenSSL can load; `beside` is as in `shown_path`.

    Raises:
        ValueError: it cannot be read or contains no certificate; the message names the file.
    """
    try:
        content = read_regular(path)
        if not _CERTIFICATE.search(content):
            raise ValueError(f"{path} contains no PEM certificate")
        _load(content)
    except ssl.SSLError:
        raise ValueError(f"{path} contains a damaged certificate") from None
    except OSError as error:
        shown = shown_path(path, beside)
        raise ValueError(f"cannot read {shown} ({error.strerror}){how_to_allow(path, error) if shown == str(path) else ''}") from None
    return content
