"""The journal's and the disk's upkeep, and the hour's summary: the loop of the thread `upkeep`.

A thread of its own, so that neither credentials nor commands wait for it. It must not know what a command is.
"""

from __future__ import annotations

from collections.abc import Callable

from relay_agent.core.errors import JournalDamaged, JournalError, JournalUnwritable
from relay_agent.diagnostics.local_causes import BACKLOG, journal_cause
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal

TURN_SECONDS = 1.0
CHECKPOINT_SECONDS = 3.0
"""5 s after delivery no file of the journal holds what was wiped (SECURITY §4): this, and the time a checkpoint takes."""
PRUNE_SECONDS = 60.0


class Maintenance:
    """Looks after room on the disk, empties the write-ahead log, forgets what is old."""

    def __init__(
        self,
        *,
        journal: Journal,
        disk: Disk,
        interrupt: Callable[[], None],
        summarise: Callable[[], None],
        look_around: Callable[[], None],
        loop: LoopContext,
    ) -> None:
        """`interrupt` ends the receive that is open: what it would bring could not be taken in; `summarise` says the hour's line,
        `look_around` what changed around the agent.
        """
        self._journal = journal
        self._disk = disk
        self._interrupt = interrupt
        self._summarise = summarise
        self._look_around = look_around
        self._pulse = loop.pulse
        self._monotonic = loop.clock.monotonic
        self._full = loop.repeated_failure("backlog-full", "backlog-drained", remind_seconds=3600.0)
        self._lame = loop.repeated_failure("journal-upkeep-failed", "journal-upkeep-recovered", remind_seconds=3600.0)
        now = self._monotonic()
        self._next_checkpoint = now + CHECKPOINT_SECONDS
        self._next_prune = now + PRUNE_SECONDS
        self._checkpointed = 0

    def step(self) -> float:
        """Do what is due; seconds until the next look.

        Raises:
            JournalDamaged: the agent must end; its next start sets the journal aside.
        """
        self._pulse.turn("maintaining the journal")
        self._disk.look()
        self._say_backlog()
        self._look_around()
        self._summarise()
        try:
            self._keep_journal(self._monotonic())
        except JournalDamaged:
            raise
        except JournalUnwritable:
            pass  # The poller takes nothing in, and says so.
        except JournalError as error:
            self._lame.failure(str(error), journal_cause(error.trouble))
        else:
            self._lame.success()
        if self._journal.unwritable or self._disk.obstacle:
            self._interrupt()
        self._pulse.success()
        return TURN_SECONDS

    def _say_backlog(self) -> None:
        if self._disk.backlog:
            self._full.failure(f"more than {self._disk.backlog_bytes / 1e9:g} GB wait to be sent to the platform", BACKLOG)
        else:
            self._full.success()

    def _keep_journal(self, now: float) -> None:
        if self._journal.unwritable is not None and not self._journal.probe():
            return
        self._journal.flush()
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_SECONDS
            self._journal.prune()
        if now >= self._next_checkpoint and self._journal.commits != self._checkpointed:
            self._next_checkpoint = now + CHECKPOINT_SECONDS
            commits = self._journal.commits
            if self._journal.checkpoint():
                self._checkpointed = commits
