"""When commands run: the loop of the threads `worker-0` to `worker-N`.

Each owns one Executor, and so one requests session. It must not know rules about commands.
"""

from __future__ import annotations

from relay_agent.errors import JournalError
from relay_agent.executor import Executor
from relay_agent.fair_queue import Closed, FairQueue
from relay_agent.models import Update
from relay_agent.outbox import Outbox
from relay_agent.pulse import Pulse
from relay_agent.relay import Relay, Report, Task
from relay_agent.telemetry.logs import Logger, command_line
from relay_agent.telemetry.metrics import Metrics


class Worker:
    """Takes a task, runs it, hands its outcome on."""

    def __init__(
        self, *, tasks: FairQueue[Task], relay: Relay, executor: Executor, outbox: Outbox, pulse: Pulse, log: Logger, metrics: Metrics
    ) -> None:
        self._tasks = tasks
        self._relay = relay
        self._executor = executor
        self._outbox = outbox
        self._pulse = pulse
        self._log = log
        self._metrics = metrics

    def run(self) -> None:
        """Work until the queue is closed; what is under way then is finished first."""
        try:
            while True:
                lane, task = self._tasks.get()
                try:
                    update = self.work(task)
                finally:
                    # Before the answer is handed on: it waits for those that are still on their way.
                    self._tasks.done(lane)
                self._outbox.put(update)
        except Closed:
            pass
        finally:
            self._executor.close()

    def work(self, task: Task) -> Update:
        """Run one task to its recorded outcome, and give the answer.

        Raises:
            JournalError: the outcome could not be recorded; the agent must end, and take it up at its next start.
        """
        self._pulse.turn("working")
        self._outbox.begun(task.command)
        try:
            update, report = self._relay.process(task, self._executor)
        except JournalError:
            raise
        except Exception:  # noqa: BLE001 - the top of a step: a fault of ours must not leave a sender without an answer
            self._log.error("command-crashed", id=task.command.id, exc_info=True)
            update = self._relay.abandon(task)
        else:
            self._tell(report)
        self._pulse.success()
        self._pulse.turn("idle")
        return update

    def _tell(self, report: Report) -> None:
        if report.warnings:
            self._log.warning("command-warning", id=report.id, warnings=list(report.warnings))
        command_line(
            self._log,
            id=report.id,
            action=report.action,
            status=report.status,
            method=report.method,
            host=report.host,
            port=report.port,
            code=report.code,
            status_code=report.status_code,
            bytes_in=report.bytes_in,
            bytes_out=report.bytes_out,
            queued_seconds=report.queued_ms / 1000,
            target_seconds=report.target_ms / 1000,
            total_seconds=report.total_ms / 1000,
        )
        code = report.code or (str(report.status_code) if report.status_code else None)
        self._metrics.command_finished(report.action, report.status, code, report.queued_ms / 1000, report.target_ms / 1000)
