"""A policy file made from the commands that the journal saw (`policy learn`).

Owns which calls get a rule, and the file's text. Senders choose hosts, ports and methods: nothing of theirs may become a pattern, lift
what is always denied, or end a string or comment.
"""

from __future__ import annotations

import ipaddress
import json
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relay_agent.config.policy_file import is_reserved, load_policy
from relay_agent.core.errors import ConfigurationError
from relay_agent.core.models import Url
from relay_agent.core.urls import literal_address
from relay_agent.storage.call_history import CalledTarget
from relay_agent.transport.host_patterns import HostPatterns, parse_hosts
from relay_agent.transport.policy import Policy, TargetCall

MAX_NAME = 100
MAX_TARGETS = 1500
"""The most targets that get a rule, so that the file is not larger than a policy file may be."""
MAX_LISTED = 100
"""The most calls that one list of comments names."""
_CUT_METHOD = 20
"""The journal keeps no more characters of a method: one of this length may be the beginning of another."""

_WAS_REFUSED = (
    "The policy refused some of these, or a rule of it would have (mode observe), so they have no rule; write one yourself if you want it:"
)

_TOO_MANY = f"More than {MAX_TARGETS:,} targets answered. These were called least often, so they have no rule:"

_Way = tuple[str, str, int, str]
"""Scheme, host, port and method."""


def learnt_policy(calls: Sequence[CalledTarget], days: str, now: float, admin: tuple[str, int] | None) -> str:
    """Return the text of a policy file that allows what answered, and nothing else; `days` says which commands it is made from.

    Raises:
        RuntimeError: the file is not valid: a mistake in this module.
    """
    policy, unnameable = Policy(admin), {method for method in {call.method for call in calls} if not _is_method(method)}
    refused = _refused(calls)
    judged = [(_normal(call), _refusal(call, refused) or _objection(call, unnameable, policy)) for call in calls]
    judged = _bounded(judged)
    lines = [
        f"# Made by `relay-agent policy learn` on {time.strftime('%Y-%m-%d', time.gmtime(now))} from the commands of the last {days}.",
        '# With mode = "observe" nothing is refused: what the rules would refuse appears in the log and in `relay-agent commands`.',
        '# Read the rules, remove what should not be called, then set mode = "enforce".',
        'mode = "observe"',
        'default = "deny"',
        *_rules([call for call, objection in judged if objection is None]),
    ]
    for objection in dict.fromkeys(objection for _, objection in judged if objection is not None):
        lines += _comments(objection, [call for call, found in judged if found == objection])
    text = "\n".join(lines) + "\n"
    _check(text)
    return text


# --- which calls get a rule ---


def _objection(call: CalledTarget, refused_methods: Collection[str], policy: Policy) -> str | None:
    """Return why a call gets no rule, None if it gets one."""
    if not call.answered:
        return "These never answered, so they have no rule:"
    if not _is_literal(call.host):
        return "A rule cannot name these hosts literally, so they have no rule:"
    if call.method in refused_methods:
        return "A rule cannot contain these methods:"
    asked = TargetCall(call.method, Url(call.scheme, call.host, call.port, "/"), call.secure).with_literal_address()
    if policy.check_url(asked).built_in:
        return "These are always denied, unless a rule names their address; write that rule yourself if you want to allow them:"
    return None


def _bounded(judged: Iterable[tuple[CalledTarget, str | None]]) -> list[tuple[CalledTarget, str | None]]:
    """Leave a rule to the targets that are called most often, which come first."""
    found, left = [], MAX_TARGETS
    for call, objection in judged:
        left -= objection is None
        found.append((call, _TOO_MANY if objection is None and left < 0 else objection))
    return found


def _normal(call: CalledTarget) -> CalledTarget:
    """Return the call with host and method as a rule compares them, so that spellings of one target share a rule."""
    address = literal_address(call.host)
    return replace(call, host=call.host.rstrip(".") if address is None else str(address), method=call.method.upper())


def _refused(calls: Iterable[CalledTarget]) -> frozenset[tuple[_Way, bool]]:
    """Return what the policy refused, or a rule of it would have, by way and secrecy."""
    return frozenset((_way(_normal(call)), call.secure) for call in calls if call.refused)


def _refusal(call: CalledTarget, refused: Collection[tuple[_Way, bool]]) -> str | None:
    """Return why a call gets no rule, whether or not it answered: it, or one that its rule would allow too, was refused."""
    way = _way(_normal(call))
    # A rule for plain commands allows secure ones too.
    return _WAS_REFUSED if (way, call.secure) in refused or (way, True) in refused else None


