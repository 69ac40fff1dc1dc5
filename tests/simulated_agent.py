"""The agent's own loops on one thread and a clock that jumps: days of service in seconds.

Simulates the time, the order of the steps, and the outside world: platform, queue, CloudWatch, disk and journal answer at once, as the
test sets them. Everything that logs is the agent's own code.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from botocore.exceptions import ClientError

from relay_agent.agent.heartbeat import Heartbeat
from relay_agent.agent.log_shipper import LogShipper, LogStream, stream_name
from relay_agent.agent.maintenance import Maintenance
from relay_agent.agent.registration import Registration
from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalUnwritable, PlatformError
from relay_agent.core.failures import Obstacle
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.diagnostics.watchdog import Watchdog
from relay_agent.relay.admission_gate import AdmissionGate
from relay_agent.relay.intake import Intake
from relay_agent.relay.outbox import Entry, Outbox
from relay_agent.relay.ownership import Ownership
from relay_agent.relay.poller import Inbound, Poller
from relay_agent.relay.sender import Sender
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal
from relay_agent.storage.retention import Retention
from relay_agent.tdp.client import PlatformClient
from relay_agent.tdp.rest import AgentConfig, AgentState
from relay_agent.tdp.sqs import Lease
from relay_agent.telemetry.hourly_summary import Summary, Tally
from relay_agent.telemetry.log_buffer import LogBuffer
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.metrics import Metrics
from relay_agent.telemetry.redaction import Redactor
from relay_agent.telemetry.repeated_failure import RepeatedFailure

START = datetime(2026, 3, 1, tzinfo=UTC)
LONG_POLL_SECONDS = 20.0
CONFIG = AgentConfig("agent", "eu-west-1", "group", "https://sqs/in", "https://sqs/out")
PLATFORM_CALLS = ("config", "credentials", "report", "heartbeat", "metrics", "receive", "send")

Fault = Callable[[str, int], PlatformError | None]
"""What a call raises: it is given the call's name and how many there were of it."""


class Counting:
    """A stdout that counts bytes and events, and keeps the first lines."""

    def __init__(self) -> None:
        self.bytes = 0
        self.longest = 0
        self.lines: list[str] = []

    def write(self, text: str) -> int:
        size = len(text.encode())
        self.bytes += size
        self.longest = max(self.longest, size)
        self.lines.append(text)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


