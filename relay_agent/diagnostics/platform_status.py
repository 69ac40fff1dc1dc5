"""What the platform thinks of this agent.

This room owns the facts only; `enrolment` finds them out, poller and heartbeat act on them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

from relay_agent.core.errors import PlatformRefused
from relay_agent.core.failures import Cause
from relay_agent.tdp.sqs import Queue


@dataclass
class PlatformStatus:
    """What the platform thinks of us, for poller, heartbeat and health. Each value is replaced whole."""

    enrolled: bool = False
    """STARTED was reported and the first heartbeat sent."""
    disabled: bool = False
    """The agent is disabled: alive, but not to poll."""
    queue_disabled: bool = False
    refused: Cause | None = None
    """Why the platform refuses us, while it does."""
    rejected: PlatformRefused | None = None
    """What the last answer said that judged the token, where it was a refusal (401): whichever call it was."""
    doubt: threading.Event = field(default_factory=threading.Event)
    """Set by such a refusal, for `heartbeat` to ask at once whether it is meant for all calls."""
    refreshed: datetime | None = None
    """When the configuration was last read."""
    polled: Queue | None = None
    """The queue that the poller last asked."""
    ready: threading.Event = field(default_factory=threading.Event)
    look_again: threading.Event = field(default_factory=threading.Event)
    """Set by whom AWS refuses, for `enrolment` to read the configuration now: queue or credentials may have changed."""

    def judge(self, refusal: PlatformRefused | None) -> None:
        """Take over what an answer says of the token; from any thread."""
        self.rejected = refusal
        if refusal is not None:
            self.doubt.set()

    @property
    def may_poll(self) -> bool:
        """Whether commands may be asked for."""
        return self.enrolled and not self.disabled
