"""Delivery of log lines to CloudWatch Logs in batches: the service's limits, the order, the retries.

A failed delivery never reaches the code that logged. Called by the thread `log-shipper`, and by main once that has ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from relay_agent.core.clock import DAY_SECONDS, Clock, Deadline, compact
from relay_agent.core.errors import PlatformError
from relay_agent.core.failures import Cause
from relay_agent.core.loop import Backoff
from relay_agent.diagnostics.platform_causes import NO_LOGS, cause_of
from relay_agent.tdp.aws_clients import code_of
from relay_agent.telemetry.log_buffer import BATCH_EVENTS, Line, LogBuffer
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.repeated_failure import RepeatedFailure

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_logs.type_defs import RejectedLogEventsInfoTypeDef

# PutLogEvents' limits on time; those on size are the buffer's.
SPAN_MS = DAY_SECONDS * 1000
OLDEST = timedelta(days=14)
NEWEST = timedelta(hours=2)

INTERVAL_SECONDS = 5.0
"""The time between two batches if the first left few lines."""
INITIALISING_SECONDS = 1.0
UPLOAD_AFTER_SECONDS = 300.0
"""How long CloudWatch must have failed before lines are uploaded to the platform's API."""
LEAST_RETRY_SECONDS = 0.5
REPORT_DROPPED_SECONDS = 300.0
"""Least interval between two log lines that report dropped lines: they may be dropped for the same reason."""
_TOO_LARGE = frozenset({"InvalidParameterException", "RequestEntityTooLarge", "RequestEntityTooLargeException", "413"})
"""Codes for a batch that is refused because of its content, or by a proxy because of its size."""


@dataclass(frozen=True, slots=True)
class LogStream:
    """The stream of a CloudWatch log group that lines are delivered to.

    `client` and `log_group` return None until the agent is initialised; both are called for each batch, since credentials
    and configuration change.
    """

    client: Callable[[], CloudWatchLogsClient | None]
    log_group: Callable[[], str | None]
    name: str
    why: Callable[[Exception], PlatformError | None] = lambda _error: None
    """Finds the platform error behind an exception of `client`."""


