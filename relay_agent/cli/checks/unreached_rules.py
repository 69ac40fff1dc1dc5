"""Finds rules and tables of a policy file that can never match, since an earlier one matches all that they do.

Says so only if it is certain: one earlier rule must match every call, whatever its host resolves to. A rule is compared with those
earlier ones that may match one of its hosts, and the work is bounded: it says which rules it left out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from relay_agent.core.urls import IpNetwork, is_part
from relay_agent.transport.host_patterns import HostPatterns
from relay_agent.transport.path_patterns import PathPattern
from relay_agent.transport.policy import Rule
from relay_agent.transport.target_settings import CallRules, TargetSettings

MAX_COMPARISONS = 500_000
"""Pairs of patterns that are compared, of rules and of tables: about a second's work."""

_T = TypeVar("_T")


def unreached(rules: CallRules) -> list[str]:
    """Return one sentence for each rule and table that is never reached."""
    numbered = [(f"[[rule]] {number}" + _named(number, rule), rule) for number, rule in enumerate(rules.policy.rules, start=1)]
    targets = [(target.name, target) for target in rules.targets]
    return [
        *_covered(numbered, _covers, lambda rule: rule.hosts, lambda rule: len(rule.paths or ())),
        *_covered(targets, _covers_table, lambda target: target.hosts, lambda target: 0),
    ]


def _named(number: int, rule: Rule) -> str:
    return "" if rule.name == f"rule {number}" else f" ({rule.name})"


def _covered(
    tables: Sequence[tuple[str, _T]],
    covers: Callable[[_T, _T], bool],
    hosts_of: Callable[[_T], HostPatterns | None],
    paths_of: Callable[[_T], int],
) -> list[str]:
    found: list[str] = []
    index: dict[object, list[int]] = {}
    sizes = [_size(hosts_of(table)) + paths_of(table) for _, table in tables]
    left = MAX_COMPARISONS
    for place, (name, later) in enumerate(tables):
        candidates = sorted({before for key in _wider(hosts_of(later)) for before in index.get(key, ())})
        first = None
        for before in candidates:
            left -= sizes[before] * sizes[place]
            if left < 0:
                return [*found, f"{name} and what follows it were not compared with what comes before: that would take too long"]
            if covers(tables[before][1], later):
                first = tables[before][0]
                break
        found += [f"{name} is never reached, because {first} comes first and matches everything that it matches"] if first else []
        for key in _keys(hosts_of(later)):
            index.setdefault(key, []).append(place)
    return found


def _size(hosts: HostPatterns | None) -> int:
    return 1 if hosts is None else 1 + len(hosts.names) + len(hosts.domains) + len(hosts.networks)


_ANY = "*"


def _keys(hosts: HostPatterns | None) -> Iterator[object]:
    """Yield each of the patterns by which an earlier table is found."""
    if hosts is None or hosts.anything:
        yield _ANY
    else:
        yield from (*hosts.names, *hosts.domains, *(_key(network) for network in hosts.networks))


def _wider(hosts: HostPatterns | None) -> Iterator[object]:
    """Yield the keys of every pattern that matches all that one of the hosts does: a table that covers all hosts has one of them."""
    yield _ANY
    if hosts is None or hosts.anything:
        return
    if hosts.names:
        name = min(hosts.names)
        yield name
        yield from _suffixes(name)
    elif hosts.domains:
        yield from _suffixes(hosts.domains[0])
    else:
        network = hosts.networks[0]
        yield from (_key(network.supernet(new_prefix=length)) for length in range(network.prefixlen + 1))


def _suffixes(name: str) -> Iterator[str]:
    """Yield a name's domains, each with its leading dot."""
    yield from (name[place:] for place, character in enumerate(name) if character == ".")


def _key(network: IpNetwork) -> tuple[bool, int, int]:
    return isinstance(network, ipaddress.IPv4Network), int(network.network_address), network.prefixlen


def _covers(earlier: Rule, later: Rule) -> bool:
    return (
        (later.secure_only or not earlier.secure_only)
        and _has_all(earlier.schemes, later.schemes)
        and _has_all(earlier.ports, later.ports)
        and _has_all(earlier.methods, later.methods)
        and _covers_paths(earlier, later)
        and _covers_hosts_of(earlier, later)
    )


def _covers_table(earlier: TargetSettings, later: TargetSettings) -> bool:
    return _covers_hosts(earlier.hosts, later.hosts)


def _has_all(wide: Collection[object] | None, narrow: Collection[object] | None) -> bool:
    return wide is None or (narrow is not None and all(value in wide for value in narrow))


def _covers_paths(earlier: Rule, later: Rule) -> bool:
    if earlier.paths is None or any(pattern.matches_all for pattern in earlier.paths):
        return True
    # A path that servers read differently matches a deny rule in any of its readings, an allow rule only in all.
    wider = earlier.allows and not later.allows
    return not wider and later.paths is not None and all(_has_path(earlier.paths, path) for path in later.paths)


def _has_path(wide: Sequence[PathPattern], narrow: PathPattern) -> bool:
    return narrow in wide or (len(narrow.parts) == 1 and any(pattern.matches(narrow.parts[0]) for pattern in wide))


def _covers_hosts_of(earlier: Rule, later: Rule) -> bool:
    if earlier.hosts is None or earlier.hosts.anything:
        return True
    if later.hosts is None:
        return False
    # A deny rule's subnet matches if any address lies in it (and `localhost` is then one, too), an allow rule's only if all do.
    wider = earlier.allows and not later.allows and (later.hosts.networks or "localhost" in later.hosts.names)
    return not wider and _covers_hosts(earlier.hosts, later.hosts)


def _covers_hosts(earlier: HostPatterns, later: HostPatterns) -> bool:
    if earlier.anything:
        return True
    return (
        not later.anything
        and all(earlier.match_name(name) for name in later.names)
        and all(any(domain.endswith(whole) for whole in earlier.domains) for domain in later.domains)
        and all(any(is_part(network, whole) for whole in earlier.networks) for network in later.networks)
    )
