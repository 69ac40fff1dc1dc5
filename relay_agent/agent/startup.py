"""The start, on the main thread: opens the journal, logs damage and unknown variables, resumes what the last run left.

This module owns how long the start waits for a disk. The agent's threads are started by `agent`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import wait

from relay_agent.agent.signals import Signals
from relay_agent.agent.wiring import Flow, Storage
from relay_agent.core import failpoints
from relay_agent.core.clock import RECHECK_SECONDS, Clock
from relay_agent.core.errors import JournalError, JournalUnwritable
from relay_agent.core.failures import Obstacle, StorageTrouble
from relay_agent.core.loop import call_in_thread
from relay_agent.core.models import Update
from relay_agent.diagnostics.local_causes import JOURNAL_DAMAGED, JOURNAL_HANGS, JOURNAL_ROWS_DAMAGED, NOT_RESUMABLE, journal_cause
from relay_agent.diagnostics.watchdog import STUCK_SECONDS
from relay_agent.relay.poller import NO_DISK_SECONDS
from relay_agent.relay.task import Refusal
from relay_agent.storage.journal import Journal
from relay_agent.telemetry.logger import Logger

SLOW_SECONDS = 5.0
"""How long the journal may take to open before that is logged and shown."""


def open_journal(
    storage: Storage, clock: Clock, signals: Signals, *, in_flight: Callable[[], int], waiting: Callable[[Obstacle], None]
) -> Journal:
    """Open the journal, waiting as long as the disk is full or not writable.

    `in_flight` returns how many commands are running (`Journal`); `waiting` is called with the obstacle.

    Raises:
        JournalError: it cannot be opened for another reason, or a signal ended the wait.
    """

    def report(obstacle: Obstacle) -> None:
        storage.disk_full.failure(obstacle.reason, journal_cause(obstacle.trouble))
        waiting(obstacle)

    while True:
        try:
            journal = _open(storage, clock, signals, in_flight, report)
        except JournalUnwritable as error:
            report(error.obstacle)
            if signals.wait(NO_DISK_SECONDS):
                raise
        else:
            storage.disk_full.success()
            storage.disk.look()
            return journal


def _open(storage: Storage, clock: Clock, signals: Signals, in_flight: Callable[[], int], slow: Callable[[Obstacle], None]) -> Journal:
    """Open the journal on a thread of its own, so that the main thread still sees signals; call `slow` if the disk hangs.

    Raises:
        JournalError: it cannot be opened, a signal ended the wait, or the disk hung for `STUCK_SECONDS`.
    """
    opening = call_in_thread(
        lambda: Journal(storage.directory.journal, clock, others=in_flight, make_room=storage.disk.make_room), "opening"
    )
    began, reported = clock.monotonic(), False
    while not wait([opening], RECHECK_SECONDS).done:
        seconds = clock.monotonic() - began
        if signals.count:
            raise JournalError("stopped while waiting for the disk to open the journal")
        if seconds > STUCK_SECONDS:
            raise JournalError(f"the disk hangs: opening the journal took longer than {STUCK_SECONDS:g} s; {JOURNAL_HANGS.cure}")
        if seconds > SLOW_SECONDS and not reported:
            slow(Obstacle(f"the disk hangs: opening the journal has taken {SLOW_SECONDS:g} s so far", StorageTrouble.HANGS))
            reported = True
    return opening.result()


def log_findings(log: Logger, journal: Journal, unknown: Sequence[tuple[str, str | None]]) -> None:
    """Log unknown variables, damage to the journal and an armed failpoint."""
    for name, nearest in unknown:
        log.warning("unknown-setting", name=name, nearest=nearest)
    damage = journal.damage
    if damage is not None:
        log.error(
            "journal-damaged",
            reason=damage.reason,
            aside=damage.aside,
            salvaged=damage.salvaged,
            unreadable=list(damage.unreadable[:50]),
            complete=damage.complete,
            cause=JOURNAL_DAMAGED.cause,
            cure=JOURNAL_DAMAGED.cure,
        )
    if journal.spoiled:
        log.error(
            "journal-rows-damaged",
            commands=journal.spoiled,
            unreadable=list(journal.nameless[:50]),
            cause=JOURNAL_ROWS_DAMAGED.cause,
            cure=JOURNAL_ROWS_DAMAGED.cure,
        )
    point = failpoints.armed()
    if point is not None:
        log.warning("fault-point-armed", point=point)


def recover(flow: Flow, log: Logger, keep_alive: Callable[[], None]) -> None:
    """Queue the commands and answers that the last run left; call `keep_alive` for each answer, since there may be many."""
    flow.spool.remove_orphans(flow.journal.spooled())

    def put(answer: Update | Refusal) -> None:
        keep_alive()
        flow.inbound.ownership.resume(answer)

    def log_set_aside(command_id: str, error: Exception) -> None:
        log.error("command-set-aside", id=command_id, cause=NOT_RESUMABLE.cause, cure=NOT_RESUMABLE.cure, exc_info=error)

    tasks = flow.inbound.intake.recover(put, log_set_aside)
    for task in tasks:
        flow.inbound.ownership.resume(task)
    if tasks or flow.outbox.pending():
        log.info("recovered", commands=len(tasks), answers=flow.outbox.pending())
