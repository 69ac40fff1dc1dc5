"""The grammar of URLs and hosts in commands, redirects and policies; parsing changes no byte of what the target receives.

It must not resolve names, nor decide which hosts may be called.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from dataclasses import replace
from urllib.parse import quote, unquote_to_bytes

import idna

from relay_agent.core.models import Url

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 64 * 1024
MAX_HOST = 253
MAX_LABEL = 63
"""Lengths in characters (PROTOCOL §3; RFC 1035 §2.3.4)."""

_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)", re.DOTALL)
# RFC 3986, appendix B, without the fragment: scheme, authority, path, query with its question mark.
_REFERENCE = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?", re.DOTALL)
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f]")
_REG_NAME = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=-]+")
_ZONE = re.compile(r"[A-Za-z0-9._~-]+")
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")


class BadUrl(ValueError):
    """The URL cannot be called. The text says why, and repeats no part of it."""


def parse_url(url: str) -> Url:
    """Parse an absolute http or https URL (RFC 3986, IDNA 2008).

    Path and query keep every byte (`%2F`, `%2f`, `a//b`, `|`, `{`); non-ASCII characters, which a request line cannot hold, are
    percent-encoded as UTF-8 (RFC 3987 §3.1).

    Raises:
        BadUrl: not absolute, another scheme, no host, a bad port, a control character or a space, or longer than PROTOCOL §3 allows.
    """
    if len(url) > MAX_URL:
        raise BadUrl(f"is longer than {MAX_URL:,} characters")
    if _FORBIDDEN.search(url):
        raise BadUrl("contains a space or a control character; percent-encode it")
    match = _ABSOLUTE.fullmatch(url.partition("#")[0])
    if match is None:
        raise BadUrl("must be an absolute URL such as https://host/path")
    scheme = match[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise BadUrl("must be http or https")
    if "\\" in match[2]:
        raise BadUrl("has a backslash before the path")
    userinfo, _, hostport = match[2].rpartition("@")
    host, port = split_host_port(hostport)
    target = _ascii(match[3])
    return Url(
        scheme=scheme,
        host=normal_host(host),
        port=port if port is not None else DEFAULT_PORTS[scheme],
        explicit_port=port is not None,
        target=target if target.startswith("/") else f"/{target}",
        authorization=basic_authorization(userinfo) if userinfo else None,
    )


def join(base: Url, location: str) -> Url:
    """Resolve a `Location` against the URL of its response (RFC 3986 §5, RFC 9110 §10.2.2).

    Unlike in a command's URL, spaces and control characters are percent-encoded, as browsers do it. A reference without an
    authority keeps the user info of `base`, which is part of the authority.

    Raises:
        BadUrl: the result is not an absolute http or https URL, or one of the two is longer than PROTOCOL §3 allows.
    """
    # urllib.parse.urljoin drops an empty query and merges slashes.
    if len(location) > MAX_URL:
        raise BadUrl(f"is longer than {MAX_URL:,} characters")
    cleaned = _FORBIDDEN.sub(lambda match: quote(match[0]), location.strip(" \t\r\n")).partition("#")[0]
    match = _REFERENCE.fullmatch(cleaned)
    assert match is not None  # the pattern matches any text without a fragment
    scheme, authority, path, query = match[1], match[2], match[3], match[4] or ""
    if authority is not None:
        return parse_url(f"{scheme or base.scheme}://{authority}{_without_dots(path)}{query}")
    if scheme and scheme.lower() != base.scheme:
        raise BadUrl("must be an absolute http or https URL")
    return replace(base, target=_ascii(_merged(base.target, path, query)))


def literal_address(host: str) -> IpAddress | None:
    """Return the address that a host is written as: dotted, IPv6, decimal, octal or hexadecimal.

    Returns None for a name. An IPv4-mapped IPv6 address is returned as IPv4; a zone is left out.
    """
    try:
        return unmapped(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    if ":" in host or not host[:1].isdigit():
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, UnicodeError, ValueError):
        return None


def is_part(network: IpNetwork, whole: IpNetwork) -> bool:
    """Return whether every address of a network lies in another; False if one is IPv4 and the other IPv6."""
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(whole, ipaddress.IPv4Network) and network.subnet_of(whole)
    return isinstance(whole, ipaddress.IPv6Network) and network.subnet_of(whole)


def unmapped(address: IpAddress) -> IpAddress:
    """Return the IPv4 address of an IPv4-mapped IPv6 one (RFC 4291 §2.5.5.2), else the address itself."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def check_host_header(value: str) -> None:
    """Check the value of a `Host` header: an ASCII host with an optional port (PROTOCOL §3, RFC 9110 §7.2).

    Raises:
        BadUrl: it is anything else.
    """
    if not value.isascii() or _FORBIDDEN.search(value):
        raise BadUrl("must be a host, or host:port, in ASCII")
    host, _ = split_host_port(value)
    normal_host(host)


