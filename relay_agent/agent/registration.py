"""Registration with the platform (configuration, credentials, STARTED), and its renewal.

The loop of the thread `config-refresh`. The poller and the heartbeat read the result in `PlatformStatus`.
"""

from __future__ import annotations

from collections.abc import Callable

from relay_agent.core.errors import PlatformError, PlatformRefused, RateLimited, UnknownAgent
from relay_agent.core.exit_codes import EXIT_REFUSED
from relay_agent.core.loop import Backoff
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.platform_causes import AGENT_DISABLED, QUEUE_DISABLED, cause_of
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.tdp.client import AgentDisabled, PlatformClient
from relay_agent.tdp.rest import AgentState

TRIES_AT_START = 3
REFUSED_WAITS = (3.0, 6.0)
"""Seconds between the three attempts after a refusal at start, which end within 15 s (docs/design.md, "Starting")."""
TICK_SECONDS = 1.0
QUIET_SECONDS = 2.0
"""The pause between two steps of a registered agent without a failure: each one costs a wake-up."""
MIN_REFRESH_INTERVAL_SECONDS = 5.0
"""Least interval between two reads of the configuration, however often another thread requests one."""


class Registration:
    """Registers the agent, then refreshes configuration and credentials and uploads metrics."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        platform_status: PlatformStatus,
        refresh_seconds: float,
        look_seconds: float,
        metrics_seconds: float,
        metrics: Callable[[], bytes],
        give_up: Callable[[int, str], None],
        loop: LoopContext,
    ) -> None:
        """`give_up` ends the agent with an exit code and a reason; `metrics` returns the system metrics to upload.

        `look_seconds` is how often to look whether agent or queue were enabled or disabled, between two reads of the configuration.
        """
        self._platform = platform
        self._platform_status = platform_status
        self._status = loop.status
        self._tally = loop.tally
        self._log = loop.log
        self._clock = loop.clock
        self._refresh_seconds = refresh_seconds
        self._look_seconds = look_seconds
        self._metrics_seconds = metrics_seconds
        self._metrics = metrics
        self._give_up = give_up
        self._refusals = 0
        self._backoff = Backoff()
        self._failure = loop.repeated_failure("platform-failed", "platform-recovered", first=3, remind_seconds=60.0)
        now = loop.clock.monotonic()
        self._next_refresh = now
        self._next_look = now + look_seconds
        self._seen: AgentState | None = None
        self._last_refresh = now - MIN_REFRESH_INTERVAL_SECONDS
        self._next_renewal = now
        self._renewals = Backoff(first_seconds=2.0)
        self._next_metrics = now

    def step(self) -> float:
        """Do what is due; return the seconds to wait before the next step."""
        self._status.begin("keeping configuration and credentials up to date")
        now = self._clock.monotonic()
        requested = (
            self._platform_status.refresh_requested.is_set()
            and now - self._last_refresh >= MIN_REFRESH_INTERVAL_SECONDS
            and not self._failure.failing
        )
        if now >= self._next_refresh or requested:
            self._refresh()
            if requested and self._platform_status.registered:
                self._renew_credentials()  # AWS refused another thread: the credentials may be invalid.
        elif now >= self._next_look and not self._failure.failing:
            self._look()
        elif self._platform_status.registered and now >= self._next_renewal:
            self._renew_credentials_if_due()
        if self._platform_status.registered and now >= self._next_metrics:
            self._upload_metrics()
        if self._platform.replaced(self._platform_status.polled):
            # The poller is in a long poll on the old queue. If a queue is merely disabled, its poll goes on: were it enabled
            # again at once, aborting the poll would hide its next message for the visibility time-out.
            self._platform.abort_call("poller")
        if self._failure.failing:
            return TICK_SECONDS
        self._status.success()
        return QUIET_SECONDS if self._platform_status.registered else TICK_SECONDS

    def _refresh(self) -> None:
        """Read the configuration; register if the agent is not registered yet."""
        self._platform_status.refresh_requested.clear()
        try:
            changed = self._platform.refresh_config()
            if not self._platform_status.registered:
                self._register()
        except AgentDisabled:
            self._agent_disabled()
        except PlatformError as error:
            self._failed(error)
        else:
            self._succeeded(changed)
        self._last_refresh = self._clock.monotonic()
        self._next_look = self._last_refresh + self._look_seconds

    def _look(self) -> None:
        """If agent or queue were enabled or disabled, read the configuration at the next step.

        `check` sees that at once, so that `status` and the page must not show it minutes later.
        """
        self._next_look = self._clock.monotonic() + self._look_seconds
        known, state = self._platform_status, self._platform.state()
        switched = state.enabled == known.disabled or (known.registered and state.queue_enabled == known.queue_disabled)
        if switched and state != self._seen:  # Once, if the configuration says something else than the agent's record.
            self._next_refresh = self._clock.monotonic()
        self._seen = state

    def _register(self) -> None:
        self._platform.credentials.renew(None)
        self._platform.rest.report("STARTED")
        self._platform.rest.heartbeat()
        self._tally.count("heartbeats")

    def _succeeded(self, changed: bool) -> None:
        status, config = self._platform_status, self._platform.config
        assert config is not None, "the configuration was just read"
        self._tally.count("config_refreshes")
        self._failure.success()
        self._backoff.reset()
        self._next_refresh = self._clock.monotonic() + self._refresh_seconds
        if status.disabled:
            self._log.info("agent-enabled")
        status.disabled, status.refused, status.failures = False, None, 0
        status.refreshed = self._clock.now()
        queue_disabled = config.source_queue is None
        if queue_disabled and not status.queue_disabled:
            self._log.warning("queue-disabled", cause=QUEUE_DISABLED.cause, cure=QUEUE_DISABLED.cure)
        status.queue_disabled = queue_disabled
        if not status.registered:
            status.registered = True
            status.ready.set()
            self._log.info("agent-ready", agent=config.agent_name, region=config.region, queue="disabled" if queue_disabled else "enabled")
        elif changed:
            self._log.info("config-changed", region=config.region, queue="disabled" if queue_disabled else "enabled")

    def _agent_disabled(self) -> None:
        if not self._platform_status.disabled:
            self._log.warning("agent-disabled", cause=AGENT_DISABLED.cause, cure=AGENT_DISABLED.cure)
        self._failure.success()
        self._platform_status.disabled, self._platform_status.refused, self._platform_status.failures = True, None, 0
        self._platform_status.refreshed = self._clock.now()
        self._platform_status.ready.set()
        self._next_refresh = self._clock.monotonic() + self._refresh_seconds

    def _failed(self, error: PlatformError) -> None:
        cause = cause_of(error)
        self._status.failure(str(error), cause)
        self._failure.failure(str(error), cause)
        self._platform_status.failures = self._failure.count
        wait = self._backoff.next_seconds(error.retry_after if isinstance(error, RateLimited) else 0.0)
        if isinstance(error, PlatformRefused | UnknownAgent):
            self._platform_status.refused = cause
            if not self._platform_status.registered and not self._platform_status.disabled:
                wait = self._refused_at_start(f"{error}: {cause.cause}; {cause.cure}")
        self._next_refresh = self._clock.monotonic() + wait

    def _refused_at_start(self, reason: str) -> float:
        self._refusals += 1
        if self._refusals >= TRIES_AT_START:
            self._give_up(EXIT_REFUSED, reason)
            return self._refresh_seconds
        return REFUSED_WAITS[self._refusals - 1]

    def _renew_credentials_if_due(self) -> None:
        if self._platform.credentials.due_seconds() <= 0:
            self._renew_credentials()

    def _renew_credentials(self) -> None:
        credentials = self._platform.credentials
        try:
            credentials.renew(credentials.access_key_in_use)
        except PlatformError as error:
            # The old ones are still valid for a while; a thread that needs new ones at once renews them itself and reports a failure.
            wait = self._renewals.next_seconds(error.retry_after if isinstance(error, RateLimited) else 0.0)
            self._next_renewal = self._clock.monotonic() + wait
            self._log.debug("credentials-failed", reason=str(error))
        else:
            self._renewals.reset()

    def _upload_metrics(self) -> None:
        self._next_metrics = self._clock.monotonic() + self._metrics_seconds
        try:
            self._platform.rest.system_metrics(self._metrics())
        except PlatformError as error:
            self._log.debug("metrics-failed", reason=str(error))
