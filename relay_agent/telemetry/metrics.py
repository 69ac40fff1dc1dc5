"""The names and labels of Prometheus' metrics (docs/monitoring/README.md), and the platform's system metrics (PROTOCOL §1)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relay_agent.core.clock import Clock
from relay_agent.core.models import Status
from relay_agent.telemetry.throughput import Throughput

# Otherwise each counter would have a second time series, with the time of its creation.
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "relay_agent_"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_MAX_CODES = 128
_GAUGES = {
    "queue_depth": "Commands that wait for a worker.",
    "workers_busy": "Workers that are running a command.",
    "workers": "Number of workers.",
    "journal_bytes": "Size of the journal with its write-ahead log and spool files.",
}
_DROPPED = {
    "log_events_dropped": "Log lines dropped before delivery to CloudWatch.",
    "syslog_events_dropped": "Log lines dropped before delivery by syslog.",
}
_MOMENTS = {
    "start": "When the agent started.",
    "last_receive": "When the queue last answered a receive.",
    "last_heartbeat": "When the platform last accepted a heartbeat.",
    "token_expiry": "When the JWT expires.",
    "credentials_expiry": "When the AWS credentials expire.",
}


class Metrics:
    """The agent's counters, in a registry of their own. Any thread may call; a call takes a few microseconds at most."""

    def __init__(self, version: str, actions: Collection[str], monotonic: Callable[[], float] = time.monotonic) -> None:
        """Make the counters. Actions that are not in `actions` count as `other`, so that senders cannot make labels."""
        self._actions = frozenset(actions)
        self.throughput = Throughput(monotonic)
        self._codes: set[str] = set()
        self._by_labels: dict[tuple[str, str, str], Counter] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self._commands = Counter(
            f"{_PREFIX}commands", "Finished commands by action, status and code.", ["action", "status", "code"], registry=self.registry
        )
        seconds = Histogram(
            f"{_PREFIX}command_seconds", "Seconds a command spent in a stage.", ["stage"], buckets=_BUCKETS, registry=self.registry
        )
        self._queued, self._target, self._delivered = (seconds.labels(stage) for stage in ("queued", "target", "delivered"))
        self._ceded = Counter(
            f"{_PREFIX}commands_ceded", "Commands of a shared queue that were left to another agent.", registry=self.registry
        )
        self._requests = Counter(
            f"{_PREFIX}platform_requests", "Calls to the platform by call and outcome.", ["call", "outcome"], registry=self.registry
        )
        self._watched = _Watched(version)
        self.registry.register(self._watched)

    def command_finished(
        self, action: str, status: str, code: str | None, queued_seconds: float | None, target_seconds: float | None
    ) -> None:
        """Count a finished command.

        `code` is the failure's code (PROTOCOL §4) or the HTTP status; after 128 different ones it counts as `other`. The seconds are
        None if they are not known; `target_seconds` also if no target was called.
        """
        action = action if action in self._actions else "other"
        self.throughput.count(failed=status != Status.SUCCESS)
        labels = action, status, self._bounded(code or "")
        counter = self._by_labels.get(labels)
        if counter is None:
            counter = self._by_labels[labels] = self._commands.labels(*labels)
        counter.inc()
        if queued_seconds is not None:
            self._queued.observe(queued_seconds)
        if target_seconds is not None:
            self._target.observe(target_seconds)

    def command_delivered(self, seconds: float) -> None:
        """Record the seconds between a command's outcome and the queue's confirmation of its update."""
        self._delivered.observe(seconds)

    def commands_ceded(self, number: int) -> None:
        """Count commands that were left to another agent."""
        self._ceded.inc(number)

    def platform_request(self, call: str, outcome: str) -> None:
        """Count a call to the platform. Both labels are fixed words (`agent/config`, `sqs receive`; `ok`, `refused`, …)."""
        self._requests.labels(call, outcome).inc()

    def watch(
        self,
        *,
        queue_depth: Callable[[], float] | None = None,
        workers_busy: Callable[[], float] | None = None,
        workers: Callable[[], float] | None = None,
        journal_bytes: Callable[[], float] | None = None,
        journal_commands: Callable[[], Mapping[str, int]] | None = None,
        log_events_dropped: Callable[[], float] | None = None,
        syslog_events_dropped: Callable[[], float] | None = None,
        moments: Callable[[], Mapping[str, float]] | None = None,
        certificates: Callable[[], Mapping[tuple[str, str], float]] | None = None,
    ) -> None:
        """Set the functions that are called to render the page. A metric whose function fails is left out.

        `moments` returns last_receive, last_heartbeat, token_expiry and credentials_expiry in seconds since 1970, without those that
        are not known; `certificates` when each ends, by role and name, of which there is a bounded number.
        """
        gauges = {"queue_depth": queue_depth, "workers_busy": workers_busy, "workers": workers, "journal_bytes": journal_bytes}
        self._watched.gauges.update({name: read for name, read in gauges.items() if read is not None})
        self._watched.journal_commands = journal_commands or self._watched.journal_commands
        self._watched.moments = moments or self._watched.moments
        self._watched.certificates = certificates or self._watched.certificates
        dropped = {"log_events_dropped": log_events_dropped, "syslog_events_dropped": syslog_events_dropped}
        self._watched.dropped.update({name: read for name, read in dropped.items() if read is not None})

    def render(self) -> bytes:
        """Return the page of `GET /metrics`, in Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def _bounded(self, code: str) -> str:
        if code not in self._codes:
            if len(self._codes) >= _MAX_CODES:
                return "other"
            self._codes.add(code)
        return code


class _Watched(Collector):
    """The metrics whose values are read when the page is rendered."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.gauges: dict[str, Callable[[], float]] = {}
        self.moments: Callable[[], Mapping[str, float]] = dict
        self.certificates: Callable[[], Mapping[tuple[str, str], float]] = dict
        self.journal_commands: Callable[[], Mapping[str, int]] | None = None
        self.dropped: dict[str, Callable[[], float]] = {}

    def collect(self) -> Iterator[Metric]:
        """Read and yield every metric."""
        yield InfoMetricFamily(f"{_PREFIX[:-1]}", "The agent.", value={"version": self._version})
        for name, read in list(self.gauges.items()):
            with contextlib.suppress(Exception):
                yield GaugeMetricFamily(_PREFIX + name, _GAUGES[name], value=read())
        with contextlib.suppress(Exception):
            for name, timestamp in self.moments().items():  # Without the unknown ones: to an alert, 0 would mean 1970.
                yield GaugeMetricFamily(f"{_PREFIX}{name}_timestamp_seconds", _MOMENTS[name], value=timestamp)
        with contextlib.suppress(Exception):
            yield from _by_certificate(self.certificates())
        if self.journal_commands is not None:
            with contextlib.suppress(Exception):
                yield _by_state(self.journal_commands())
        for name, read in list(self.dropped.items()):
            with contextlib.suppress(Exception):
                yield CounterMetricFamily(_PREFIX + name, _DROPPED[name], value=read())


