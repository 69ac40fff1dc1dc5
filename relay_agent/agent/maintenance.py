"""Maintenance of the journal and the disk, and the hourly summary: the loop of the thread `upkeep`.

It has a thread of its own so that neither credentials nor commands wait for a slow disk.
"""

from __future__ import annotations

from collections.abc import Callable

from relay_agent.core.errors import JournalDamaged, JournalError, JournalUnwritable
from relay_agent.diagnostics.local_causes import BACKLOG, backlog_reason, journal_cause
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.storage.disk_faults import intake_obstacle
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal
from relay_agent.storage.retention import Retention

STEP_SECONDS = 1.0
IDLE_SECONDS = 2.0
"""The pause between two steps while there is nothing to do: each one costs a wake-up."""
CHECKPOINT_SECONDS = 3.0
"""The write-ahead log is truncated within 5 s of a wipe (docs/durability.md, "Wiping"); this leaves 2 s for the checkpoint."""
PRUNE_SECONDS = 60.0


class Maintenance:
    """Watches the disk, checkpoints the write-ahead log, prunes old commands, and triggers the hourly summary.

    It must not read the site's files or wait for anything else than the journal's disk: the checkpoint is due within seconds.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        retention: Retention,
        disk: Disk,
        interrupt: Callable[[], None],
        summarise: Callable[[], None],
        release_memory: Callable[[], None],
        loop: LoopContext,
    ) -> None:
        """`interrupt` aborts the open receive, whose commands could not be admitted; `summarise` logs the hourly line.

        `release_memory` gives free memory back to the system.
        """
        self._journal = journal
        self._retention = retention
        self._disk = disk
        self._interrupt = interrupt
        self._summarise = summarise
        self._release_memory = release_memory
        self._status = loop.status
        self._monotonic = loop.clock.monotonic
        self._backlog_full = loop.repeated_failure("backlog-full", "backlog-drained", remind_seconds=3600.0)
        self._journal_failure = loop.repeated_failure("journal-upkeep-failed", "journal-upkeep-recovered", remind_seconds=3600.0)
        now = self._monotonic()
        self._next_checkpoint = now + CHECKPOINT_SECONDS
        self._next_prune = now + PRUNE_SECONDS
        self._checkpointed = 0
        self._commits = self._released = -1

    def step(self) -> float:
        """Do what is due; return the seconds to wait before the next step.

        Raises:
            JournalDamaged: the agent must end; the next start sets the journal aside.
        """
        self._status.begin("maintaining the journal")
        self._disk.look()
        self._report_backlog()
        self._summarise()
        try:
            self._maintain_journal(self._monotonic())
        except JournalDamaged:
            raise
        except JournalUnwritable:
            pass  # The poller admits nothing and reports it.
        except JournalError as error:
            self._journal_failure.failure(str(error), journal_cause(error.trouble))
        else:
            self._journal_failure.success()
        if intake_obstacle(self._journal, self._disk):
            self._interrupt()
        self._release()
        self._status.success()
        return IDLE_SECONDS if self._journal.commits == self._checkpointed == self._released else STEP_SECONDS

    def _release(self) -> None:
        """Give free memory back once after the start, and once after each series of commands."""
        before, self._commits = self._commits, self._journal.commits
        if before == self._commits != self._released:
            self._released = self._commits
            self._release_memory()

    def _report_backlog(self) -> None:
        if self._disk.backlog:
            self._backlog_full.failure(backlog_reason(self._disk.backlog_bytes), BACKLOG)
        else:
            self._backlog_full.success()

    def _maintain_journal(self, now: float) -> None:
        if self._journal.unwritable is not None and not self._journal.probe():
            return
        self._journal.flush()
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_SECONDS
            self._retention.prune()
        if now >= self._next_checkpoint and self._journal.commits != self._checkpointed:
            self._next_checkpoint = now + CHECKPOINT_SECONDS
            commits = self._journal.commits
            if self._retention.checkpoint():
                self._checkpointed = commits
