"""A command on its way to a worker, and the rules that depend only on it: its lane, its expiry, whether it may run again.

This module reads neither the journal nor a body; callers pass what it needs of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from relay_agent.core.failures import Code
from relay_agent.core.models import Command, Failure, HttpRequest, may_repeat

ANY_LANE = "?"
"""The lane of commands without a known target."""
KEPT_IN_MEMORY = 16 * 1024
"""Largest message, in bytes, that waits in memory: a command's with its decoded request, or its answer. A larger one is in the journal."""
INTERRUPTED = "the agent stopped while this request was running; its outcome is unknown, and the request was not repeated"


@dataclass(frozen=True, slots=True)
class Task:
    """A command on its way to a worker. `request` is None if the payload is decoded only when the command runs.

    `body` is the name of the spool file that holds a downloaded body. `started` means that an earlier run of the agent may have sent
    the request.
    """

    command: Command
    admitted: float
    """When it was admitted, on the monotonic clock."""
    lane: str = ANY_LANE
    request: HttpRequest | Failure | None = field(default=None, repr=False)
    body: str | None = None
    started: bool = False

    @property
    def needs_download(self) -> bool:
        """Return whether the body must still be downloaded."""
        return self.command.body_url is not None and self.body is None and self.request is None

    def expired(self, now: datetime) -> bool:
        """Return whether the command's `expiresAt` has passed (PROTOCOL §2)."""
        return self.command.expires_at is not None and self.command.expires_at <= now

    def may_run_again(self, recorded: bool | None, read: Callable[[], HttpRequest | Failure]) -> bool:
        """Return whether a command that an earlier run of the agent started may be sent a second time.

        `recorded` is what the journal noted about that when the request was sent, or None; `read` decodes the payload. Both must agree,
        except for a body that is not downloaded yet: for it only the journal decides.
        """
        if self.needs_download or recorded is False:
            return bool(recorded)
        request = self.request if self.request is not None else read()
        return isinstance(request, Failure) or may_repeat(request.method, request.headers)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command that does not run, and the answer that its sender gets. It is recorded once the command is this agent's (`ownership`)."""

    command: Command
    text: str
    code: Code = Code.EBADCOMMAND
    request: HttpRequest | None = field(default=None, repr=False)


def lane_of(request: HttpRequest | Failure) -> str:
    """Return the lane in which a request waits in the fair queue: its target's host and port."""
    if isinstance(request, Failure):
        return ANY_LANE
    return f"{request.url.host}:{request.url.port}"