def _by_state(counts: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{_PREFIX}journal_commands", "Commands in the journal.", labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return family


def _by_certificate(ends: Mapping[tuple[str, str], float]) -> Iterator[Metric]:
    family = GaugeMetricFamily(f"{_PREFIX}certificate_expiry_timestamp_seconds", "When a certificate expires.", labels=["role", "name"])
    for labels, timestamp in ends.items():
        family.add_metric(labels, timestamp)
    if ends:
        yield family


def system_metrics(clock: Clock, process: psutil.Process, state_dir: Path, host: str | None = None) -> bytes:
    """Return the body of `agent/systemmetric` (PROTOCOL §1): newline-delimited JSON, one data point a line.

    CPU usage is in percent since the last call by the same thread (0 at the first call), the process's in percent of one core.
    Values that the system does not give are left out. `host` names the machine in each point, if several agents have the same id.
    """
    # The platform's documents do not define the points. Their form, `{"name", "unit", "point": {"value", "time"}}`, is that of the
    # vendor's public SDK; the names are the agent's own.
    # Written with `+00:00`, unlike every time that `core.clock.iso` writes: points have been sent so from the first version on.
    moment = clock.now().isoformat(timespec="milliseconds")
    lines = []
    for names, read in _readings(clock, process, state_dir):
        with contextlib.suppress(psutil.Error, OSError):
            for (name, unit), value in zip(names, read(), strict=True):
                point = {"name": name, "unit": unit, "point": {"value": value, "time": moment}}
                lines.append(json.dumps(point if host is None else {**point, "host": host}) + "\n")
    return "".join(lines).encode()


_Names = tuple[tuple[str, str], ...]


def _readings(clock: Clock, process: psutil.Process, state_dir: Path) -> list[tuple[_Names, Callable[[], tuple[float, ...]]]]:
    """Return names and units, each with the function that reads the values; several share one system call."""

    def memory() -> tuple[float, ...]:
        host = psutil.virtual_memory()
        return host.total, host.total - host.available

    def disk() -> tuple[float, ...]:
        usage = psutil.disk_usage(str(state_dir))
        return usage.total, usage.used

    return [
        ((("cpu_usage", "Percent"),), lambda: (psutil.cpu_percent(interval=None),)),
        ((("memory_total", "Bytes"), ("memory_used", "Bytes")), memory),
        ((("disk_total", "Bytes"), ("disk_used", "Bytes")), disk),
        ((("process_cpu_usage", "Percent"),), lambda: (process.cpu_percent(interval=None),)),
        ((("process_memory_used", "Bytes"),), lambda: (process.memory_info().rss,)),
        ((("process_threads", "Count"),), lambda: (process.num_threads(),)),
        ((("process_uptime", "Seconds"),), lambda: (round(clock.now().timestamp() - process.create_time(), 1),)),
    ]
