"""A command on its way to a worker, and the rules that need nothing but it: its lane, its expiry, whether it may run again.

This module reads no journal and no body: what it must know of them it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from relay_agent.core.models import Command, Failure, HttpRequest, may_repeat

ANY_LANE = "?"
"""The lane of commands without a known target."""
INTERRUPTED = "the agent stopped while this request was under way; its outcome is unknown, and it was not repeated"


@dataclass(frozen=True, slots=True)
class Task:
    """A command on its way to a worker. `request` is None if the payload is only decoded when the command runs.

    `body` names the spool file of a body that was downloaded from its presigned URL; `started` says that an earlier run of
    the agent may have sent the request already.
    """

    command: Command
    admitted: float
    """When it was admitted, on the monotonic clock."""
    lane: str = ANY_LANE
    request: HttpRequest | Failure | None = field(default=None, repr=False)
    body: str | None = None
    started: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether the body must still be downloaded."""
        return self.command.body_url is not None and self.body is None and self.request is None

    def expired(self, now: datetime) -> bool:
        """Whether the command's `expiresAt` has passed (PROTOCOL §2)."""
        return self.command.expires_at is not None and self.command.expires_at <= now

    def may_run_again(self, noted: bool | None, read: Callable[[], HttpRequest | Failure]) -> bool:
        """Whether a command that an earlier run of the agent started may be sent a second time.

        `noted` is what the journal recorded of that when the request went out, None if it did not; `read` decodes the payload. Both must
        agree. Only a body that is still to be downloaded cannot be read here, and the journal's word stands alone.
        """
        if self.elsewhere or noted is False:
            return bool(noted)
        request = self.request if self.request is not None else read()
        return isinstance(request, Failure) or may_repeat(request.method, request.headers)


def lane_of(request: HttpRequest | Failure) -> str:
    """The lane of the fair queue that a request waits in: its target's host and port."""
    if isinstance(request, Failure):
        return ANY_LANE
    return f"{request.url.host}:{request.url.port}"
