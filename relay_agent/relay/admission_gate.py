"""How many commands may be admitted now, what prevents it, and where an admitted command goes.

This module owns the limits on how many commands the agent holds. It must not decide about a single command.
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
    """Passes tasks from the poller to downloaders and workers. Holds no task itself; only one thread at a time may call `enqueue`."""

    def __init__(
        self, *, shared: bool, tasks: FairQueue[Task], downloader: Downloader, outbox: Outbox, journal: Journal, disk: Disk
    ) -> None:
        """`shared` says whether other agents receive from the queue too: then unsent answers take places of the queue.

        If this machine is lost, waiting commands and unsent answers are lost with it; the other agents could have run what it had left in
        the queue.
        """
        self._shared = shared
        self._tasks = tasks
        self._downloader = downloader
        self._outbox = outbox
        self._journal = journal
        self._disk = disk

    def free(self) -> int:
        """Return how many more commands fit into the queue and, later, the outbox; 0 or less if none.

        Always 0 while the answers waiting for the platform exceed the limit of the disk.
        """
        if self._disk.backlog:
            return 0
        unsent = self._outbox.pending() if self._shared else 0
        return min(self._tasks.free() - self._downloader.waiting() - unsent, self._outbox.free())

    def obstacle(self) -> Obstacle | None:
        """Return why the disk prevents admission, or None if it does not."""
        return intake_obstacle(self._journal, self._disk)

    def enqueue(self, task: Task) -> None:
        """Queue a task for the workers, or for the downloaders first if its body must be downloaded."""
        if task.needs_download:
            self._downloader.put(task)
        else:
            self._tasks.put((task.lane, task))