def _is_method(method: str) -> bool:
    if len(method) >= _CUT_METHOD:
        return False
    try:
        _check(_rule("x", "host", [CalledTarget("http", "host", 80, method, False, 1, 1, 0.0)]))
    except RuntimeError:
        return False
    return True


def _is_literal(host: str) -> bool:
    """Return whether a rule's `hosts` take the text for this one name or address, and for no pattern."""
    try:
        found = parse_hosts([host])
    except ValueError:
        return False
    address = literal_address(host)
    if address is not None:
        return found == HostPatterns(networks=(ipaddress.ip_network(address),))
    return found == HostPatterns(names=frozenset({host.rstrip(".")}))


# --- the text ---


@dataclass(frozen=True, slots=True)
class _Group:
    """The calls that one rule can allow without allowing any other: their methods were all answered at each of their ports."""

    host: str
    secure: bool
    scheme: str
    methods: tuple[str, ...]


def _rules(calls: Sequence[CalledTarget]) -> list[str]:
    commands: Counter[tuple[_Way, bool]] = Counter()
    plain = {_way(call) for call in calls if not call.secure}
    for call in calls:
        # What plain commands call too needs no rule of its own: theirs matches secure ones as well.
        commands[_way(call), call.secure and _way(call) not in plain] += call.answered
    methods: dict[tuple[str, bool, str, int], set[str]] = {}
    for (scheme, host, port, method), secure in commands:
        methods.setdefault((host, secure, scheme, port), set()).add(method)
    ports: dict[_Group, set[int]] = {}
    for (host, secure, scheme, port), found in sorted(methods.items()):
        ports.setdefault(_Group(host, secure, scheme, tuple(sorted(found))), set()).add(port)
    lines: list[str] = []
    names: set[str] = set()
    for group, numbers in ports.items():
        allowed = [
            CalledTarget(group.scheme, group.host, port, method, group.secure, number, 1, 0.0)
            for port in numbers
            for method in group.methods
            if (number := commands[(group.scheme, group.host, port, method), group.secure])
        ]
        total = sum(call.commands for call in allowed)
        heading = f"# {total} answered command{'' if total == 1 else 's'}"
        lines += ["", heading, _rule(_unique(group.host, names), group.host, allowed)]
    return lines


def _way(call: CalledTarget) -> _Way:
    return call.scheme, call.host, call.port, call.method


def _rule(name: str, host: str, calls: Sequence[CalledTarget]) -> str:
    lines = [
        "[[rule]]",
        f"name = {_text(name)}",
        'action = "allow"',
        f"schemes = {_array(call.scheme for call in calls)}",
        f"hosts = {_array([host])}",
        f"ports = [{', '.join(str(port) for port in sorted({call.port for call in calls}))}]",
        f"methods = {_array(call.method for call in calls)}",
    ]
    return "\n".join(lines + (["secure_only = true"] if calls[0].secure else []))


def _unique(host: str, names: set[str]) -> str:
    """Return a name for a rule that no other one has, and add it to `names`."""
    base = f"host {host}" if is_reserved(host) else host
    name, number = base[:MAX_NAME], 1
    while name in names:
        number += 1
        name = f"{base[: MAX_NAME - len(str(number)) - 1]} {number}"
    names.add(name)
    return name


def _comments(objection: str, calls: Sequence[CalledTarget]) -> list[str]:
    found = sorted({f"{call.method} {call.scheme}://{call.host}:{call.port}" for call in calls})
    lines = [f"#   {_text(text)[1:-1]}" for text in found[:MAX_LISTED]]
    return ["", f"# {objection}", *lines, *([f"#   and {len(found) - MAX_LISTED} more"] if len(found) > MAX_LISTED else [])]


def _array(values: Iterable[str]) -> str:
    return f"[{', '.join(_text(value) for value in sorted(set(values)))}]"


def _text(value: str) -> str:
    # JSON's strings are TOML's basic strings, but for DEL.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _check(text: str) -> None:
    """Load the text as the agent would.

    Raises:
        RuntimeError: it is not valid.
    """
    with tempfile.TemporaryDirectory(prefix="relay-agent-") as directory:
        file = Path(directory) / "policy.toml"
        file.write_text(text, encoding="utf-8")
        try:
            load_policy(file)
        except ConfigurationError as error:
            raise RuntimeError("; ".join(mistake.text for mistake in error.mistakes)) from None
