"""The agent's status pages: what they show and when they are served, on the thread `admin`.

They are served before the journal is open, to show a disk that prevents it, and until everything else has ended. What the pages
conclude from the facts is decided in `admin.status`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from relay_agent import AGENT_VERSION
from relay_agent.agent.admin.server import Admin
from relay_agent.agent.admin.startup_status import StartupStatus
from relay_agent.agent.admin.status import AgentStatus, FlowState, Identity, Logging, PlatformState, Reports, StorageState
from relay_agent.agent.current_policy import CurrentPolicy
from relay_agent.agent.monitors import Monitors
from relay_agent.agent.syslog_shipper import SyslogShipper
from relay_agent.agent.threads import Threads
from relay_agent.agent.wiring import Flow, Network, Platform, Secrets, Storage, Telemetry
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Uptime
from relay_agent.core.errors import JournalError
from relay_agent.core.failures import Obstacle
from relay_agent.core.loop import Loop
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.expiry_watch import ExpiryWatch
from relay_agent.diagnostics.local_causes import (
    BACKLOG,
    JOURNAL_DAMAGED,
    JOURNAL_ROWS_DAMAGED,
    KEYS,
    TOKEN_UNUSABLE,
    UNKNOWN_VARIABLES,
    backlog_reason,
)
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal
from relay_agent.telemetry.throughput import MINUTES

CLOSING_SECONDS = 0.5
"""How long the thread `admin` may take to end."""


class StatusPages:
    """The pages, from the start of the agent to its end. Called by the main thread."""

    def __init__(
        self,
        settings: Settings,
        uptime: Uptime,
        telemetry: Telemetry,
        secrets: Secrets,
        platform: Platform,
        storage: Storage,
        policy: CurrentPolicy,
    ) -> None:
        """Start listening; until `show` is called, the pages say that the journal is being opened."""
        self._settings = settings
        self._telemetry = telemetry
        self._secrets = secrets
        self._platform = platform
        self._policy = policy
        self._identity = Identity(AGENT_VERSION, settings.agent_id, settings.org_slug, settings.api_target, uptime, settings.shared_queue)
        self._startup_status = StartupStatus(
            identity=self._identity,
            clock=telemetry.clock,
            disk=storage.disk,
            reader=storage.reader,
            workers=settings.workers,
            capacity=settings.queue_size,
            token_ends=secrets.token_ends,
            log_lines=lambda: platform.log_shipper.waiting,
            policy=policy.summary,
        )
        telemetry.metrics.watch(moments=self._startup_status.moments)
        self._admin = Admin(
            self._startup_status,
            telemetry.metrics.render,
            settings.admin_endpoint,
            storage.directory.socket,
            telemetry.log,
            {"/log": telemetry.recent_lines.text, "/malformed": telemetry.malformed.text},
        )
        self._end = threading.Event()
        self.loop = Loop("admin", self._admin.step, self._end)

    def serve(self) -> None:
        """Start serving the pages, if they are not served yet."""
        if self.loop.ident is None:
            self.loop.start()

    def show_obstacle(self, obstacle: Obstacle) -> None:
        """Show why the journal cannot be opened yet, and start serving."""
        self._startup_status.obstacle = obstacle
        self.serve()

    def show(
        self,
        flow: Flow,
        threads: Threads,
        network: Network,
        monitors: Monitors,
        unknown: Sequence[tuple[str, str | None]],
        syslog: SyslogShipper | None = None,
    ) -> None:
        """Show the whole agent from now on. `unknown` lists unknown variables, each with the most similar setting."""

        def other_problems() -> list[Problem]:
            return [
                *journal_problems(flow.journal),
                *disk_problems(flow.storage.disk),
                *monitors.problems(),
                *secret_problems(self._secrets),
                *[found for found in (flow.upload_failures.problem, self._platform.download_failures.problem) if found is not None],
                *self._admin.problems,
                *network.target_failures.problems(),
                *unknown_variable_problems(unknown),
                *([syslog.problem] if syslog is not None and syslog.problem is not None else []),
            ]

        with contextlib.suppress(JournalError):  # Then the hour begins with this start.
            self._telemetry.metrics.throughput.resume(
                flow.storage.reader.finished_by_minute(self._telemetry.clock.now().timestamp(), MINUTES)
            )
        status = self._status(flow, threads, Reports(self._logging, other_problems, monitors.expiry.ending, self._policy.summary))
        self._watch(flow, status, monitors.expiry, syslog)
        self._admin.show(status)

    def _status(self, flow: Flow, threads: Threads, reports: Reports) -> AgentStatus:
        client = self._platform.client
        return AgentStatus(
            identity=self._identity,
            clock=self._telemetry.clock,
            threads=threads,
            flow=FlowState(
                flow.tasks,
                self._settings.workers,
                flow.outbox.pending,
                self._telemetry.metrics.throughput,
                flow.inbound.ownership.inherited,
            ),
            storage=StorageState(flow.journal, flow.storage.disk, flow.storage.reader),
            platform=PlatformState(
                status=self._platform.status,
                name=lambda: client.config.agent_name if client.config else None,
                token_ends=self._secrets.token_ends,
                credentials_end=lambda: client.credentials.expiration,
            ),
            reports=reports,
        )

    def _logging(self) -> Logging:
        shipper = self._platform.log_shipper
        return Logging(shipper.waiting, self._telemetry.buffer.dropped_total, shipper.problem, shipper.cause)

    def _watch(self, flow: Flow, status: AgentStatus, expiry: ExpiryWatch, syslog: SyslogShipper | None) -> None:
        """Let the metrics read what is not counted."""
        self._telemetry.metrics.watch(
            queue_depth=flow.tasks.waiting,
            workers_busy=flow.tasks.running,
            workers=lambda: self._settings.workers,
            journal_bytes=flow.storage.disk.used,
            journal_commands=flow.storage.reader.counts,
            log_events_dropped=lambda: self._telemetry.buffer.dropped_total,
            syslog_events_dropped=lambda: 0 if syslog is None else syslog.dropped,
            moments=status.moments,
            certificates=expiry.timestamps,
        )

    def close(self) -> None:
        """Stop listening; waits at most `CLOSING_SECONDS` for a page that hangs."""
        self._end.set()
        self._admin.wake()
        if self.loop.ident is not None:
            self.loop.join(CLOSING_SECONDS)
        if not self.loop.is_alive():
            self._admin.close()


def journal_problems(journal: Journal) -> list[Problem]:
    """Return what was damaged when the journal was opened."""
    found = []
    if journal.damage is not None:
        found.append(Problem(f"the journal was damaged; the damaged file is kept as {journal.damage.aside}", JOURNAL_DAMAGED))
    if journal.spoiled:
        found.append(Problem(f"{journal.spoiled} rows of the journal were damaged", JOURNAL_ROWS_DAMAGED))
    return found


def disk_problems(disk: Disk) -> list[Problem]:
    """Return a problem if too many answers wait for the platform."""
    return [Problem(backlog_reason(disk.backlog_bytes), BACKLOG)] if disk.backlog else []


def secret_problems(secrets: Secrets) -> list[Problem]:
    """Return new secrets that cannot be used, so that the old ones stay in use."""
    found = []
    if secrets.token.unusable:
        found.append(Problem("the new token cannot be used", TOKEN_UNUSABLE))
    if secrets.keys.unusable:
        found.append(Problem("the new secure key cannot be used", KEYS))
    return found


def unknown_variable_problems(unknown: Sequence[tuple[str, str | None]]) -> list[Problem]:
    """Return variables that look like settings of the agent but are not."""
    found = []
    for name, nearest in unknown:
        guess = f"it may be meant as {nearest}" if nearest else "no setting resembles it"
        found.append(Problem(f"{name} is not a setting of the agent", UNKNOWN_VARIABLES.about(names=name, nearest=guess)))
    return found