def split_host_port(hostport: str) -> tuple[str, int | None]:
    """Split `host`, `host:port`, `[v6]` or `[v6]:port`; brackets stay, an empty port becomes None.

    Raises:
        BadUrl: a bracket is missing, or the port is not between 1 and 65535.
    """
    host, port = hostport, ""
    if hostport.startswith("["):
        host, bracket, rest = hostport.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadUrl("has a malformed IPv6 address")
        host, port = host + "]", rest[1:]
    elif ":" in hostport:
        host, _, port = hostport.rpartition(":")
    return host, _port(port) if port else None


def normal_host(host: str) -> str:
    """Normalise a host for comparison: lower case, IDNA as ASCII, IPv6 without brackets.

    Raises:
        BadUrl: it is empty, not a domain name, or has brackets around something that is not an IPv6 address.
    """
    if host.startswith("["):
        if not host.endswith("]") or len(host) > MAX_HOST:
            raise BadUrl("has a malformed IPv6 address")
        return _ipv6(host[1:-1])
    if not host:
        raise BadUrl("has no host")
    _check_length(host)
    if not host.isascii():
        try:
            host = _idna(host)
        except (idna.IDNAError, UnicodeError):
            raise BadUrl("has a host that is not a valid international domain name") from None
        _check_length(host)
    if not _REG_NAME.fullmatch(host):
        raise BadUrl("has a host with a character that host names cannot have")
    return host.lower()


def basic_authorization(userinfo: str) -> str:
    """Return the value of an Authorization header (RFC 7617) for a URL's percent-encoded `user:password`.

    Raises:
        BadUrl: it contains half of a surrogate pair.
    """
    user, _, password = userinfo.partition(":")
    try:
        token = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    except UnicodeEncodeError:
        raise BadUrl("contains half of a surrogate pair") from None
    return "Basic " + base64.b64encode(token).decode("ascii")


def _port(text: str) -> int:
    digits = text.lstrip("0")
    # The length first: int() is slow for many digits, and fails with another error above 4,300.
    if not text.isascii() or not text.isdigit() or not digits or len(digits) > 5 or int(digits) > 65535:
        raise BadUrl("has a port that is not between 1 and 65535")
    return int(digits)


def _check_length(host: str) -> None:
    if len(host.removesuffix(".")) > MAX_HOST:
        raise BadUrl(f"has a host of more than {MAX_HOST} characters")
    if max(map(len, host.split("."))) > MAX_LABEL:
        raise BadUrl(f"has a host with a label of more than {MAX_LABEL} characters")


def _ipv6(text: str) -> str:
    address, percent, zone = text.partition("%")
    zone = zone.removeprefix("25")  # RFC 6874: the percent sign before a zone is itself encoded
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise BadUrl("has a malformed IPv6 address") from None
    if percent and not _ZONE.fullmatch(zone):
        raise BadUrl("has an IPv6 address with a malformed zone")
    return f"{address.lower()}%{zone}" if zone else address.lower()


def _idna(host: str) -> str:
    mapped = idna.uts46_remap(host, std3_rules=False, transitional=False)
    _check_length(mapped)  # One character may become eighteen, and the cost of Punycode is quadratic in a label's length.
    # Label by label: IDNA forbids an ASCII label such as `my_host`, DNS does not.
    return ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split("."))


def _ascii(target: str) -> str:
    try:
        encoded = _NON_ASCII.sub(lambda match: quote(match[0].encode("utf-8")), target)
    except UnicodeEncodeError:
        raise BadUrl("contains half of a surrogate pair") from None
    if len(encoded) > MAX_URL:
        raise BadUrl(f"is longer than {MAX_URL:,} characters")
    return encoded


def _merged(base: str, path: str, query: str) -> str:
    """Return path and query of a reference without scheme and authority (RFC 3986 §5.2.2)."""
    base_path, mark, base_query = base.partition("?")
    if not path:
        return base_path + (query or mark + base_query)
    if not path.startswith("/"):
        path = base_path[: base_path.rindex("/") + 1] + path
    return _without_dots(path) + query


def _without_dots(path: str) -> str:
    """Resolve `.` and `..` (RFC 3986 §5.2.4); empty segments stay."""
    if not path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
