"""Which targets may be called (SECURITY §2).

This room owns the verdict on a URL and on each address it leads to. It must not resolve a name or open
a connection, and a verdict tells a sender the rule's name and nothing about the network.

Rules are asked in order and the first that matches decides: those of a policy file come first, so that
an explicit one may lift a built-in denial, then the built-in denials, then the default.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from relay_agent.core.failures import Code
from relay_agent.core.models import Url
from relay_agent.core.urls import IpAddress, literal_address, unmapped
from relay_agent.transport.errors import TransportFault

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOW_32_BITS = 0xFFFFFFFF
# Prefixes whose last 32 bits are an IPv4 address that a translator may deliver to: NAT64 (RFC 6052, RFC 8215),
# IPv4-translated (RFC 2765) and IPv4-compatible (RFC 4291 §2.5.5.1).
_TRANSLATED = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96"))
_OWN = frozenset({ipaddress.IPv6Address("::"), ipaddress.IPv6Address("::1")})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call may be made, and the name of the rule that says so."""

    allowed: bool
    rule: str

    @property
    def message(self) -> str:
        """What a refused command is told (EPOLICY)."""
        return f"refused by the agent's policy: {self.rule}"

    def require(self) -> None:
        """Let an allowed call pass.

        Raises:
            TransportFault: EPOLICY, with the rule.
        """
        if not self.allowed:
            raise TransportFault(Code.EPOLICY, self.message, rule=self.rule)


@dataclass(frozen=True, slots=True)
class Question:
    """What a rule is asked. `addresses` is empty while only a name is known, else one address in all its forms."""

    method: str | None
    url: Url
    port: int
    addresses: tuple[IpAddress, ...] = ()


class Rule(Protocol):
    """One line of a policy."""

    @property
    def name(self) -> str:
        """What a verdict calls it."""

    @property
    def allows(self) -> bool:
        """What it says of a call that it matches."""

    def matches(self, question: Question) -> bool:
        """Whether it has something to say of this call."""


@dataclass(frozen=True, slots=True)
class NetworkDenial:
    """Addresses that no target has."""

    name: str
    networks: tuple[IpNetwork, ...]
    allows: bool = False

    def matches(self, question: Question) -> bool:
        """Whether one form of the address lies in one of the networks."""
        return any(address in network for address in question.addresses for network in self.networks)


@dataclass(frozen=True, slots=True)
class AdminDenial:
    """The agent's own admin pages, by whatever address they are reached (`host` and `port` of RELAY_ADMIN_ADDR)."""

    host: str
    port: int
    local_addresses: Callable[[], frozenset[IpAddress]]
    name: str = "built-in: the agent's own admin address"
    allows: bool = False

    def matches(self, question: Question) -> bool:
        """Whether the port is the admin pages' and the host this machine, as far as they listen there."""
        if question.port != self.port:
            return False
        host = question.url.host.rstrip(".")
        return host == self.host or any(self._reaches(address) for address in _spellings(question))

    def _reaches(self, address: IpAddress) -> bool:
        listening = _LOOPBACK if _is_local_name(self.host) else literal_address(self.host)
        if listening is not None and listening.is_loopback:
            return address.is_loopback
        if listening is not None and not listening.is_unspecified:
            return address == listening
        # Listening everywhere, or by a name whose address only the resolver knows: any address of this machine.
        return address.is_loopback or address in self.local_addresses()


class Policy:
    """The rules in force. Holds nothing that changes, so all threads share one.

    `admin` is the host (IPv6 without brackets) and port of the admin pages, None where TCP is off;
    `rules` come before the built-in denials; `local_addresses` lists this machine's addresses.
    """

    def __init__(
        self,
        admin: tuple[str, int] | None = None,
        rules: Sequence[Rule] = (),
        default: Verdict | None = None,
        local_addresses: Callable[[], frozenset[IpAddress]] | None = None,
    ) -> None:
        own = (AdminDenial(*admin, local_addresses or interface_addresses),) if admin else ()
        self._rules: tuple[Rule, ...] = (*rules, *_BUILT_IN, *own)
        self._default = default or Verdict(True, "default: allow")

    def check_url(self, request_method: str, url: Url) -> Verdict:
        """Judge the prepared URL before anything leaves: its name, or the address it spells out."""
        address = literal_address(url.host)
        return self._verdict(Question(request_method, url, url.port, _forms(address) if address else ()))

    def check_address(self, url: Url, address: str, port: int, request_method: str | None = None) -> Verdict:
        """Judge one address that the URL's host resolves to; a zone (`fe80::1%eth0`) is left out.

        Raises:
            ValueError: `address` is no IP address.
        """
        forms = _forms(ipaddress.ip_address(address.partition("%")[0]))
        return self._verdict(Question(request_method, url, port, forms))

    def _verdict(self, question: Question) -> Verdict:
        return next((Verdict(rule.allows, rule.name) for rule in self._rules if rule.matches(question)), self._default)


def interface_addresses() -> frozenset[IpAddress]:
    """List the addresses of this machine's interfaces as they are now."""
    texts = (entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries)
    return frozenset(address for text in texts if (address := _address(text)) is not None)


def _networks(*texts: str) -> tuple[IpNetwork, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_BUILT_IN = (
    NetworkDenial("built-in: link-local and cloud metadata", _networks("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128")),
    NetworkDenial("built-in: unspecified addresses", _networks("0.0.0.0/8", "::/128")),
    NetworkDenial("built-in: multicast", _networks("224.0.0.0/4", "ff00::/8")),
)
_LOOPBACK = ipaddress.IPv4Address("127.0.0.1")


def _forms(address: IpAddress) -> tuple[IpAddress, ...]:
    """Give an address and, as defence in depth, the IPv4 address that a tunnel or translator would make of it."""
    address = unmapped(address)
    if isinstance(address, ipaddress.IPv4Address) or address in _OWN:
        return (address,)
    inner = [address.sixtofour, *(address.teredo or ())]
    if any(address in prefix for prefix in _TRANSLATED):
        inner.append(ipaddress.IPv4Address(int(address) & _LOW_32_BITS))
    return (address, *(form for form in inner if form is not None))


def _spellings(question: Question) -> tuple[IpAddress, ...]:
    # RFC 6761 §6.3: `localhost` and what is below it never means another machine.
    local_name = not question.addresses and _is_local_name(question.url.host.rstrip("."))
    return (_LOOPBACK,) if local_name else question.addresses


def _is_local_name(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:  # a link-layer address
        return None
