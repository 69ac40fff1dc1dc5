"""Which targets may be called (docs/policy.md): a pure function of the call, the addresses of its host, and the rules.

The first rule of the policy file that matches decides; if none does, the default. A built-in denial overrides both, unless the rule that
allows the call names the denied address itself. A verdict must not reveal anything about the network: senders see it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import psutil

from relay_agent.core.failures import Code
from relay_agent.core.models import Url
from relay_agent.core.urls import IpAddress, IpNetwork, is_part, literal_address, unmapped
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.host_patterns import HostPatterns
from relay_agent.transport.path_patterns import PathPattern, PathReadings, path_readings

_UNREAD = PathReadings(frozenset())
_LOW_32_BITS = 0xFFFFFFFF
# Prefixes whose last 32 bits are an IPv4 address to which a translator may forward: NAT64 (RFC 6052, RFC 8215), IPv4-translated
# (RFC 2765) and IPv4-compatible (RFC 4291 §2.5.5.1).
_TRANSLATED = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96"))
_REMEMBERED = 256
"""Verdicts that a policy remembers: a call and the addresses of its host mostly come again."""
_OWN = frozenset({ipaddress.IPv6Address("::"), ipaddress.IPv6Address("::1")})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call may be made, and the name of the rule that decided.

    `would_refuse` is the rule that refuses the call as soon as the policy is enforced; only in the mode `observe`. `undecided` says that
    the addresses of the host decide, which are not known yet, by `rule`.
    """

    allowed: bool
    rule: str
    would_refuse: str | None = None
    undecided: bool = False
    built_in: bool = field(default=False, compare=False)
    """Whether a built-in denial decided."""

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
class TargetCall:
    """A request to judge.

    `addresses` are all those of the host: the one that it is written as, or those that its name resolves to. They are empty for a name
    that is not resolved here, since a proxy resolves it, and None as long as it is not resolved yet.
    """

    method: str
    url: Url
    secure: bool = False
    addresses: tuple[IpAddress, ...] | None = None

    def with_literal_address(self) -> TargetCall:
        """Return the call with the address that its host is written as; itself if the host is a name."""
        address = literal_address(self.url.host)
        return self if address is None else replace(self, addresses=(address,))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the policy file. A field that is None matches everything."""

    name: str
    allows: bool
    schemes: frozenset[str] | None = None
    hosts: HostPatterns | None = None
    ports: frozenset[int] | None = None
    methods: frozenset[str] | None = None
    """In upper case: some servers accept `delete`, so case does not matter."""
    paths: tuple[PathPattern, ...] | None = None
    secure_only: bool = False

    def match(self, call: TargetCall, path: PathReadings | None) -> bool | None:
        """Return whether the rule matches; returns None if that depends on addresses, or on a path, that are not known.

        `path` is the call's, None if it is not known; it is only looked at if the rule has paths.
        """
        rest = (
            (not self.secure_only or call.secure)
            and (self.schemes is None or call.url.scheme in self.schemes)
            and (self.ports is None or call.url.port in self.ports)
            and (self.methods is None or call.method.upper() in self.methods)
            and (path is None or self._match_path(path))
        )
        if not rest:
            return False
        matches = self._match_host(call)
        depends_on_path = path is None and self.paths is not None and not any(pattern.matches_all for pattern in self.paths)
        return None if matches and depends_on_path else matches

    def names_denied(self, addresses: Sequence[IpAddress], denied: Sequence[IpNetwork]) -> bool:
        """Return whether the rule names the addresses of a built-in denial: each one itself, or by a subnet of what is denied."""
        if self.hosts is None:
            return False
        named = [network for network in self.hosts.networks if any(is_part(network, whole) for whole in denied)]
        return bool(addresses) and all(any(address in network for network in named) for address in addresses)

    def _match_path(self, path: PathReadings) -> bool:
        # Nobody knows how a target reads a path: in doubt a call is not allowed.
        if self.paths is None:
            return True
        return path.all_match(self.paths) if self.allows else path.any_match(self.paths)

    def _match_host(self, call: TargetCall) -> bool | None:
        if self.hosts is None or self.hosts.match_name(call.url.host):
            return True
        if call.addresses is None:
            return None if self.hosts.networks or (not self.allows and self.hosts.names_localhost) else False
        if self.allows:
            return self.hosts.all_within(call.addresses)
        return self.hosts.any_within([form for address in call.addresses for form in _forms(address)])


@dataclass(frozen=True, slots=True)
class NetworkDenial:
    """A built-in denial of the addresses of some networks."""

    name: str
    networks: tuple[IpNetwork, ...]

    def denies(self, call: TargetCall, forms: Sequence[IpAddress], rule: Rule | None) -> bool:
        """Return whether one of the forms of the call's addresses is denied; `rule` is the one that allows the call, if there is any."""
        denied = [form for form in forms if any(form in network for network in self.networks)]
        return bool(denied) and not (rule is not None and rule.names_denied(denied, self.networks))


