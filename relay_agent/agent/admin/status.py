"""What the pages show: whether the agent is alive, whether it is ready and why not, and what it is doing.

Decides readiness and the form of `status.json` (docs/operations.md, "Pages"). It must not change anything, or wait for a part of the
agent that hangs: the pages are needed most then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from relay_agent.agent.threads import Threads
from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import Clock, Uptime, iso
from relay_agent.core.errors import JournalError
from relay_agent.core.failures import Cause
from relay_agent.diagnostics import command_history
from relay_agent.diagnostics.causes import Problem, ends_soon
from relay_agent.diagnostics.command_history import Listed
from relay_agent.diagnostics.expiry_watch import Ending
from relay_agent.diagnostics.local_causes import DEAD, JOURNAL_HANGS, STOPPING, TAKING_OVER, journal_cause, token_ends, token_expired
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_causes import AGENT_DISABLED, NO_LOGS, QUEUE_DISABLED, REFUSED, STARTING, cause_of
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.diagnostics.watchdog import RECENT_SECONDS, Finding
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.storage.disk_faults import intake_obstacle
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal
from relay_agent.storage.journal_reader import Reader
from relay_agent.telemetry.throughput import Throughput

RECENT_COMMANDS = 50
COMMIT_SECONDS = 10.0
"""If a commit takes longer, the agent is not ready."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The agent's identity, and since when it runs."""

    version: str
    agent_id: str
    organisation: str
    api_target: str
    uptime: Uptime
    shared_queue: bool = False
    """Whether other agents receive from the same queue."""

    def facts(self, now: datetime, name: str | None) -> dict[str, Any]:
        """Return what `status.json` says of it; `name` is the agent's on the platform, if known."""
        return {
            "version": self.version,
            "agent": {"id": self.agent_id, "name": name, "organisation": self.organisation, "apiTarget": self.api_target},
            "time": to_the_second(now),
            "started": to_the_second(self.uptime.started),
            "uptimeSeconds": round(self.uptime.seconds()),
        }


@dataclass(frozen=True, slots=True)
class FlowState:
    """The commands in the agent."""

    tasks: FairQueue[Any]
    workers: int
    unsent_answers: Callable[[], int]
    """How many answers are not delivered yet."""
    throughput: Throughput
    inherited: Callable[[], int] = int
    """How many commands are left from the time when this agent was alone on a queue that is shared now."""


@dataclass(frozen=True, slots=True)
class StorageState:
    """The journal and its disk."""

    journal: Journal
    disk: Disk
    reader: Reader


@dataclass(frozen=True, slots=True)
class PlatformState:
    """The agent's status on the platform, its name there, and the expiry of token and credentials."""

    status: PlatformStatus
    name: Callable[[], str | None]
    """The agent's name there; None before the first configuration."""
    token_ends: Callable[[], datetime | None]
    credentials_end: Callable[[], datetime | None]


@dataclass(frozen=True, slots=True)
class Logging:
    """The state of the delivery of log lines."""

    waiting: int
    dropped: int
    trouble: str | None
    cause: Cause = NO_LOGS


@dataclass(frozen=True, slots=True)
class Reports:
    """What other parts report, which neither a thread's status nor the platform nor the disk shows."""

    logs: Callable[[], Logging]
    problems: Callable[[], list[Problem]]
    ending: Callable[[], list[Ending]] = list
    """The token and the certificates that end soon; such certificates are among the problems too."""
    policy: Callable[[], dict[str, Any] | None] = nothing
    """Which policy is in force; None without a policy file."""


