"""When commands run: the loop of the threads `worker-0` to `worker-N`.

Each worker owns one Executor, and so one requests session. How a command runs is decided in `processing`.
"""

from __future__ import annotations

from collections.abc import Callable

from relay_agent.core.errors import Interrupted, JournalError, NotAdmitted
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.models import Update
from relay_agent.relay.fair_queue import Closed, FairQueue
from relay_agent.relay.outbox import Outbox
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.processing import Processor
from relay_agent.relay.target.executor import Executor
from relay_agent.relay.task import Task
from relay_agent.telemetry.command_report import command_crashed
from relay_agent.telemetry.logger import Logger


class Worker:
    """Takes tasks from the queue, runs them, and passes their answers to the outbox."""

    def __init__(
        self,
        *,
        name: str,
        tasks: FairQueue[Task],
        processor: Processor,
        outcomes: Outcomes,
        executor: Executor,
        outbox: Outbox,
        log: Logger,
        monotonic: Callable[[], float],
    ) -> None:
        self.name = name
        self._tasks = tasks
        self._processor = processor
        self._outcomes = outcomes
        self._executor = executor
        self._outbox = outbox
        self._log = log
        self._monotonic = monotonic
        self._busy_since: float | None = None

    # --- its own thread ---

    def run(self) -> None:
        """Work until the queue is closed; a running command is finished first."""
        try:
            while True:
                self._run_one(*self._tasks.get())
        except (Closed, Interrupted):
            pass
        finally:
            self._executor.close()

    def _run_one(self, lane: str, task: Task) -> None:
        reach(Point.QUEUED)
        self._busy_since = self._monotonic()
        try:
            update = self.work(task)
        except NotAdmitted:  # The poller reports why.
            update = None
        finally:
            # Before the answer reaches the outbox, which waits for commands that still run: this one must not count.
            self._tasks.done(lane)
        self._busy_since = None
        if update is None:
            self._outbox.forget(task.command.id)
        else:
            self._outbox.put(update)

    def work(self, task: Task) -> Update:
        """Run one task and return its recorded answer.

        Raises:
            Interrupted: the stop ended it; the next start resumes it.
            NotAdmitted: it is no command of this agent's.
            JournalError: the outcome could not be recorded; the agent must end, and its next start resumes the command.
        """
        self._outbox.command_started(task.command)
        try:
            return self._processor.process(task, self._executor)
        except (JournalError, Interrupted, NotAdmitted):
            raise
        except Exception as error:  # noqa: BLE001 - top of the loop: a bug of ours must not leave a sender without an answer
            command_crashed(self._log, error, task.command)
            return self._outcomes.abandon(task)

    # --- any thread ---

    @property
    def busy(self) -> bool:
        """Return whether the worker has a command."""
        return self._busy_since is not None

    def overdue_seconds(self) -> float:
        """Return how long the worker has been busy beyond its request's own time limit; 0 while idle.

        The steps before and after the request have no limit, so their time counts in full.
        """
        busy_since, limit = self._busy_since, self._executor.ends_at
        if busy_since is None:
            return 0.0
        return max(0.0, self._monotonic() - max(busy_since, limit or busy_since))

    def interrupt(self) -> None:
        """Abort the running request: the stop has waited long enough for it."""
        if self._busy_since is not None:
            self._executor.interrupt()