@dataclass(frozen=True, slots=True)
class AdminDenial:
    """The built-in denial of the agent's own admin pages (`host` and `port` of RELAY_ADMIN_ADDR), by any address that reaches them."""

    host: str
    port: int
    local_addresses: Callable[[], frozenset[IpAddress]]
    name: str = "built-in: the agent's own admin address"

    def denies(self, call: TargetCall, forms: Sequence[IpAddress], rule: Rule | None) -> bool:
        """Return whether the call reaches the admin pages, unless the rule that allows it names their port and address themselves."""
        if call.url.port != self.port:
            return False
        host = call.url.host.rstrip(".")
        reached = [address for address in _spellings(call, forms) if self._reaches(address)]
        if host != self.host and not reached:
            return False
        return rule is None or not self._is_named(rule, host, reached, resolved=call.addresses is not None)

    def _is_named(self, rule: Rule, host: str, reached: Sequence[IpAddress], *, resolved: bool) -> bool:
        # `*`, a wide subnet, or a name that someone else's DNS leads here must not open the pages.
        if rule.hosts is None or rule.ports is None or self.port not in rule.ports:
            return False
        if host in rule.hosts.names and (host == self.host or _is_local_name(host)):
            return True
        if not resolved:
            # The rule may name the addresses, which are judged as soon as they are known.
            return any(_may_be_named(network, local=_is_local_name(host)) for network in rule.hosts.networks)
        # Who names `0.0.0.0` means every target on this machine, not the pages.
        named = not any(address.is_unspecified for address in reached)
        return named and rule.names_denied(reached, (*_LOOPBACK_NETWORKS, *(ipaddress.ip_network(address) for address in reached)))

    def _reaches(self, address: IpAddress) -> bool:
        if address.is_unspecified:
            return True  # A connection to `0.0.0.0` or `::` goes to this machine.
        listening = _LOOPBACK if _is_local_name(self.host) else literal_address(self.host)
        if listening is not None and listening.is_loopback:
            return address.is_loopback
        if listening is not None and not listening.is_unspecified:
            return address == listening
        # They listen everywhere, or at a name whose address only the resolver knows: any address of this machine may be it.
        return address.is_loopback or address in self.local_addresses()


