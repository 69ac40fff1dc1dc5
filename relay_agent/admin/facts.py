"""What the pages show: whether the agent lives, whether it is ready and why not, and what it is doing.

This room owns the judgement of readiness and the form of `status.json` (OPERATIONS §3). It must not change anything, nor wait for a
part of the agent that hangs: a page is looked at when something does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from relay_agent import listing
from relay_agent.causes import (
    AGENT_DISABLED,
    JOURNAL_HANGS,
    NO_LOGS,
    QUEUE_DISABLED,
    REFUSED,
    STARTING,
    STOPPING,
    STUCK,
    TOKEN_ENDS,
    Problem,
    cause_of,
    days_left,
    journal_cause,
    token_expired,
)
from relay_agent.clock import Clock, iso
from relay_agent.disk import Disk
from relay_agent.errors import JournalError
from relay_agent.fair_queue import FairQueue
from relay_agent.journal import Journal
from relay_agent.journal.reader import Reader
from relay_agent.listing import Listed
from relay_agent.models import Cause
from relay_agent.pulse import Pulse
from relay_agent.standing import Standing
from relay_agent.telemetry.throughput import Throughput
from relay_agent.threads import Threads
from relay_agent.watchdog import RECENT_SECONDS, Finding, Watchdog

RECENT_COMMANDS = 50
COMMIT_SECONDS = 10.0
"""A commit that takes longer is a journal that does not commit."""
TOKEN_WARNING = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which agent this is."""

    version: str
    agent_id: str
    organisation: str
    api_target: str


@dataclass(frozen=True, slots=True)
class Logging:
    """How the delivery of log lines stands."""

    waiting: int
    dropped: int
    trouble: str | None
    cause: Cause = NO_LOGS