class LogShipper:
    """Delivers a buffer's lines to one log stream, in order of time.

    While CloudWatch cannot be reached, `upload` (optional) receives the lines as newline-delimited JSON (PROTOCOL §1, `agent/log`).
    """

    def __init__(
        self,
        buffer: LogBuffer,
        stream: LogStream,
        log: Logger,
        local: Logger,
        clock: Clock | None = None,
        upload: Callable[[bytes], None] | None = None,
    ) -> None:
        """`log` receives reports of dropped lines; `local` writes to stdout only."""
        self._buffer = buffer
        self._stream = stream
        self._log = log
        self._clock = clock or Clock()
        self._upload = upload
        self._pending: list[Line] = []
        self._most_events = BATCH_EVENTS
        self._group_with_stream: str | None = None
        self._failing_since: float | None = None
        self.problem: str | None = None
        """Why lines are not delivered; None while they are."""
        self.cause: Cause = NO_LOGS
        """The cause of `problem`."""
        self._delivery_failure = RepeatedFailure(local, "log-delivery-failed", "log-delivery-recovered", self._clock.monotonic)
        self._backoff = Backoff()
        self._dropped_reported = float("-inf")

    @property
    def waiting(self) -> int:
        """Return how many lines are not delivered yet."""
        return len(self._pending) + self._buffer.waiting

    def step(self) -> float:
        """Ship one batch; return the seconds to wait before the next step. Never raises: a failure is logged to stdout."""
        try:
            shipped = self.ship_once(self._clock.now())
        except Exception as error:  # noqa: BLE001 - top of the loop: any failure is retried later
            return self._failed(error)
        if shipped is None:
            return INITIALISING_SECONDS
        self._succeeded()
        return 0.0 if shipped and self.waiting >= BATCH_EVENTS // 10 else INTERVAL_SECONDS

    def flush(self, deadline_seconds: float) -> bool:
        """Ship the waiting lines; return whether none is left.

        Starts no call after `deadline_seconds`, but does not abort a running one. Ends at the first failure, since the agent is ending.
        """
        deadline = Deadline(deadline_seconds, self._clock.monotonic)
        while self.waiting and not deadline.passed:
            try:
                if self.ship_once(self._clock.now()) is None:
                    break
            except Exception as error:  # noqa: BLE001 - as in step
                self._failed(error)
                break
            self._succeeded()
        return not self.waiting

    def ship_once(self, now: datetime) -> int | None:
        """Deliver one batch; return its number of lines, or None if there is no client or log group yet.

        Raises:
            ClientError, BotoCoreError: the service refused or could not be reached; the lines are kept.
        """
        client, group = self._stream.client(), self._stream.log_group()
        if client is None or not group:
            return None
        batch = self._next_batch(now)
        if batch:
            self._ensure_stream(client, group)
            self._put(client, group, batch)
        return len(batch)

    def _next_batch(self, now: datetime) -> list[Line]:
        """Return the oldest lines that fit the service's limits; drop those that are too old or too new for it."""
        if not self._pending:
            self._pending = sorted(self._buffer.take(), key=lambda line: line.timestamp_ms)
        oldest, newest = _ms(now - OLDEST), _ms(now + NEWEST)
        fresh = [line for line in self._pending if oldest <= line.timestamp_ms <= newest]
        self._buffer.count_dropped(len(self._pending) - len(fresh))
        self._pending = fresh
        if not fresh:
            return []
        end = fresh[0].timestamp_ms + SPAN_MS
        return list(takewhile(lambda line: line.timestamp_ms < end, fresh[: self._most_events]))

    def _ensure_stream(self, client: CloudWatchLogsClient, group: str) -> None:
        if self._group_with_stream == group:
            return
        try:
            client.create_log_stream(logGroupName=group, logStreamName=self._stream.name)
        except ClientError as error:
            if code_of(error) != "ResourceAlreadyExistsException":
                raise
        self._group_with_stream = group

    def _put(self, client: CloudWatchLogsClient, group: str, batch: list[Line]) -> None:
        try:
            answer = client.put_log_events(
                logGroupName=group,
                logStreamName=self._stream.name,
                logEvents=[{"timestamp": line.timestamp_ms, "message": line.text} for line in batch],
            )
        except ClientError as error:
            if not self._handle_refusal(code_of(error), batch):
                raise
            return
        self._buffer.count_dropped(_rejected(answer.get("rejectedLogEventsInfo", {}), len(batch)))
        self._most_events = BATCH_EVENTS
        del self._pending[: len(batch)]

    def _handle_refusal(self, code: str, batch: list[Line]) -> bool:
        """Adjust the next batch to a refusal; return whether this one needs no back-off."""
        if code == "ResourceNotFoundException":
            self._group_with_stream = None  # the stream was deleted: create it again
        if code == "DataAlreadyAcceptedException":
            del self._pending[: len(batch)]
            return True
        if code not in _TOO_LARGE:
            return False
        if len(batch) > 1:  # one bad line: halve the batch until only that line is left
            self._most_events = len(batch) // 2
        else:
            del self._pending[0]
            self._buffer.count_dropped(1)
            self._most_events = BATCH_EVENTS
        return True

    def _succeeded(self) -> None:
        self._delivery_failure.success()
        self.problem = None
        if self._failing_since is not None:
            self._failing_since = None
            self._backoff.reset()
        now = self._clock.monotonic()
        dropped = self._buffer.take_unreported() if now - self._dropped_reported >= REPORT_DROPPED_SECONDS else 0
        if dropped:
            self._dropped_reported = now
            self._log.warning("log-lines-dropped", count=dropped)

    def _failed(self, error: Exception) -> float:
        now = self._clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        found = self._stream.why(error)
        if found is None:
            # Only the code: the text of an AWS error repeats the response, which anybody may have sent.
            reason, cause = code_of(error) if isinstance(error, ClientError) else type(error).__name__, NO_LOGS
        else:
            reason, cause = found.reason, cause_of(found)
        known = found is not None or isinstance(error, (ClientError, BotoCoreError))
        self.problem, self.cause = reason, cause
        self._delivery_failure.failure(reason, cause, exc_info=None if known else error)
        if self._upload is not None and now - self._failing_since >= UPLOAD_AFTER_SECONDS:
            self._upload_batch(self._upload)
        return self._backoff.next_seconds(LEAST_RETRY_SECONDS)

    def _upload_batch(self, upload: Callable[[bytes], None]) -> None:
        batch = self._pending or self._buffer.take()
        self._pending = batch
        if not batch:
            return
        try:
            upload("".join(f"{line.text}\n" for line in batch).encode("utf-8", "replace"))
        except Exception as error:  # noqa: BLE001 - best effort; the lines are kept for CloudWatch
            ours = isinstance(error, PlatformError)
            reason, cause = (error.reason, cause_of(error)) if isinstance(error, PlatformError) else (type(error).__name__, NO_LOGS)
            self._delivery_failure.failure(f"upload: {reason}", cause, exc_info=None if ours else error)
        else:
            self._pending = []


def stream_name(agent_id: str, started: datetime, host: str | None = None) -> str:
    """Return the name of one start's log stream, `agent-id/20261123T031300Z`; replace characters that the service forbids.

    `host` names the machine, if several agents have the same id: `agent-id/host/20261123T031300Z`.
    """
    names = [re.sub(r"[:*]", "-", name)[:240] for name in (agent_id, host) if name]
    return "/".join([*names, compact(started)])


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _rejected(info: RejectedLogEventsInfoTypeDef, total: int) -> int:
    """Return how many lines of a sorted batch the service rejected: those before one index and from another on."""
    too_old = max(info.get("tooOldLogEventEndIndex", 0), info.get("expiredLogEventEndIndex", 0))
    return too_old + total - info.get("tooNewLogEventStartIndex", total)
