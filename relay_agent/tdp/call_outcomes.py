"""How calls to the platform went, for the metrics: a fixed word for each way.

This room owns the words. It must not keep numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from relay_agent.core.errors import (
    CredentialsExpired,
    NotThePlatform,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    RateLimited,
    UnknownAgent,
)

WORDS: tuple[tuple[type[PlatformError], str], ...] = (
    (PlatformUnreachable, "unreachable"),
    (PlatformRefused, "refused"),
    (UnknownAgent, "unknown_agent"),
    (RateLimited, "rate_limited"),
    (CredentialsExpired, "credentials_expired"),
    (NotThePlatform, "not_the_platform"),
)

Count = Callable[[str, str], None]


def nobody(_call: str, _outcome: str) -> None:
    """Count for nobody."""


@contextmanager
def counted(count: Count, call: str) -> Iterator[None]:
    """Count one call by how it ends: `ok`, or a word for its error."""
    try:
        yield
    except PlatformError as error:
        count(call, next((word for kind, word in WORDS if isinstance(error, kind)), "error"))
        raise
    except Exception:
        count(call, "error")
        raise
    count(call, "ok")