class Facts:
    """What is known of one agent. Any thread may ask."""

    def __init__(
        self,
        *,
        identity: Identity,
        clock: Clock,
        pulses: Mapping[str, Pulse],
        threads: Threads,
        others: Callable[[], dict[str, str]],
        watchdog: Watchdog,
        standing: Standing,
        journal: Journal,
        disk: Disk,
        reader: Reader,
        tasks: FairQueue[Any],
        workers: int,
        untold: Callable[[], int],
        throughput: Throughput,
        name: Callable[[], str | None],
        token_ends: Callable[[], datetime | None],
        credentials_end: Callable[[], datetime | None],
        logs: Callable[[], Logging],
        stopping: Callable[[], bool],
        also: Callable[[], list[Problem]],
        began: tuple[datetime, float],
    ) -> None:
        """`others` says what the threads without a pulse are doing, `also` what else is wrong; it `began` then, by both clocks."""
        self.identity = identity
        self._clock = clock
        self._pulses = pulses
        self._threads = threads
        self._others = others
        self._watchdog = watchdog
        self._standing = standing
        self._journal = journal
        self._disk = disk
        self._reader = reader
        self._tasks = tasks
        self._workers = workers
        self._untold = untold
        self._throughput = throughput
        self._name = name
        self._token_ends = token_ends
        self._credentials_end = credentials_end
        self._logs = logs
        self._stopping = stopping
        self._also = also
        self._started, self._began = began

    # --- judgement ---

    def live(self) -> list[Problem]:
        """Why the agent does not live: a core thread is dead, or does not come round. Nothing while it lives."""
        if self._stopping():
            return []
        dead = [Problem(f"the thread {name} has ended", STUCK) for name in self._threads.dead()]
        return dead + _lasting(self._watchdog.standing_still())

    def ready(self) -> list[Problem]:
        """Why commands are not taken in and answered, the most telling reason first. Nothing while they are."""
        if self._stopping():
            return [Problem("the agent is stopping", STOPPING)]
        found = [*self.live(), *self._of_platform(), *self._of_disk()]
        return found + _lasting(self._watchdog.not_served())

    def warnings(self, problems: list[Problem]) -> list[Problem]:
        """What is wrong beside these, and yet keeps no command from its answer."""
        found = []
        ends = self._token_ends()
        if ends is not None and timedelta() < ends - self._clock.now() < TOKEN_WARNING:
            soon = TOKEN_ENDS.about(date=f"{ends:%Y-%m-%d %H:%M} UTC", days=days_left(ends, self._clock.now()))
            found.append(Problem(f"the JWT ends on {ends:%Y-%m-%d}", soon))
        known = {problem.cause for problem in problems}
        for name, pulse in self._pulses.items():
            reason, cause = pulse.problem, pulse.cause
            if reason is not None and cause is not None and cause not in known:
                found.append(Problem(f"{name}: {reason}", cause))
        logs = self._logs()
        if logs.trouble is not None:
            found.append(Problem(f"log lines are not delivered to CloudWatch: {logs.trouble}", logs.cause))
        return found + self._also()

    def _of_platform(self) -> list[Problem]:
        standing, refresh = self._standing, self._pulses["config-refresh"]
        ends = self._token_ends()
        if ends is not None and ends <= self._clock.now():
            row = token_expired(ends)
            return [Problem(row.cause, row)]
        if standing.refused is not None:
            return [Problem(refresh.problem or "the platform refuses the agent", standing.refused)]
        if standing.disabled:
            return [Problem(AGENT_DISABLED.cause, AGENT_DISABLED)]
        if not standing.enrolled:
            return [Problem(refresh.problem or "not initialised yet", refresh.cause or STARTING)]
        rejected = standing.rejected
        if rejected is not None:
            return [Problem(str(rejected), cause_of(rejected))]
        if standing.queue_disabled:
            return [Problem(QUEUE_DISABLED.cause, QUEUE_DISABLED)]
        beat, poll = self._pulses["heartbeat"], self._pulses["poller"]
        if beat.problem is not None and beat.cause is not None and beat.cause.id == REFUSED.id:
            return [Problem(beat.problem, beat.cause)]
        if poll.worked is None and poll.problem is not None and poll.cause is not None:
            return [Problem(f"the queue was not read yet: {poll.problem}", poll.cause)]
        return []

    def _of_disk(self) -> list[Problem]:
        obstacle = self._journal.unwritable or self._disk.obstacle
        if obstacle is not None:
            return [Problem(obstacle.reason, journal_cause(obstacle.trouble))]
        seconds = self._journal.stuck_seconds()
        return [Problem(f"the journal has not ended a commit for {seconds:.0f} s", JOURNAL_HANGS)] if seconds > COMMIT_SECONDS else []

    # --- what it is doing ---

    def status(self) -> dict[str, Any]:
        """The page `status.json`, but for the recent commands."""
        problems = self.ready()
        waiting, running = self._tasks.waiting(), self._tasks.running()
        logs = self._logs()
        return {
            "state": self._state(bool(problems)),
            "sentence": self._sentence(problems, running, waiting),
            "version": self.identity.version,
            "agent": {
                "id": self.identity.agent_id,
                "name": self._name(),
                "organisation": self.identity.organisation,
                "apiTarget": self.identity.api_target,
            },
            "time": to_the_second(self._clock.now()),
            "started": to_the_second(self._started),
            "uptimeSeconds": round(self._clock.monotonic() - self._began),
            "problems": [told(problem) for problem in problems],
            "warnings": [told(problem) for problem in self.warnings(problems)],
            "queue": {"waiting": waiting, "capacity": self._tasks.capacity},
            "workers": {"busy": running, "total": self._workers},
            "untold": self._untold(),
            "journal": {**self._counts(), "bytes": self._disk.used()},
            "lastReceive": self._when(self._pulses["poller"]),
            "lastHeartbeat": self._when(self._pulses["heartbeat"]),
            "lastAnswer": self._when(self._pulses["sender"]),
            "lastConfiguration": to_the_second(self._standing.refreshed),
            "tokenEnds": to_the_second(self._token_ends()),
            "credentialsEnd": to_the_second(self._credentials_end()),
            "logLines": {"waiting": logs.waiting, "dropped": logs.dropped},
            "threads": self._threads_now(),
            "lastHour": [list(minute) for minute in self._throughput.last_hour()],
        }

    def recent(self) -> list[Listed]:
        """The newest commands; none where the journal cannot be read."""
        with contextlib.suppress(JournalError):
            return listing.recent(self._reader, RECENT_COMMANDS)
        return []

    def moments(self) -> dict[str, float]:
        """What the metrics call timestamps, in seconds since 1970."""
        found = {
            "start": self._started,
            "last_receive": self._worked(self._pulses["poller"]),
            "last_heartbeat": self._worked(self._pulses["heartbeat"]),
            "token_expiry": self._token_ends(),
            "credentials_expiry": self._credentials_end(),
        }
        return {name: moment.timestamp() for name, moment in found.items() if moment is not None}

    def _state(self, problems: bool) -> str:
        if self._stopping():
            return "stopping"
        if self._standing.disabled:
            return "disabled"
        if not self._standing.enrolled:
            return "starting"
        return "not ready" if problems else "ready"

    def _sentence(self, problems: list[Problem], running: int, waiting: int) -> str:
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            words = {"stopping": "Stopping", "disabled": "Disabled", "starting": "Starting"}
            return f"{words.get(self._state(True), 'Not ready')}: {problems[0].cause.cause}{more}."
        if waiting:
            return f"Ready and busy: {running} of {self._workers} workers have a command, {waiting} more wait."
        if running:
            return f"Ready: {running} of {self._workers} workers have a command."
        return "Ready: it waits for commands."

    def _threads_now(self) -> list[dict[str, Any]]:
        others = self._others()
        found = []
        for name, alive in self._threads.lives().items():
            pulse = self._pulses.get(name)
            found.append(
                {
                    "name": name,
                    "alive": alive,
                    "activity": pulse.activity if pulse else others.get(name, ""),
                    "silentSeconds": round(pulse.silent_seconds(), 1) if pulse else None,
                    "problem": pulse.problem if pulse else None,
                }
            )
        return found

    def _counts(self) -> dict[str, int]:
        with contextlib.suppress(JournalError):
            return self._reader.counts()
        return {}

    def _worked(self, pulse: Pulse) -> datetime | None:
        worked = pulse.worked
        return None if worked is None else self._clock.now() - timedelta(seconds=self._clock.monotonic() - worked)

    def _when(self, pulse: Pulse) -> str | None:
        return to_the_second(self._worked(pulse))


def _lasting(findings: list[Finding]) -> list[Problem]:
    return [Problem(found.reason, found.cause) for found in findings if found.seconds > RECENT_SECONDS]


def told(problem: Problem) -> dict[str, str]:
    """A problem in the form of `status.json`."""
    return {"check": problem.cause.id, "reason": problem.reason, "cause": problem.cause.cause, "cure": problem.cause.cure}


def to_the_second(moment: datetime | None) -> str | None:
    """A moment in the form of `status.json`, to the second."""
    return None if moment is None else iso(moment, "seconds")
