"""The behaviour of one peer as plain data: the requests that clients are asked for, and the bytes that answer them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

End = Literal["keep", "close", "half_close", "reset"]
PORT = b"{PORT}"
"""Stands, in an answer, for the port that the peer listens on."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request that a client is asked to make."""

    method: str = "GET"
    path: str = "/start"
    body: bytes = b""
    host: str | None = None
    """A Host field of the request's own."""
    at: str = "127.0.0.1"
    """The host of the URL."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the peer says to one request: pieces in writes of their own, `pause` seconds apart, and what follows."""

    pieces: tuple[bytes, ...]
    end: End = "keep"
    pause: float = 0.0
    early: bool = False
    """Said after the request's head; its body is not read."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What a peer that speaks TLS offers."""

    version: Literal["1.0", "1.1", "1.2", "1.3", "any"] = "any"
    ciphers: str | None = None
    goodbye: bool = True
    """Whether it closes with close_notify."""


@dataclass(frozen=True, slots=True)
class Script:
    """One peer. The replies are to requests in the order of their arrival; the last one stays."""

    seed: int
    kind: str
    replies: tuple[Reply, ...]
    asks: tuple[Ask, ...] = (Ask(),)
    traits: frozenset[str] = frozenset()
    """What is odd about it, each as `dimension:what`."""
    tls: Tls | None = None
    tunnel: bool = False
    """It is a proxy that answers CONNECT with the reply; other clients than the agent are given the reply as an answer to a GET."""


@dataclass(slots=True)
class Traits:
    """Collects what is odd while a script is drawn."""

    found: set[str] = field(default_factory=set)

    def __call__(self, *names: str) -> None:
        """Note these."""
        self.found.update(names)

    def frozen(self) -> frozenset[str]:
        """All that was noted."""
        return frozenset(self.found)


def head(status_line: bytes, lines: Iterable[bytes], end: bytes = b"\r\n") -> bytes:
    """The bytes of a response's head."""
    return end.join([status_line, *lines, b"", b""])
