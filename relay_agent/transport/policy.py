"""Which targets may be called (SECURITY §2): the verdict on a URL, and on each address that its host resolves to.

The first rule that matches decides. The rules of a policy file come first, so that an explicit one may lift a built-in denial; then
the built-in denials; then the default. A verdict must not reveal anything about the network: senders see it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from relay_agent.core.failures import Code
from relay_agent.core.models import Url
from relay_agent.core.urls import IpAddress, IpNetwork, literal_address, unmapped
from relay_agent.transport.errors import TransportFault

_LOW_32_BITS = 0xFFFFFFFF
# Prefixes whose last 32 bits are an IPv4 address to which a translator may forward: NAT64 (RFC 6052, RFC 8215), IPv4-translated
# (RFC 2765) and IPv4-compatible (RFC 4291 §2.5.5.1).
_TRANSLATED = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96"))
_OWN = frozenset({ipaddress.IPv6Address("::"), ipaddress.IPv6Address("::1")})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call may be made, and the name of the rule that decided."""

    allowed: bool
    rule: str

    @property
    def message(self) -> str:
        """The text of EPOLICY for a call that is not allowed."""
        return f"refused by the agent's policy: {self.rule}"

    def require(self) -> None:
        """Check that the call is allowed.

        Raises:
            TransportFault: EPOLICY, with the rule, if it is not.
        """
        if not self.allowed:
            raise TransportFault(Code.EPOLICY, self.message, rule=self.rule)


@dataclass(frozen=True, slots=True)
class Question:
    """A call to judge. `addresses` is empty while only a name is known, else it is one address in all its forms."""

    method: str | None
    url: Url
    port: int
    addresses: tuple[IpAddress, ...] = ()


class Rule(Protocol):
    """One line of a policy."""

    @property
    def name(self) -> str:
        """The name that a verdict gives."""

    @property
    def allows(self) -> bool:
        """Whether it allows the calls that it matches."""

    def matches(self, question: Question) -> bool:
        """Return whether it decides this call."""


@dataclass(frozen=True, slots=True)
class NetworkDenial:
    """Denies the addresses of some networks."""

    name: str
    networks: tuple[IpNetwork, ...]
    allows: bool = False

    def matches(self, question: Question) -> bool:
        """Return whether one form of the address is in one of the networks."""
        return any(address in network for address in question.addresses for network in self.networks)


@dataclass(frozen=True, slots=True)
class AdminDenial:
    """Denies the agent's own admin pages (`host` and `port` of RELAY_ADMIN_ADDR), by any address that reaches them."""

    host: str
    port: int
    local_addresses: Callable[[], frozenset[IpAddress]]
    name: str = "built-in: the agent's own admin address"
    allows: bool = False

    def matches(self, question: Question) -> bool:
        """Return whether the port is the admin pages', and the host is an address of this machine on which they listen."""
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
        # They listen everywhere, or at a name whose address only the resolver knows: any address of this machine may be it.
        return address.is_loopback or address in self.local_addresses()


class Policy:
    """The rules in force. Immutable, so that all threads share one.

    `admin` is the host (IPv6 without brackets) and port of the admin pages, None if they have no TCP port. `rules` come before the
    built-in denials. `local_addresses` lists this machine's addresses.
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
        """Return the verdict on a URL before anything is sent: on its name, or on the address that its host is written as."""
        address = literal_address(url.host)
        return self._verdict(Question(request_method, url, url.port, _forms(address) if address else ()))

    def check_address(self, url: Url, address: str, port: int, request_method: str | None = None) -> Verdict:
        """Return the verdict on one address to which the URL's host resolves; its zone (`fe80::1%eth0`) is ignored.

        Raises:
            ValueError: `address` is not an IP address.
        """
        forms = _forms(ipaddress.ip_address(address.partition("%")[0]))
        return self._verdict(Question(request_method, url, port, forms))

    def _verdict(self, question: Question) -> Verdict:
        return next((Verdict(rule.allows, rule.name) for rule in self._rules if rule.matches(question)), self._default)


def interface_addresses() -> frozenset[IpAddress]:
    """Return the current addresses of this machine's interfaces."""
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
    """Return an address and, as defence in depth, the IPv4 addresses to which a tunnel or translator would forward."""
    address = unmapped(address)
    if isinstance(address, ipaddress.IPv4Address) or address in _OWN:
        return (address,)
    inner = [address.sixtofour, *(address.teredo or ())]
    if any(address in prefix for prefix in _TRANSLATED):
        inner.append(ipaddress.IPv4Address(int(address) & _LOW_32_BITS))
    return (address, *(form for form in inner if form is not None))


def _spellings(question: Question) -> tuple[IpAddress, ...]:
    # RFC 6761 §6.3: `localhost` and the names below it never mean another machine.
    local_name = not question.addresses and _is_local_name(question.url.host.rstrip("."))
    return (_LOOPBACK,) if local_name else question.addresses


def _is_local_name(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:  # a link-layer address
        return None
