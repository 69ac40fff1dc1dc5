"""The result of a peer for one client, in the form in which clients are compared."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from tests.peers.script import Script
from tests.peers.stage import Seen

Kind = Literal["answer", "reset", "bad", "timeout", "tls", "redirects", "refused", "other"]
_FOLD = re.compile(r"(?:[ \t]*[\r\n]+[ \t]+)+")
_RELAYED_DECODED = frozenset({"content-encoding", "content-length"})


@dataclass(frozen=True, slots=True)
class Result:
    """What one request gave: an answer, or the kind of failure."""

    kind: Kind
    status: int = 0
    fields: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Lower-case names in the order of their first appearance, each with all its values."""
    body: bytes = b""
    detail: str = ""
    """The client's own words; not compared."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all requests of a script gave one client, and what the peer saw of it."""

    results: tuple[Result, ...]
    seen: tuple[Seen, ...] = ()
    connections: int = 0
    waited: bool = False


class Client(Protocol):
    """One client, for one script at a time; any thread may call."""

    name: str

    def run(self, script: Script, port: int) -> list[Result]:
        """Make the script's requests in a row, with nothing left from before, and end every connection."""


def grouped(pairs: Iterable[tuple[str, str]], port: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Fields in the form in which they are compared: without what the agent drops of a decoded body, the port unnamed.

    Curl and requests leave folds and white space around some names and values in place: none of that is a difference.
    """
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        known = name.lower().strip(" \t")
        if known not in _RELAYED_DECODED:
            found.setdefault(known, []).append(_FOLD.sub(" ", value).strip(" \t\r\n").replace(str(port), "{PORT}"))
    return tuple((name, tuple(values)) for name, values in found.items())
