"""The host patterns of rules: names, domains, addresses and subnets (docs/policy.md)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from relay_agent.core.urls import BadUrl, IpAddress, IpNetwork, literal_address, normal_host, unmapped

_NUMERIC_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.DOTALL)
_NUMBER_OR_RANGE = re.compile(r"[0-9]+(?:-[0-9]+)?|0x[0-9a-f]*", re.IGNORECASE)
_PLACEHOLDER_OR_NUMBER = re.compile(r"x$|[0-9]")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]+")
_PADDED = re.compile(r"0[0-9]+")
_NO_NAME = re.compile(r"[^a-z0-9_.*-]")
"""A character that URLs may have in a host, but no label of a domain has."""
_OCTET = re.compile(r"[0-9]{1,3}")
_FIRST_BEYOND_THIS_NETWORK = 1 << 24
"""1.0.0.0 as a number; smaller ones are in 0.0.0.0/8, which no target has."""
_WITH_PORT = re.compile(r"(?:[^:/]+|\[[^\]]*\]):[0-9]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_LIKE_LENGTH = re.compile(r"[0-9.:/ ]*")
_LOCALHOST = "localhost"
_LOOPBACK = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))


@dataclass(frozen=True, slots=True)
class HostPatterns:
    """What the `hosts` of a rule say, sorted by kind: `*`, names, `*.domain`, and addresses and subnets."""

    anything: bool = False
    names: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()
    """Each with its leading dot: `*.lab.example` matches every name below `lab.example`, not `lab.example` itself."""
    networks: tuple[IpNetwork, ...] = ()

    @property
    def names_localhost(self) -> bool:
        """Whether `localhost` is named, which in a deny rule means this machine's own addresses too."""
        return _LOCALHOST in self.names

    def match_name(self, host: str) -> bool:
        """Return whether a URL's host matches as it is written, whatever it resolves to."""
        name = host.rstrip(".")
        return self.anything or name in self.names or any(name.endswith(domain) and name != domain[1:] for domain in self.domains)

    def all_within(self, addresses: Sequence[IpAddress]) -> bool:
        """Return whether there are addresses, and every one of them lies in one of the networks."""
        return bool(addresses) and all(any(address in network for network in self.networks) for address in addresses)

    def any_within(self, addresses: Sequence[IpAddress]) -> bool:
        """Return whether one of the addresses lies in one of the networks, or is this machine's own and `localhost` is named."""
        networks = (*self.networks, *_LOOPBACK) if self.names_localhost else self.networks
        return any(address in network for address in addresses for network in networks)


def parse_hosts(texts: Sequence[str]) -> HostPatterns:
    """Read host patterns: a name, `*.domain`, `*`, an address (IPv6 with or without brackets) or a subnet.

    Raises:
        ValueError: one is none of these; the message contains it as `shown_host` returns it.
    """
    names: set[str] = set()
    domains: list[str] = []
    networks: list[IpNetwork] = []
    for text in texts:
        _check_host_only(text)
        network = _network(text)
        if network is not None:
            networks.append(network)
        elif text.startswith("*."):
            domains.append("." + _domain(text))
        elif text != "*":
            names.add(_name(text, text))
    return HostPatterns("*" in texts, frozenset(names), tuple(domains), tuple(networks))


def shown_host(text: str) -> str:
    """Return a host pattern for display: at most 100 characters, without what may be a secret.

    That is a user and password, and path and query of a URL. What looks like the length of a subnet is shown.
    """
    before, _, rest = text.rpartition("@")
    scheme, is_url, after = (before or text).partition("://")
    beginning = f"{scheme}://" if is_url and _SCHEME.fullmatch(scheme) else "…@" if before else ""
    if beginning and not before:
        rest = after
    rest = re.split("[?#]", rest, maxsplit=1)[0]
    host, _, path = rest.partition("/")
    return beginning + (rest if _LIKE_LENGTH.fullmatch(path) else f"{host}/…")[:100]


def _check_host_only(text: str) -> None:
    scheme, is_url, _ = text.partition("://")
    if is_url:
        also = f", and put {scheme.lower()} in a rule's `schemes`" if scheme.lower() in ("http", "https") else ""
        raise ValueError(f"'{shown_host(text)}' is a URL; write only the host{also}")
    if "@" in text:
        raise ValueError(f"'{shown_host(text)}' contains a user; write only the host")
    if _WITH_PORT.fullmatch(text):
        raise ValueError(f"'{text}' contains a port; put it in a rule's `ports`")


