"""The outcome of each call to the platform as a fixed word, a label of the metrics.

This module owns the words. It must not keep numbers: `telemetry.metrics` does. (`telemetry.hourly_summary` counts something else:
what the agent's loops did in an hour, for the log.)
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
"""Counts one call: its name, and its outcome."""


def count_nothing(_call: str, _outcome: str) -> None:
    """Do not count: for callers without metrics."""


@contextmanager
def count_outcome(count: Count, call: str) -> Iterator[None]:
    """Count the call made inside the `with` by its outcome: `ok`, or a word for its error."""
    try:
        yield
    except PlatformError as error:
        count(call, next((word for kind, word in WORDS if isinstance(error, kind)), "error"))
        raise
    except Exception:
        count(call, "error")
        raise
    count(call, "ok")
