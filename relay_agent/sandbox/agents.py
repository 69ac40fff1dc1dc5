"""The platform's records of agents: whether they are enabled, their queue, and their last heartbeats.

This module owns an agent's record. It must not speak HTTP or SQS.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from relay_agent.core.clock import iso
from relay_agent.sandbox.changes import Changes
from relay_agent.sandbox.forms import Json

ONLINE_SECONDS = 90.0


@dataclass(slots=True)
class Agent:
    """One agent. `heartbeats` and `settings` (STARTED and STOPPED, by PUT status) keep the last 5,000, the newest last."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    integration_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    enabled: bool = True
    queue_enabled: bool = True
    queue_url: str = ""
    queue_moves: int = 0
    version: str | None = None
    host: str | None = None
    heartbeats: deque[datetime] = field(default_factory=lambda: deque(maxlen=5000))
    settings: deque[tuple[datetime, str]] = field(default_factory=lambda: deque(maxlen=5000))
    online_since: datetime | None = None

    def online(self, now: datetime) -> bool:
        """Return whether its last heartbeat is at most 90 s old, and it has not reported STOPPED since."""
        if not self.heartbeats or now - self.heartbeats[-1] > timedelta(seconds=ONLINE_SECONDS):
            return False
        return not (self.settings and self.settings[-1][1] == "STOPPED" and self.settings[-1][0] >= self.heartbeats[-1])

    def since(self, now: datetime) -> datetime | None:
        """Return since when it has been online, or offline; None if it never sent a heartbeat."""
        if self.online(now):
            return self.online_since
        if not self.heartbeats:
            return None
        stopped = self.settings[-1][0] if self.settings and self.settings[-1][1] == "STOPPED" else None
        return max(stopped, self.heartbeats[-1]) if stopped else self.heartbeats[-1] + timedelta(seconds=ONLINE_SECONDS)

    def queue_json(self, visibility_timeout: int) -> Json:
        """Return the answer of `GET /v1/agents/{id}/command-queue`; only an enabled queue has a name, which is its URL."""
        if not self.queue_enabled:
            return {"enabled": False}
        return {"enabled": True, "name": self.queue_url, "visibilityTimeout": visibility_timeout}


class Agents:
    """Every agent of the organisation. Any thread may call it."""

    def __init__(self, now: Callable[[], datetime], changes: Changes) -> None:
        self._now = now
        self._changes = changes
        self._agents: dict[str, Agent] = {}
        self._lock = threading.Lock()

    def add(self, name: str, agent_id: str | None = None) -> Agent:
        """Create an agent without a queue, and return it."""
        moment = self._now()
        agent = Agent(agent_id or str(uuid.uuid4()), name, moment, moment)
        with self._lock:
            self._agents[agent.id] = agent
        return agent

    def get(self, agent_id: str) -> Agent | None:
        """Return the agent with this id, None if there is none."""
        with self._lock:
            return self._agents.get(agent_id)

    def all(self) -> list[Agent]:
        """Return every agent, in the order of creation."""
        with self._lock:
            return list(self._agents.values())

    def enable(self, agent: Agent, enabled: bool) -> None:
        """Enable or disable the agent's connection."""
        agent.enabled, agent.updated_at = enabled, self._now()
        self._changes.touch()

    def enable_queue(self, agent: Agent, enabled: bool) -> None:
        """Enable or disable the agent's queue."""
        agent.queue_enabled, agent.updated_at = enabled, self._now()
        self._changes.touch()

    def heartbeat(self, agent: Agent, version: str, host: str | None) -> None:
        """Record a heartbeat."""
        moment = self._now()
        with self._lock:
            if not agent.online(moment):
                agent.online_since = moment
            agent.heartbeats.append(moment)
            agent.version, agent.host = version, host
        self._changes.touch()

    def setting(self, agent: Agent, setting: str, version: str) -> None:
        """Record that the agent reported STARTED or STOPPED."""
        with self._lock:
            agent.settings.append((self._now(), setting))
            agent.version = version
        self._changes.touch()

    def to_json(self, agent: Agent, org_slug: str, visibility_timeout: int) -> Json:
        """Return the answer of `GET /v1/agents/{id}`; the fields of a file-log agent are null."""
        return {
            "id": agent.id,
            "name": agent.name,
            "description": "",
            "sourceType": None,
            "type": "user-defined",
            "integrationType": "user_defined",
            "integrationId": agent.integration_id,
            "datahubId": None,
            "sourceId": agent.id,
            "isEnabled": agent.enabled,
            "tags": [],
            "metadata": {},
            "labels": [],
            "config": None,
            "configStatus": None,
            "configStatusUpdatedAt": None,
            "configStatusError": None,
            "configChangedBy": None,
            "configChangedAt": None,
            "createdAt": iso(agent.created_at),
            "updatedAt": iso(agent.updated_at),
            "orgSlug": org_slug,
            "status": "Online" if agent.online(self._now()) else "Offline",
            "version": agent.version,
            "liveType": "user-defined",
            "host": {"ip": agent.host, "name": None},
            "queue": agent.queue_json(visibility_timeout),
        }
