"""How many commands may be admitted now, what prevents it, and where an admitted command goes.

This module owns the bounds of what is in the agent at once. It must not know rules about commands.
"""

from __future__ import annotations

from relay_agent.core.failures import Obstacle
from relay_agent.relay.downloader import Downloader
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.relay.outbox import Outbox
from relay_agent.relay.task import Task
from relay_agent.storage.disk_faults import intake_obstacle
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal


class AdmissionGate:
    """The way from the poller to fetchers and workers. Holds nothing itself; `enqueue` is for one thread at a time."""

    def __init__(self, *, tasks: FairQueue[Task], downloader: Downloader, outbox: Outbox, journal: Journal, disk: Disk) -> None:
        self._tasks = tasks
        self._downloader = downloader
        self._outbox = outbox
        self._journal = journal
        self._disk = disk

    def room(self) -> int:
        """How many commands have a free place in the queue and, later, in the outbox. None while too much waits for the platform."""
        if self._disk.backlog:
            return 0
        return min(self._tasks.free() - self._downloader.waiting(), self._outbox.room())

    def obstacle(self) -> Obstacle | None:
        """Why the disk lets nothing be admitted, None if it does."""
        return intake_obstacle(self._journal, self._disk)

    def enqueue(self, task: Task) -> None:
        """Send a task to the workers, by way of the fetchers if its body must be downloaded first."""
        if task.elsewhere:
            self._downloader.put(task)
        else:
            self._tasks.put((task.lane, task))