def _name(text: str, name: str) -> str:
    try:
        found = normal_host(name).rstrip(".")
    except BadUrl as error:
        raise ValueError(f"'{shown_host(text)}' {error}") from None
    if "*" in found or not found or found.startswith(".") or ".." in found:
        raise ValueError(f"'{shown_host(text)}' is not a host pattern; write a name, *.domain, an address or a subnet")
    if _NO_NAME.search(found):
        raise ValueError(f"'{shown_host(text)}' has a character that no name has; write each name or subnet in its own quotes")
    return found


def _domain(text: str) -> str:
    found = _name(text, text[2:])
    # `*.3.4` would match 1.2.3.4, but none of its other spellings.
    if _NUMERIC_END.fullmatch(found) or literal_address("1." + found.rpartition(".")[2]) is not None:
        raise ValueError(f"'{shown_host(text)}' is part of an address; write a subnet such as 10.20.0.0/16")
    return found


def _check_whole(text: str, address: str) -> None:
    """Refuse what is meant as a part or a range of addresses: it would be one address (10.20 is 10.0.0.20), or a name that nothing has."""
    labels = address.lower().split(".")
    numeric = bool(_NUMBER_OR_RANGE.fullmatch(labels[-1])) and "0" <= address[:1] <= "9"
    if not (numeric or (_NUMBER_OR_RANGE.fullmatch(labels[0]) and _PLACEHOLDER_OR_NUMBER.match(labels[-1]))):
        return
    # inet_aton ignores what follows a space, as in `10.1.2.3 - 9`.
    literal = literal_address(address) if all(map(_NUMBER.fullmatch, labels)) else None
    if literal is not None and len(labels) == 4 and any(_PADDED.fullmatch(label) for label in labels):
        decimal = ".".join(str(int(label)) if label.isdigit() else label for label in labels)
        raise ValueError(f"'{shown_host(text)}' has numbers with leading zeros, which count as octal; write '{decimal}'")
    if literal is not None and (len(labels) == 4 or (len(labels) == 1 and int(literal) >= _FIRST_BEYOND_THIS_NETWORK)):
        return
    shown = f"'{shown_host(text)}' is only a part or a range of addresses"
    while len(labels) > 1 and labels[-1] == "x":
        labels.pop()
    if len(labels) <= 3 and all(_OCTET.fullmatch(label) and int(label) <= 255 for label in labels):
        subnet = ".".join([*(str(int(label)) for label in labels), "0", "0", "0"][:4])
        raise ValueError(f"{shown}; write the subnet {subnet}/{8 * len(labels)}, or a whole address")
    raise ValueError(f"{shown}; write whole addresses, or a subnet such as 10.20.0.0/16")


def _check_ascii(text: str, address: str) -> None:
    """Refuse an address in characters that URLs map to digits and dots: it would be a name, and not match the other spellings."""
    try:
        mapped = normal_host(address).rstrip(".")
    except BadUrl:
        return  # `_name` says why.
    _check_whole(text, mapped)
    if literal_address(mapped) is not None:
        raise ValueError(f"'{shown_host(text)}' has characters beyond ASCII; write the address '{mapped}', or a subnet")


def _network(text: str) -> IpNetwork | None:
    """Return the network of an address or subnet; returns None for anything else."""
    address = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "%" in address and ":" in address:
        raise ValueError(f"'{shown_host(text)}' has a zone, which rules do not look at; write the address without it")
    try:
        found = ipaddress.ip_network(address, strict=False)
    except ValueError:
        if "/" in text:
            raise ValueError(f"'{shown_host(text)}' is not a subnet such as 10.20.0.0/16") from None
        if not address.isascii():
            _check_ascii(text, address)
        _check_whole(text, address.rstrip("."))
        literal = literal_address(address)  # 2130706433 and 0x7f000001 are addresses too.
        return None if literal is None else ipaddress.ip_network(literal)
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96 and found.network_address.ipv4_mapped is not None:
        # RFC 4291 §2.5.5.2: addresses are compared as IPv4.
        return ipaddress.IPv4Network((unmapped(found.network_address), found.prefixlen - 96))
    return found
