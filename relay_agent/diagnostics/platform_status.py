"""The agent's status on the platform: registered, enabled, accepted.

Owns the facts only: `registration` sets them, poller and heartbeat act on them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

from relay_agent.core.errors import PlatformRefused
from relay_agent.core.failures import Cause
from relay_agent.tdp.sqs import Queue

OFFLINE_TRIES = 3
"""An agent that has never been registered is called offline after so many failures in a row, not starting."""


@dataclass
class PlatformStatus:
    """The agent's status on the platform, for poller, heartbeat and health. Each value is replaced as a whole."""

    registered: bool = False
    """STARTED was reported, and the first heartbeat was sent."""
    failures: int = 0
    """How many reads of the configuration, or registrations, have failed in a row."""
    disabled: bool = False
    """The agent is disabled on the platform: it sends heartbeats, but must not poll."""
    queue_disabled: bool = False
    refused: Cause | None = None
    """Why the platform refuses the agent; None while it accepts it."""
    rejected: PlatformRefused | None = None
    """The refusal (401), if the last answer that judged the token was one, whichever call it answered."""
    heartbeat_requested: threading.Event = field(default_factory=threading.Event)
    """Set by such a refusal, so that `heartbeat` finds out at once whether the platform refuses every call."""
    refreshed: datetime | None = None
    """When the configuration was last read."""
    polled: Queue | None = None
    """The queue that the poller last polled."""
    ready: threading.Event = field(default_factory=threading.Event)
    refresh_requested: threading.Event = field(default_factory=threading.Event)
    """Set when AWS refuses a call, so that `registration` reads the configuration now: queue or credentials may have changed."""

    def judge(self, refusal: PlatformRefused | None) -> None:
        """Record whether an answer refused the token (None: it accepted it); from any thread."""
        self.rejected = refusal
        if refusal is not None:
            self.heartbeat_requested.set()

    @property
    def offline(self) -> bool:
        """Whether the agent tries in vain to register."""
        return not self.registered and not self.disabled and self.failures >= OFFLINE_TRIES

    @property
    def may_poll(self) -> bool:
        """Whether the agent may poll for commands."""
        return self.registered and not self.disabled
