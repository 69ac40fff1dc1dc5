"""`no_proxy`: its grammar, and which hosts it names (README.md, "Configuration").

It must not resolve names: it matches the URL's host as written, and every spelling of an address as that address.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from relay_agent.core.models import Url
from relay_agent.core.urls import BadUrl, IpAddress, IpNetwork, literal_address, normal_host, split_host_port

_SEPARATORS = re.compile(r"[,\s]+")
_MAPPED_PREFIX = 96
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Entry:
    """One part of `no_proxy`, as written in `text`: a network, a name with its subdomains, or any host if both are None."""

    text: str
    network: IpNetwork | None = None
    name: str | None = None
    port: int | None = None

    def matches(self, host: str, address: IpAddress | None, port: int) -> bool:
        """Return whether it names a host (lower case, without a final dot); `address` is None if the host is a name."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address.version == self.network.version and address in self.network
        if self.name is not None:
            return address is None and (host == self.name or host.endswith(f".{self.name}"))
        return True


def parse_no_proxy(text: str) -> tuple[Entry, ...]:
    """Parse a list separated by commas or white space; invalid entries are ignored, as in other HTTP clients."""
    entries = (_entry(part) for part in _SEPARATORS.split(text) if part)
    return tuple(entry for entry in entries if entry is not None)


def find_entry(entries: tuple[Entry, ...], url: Url) -> Entry | None:
    """Return the first entry that names the URL's host; returns None if none does, so that a proxy is used."""
    host, address = url.host.rstrip("."), literal_address(url.host)
    return next((entry for entry in entries if entry.matches(host, address, url.port)), None)


def _entry(text: str) -> Entry | None:
    try:
        host, port = _host_and_port(text)
        if host == "*":
            return Entry(text, port=port)
        network = _network(host)
        return Entry(text, network=network, port=port) if network else Entry(text, name=_name(host), port=port)
    except ValueError:
        return None


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Split `host:port`; two colons outside brackets are an IPv6 address, and `[fd00::]/8` is a subnet."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](/[0-9]+)?(:[0-9]+)?", text)
    if bracketed:
        _, port = split_host_port(f"[]{bracketed[3] or ''}")
        return bracketed[1] + (bracketed[2] or ""), port
    return split_host_port(text) if text.count(":") == 1 else (text, None)


def _network(host: str) -> IpNetwork | None:
    """Return the network of an address or a subnet; returns None for a name.

    Raises:
        ValueError: it has a slash, but is not a subnet.
    """
    if "/" in host:
        return _unmapped_network(ipaddress.ip_network(host, strict=False))
    address = literal_address(host)
    return None if address is None else ipaddress.ip_network(address)


def _unmapped_network(network: IpNetwork) -> IpNetwork:
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        inner = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((inner, network.prefixlen - _MAPPED_PREFIX))
    return network


def _name(host: str) -> str:
    name = normal_host(host.removeprefix("*").lstrip(".") if host.startswith(("*.", ".")) else host).rstrip(".")
    if not name or "*" in name or ":" in name:
        raise BadUrl("is not a name")
    return name