class AgentStatus:
    """The status of one agent. Any thread may ask."""

    def __init__(
        self,
        *,
        identity: Identity,
        clock: Clock,
        threads: Threads,
        flow: FlowState,
        storage: StorageState,
        platform: PlatformState,
        reports: Reports,
    ) -> None:
        self.identity = identity
        self._clock = clock
        self._threads = threads
        self._statuses = threads.statuses
        self._watchdog = threads.watchdog
        self._stopping = threads.stopping
        self._flow = flow
        self._storage = storage
        self._platform = platform
        self._logs = reports.logs
        self._other_problems = reports.problems
        self._ending = reports.ending
        self._policy = reports.policy

    # --- judgement ---

    def live(self) -> list[Problem]:
        """Return why the agent is not alive: a core thread is dead or stuck. Empty while it is alive."""
        if self._stopping():
            return []
        dead = [Problem(f"the thread {loop.name} is dead", DEAD) for loop in self._threads.dead()]
        return dead + _lasting(self._watchdog.internal_findings())

    def ready(self) -> list[Problem]:
        """Return why commands are not accepted and answered, the most informative reason first. Empty while they are."""
        if self._stopping():
            return [Problem("the agent is stopping", STOPPING)]
        found = [*self.live(), *self._of_platform(), *self._of_disk(), *self._of_queue()]
        return found + _lasting(self._watchdog.platform_findings())

    def warnings(self, problems: list[Problem]) -> list[Problem]:
        """Return the problems that do not prevent commands from being answered."""
        found = []
        ends = self._platform.token_ends()
        now = self._clock.now()
        if ends is not None and now < ends and ends_soon(ends, now):
            found.append(Problem(f"the JWT expires on {ends:%Y-%m-%d}", token_ends(ends, now)))
        known = {problem.cause for problem in problems}
        for name, status in self._statuses.items():
            reason, cause = status.problem, status.cause
            if reason is not None and cause is not None and cause not in known:
                found.append(Problem(f"{name}: {reason}", cause))
        logs = self._logs()
        if logs.trouble is not None:
            found.append(Problem(f"log lines are not delivered to CloudWatch: {logs.trouble}", logs.cause))
        return found + self._other_problems()

    def _of_platform(self) -> list[Problem]:
        status, refresh = self._platform.status, self._statuses["config-refresh"]
        ends = self._platform.token_ends()
        if ends is not None and ends <= self._clock.now():
            row = token_expired(ends)
            return [Problem(row.cause, row)]
        if status.refused is not None:
            return [Problem(refresh.problem or "the platform refuses the agent", status.refused)]
        if status.disabled:
            return [Problem(AGENT_DISABLED.cause, AGENT_DISABLED)]
        if not status.registered:
            return [Problem(refresh.problem or "the agent is starting", refresh.cause or STARTING)]
        rejected = status.rejected
        if rejected is not None:
            return [Problem(str(rejected), cause_of(rejected))]
        if status.queue_disabled:
            return [Problem(QUEUE_DISABLED.cause, QUEUE_DISABLED)]
        beat, poll = self._statuses["heartbeat"], self._statuses["poller"]
        if beat.problem is not None and beat.cause is not None and beat.cause.id == REFUSED.id:
            return [Problem(beat.problem, beat.cause)]
        if poll.last_success is None and poll.problem is not None and poll.cause is not None:
            return [Problem(f"the queue has not been read yet: {poll.problem}", poll.cause)]
        return []

    def _of_queue(self) -> list[Problem]:
        left = self._flow.inherited()
        return [Problem(f"{TAKING_OVER.cause}: {left} commands are affected", TAKING_OVER)] if left else []

    def _of_disk(self) -> list[Problem]:
        obstacle = intake_obstacle(self._storage.journal, self._storage.disk)
        if obstacle is not None:
            return [Problem(obstacle.reason, journal_cause(obstacle.trouble))]
        seconds = self._storage.journal.stuck_seconds()
        return [Problem(f"a commit to the journal has taken {seconds:.0f} s so far", JOURNAL_HANGS)] if seconds > COMMIT_SECONDS else []

    # --- what it is doing ---

    def status(self) -> dict[str, Any]:
        """Return the page `status.json` without the recent commands."""
        problems = self.ready()
        waiting, running = self._flow.tasks.waiting(), self._flow.tasks.running()
        logs = self._logs()
        state, summary = self._state(bool(problems)), self._summary(problems, running, waiting)
        return {
            "state": state,
            "sentence": f"{state.capitalize()}: {summary}.",
            "summary": summary,
            **self.identity.facts(self._clock.now(), self._platform.name()),
            "problems": [problem_json(problem) for problem in problems],
            "warnings": [problem_json(problem) for problem in self.warnings(problems)],
            "queue": {
                "enabled": self._queue_enabled(),
                "waiting": waiting,
                "capacity": self._flow.tasks.capacity,
                "shared": self.identity.shared_queue,
            },
            "workers": {"busy": running, "total": self._flow.workers},
            "untold": self._flow.unsent_answers(),
            "policy": self._policy(),
            "journal": {**self._counts(), "bytes": self._storage.disk.used()},
            "lastReceive": self._when(self._statuses["poller"]),
            "lastHeartbeat": self._when(self._statuses["heartbeat"]),
            "lastAnswer": self._when(self._statuses["sender"]),
            "lastConfiguration": to_the_second(self._platform.status.refreshed),
            "tokenEnds": to_the_second(self._platform.token_ends()),
            "credentialsEnd": to_the_second(self._platform.credentials_end()),
            "ending": [
                {"role": one.role, "name": one.name, "ends": to_the_second(one.ends), "remark": one.remark} for one in self._ending()
            ],
            "logLines": {"waiting": logs.waiting, "dropped": logs.dropped},
            "threads": self._threads_now(),
            "lastHour": [list(minute) for minute in self._flow.throughput.last_hour()],
        }

    def recent(self) -> list[Listed]:
        """Return the newest commands; none if the journal cannot be read."""
        with contextlib.suppress(JournalError):
            return command_history.recent(self._storage.reader, RECENT_COMMANDS)
        return []

    def moments(self) -> dict[str, float]:
        """Return the metrics' timestamps, in seconds since 1970."""
        found = {
            "start": self.identity.uptime.started,
            "last_receive": self._worked(self._statuses["poller"]),
            "last_heartbeat": self._worked(self._statuses["heartbeat"]),
            "token_expiry": self._platform.token_ends(),
            "credentials_expiry": self._platform.credentials_end(),
        }
        return {name: moment.timestamp() for name, moment in found.items() if moment is not None}

    def _state(self, problems: bool) -> str:
        if self._stopping():
            return "stopping"
        if self._platform.status.disabled:
            return "disabled"
        if not self._platform.status.registered:
            return "offline" if self._platform.status.offline else "starting"
        return "not ready" if problems else "ready"

    def _queue_enabled(self) -> bool | None:
        """Return whether the queue is enabled on the platform; returns None if the configuration has not been read."""
        return not self._platform.status.queue_disabled if self._platform.status.registered else None

    def _summary(self, problems: list[Problem], running: int, waiting: int) -> str:
        """Return why it is in its state, or how busy it is; the page shows it beside the state."""
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            return f"{problems[0].cause.cause}{more}"
        if waiting:
            return f"{running} of {self._flow.workers} workers are busy, {waiting} more commands are waiting"
        if running:
            return f"{running} of {self._flow.workers} workers are busy"
        return "waiting for commands"

    def _threads_now(self) -> list[dict[str, Any]]:
        return [
            {
                "name": thread.name,
                "alive": thread.alive,
                "activity": thread.activity(),
                "silentSeconds": round(thread.status.seconds_since_iteration(), 1) if thread.status else None,
                "problem": thread.status.problem if thread.status else None,
            }
            for thread in self._threads.all
        ]

    def _counts(self) -> dict[str, int]:
        with contextlib.suppress(JournalError):
            return self._storage.reader.counts()
        return {}

    def _worked(self, status: LoopStatus) -> datetime | None:
        last_success = status.last_success
        return None if last_success is None else self._clock.now() - timedelta(seconds=self._clock.monotonic() - last_success)

    def _when(self, status: LoopStatus) -> str | None:
        return to_the_second(self._worked(status))


def _lasting(findings: list[Finding]) -> list[Problem]:
    return [Problem(found.reason, found.cause) for found in findings if found.seconds > RECENT_SECONDS]


def problem_json(problem: Problem) -> dict[str, Any]:
    """Return a problem in the form of `status.json`."""
    cause = problem.cause
    return {"check": cause.id, "reason": problem.reason, "cause": cause.cause, "cure": cause.cure, "count": problem.count}


def to_the_second(moment: datetime | None) -> str | None:
    """Return a moment in the form of `status.json`, to the second."""
    return None if moment is None else iso(moment, "seconds")
