"""An agent whose status is asked for, running or before its journal is open: the scenes of the tests of the pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay_agent.agent.admin.startup_status import StartupStatus
from relay_agent.agent.admin.status import AgentStatus, FlowState, Identity, Logging, PlatformState, Reports, StorageState
from relay_agent.agent.threads import AgentThread, ShutdownPhase, Stops, Threads
from relay_agent.core.clock import Clock, Uptime
from relay_agent.core.failures import Cause
from relay_agent.core.loop import one_shot
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.diagnostics.watchdog import Watchdog
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal
from relay_agent.storage.journal_reader import Reader
from relay_agent.telemetry.throughput import Throughput

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOOPS = ("poller", "sender", "heartbeat", "config-refresh")
CLOCK = Clock(now=lambda: NOW, monotonic=lambda: 1000.0)


class World:
    """A registered agent with three workers, in which everything works until the test breaks something."""

    def __init__(self, directory: Path) -> None:
        self.time = 1000.0
        self.token_ends: datetime | None = None
        self.logs = Logging(0, 0, None)
        self.others: list[Problem] = []
        clock = Clock(now=lambda: NOW + timedelta(seconds=self.time - 1000.0), monotonic=lambda: self.time)
        self.journal = Journal(directory / "journal.db", clock)
        self.disk = Disk(directory, reserve_bytes=1000)
        self.disk.look()
        self.loops = {name: LoopStatus(clock) for name in LOOPS}
        self.platform = PlatformStatus(registered=True)
        self.stops = Stops()
        self.tasks: FairQueue[str] = FairQueue(100, 4)
        self.throughput = Throughput(clock.monotonic)
        self.untold = 0
        watchdog = Watchdog(
            loops=self.loops,
            workers=[],
            journal=self.journal,
            disk=self.disk,
            platform_status=self.platform,
            draining=lambda: False,
        )
        self.dead = AgentThread(one_shot("sender", lambda: None), ShutdownPhase.ANSWERS, lambda: "sending", self.loops["sender"])
        threads = Threads((self.dead,), self.loops, watchdog, self.stops)
        self.status = AgentStatus(
            identity=Identity("1.2.3", "agent-1", "acme", "https://api.lab.example", Uptime(clock)),
            clock=clock,
            threads=threads,
            flow=FlowState(self.tasks, 3, lambda: self.untold, self.throughput),
            storage=StorageState(self.journal, self.disk, Reader(directory / "journal.db", in_use=True)),
            platform=PlatformState(self.platform, lambda: "the lab's", lambda: self.token_ends, lambda: NOW + timedelta(hours=1)),
            reports=Reports(lambda: self.logs, lambda: self.others),
        )

    def pass_time(self, seconds: float, *silent: str) -> None:
        """Let time pass, in which all loops but the named ones work."""
        self.time += seconds
        for name, loop in self.loops.items():
            if name not in silent:
                loop.success()

    def causes(self) -> list[Cause]:
        return [problem.cause for problem in self.status.ready()]

    def warned(self) -> list[Cause]:
        return [problem.cause for problem in self.status.warnings(self.status.ready())]

    def sentence(self) -> tuple[str, str]:
        page = self.status.status()
        return page["state"], page["sentence"]


def starting(directory: Path, token_ends: datetime | None = None) -> StartupStatus:
    """The status of an agent whose journal is not open yet."""
    return StartupStatus(
        identity=Identity("1.2.3", "agent-1", "acme", "https://api.lab.example", Uptime(CLOCK)),
        clock=CLOCK,
        disk=Disk(directory, reserve_bytes=1000),
        reader=Reader(directory / "journal.db", in_use=True),
        workers=3,
        capacity=100,
        token_ends=lambda: token_ends,
        log_lines=lambda: 7,
    )
