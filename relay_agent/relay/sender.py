"""When answers are sent: the loop of the thread `sender`, the only producer of the outbound queue.

It never changes an answer and never sends one that is not durable in the journal. What SQS has not confirmed is sent again,
byte for byte the same.
"""

from __future__ import annotations

from relay_agent.core.errors import (
    Call,
    CredentialsExpired,
    JournalDamaged,
    JournalError,
    JournalUnwritable,
    PlatformError,
    QueueUnavailable,
    RateLimited,
)
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.loop import Backoff
from relay_agent.diagnostics.local_causes import journal_cause
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.relay.outbox import Entry, Outbox
from relay_agent.storage.journal import Journal
from relay_agent.tdp.client import PlatformClient
from relay_agent.telemetry.metrics import Metrics

TAKE_SECONDS = 5.0
"""How long the sender waits for answers; the first one, and the stop, end the wait."""
STARTING_SECONDS = 0.25
RECORD_SECONDS = 0.02
"""How long the record of a delivery waits, so that it shares a commit with others."""
DISK_SECONDS = 1.0


class Sender:
    """Sends updates in batches."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        journal: Journal,
        outbox: Outbox,
        platform_status: PlatformStatus,
        metrics: Metrics,
        loop: LoopContext,
    ) -> None:
        self._platform = platform
        self._journal = journal
        self._outbox = outbox
        self._platform_status = platform_status
        self._metrics = metrics
        self._status = loop.status
        self._tally = loop.tally
        self._log = loop.log
        self._monotonic = loop.clock.monotonic
        self._backoff = Backoff()
        self._delivery_unrecorded = False
        self._send_failure = loop.repeated_failure("send-failed", "send-recovered")

    def step(self) -> float:
        """Send one batch; return the seconds to wait before the next step."""
        if not self._platform_status.registered:
            self._status.idle("starting")
            return STARTING_SECONDS
        self._status.begin("waiting for answers")
        entries = self._outbox.take(RECORD_SECONDS if self._delivery_unrecorded else TAKE_SECONDS)
        if entries or self._delivery_unrecorded:
            self._status.begin("recording answers")
            try:
                self._journal.flush()
            except JournalUnwritable as error:
                entries = self._durable(entries)
                if not entries:
                    return self._wait_for_disk(error)
            else:
                if self._delivery_unrecorded:
                    self._delivery_unrecorded = False
                    reach(Point.DELIVERED)
        if not entries:
            self._status.idle("waiting for answers")
            return 0.0
        try:
            messages = [self._journal.message(entry.command_id) if entry.message is None else entry.message for entry in entries]
        except JournalDamaged:
            raise
        except JournalError as error:  # The message cannot be read; retried in the next step.
            self._outbox.put_back(entries)
            return self._wait_for_disk(error)
        self._status.begin("sending answers")
        if any(entry.final for entry in entries):
            reach(Point.BEFORE_ANSWER)
        try:
            result = self._platform.outbound().send(messages)
        except PlatformError as error:
            self._outbox.put_back(entries)
            return self._failed(error)
        self._delivered([entries[place] for place in result.sent])
        refused = [(entries[place], code, fault) for place, code, fault in result.failed]
        return self._refused(refused) if refused else 0.0

    def _delivered(self, entries: list[Entry]) -> None:
        final = [entry.command_id for entry in entries if entry.final]
        if final:
            reach(Point.ANSWER_SENT)
            self._journal.deliver(final)
            self._delivery_unrecorded = True
            self._tally.count("answers", len(final))
        self._outbox.delivered(entries)
        now = self._monotonic()
        for entry in entries:
            if entry.final:
                self._metrics.command_delivered(now - entry.since)
        self._status.success()
        self._send_failure.success()
        self._backoff.reset()

    def _durable(self, entries: list[Entry]) -> list[Entry]:
        """Return the entries that are durable, and so may be sent although the disk accepts no writes; put other answers last.

        PROCESSING is sent of commands that the journal has: a lone one may not be admitted yet (`Journal.admit_soon`).
        """
        try:
            known = self._journal.recorded(entry.command_id for entry in entries if entry.final)
            known |= self._journal.known(entry.command_id for entry in entries if not entry.final)
        except JournalDamaged:
            raise
        except JournalError:
            known = set()  # The journal cannot even be read; retried in the next step.
        self._outbox.put_last([entry for entry in entries if entry.final and entry.command_id not in known])
        return [entry for entry in entries if entry.command_id in known]

    def _wait_for_disk(self, error: JournalError) -> float:
        """Send nothing that is not durable; the poller already reports the disk."""
        if self._outbox.pending():
            self._status.failure(str(error), journal_cause(error.trouble))
        else:
            self._status.idle("waiting for the disk")
        return DISK_SECONDS

    def _refused(self, refused: list[tuple[Entry, str, bool]]) -> float:
        """Keep entries that SQS refused: answers are never dropped, and the log says why they are not delivered."""
        self._outbox.put_last([entry for entry, _, _ in refused])
        for entry, code, fault in refused:
            if fault and entry.final:
                self._log.error("answer-refused", id=entry.command_id, code=code)
        return self._failed(PlatformError(Call.SQS_SEND, f"SQS refused entries of a batch: {refused[0][1]}"))

    def _failed(self, error: PlatformError) -> float:
        cause = cause_of(error)
        self._status.failure(str(error), cause)
        self._send_failure.failure(str(error), cause)
        if isinstance(error, QueueUnavailable | CredentialsExpired):
            self._platform_status.refresh_requested.set()
        return self._backoff.next_seconds(error.retry_after if isinstance(error, RateLimited) else 0.0)
