"""Delivery of log lines to a syslog receiver: the order, the retries, and when a failure is reported.

A failed delivery never reaches the code that logged. Called by the thread `syslog-shipper`, and by main once that has ended.
"""

from __future__ import annotations

from typing import Protocol

from relay_agent.core.clock import Clock, Deadline
from relay_agent.core.failures import Cause
from relay_agent.core.loop import Backoff
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.network_causes import syslog_cause
from relay_agent.telemetry.log_buffer import Line, LogBuffer
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.repeated_failure import RepeatedFailure
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.syslog_connection import OPEN_SECONDS

INTERVAL_SECONDS = 1.0
"""The time between two looks for new lines."""
BATCH_BYTES = 256 * 1024
LEAST_RETRY_SECONDS = 0.5
SETTLED_SECONDS = 60.0
"""How long lines must have been sent without a failure until the failure counts as over. Whether a datagram's receiver listens, or one
behind a load balancer accepts more than the connection, shows only later: each try would log that it failed and that it recovered."""
IDLE_SECONDS = 5.0
"""How long after the last message an end of the connection is no failure: receivers and firewalls close idle ones. Sooner, the message
may be lost."""
REPORT_DROPPED_SECONDS = 300.0
"""Least interval between two log lines that report dropped lines: they may be dropped for the same reason."""


class Connection(Protocol):
    """The way to the receiver (`transport.syslog_connection`)."""

    @property
    def is_open(self) -> bool:
        """Whether it is open, as far as is known."""

    def open(self, seconds: float) -> None:
        """Connect, or raise TransportFault."""

    def send(self, message: str) -> None:
        """Send one message, or raise TransportFault."""

    def look(self) -> None:
        """Raise TransportFault if the connection has ended."""

    def close(self) -> None:
        """Close the connection."""

    def abort(self) -> None:
        """Make a wait end with an error. Any thread."""


class SyslogShipper:
    """Sends a buffer's messages, oldest first. A message that a failure interrupted is sent again, so the receiver may get it twice."""

    def __init__(self, buffer: LogBuffer, connection: Connection, log: Logger, clock: Clock) -> None:
        self._buffer = buffer
        self._connection = connection
        self._log = log
        self._monotonic = clock.monotonic
        self._pending: list[Line] = []
        self._backoff = Backoff()
        self._failure = RepeatedFailure(log, "syslog-failed", "syslog-recovered", clock.monotonic)
        self._sending_since: float | None = None
        """When the first message after the last failure was sent."""
        self._sent_at = float("-inf")
        self._dropped_reported = float("-inf")
        self.problem: Problem | None = None
        """Why lines are not delivered; None while they are."""

    @property
    def waiting(self) -> int:
        """Return how many lines are not sent yet."""
        return len(self._pending) + self._buffer.waiting

    @property
    def dropped(self) -> int:
        """Return how many lines were dropped because the receiver did not take them in time."""
        return self._buffer.dropped_total

    def step(self) -> float:
        """Send what waits; return the seconds to wait before the next step. Never raises: a failure is logged."""
        try:
            self._ship(OPEN_SECONDS)
        except TransportFault as fault:
            return self._failed(str(fault), syslog_cause(fault.facts))
        self._succeeded()
        return 0.0 if self.waiting else INTERVAL_SECONDS

    def flush(self, seconds: float) -> None:
        """Send what waits, for about `seconds`. Ends at the first failure, since the agent is ending."""
        deadline = Deadline(seconds, self._monotonic)
        try:
            while self.waiting and not deadline.passed:
                self._ship(deadline.remaining())
        except TransportFault as fault:
            self._failed(str(fault), syslog_cause(fault.facts))
        self._connection.close()

    def abort(self) -> None:
        """Make a step that waits for the receiver end. Any thread."""
        self._connection.abort()

    def _ship(self, open_seconds: float) -> None:
        """Send one batch, over the open connection or a new one; nothing is opened while no line waits."""
        if self._connection.is_open:
            self._look()
        self._pending = self._pending or self._buffer.take(BATCH_BYTES)
        if self._pending and not self._connection.is_open:
            self._connection.open(open_seconds)
        done = 0
        try:
            for line in self._pending:
                self._connection.send(line.text)
                done += 1
        finally:
            del self._pending[:done]
            if done:
                self._sent_at = self._monotonic()
                if self._sending_since is None:
                    self._sending_since = self._sent_at

    def _look(self) -> None:
        try:
            self._connection.look()
        except TransportFault:
            if self._monotonic() - self._sent_at < IDLE_SECONDS:
                raise

    def _succeeded(self) -> None:
        now = self._monotonic()
        if self._failure.failing and (self._sending_since is None or now - self._sending_since < SETTLED_SECONDS):
            return
        self.problem = None
        self._backoff.reset()
        self._failure.success()
        dropped = self._buffer.take_unreported() if now - self._dropped_reported >= REPORT_DROPPED_SECONDS else 0
        if dropped:
            self._dropped_reported = now
            self._log.warning("syslog-lines-dropped", count=dropped)

    def _failed(self, reason: str, cause: Cause) -> float:
        self._sending_since = None
        self.problem = Problem(f"log lines are not delivered by syslog: {reason}", cause)
        self._failure.failure(reason, cause)
        return self._backoff.next_seconds(LEAST_RETRY_SECONDS)
