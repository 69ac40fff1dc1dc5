"""The platform's client: one configuration, one set of credentials and one set of AWS clients for all threads.

This module owns what the threads share, and replaces it as a whole. It must not hold its lock during a network call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_agent.core.clock import Clock
from relay_agent.core.errors import Call, PlatformError, PlatformRefused, QueueUnavailable, UnknownAgent
from relay_agent.tdp.aws_clients import Aws, as_platform_error, call_aws
from relay_agent.tdp.call_outcomes import Count, count_nothing
from relay_agent.tdp.cloudwatch_logs import LogsClient
from relay_agent.tdp.credentials import PlatformCredentials
from relay_agent.tdp.platform_http import PlatformHttp
from relay_agent.tdp.rest import AgentConfig, AgentIdentity, AgentState, Rest
from relay_agent.tdp.s3_payloads import Payloads
from relay_agent.tdp.sqs import Queue


class AgentDisabled(PlatformError):
    """The agent is disabled on the platform; cure: enable the agent's connection."""


class QueueDisabled(PlatformError):
    """The agent's queue is disabled on the platform; cure: enable the agent's queue."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who wants to know of the calls. Each is called on the thread that calls the platform, and must not wait."""

    seen_secrets: Callable[[str, str], None]
    """Called with each new AWS secret key and session token before they are used."""
    count: Count = count_nothing
    """Called with the outcome of each call."""
    judged: Callable[[PlatformRefused | None], None] = lambda _refusal: None
    """Called with each answer that accepts (None) or refuses the token."""
    downloaded: Callable[[PlatformError | None], None] = lambda _error: None
    """Called with the outcome of each download."""


class PlatformClient:
    """All calls of the agent to the platform."""

    def __init__(
        self,
        http: PlatformHttp,
        identity: AgentIdentity,
        listeners: Listeners,
        *,
        clock: Clock,
        endpoint_url: str | None,
        max_body_bytes: int,
    ) -> None:
        """Set up the calls; nothing is sent yet."""
        self._http = http
        self._count = listeners.count
        self.rest = Rest(http, identity, clock, listeners.count, listeners.judged)
        self.credentials = PlatformCredentials(self.rest.credentials, clock, listeners.seen_secrets)
        self.payloads = Payloads(http, max_body_bytes, listeners.count, listeners.downloaded)
        self._aws = Aws(http, self.credentials, endpoint_url)
        self._endpoint = endpoint_url
        self._sqs: Any = None
        self._swap = threading.Lock()
        self._config: AgentConfig | None = None
        self._inbound: Queue | None = None
        self._outbound: Queue | None = None
        self._logs: LogsClient | None = None

    # --- any thread ---

    @property
    def config(self) -> AgentConfig | None:
        """The last configuration that was read, None before the first."""
        return self._config

    def inbound(self) -> Queue:
        """Return the queue that commands come from.

        Raises:
            QueueDisabled: the platform names none.
        """
        queue = self._inbound
        if queue is None:
            raise QueueDisabled(Call.SQS_RECEIVE, "the agent's queue is disabled")
        return queue

    def replaced(self, queue: Queue | None) -> bool:
        """Return whether another queue has taken the place of this one."""
        inbound = self._inbound
        return queue is not None and inbound is not None and inbound.url != queue.url

    def outbound(self) -> Queue:
        """Return the queue that status updates go to.

        Raises:
            QueueUnavailable: the platform has not named one yet.
        """
        queue = self._outbound
        if queue is None:
            raise QueueUnavailable(Call.SQS_SEND, "the platform has named no queue for answers")
        return queue

    def logs(self) -> LogsClient | None:
        """Return the CloudWatch Logs client, None before the first configuration."""
        return self._logs

    def why_not_logged(self, error: Exception) -> PlatformError | None:
        """Return the PlatformError for an error while log lines were delivered; None if neither the network nor AWS caused it."""
        if isinstance(error, PlatformError):
            return error
        region = self._config.region if self._config else "region"
        return as_platform_error(Call.LOGS_PUT, f"https://logs.{region}.amazonaws.com", error, self._endpoint)

    def log_group(self) -> str | None:
        """Return the log group of the configuration, None if there is none."""
        return self._config.log_group if self._config else None

    def abort_call(self, thread: str) -> None:
        """Abort the call that the thread of that name waits for."""
        self._http.abort(thread)
        self.credentials.abort_call(thread)

    def close(self) -> None:
        """Close every connection to the platform."""
        self._http.close()

    # --- main at start, config-refresh later ---

    def refresh_config(self) -> bool:
        """Read the configuration, apply it if it changed, and return whether it did.

        Raises:
            AgentDisabled: the agent is disabled. (For a disabled queue, `inbound` raises.)
            PlatformError: one of its kinds, see errors.
        """
        try:
            config = self.rest.config()
        except (PlatformRefused, UnknownAgent) as error:
            # The platform may refuse a disabled agent here, though its token is valid; `GET /v1/agents/{id}` distinguishes the two.
            if isinstance(error, PlatformRefused) and self.state().enabled is False:
                raise AgentDisabled(Call.CONFIG, "the agent is disabled") from None
            raise
        state = self.state()
        if state.enabled is False:
            raise AgentDisabled(Call.AGENTS, "the agent is disabled")
        if state.queue_enabled is False and config.source_queue is not None:
            config = AgentConfig(config.agent_name, config.region, config.log_group, None, config.platform_queue)
        return self._apply(config)

    def state(self) -> AgentState:
        """Return whether agent and queue are enabled; unknown if the token does not allow the question."""
        try:
            return self.rest.agent()
        except PlatformError:
            return AgentState(None, None)

    def _apply(self, config: AgentConfig) -> bool:
        before = self._config
        if config == before:
            return False
        new_region = before is None or before.region != config.region
        sqs = self._client("sqs", config.region) if new_region else None
        logs = LogsClient(self._client("logs", config.region), self.credentials, self._count, self._endpoint) if new_region else self._logs
        with self._swap:
            if sqs is not None:
                self._sqs = sqs
            self._logs = logs
            self._inbound = self._queue(config.source_queue, None if new_region else self._inbound)
            self._outbound = self._queue(config.platform_queue, None if new_region else self._outbound)
            self._config = config
        return True

    def _client(self, service: str, region: str) -> Any:
        return call_aws(Call.CONFIG, f"https://{service}.{region}.amazonaws.com", lambda: self._aws.client(service, region), self._endpoint)

    def _queue(self, url: str | None, before: Queue | None) -> Queue | None:
        if before is not None and before.url == url:
            return before
        return None if url is None else Queue(self._sqs, url, self.credentials, self._count, self._endpoint)

    def upload(self, url: str, path: Path, seconds: float) -> None:
        """Upload a spooled answer to its presigned URL.

        Raises:
            PayloadRefused, PlatformError, OSError: as `Payloads.upload`.
        """
        self.payloads.upload(url, path, seconds)