class SimulatedAgent:
    """Poller, sender, heartbeat, enrolment, upkeep and log shipper, stepped when they are due.

    `stride_seconds` is the shortest time from one step of a loop to its next: 0 gives every step that the threads would take.
    """

    def __init__(self, stride_seconds: float = 0.0, *, watched: bool = True) -> None:
        """`watched` asks the real watchdog before each heartbeat; strides longer than a minute look like a stall to it."""
        self.time = 0.0
        self.took = 0.0
        self.steps = 0
        self.stdout = Counting()
        self.fault: Fault = lambda _call, _number: None
        self.refuse_logs: str | None = None
        self.unwritable: Obstacle | None = None
        self.answers: list[Entry] = []
        self.shipped = 0
        self.tally = Tally()
        self._calls = dict.fromkeys(PLATFORM_CALLS, 0)
        self._stride_seconds = stride_seconds
        self.disk = SimpleNamespace(obstacle=None, backlog=False, backlog_bytes=4_000_000_000, look=lambda: None)
        self.clock = Clock(now=lambda: START + timedelta(seconds=self.time), monotonic=lambda: self.time)
        self._buffer = LogBuffer()
        self.logs = Logs("info", Redactor(), self._buffer, cast("Any", self.stdout), self.clock)
        self._build(watched)

    # --- time ---

    def run(self, seconds: float) -> None:
        """Let all loops run for so long."""
        end = self.time + seconds
        due = [(self.time, number) for number in range(len(self._steps))]
        while due[0][0] < end:
            self.time, number = due[0]
            self.took = 0.0
            wait = self._steps[number]()
            self.steps += 1
            heapq.heapreplace(due, (self.time + max(self.took + wait, self._stride_seconds, 1e-3), number))
        self.time = end

    # --- the outside world ---

    def _call(self, name: str) -> None:
        self._calls[name] += 1
        error = self.fault(name, self._calls[name])
        if error is not None:
            raise error

    def _receive(self, _most: int, seconds: float = LONG_POLL_SECONDS, _lease: object = None) -> list[Any]:
        self._call("receive")
        self.took = seconds
        return []

    def _send(self, messages: list[str]) -> Any:
        self._call("send")
        return SimpleNamespace(sent=list(range(len(messages))), failed=[])

    def _refresh_config(self) -> bool:
        self._call("config")
        changed, self._platform.config = self._platform.config != CONFIG, CONFIG
        return changed

    def _renew(self, _refused: str | None) -> None:
        self._call("credentials")
        self.tally.count("credential_refreshes")
        self._renewal = self.time + 3000

    def _take(self, seconds: float) -> list[Entry]:
        if not self.answers:
            self.took = seconds
        taken, self.answers = self.answers, []
        return taken

    def _flush(self) -> None:
        if self.unwritable is not None:
            raise JournalUnwritable(self.unwritable.reason, self.unwritable.trouble)

    def _put_log_events(self, *, logEvents: list[Any], **_where: str) -> dict[str, Any]:
        if self.refuse_logs is not None:
            raise ClientError({"Error": {"Code": self.refuse_logs, "Message": "no"}}, "PutLogEvents")
        self.shipped += len(logEvents)
        return {}

    # --- building ---

    def _build(self, watched: bool) -> None:
        agent = self
        self._renewal = 0.0
        self._platform = SimpleNamespace(
            config=None,
            rest=SimpleNamespace(
                report=lambda _setting: self._call("report"),
                heartbeat=lambda: self._call("heartbeat"),
                system_metrics=lambda _lines: self._call("metrics"),
            ),
            credentials=SimpleNamespace(
                renew=self._renew, due_seconds=lambda: max(0.0, self._renewal - self.time), access_key_in_use="AKIA1"
            ),
            refresh_config=self._refresh_config,
            state=lambda: AgentState(True, True),
            replaced=lambda _queue: False,
            inbound=lambda: SimpleNamespace(receive=self._receive, url=CONFIG.source_queue),
            outbound=lambda: SimpleNamespace(send=self._send),
        )
        platform = cast("PlatformClient", self._platform)

        class Stub:
            unwritable = property(lambda _: agent.unwritable)
            commits = 0

            def __getattr__(self, name: str) -> Callable[..., Any]:
                return lambda *_: {
                    "unacked": [],
                    "claims": [],
                    "counts": {"admitted": 0},
                    "probe": agent.unwritable is None,
                    "stuck_seconds": 0.0,
                }.get(name)

            def flush(self) -> None:
                agent._flush()

            def recorded(self, ids: Iterable[str]) -> set[str]:
                return set()

            def known(self, ids: Iterable[str]) -> set[str]:
                return set(ids)

        journal = cast("Journal", Stub())
        outbox = SimpleNamespace(
            free=lambda: 1000,
            take=self._take,
            put_back=lambda entries: self.answers.extend(entries),
            delivered=lambda _entries: None,
            pending=lambda: len(self.answers),
            put_last=lambda entries: self.answers.extend(entries),
        )
        clock, log = self.clock, self.logs.logger
        statuses = {name: LoopStatus(clock) for name in ("poller", "sender", "heartbeat", "config-refresh", "upkeep")}
        loops = {name: LoopContext(status, self.tally, log, clock) for name, status in statuses.items()}
        platform_status = PlatformStatus()
        platform_status.ready = cast("threading.Event", _Ready(self))
        disk = cast("Disk", self.disk)
        self.watchdog = Watchdog(
            loops=statuses,
            workers=[],
            journal=journal,
            disk=disk,
            platform_status=platform_status,
            draining=lambda: False,
        )
        gate = AdmissionGate(
            shared=False,
            tasks=cast("Any", SimpleNamespace(free=lambda: 10)),
            downloader=cast("Any", SimpleNamespace(waiting=lambda: 0)),
            outbox=cast("Outbox", outbox),
            journal=journal,
            disk=disk,
        )
        lease = Lease(60, clock.boottime)
        ownership = Ownership(
            shared=False,
            lease=lease,
            journal=journal,
            clock=clock,
            release=lambda _work: None,
            count_ceded=lambda _number: None,
            loop=loops["poller"],
        )
        poller = Poller(
            platform=platform,
            platform_status=platform_status,
            inbound=Inbound(cast("Intake", None), gate, lease, ownership),
            journal=journal,
            keep_malformed=lambda _message, _reason: None,
            disk_full=RepeatedFailure(
                log.bind(directory="/var/lib/relay-agent"), "disk-full", "disk-freed", clock.monotonic, remind_seconds=300.0
            ),
            stopping=lambda: False,
            loop=loops["poller"],
        )
        sender = Sender(
            platform=platform,
            journal=journal,
            outbox=cast("Outbox", outbox),
            platform_status=platform_status,
            metrics=Metrics("0", []),
            loop=loops["sender"],
        )
        heartbeat = Heartbeat(
            platform=platform,
            platform_status=platform_status,
            watchdog=self.watchdog if watched else cast("Watchdog", SimpleNamespace(stall=lambda: None)),
            interval_seconds=30.0,
            loop=loops["heartbeat"],
        )
        self.given_up: list[str] = []
        registration = Registration(
            platform=platform,
            platform_status=platform_status,
            refresh_seconds=300.0,
            look_seconds=30.0,
            metrics_seconds=300.0,
            metrics=lambda: b"{}\n",
            give_up=lambda _code, reason: self.given_up.append(reason),
            loop=loops["config-refresh"],
        )
        summary = Summary(
            self.tally,
            log,
            clock.monotonic,
            dropped=lambda: self._buffer.dropped_total,
            queued=lambda: 0,
            running=lambda: 0,
            journal=lambda: {"admitted": 0, "started": 0, "finished": 0, "delivered": 0},
        )
        maintenance = Maintenance(
            journal=journal,
            retention=cast("Retention", journal),
            disk=disk,
            interrupt=lambda: None,
            summarise=summary.log_if_due,
            release_memory=lambda: None,
            loop=loops["upkeep"],
        )
        client = SimpleNamespace(create_log_stream=lambda **_where: {}, put_log_events=self._put_log_events)
        stream = LogStream(lambda: cast("Any", client), lambda: "group", stream_name("agent", START))
        shipper = LogShipper(self._buffer, stream, log, self.logs.local, clock)
        self._steps = [registration.step, heartbeat.step, poller.step, sender.step, maintenance.step, shipper.step]


class _Ready:
    """Replaces the event that the agent is registered: waiting for it takes simulated time."""

    def __init__(self, agent: SimulatedAgent) -> None:
        self._agent = agent
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, timeout: float) -> bool:
        if not self._set:
            self._agent.took += timeout
        return self._set
