"""The challenges of a 401 or 407: which ways to authenticate a server or proxy offers (RFC 9110 §11.6.1).

This module owns their grammar, read in one pass within bounds. It must not know what a scheme does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from relay_agent.core.header_syntax import TOKEN, has_control

MAX_CHALLENGES = 64 * 1024
"""Characters of all challenges of one response that are read."""

# A quotation mark without a second one takes the rest, so that no text is looked at twice.
_ELEMENT = re.compile(r'(?:[^",]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
_PARAMETER = re.compile(rf'({TOKEN})[ \t]*+=[ \t]*+(?:"((?:[^"\\]++|\\.)*+)"|([^\s",=][^\s",]*+)?)')
_SCHEME = re.compile(rf"({TOKEN})(?:[ \t]++(.*+))?", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(slots=True)
class Challenge:
    """One offer. `scheme` and the names of parameters are in lower case; `token` is the text in place of parameters."""

    scheme: str
    token: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Parse the fields `WWW-Authenticate` or `Proxy-Authenticate` of a response; what is no challenge is skipped."""
    found: list[Challenge] = []
    left = MAX_CHALLENGES
    for value in values:
        left -= len(value)
        if left < 0:
            break
        if not has_control(value):
            found.extend(_challenges(value))
    return found


def _challenges(value: str) -> Iterator[Challenge]:
    """Yield the challenges of one field: an element of its list begins one, or is a parameter of the one before."""
    current: Challenge | None = None
    for text in _ELEMENT.findall(value):
        element = text.strip(" \t")
        parameter = _PARAMETER.fullmatch(element)
        begun = None if parameter else _SCHEME.fullmatch(element)
        if begun is not None:
            if current is not None:
                yield current
            rest = (begun[2] or "").strip(" \t")
            current, parameter = Challenge(begun[1].lower()), _PARAMETER.fullmatch(rest)
            if parameter is None or parameter[2] is parameter[3] is None:  # `TlRM=` is a token, and no parameter without a value.
                current.token, parameter = rest, None
        if parameter is not None and current is not None:
            _add(current.parameters, parameter)
    if current is not None:
        yield current


def _add(parameters: dict[str, str], found: re.Match[str]) -> None:
    quoted, plain = found[2], found[3]
    parameters.setdefault(found[1].lower(), plain or "" if quoted is None else _ESCAPED.sub(r"\1", quoted))


def listed(parameters: Mapping[str, str], name: str) -> set[str]:
    """Return the members of a parameter that is a list, in lower case."""
    return {part.strip().lower() for part in parameters.get(name, "").split(",") if part.strip()}
