"""What all ways to authenticate have in common: the credentials that settings hold, and the handshake of one exchange (RFC 9110 §11).

`digest` and `windows_auth` are the schemes. This module must not know exchanges; `sides` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from relay_agent.transport.challenges import Challenge


@dataclass(frozen=True, slots=True)
class Call:
    """What a handshake must know of its request: the method, the target of its request line, and the host that asks."""

    method: str
    target: str
    host: str
    port: int


class Handshake(Protocol):
    """One side's authentication during one exchange."""

    @property
    def opening(self) -> bool:
        """Whether what `authorization` returned last only opens the handshake: the request's body need not go with it."""

    @property
    def bound(self) -> bool:
        """Whether the next request must use the connection on which the challenge came."""

    def connected(self, certificate: bytes | None) -> None:
        """Restart the handshake on a new connection; the earlier exchange is discarded.

        `certificate` is the peer's (DER), None without TLS.
        """

    def challenged(self, challenges: Sequence[Challenge]) -> bool:
        """Take the challenges of a refusal; return whether the request is to be sent again. If not, the refusal is the answer."""

    def authorization(self) -> str | None:
        """Return the credentials that go with the next request, None if none do."""


class Credentials(Protocol):
    """A user, a password, and the scheme that they are for. Credentials that are equal may share connections."""

    @property
    def scheme(self) -> str:
        """The scheme as the policy file names it."""

    @property
    def user(self) -> str:
        """The user."""

    @property
    def per_connection(self) -> bool:
        """Whether a connection is authenticated, in place of each request (RFC 4559 §6)."""

    def handshake(self, call: Call) -> Handshake:
        """Return what authenticates one exchange."""

    def __hash__(self) -> int: ...