class Policy:
    """The rules in force. They do not change, so that all threads share one policy; it remembers its verdicts.

    `admin` is the host (IPv6 without brackets) and port of the admin pages, None if they have no TCP port. `local_addresses` lists this
    machine's addresses. With `observe`, rules and default refuse nothing, and the verdict says what they would refuse.
    """

    def __init__(
        self,
        admin: tuple[str, int] | None = None,
        rules: Sequence[Rule] = (),
        *,
        default_allows: bool = True,
        observe: bool = False,
        local_addresses: Callable[[], frozenset[IpAddress]] | None = None,
    ) -> None:
        own = (AdminDenial(*admin, local_addresses or interface_addresses),) if admin else ()
        self._denials: tuple[NetworkDenial | AdminDenial, ...] = (*_BUILT_IN, *own)
        self._own_ports = frozenset(denial.port for denial in own)
        self.rules = tuple(rules)
        self._has_paths = any(rule.paths is not None for rule in rules)
        self._remembered = lru_cache(_REMEMBERED)(self._judge_parts)
        self.default = Verdict(default_allows, f"default: {'allow' if default_allows else 'deny'}")
        self.observe = observe

    @property
    def mode(self) -> str:
        """Return the mode as the policy file has it."""
        return "observe" if self.observe else "enforce"

    def check_url(self, call: TargetCall) -> Verdict:
        """Return the verdict before anything is sent, on a host that is a name or an address.

        If a name's addresses decide, the call is allowed so far, and `check_addresses` decides.
        """
        return self._judge(call, None)

    def check_addresses(self, call: TargetCall, addresses: Sequence[str]) -> Verdict:
        """Return the verdict on all addresses to which the URL's host resolves; zones (`fe80::1%eth0`) are ignored.

        Raises:
            ValueError: one is not an IP address.
        """
        return self._judge(call, tuple(addresses))

    def judge(self, call: TargetCall) -> Verdict:
        """Return the verdict on a call, with what is known of its addresses."""
        candidates = self._candidates(call, self._path(call))
        rule, sure = next(candidates)
        verdict = self._verdict(call, rule)
        if sure or rule is None:
            return verdict
        # If a built-in denial applies whichever rule decides, the name need not be resolved.
        if not verdict.allowed and all(self._verdict(call, later) == verdict for later, _ in candidates):
            return verdict
        return Verdict(True, rule.name, undecided=True)

    def _judge(self, call: TargetCall, addresses: tuple[str, ...] | None) -> Verdict:
        """Return the verdict on a call whose host has these addresses. With None, a host that is written as an address has that one."""
        # Verdicts that depend on the path, or on this machine's addresses, are not remembered: paths seldom repeat, addresses change.
        if self._has_paths or call.url.port in self._own_ports:
            return self.judge(_with_addresses(call, addresses))
        url = call.url
        return self._remembered(call.method, url.scheme, url.host, url.port, call.secure, call.addresses, addresses)

    def _judge_parts(
        self,
        method: str,
        scheme: str,
        host: str,
        port: int,
        secure: bool,
        known: tuple[IpAddress, ...] | None,
        addresses: tuple[str, ...] | None,
    ) -> Verdict:
        return self.judge(_with_addresses(TargetCall(method, Url(scheme, host, port, "/"), secure, known), addresses))

    def possible(self, call: TargetCall, *, path_known: bool = True) -> list[Verdict]:
        """Return each verdict that a call may get, in the order of the rules: several if one depends on what is not known of the call.

        That are the addresses of a name, and the path unless `path_known`. Addresses that are always denied are not considered if they
        are not known.
        """
        path = self._path(call) if path_known else None
        return [self._verdict(call, rule) for rule, _ in self._candidates(call, path)]

    def _path(self, call: TargetCall) -> PathReadings:
        # Once for all rules: a path of 64 Ki characters takes some time.
        return path_readings(call.url.target) if self._has_paths else _UNREAD

    def _candidates(self, call: TargetCall, path: PathReadings | None) -> Iterator[tuple[Rule | None, bool]]:
        """Yield each rule that may decide, and whether it certainly matches: the first that does is the last. None means the default."""
        for rule in self.rules:
            matches = rule.match(call, path)
            if matches is not False:
                yield rule, matches is True
            if matches:
                return
        yield None, True

    def _verdict(self, call: TargetCall, rule: Rule | None) -> Verdict:
        """Return the verdict if `rule` decides; None stands for the default."""
        verdict = self.default if rule is None else Verdict(rule.allows, rule.name)
        if not verdict.allowed and not self.observe:
            return verdict
        denied = self._denied(call, rule if rule is not None and rule.allows else None)
        if denied is not None or verdict.allowed:
            return denied or verdict
        return Verdict(True, "observe: allow", would_refuse=verdict.rule)

    def _denied(self, call: TargetCall, rule: Rule | None) -> Verdict | None:
        forms = _all_forms(call)
        return next((Verdict(False, denial.name, built_in=True) for denial in self._denials if denial.denies(call, forms, rule)), None)


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
_LOOPBACK_NETWORKS = _networks("127.0.0.0/8", "::1/128")


def _forms(address: IpAddress) -> tuple[IpAddress, ...]:
    """Return an address and, as defence in depth, the IPv4 addresses to which a tunnel or translator would forward."""
    address = unmapped(address)
    if isinstance(address, ipaddress.IPv4Address) or address in _OWN:
        return (address,)
    inner = [address.sixtofour, *(address.teredo or ())]
    if any(address in prefix for prefix in _TRANSLATED):
        inner.append(ipaddress.IPv4Address(int(address) & _LOW_32_BITS))
    return (address, *(form for form in inner if form is not None))


def _with_addresses(call: TargetCall, addresses: tuple[str, ...] | None) -> TargetCall:
    if addresses is None:
        return call.with_literal_address()
    return replace(call, addresses=tuple(unmapped(ipaddress.ip_address(address.partition("%")[0])) for address in addresses))


def _all_forms(call: TargetCall) -> list[IpAddress]:
    return [form for address in call.addresses or () for form in _forms(address)]


def _spellings(call: TargetCall, forms: Sequence[IpAddress]) -> Sequence[IpAddress]:
    # RFC 6761 §6.3: `localhost` and the names below it never mean another machine.
    local_name = not call.addresses and _is_local_name(call.url.host.rstrip("."))
    return (_LOOPBACK,) if local_name else forms


def _may_be_named(network: IpNetwork, *, local: bool) -> bool:
    """Return whether a rule with this network may name an address to which a name resolves; `local` says that it means this machine."""
    return not local or any(is_part(network, whole) for whole in _LOOPBACK_NETWORKS)


def _is_local_name(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:  # a link-layer address
        return None
