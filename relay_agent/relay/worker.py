"""When commands run: the loop of the threads `worker-0` to `worker-N`.

Each owns one Executor, and so one requests session. It must not know rules about commands.
"""

from __future__ import annotations

from collections.abc import Callable

from relay_agent.core.errors import Interrupted, JournalError
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
    """Takes a task, runs it, hands its outcome on."""

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
        """Work until the queue is closed; what is under way then is finished first."""
        try:
            while True:
                self._turn(*self._tasks.get())
        except (Closed, Interrupted):
            pass
        finally:
            self._executor.close()

    def _turn(self, lane: str, task: Task) -> None:
        reach(Point.QUEUED)
        self._busy_since = self._monotonic()
        try:
            update = self.work(task)
        finally:
            # Before the answer is handed on: it waits for those that are still on their way.
            self._tasks.done(lane)
        self._busy_since = None
        self._outbox.put(update)

    def work(self, task: Task) -> Update:
        """Run one task to its recorded outcome, and give the answer.

        Raises:
            Interrupted: the stop broke it off, and the next start takes it up.
            JournalError: the outcome could not be recorded; the agent must end, and take it up at its next start.
        """
        self._outbox.begun(task.command)
        try:
            return self._processor.process(task, self._executor)
        except (JournalError, Interrupted):
            raise
        except Exception as error:  # noqa: BLE001 - the top of a step: a fault of ours must not leave a sender without an answer
            command_crashed(self._log, error, task.command)
            return self._outcomes.abandon(task)

    # --- any thread ---

    @property
    def busy(self) -> bool:
        """Whether it has a command."""
        return self._busy_since is not None

    def overdue_seconds(self) -> float:
        """How far it is beyond the limit of what it does: its request's own, and none at all before and after that; 0 while idle."""
        busy_since, limit = self._busy_since, self._executor.ends_at
        if busy_since is None:
            return 0.0
        return max(0.0, self._monotonic() - max(busy_since, limit or busy_since))

    def interrupt(self) -> None:
        """Break off the request under way: the stop has waited long enough for it."""
        if self._busy_since is not None:
            self._executor.interrupt()
