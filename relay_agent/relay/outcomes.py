"""The outcome of a command: encoded as its final update, recorded in the journal, and reported once it is durable.

This module runs no command and sends no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import NotAdmitted
from relay_agent.core.failures import Code
from relay_agent.core.models import Command, Failure, HttpRequest, HttpResponse, Status, Update, size_of
from relay_agent.relay.task import Refusal, Task
from relay_agent.relay.updates import EncodingTimeout, UpdateBuilder
from relay_agent.storage.journal import About, Journal
from relay_agent.telemetry.command_report import Report


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of running a command, and the request if one could be made."""

    status: Status
    outcome: HttpResponse | Failure
    request: HttpRequest | None = None
    deadline: Deadline | None = None
    """When the answer must be encoded."""


class Outcomes:
    """Records outcomes. Shared by all threads; keeps the reports of answers that are being uploaded."""

    def __init__(
        self, *, journal: Journal, updates: UpdateBuilder, monotonic: Callable[[], float], report: Callable[[Report], None]
    ) -> None:
        """`report` is called once an outcome is durable, so that no log line is contradicted after a crash."""
        self._journal = journal
        self._updates = updates
        self._monotonic = monotonic
        self._report = report
        self._uploading: dict[str, tuple[Report, float]] = {}

    # --- a worker's thread ---

    def record(self, task: Task, result: Result, begun: float) -> Update:
        """Record the outcome of a command and return its answer; `begun` is when a worker took it, on the monotonic clock.

        Under load this returns before the outcome is durable (`Journal.finish`).

        Raises:
            NotAdmitted: the journal could not admit the command; the outcome is thrown away.
            JournalError: the outcome could not be recorded; the command stays unfinished in the journal.
        """
        result, update = self._encode(task.command, result)
        report = self._measured_report(task, result, update, begun)
        if update.spool is not None:
            self._uploading[update.command_id] = report, self._monotonic()
        try:
            self._journal.finish(update, _about(report), then=lambda: None if update.spool else self._report(report))
        except NotAdmitted:
            self._uploading.pop(update.command_id, None)
            self._updates.discard(update)
            raise
        return update

    def abandon(self, task: Task) -> Update:
        """Answer a command that an error inside the agent ended, so that its sender need not wait until it expires."""
        text = "an error inside the agent ended this command; its outcome is unknown (see the agent's log)"
        return self.refuse(Refusal(task.command, text, Code.EINTERRUPTED))

    # --- any thread ---

    def refuse(self, refusal: Refusal) -> Update:
        """Answer a command that does not run. Does not wait for the disk, since the poller calls it."""
        command, code, request = refusal.command, refusal.code, refusal.request
        update = self._updates.failure(command, Status.FAILURE, Failure(code, refusal.text), self._updates.sealable(request))
        url = request.url if request else None
        report = Report(
            command.id,
            command.action,
            Status.FAILURE,
            code=code,
            method=request.method if request else None,
            host=url.host if url else None,
            port=url.port if url else None,
            scheme=url.scheme if url else None,
        )
        self._journal.finish(update, _about(report), then=lambda: self._report(report), wait=False)
        return update

    def overwrite(self, command: Command, text: str) -> Update:
        """Record `EINTERRUPTED` in place of an answer that cannot be read back from the journal."""
        update = self._updates.failure(command, Status.FAILURE, Failure(Code.EINTERRUPTED, text))
        self._journal.settle(update)
        return update

    # --- an uploader's thread ---

    def settle(self, update: Update) -> None:
        """Record the final form of a spooled answer, uploaded or given up, and report it.

        Raises:
            JournalUnwritable: the disk does not accept it, and the agent is stopping.
        """
        self._journal.settle(update)
        now = self._monotonic()
        kept = self._uploading.pop(update.command_id, None)
        report, since = (self._unmeasured_report(update), now) if kept is None else kept
        total_ms = report.total_ms + int((now - since) * 1000)
        self._report(replace(report, status=update.status, code=update.code, total_ms=total_ms))

    # --- details ---

    def _encode(self, command: Command, result: Result) -> tuple[Result, Update]:
        """Encode the outcome; if that takes too long, the outcome is ETIMEDOUT."""
        response = result.outcome
        if isinstance(response, Failure):
            return result, self._updates.failure(command, result.status, response, result.request)
        try:
            return result, self._updates.response(command, result.status, response, result.request, result.deadline)
        except EncodingTimeout:
            text = (
                f"the whole response arrived (status {response.status_code}), but the time limit passed before its"
                f" {response.content.size} bytes were encoded"
            )
            late = Failure(Code.ETIMEDOUT, text, response.url, response.elapsed_ms)
            update = self._updates.failure(command, Status.FAILURE, late, result.request)
            return replace(result, status=Status.FAILURE, outcome=late), update
        finally:
            response.content.close()

    def _measured_report(self, task: Task, result: Result, update: Update, begun: float) -> Report:
        """Return the report of an outcome. Status and code are the update's: the target's answer may be too large to send."""
        outcome, request = result.outcome, result.request
        response = outcome if isinstance(outcome, HttpResponse) else None
        return Report(
            id=task.command.id,
            action=task.command.action,
            status=update.status,
            method=request.method if request else None,
            host=request.url.host if request else None,
            port=request.url.port if request else None,
            scheme=request.url.scheme if request else None,
            would_refuse=outcome.would_refuse,
            code=update.code,
            status_code=response.status_code if response else None,
            bytes_in=response.content.size if response else 0,
            bytes_out=size_of(request.body) if request else 0,
            queued_ms=int((begun - task.admitted) * 1000),
            target_ms=outcome.elapsed_ms,
            total_ms=int((self._monotonic() - task.admitted) * 1000),
            warnings=request.warnings if request else (),
            from_proxy=response is not None and response.from_proxy,
        )

    def _unmeasured_report(self, update: Update) -> Report:
        """Return the report of an answer from an earlier run of the agent: only what the journal still knows."""
        about = self._journal.about(update.command_id) or About("?")
        return Report(
            update.command_id,
            about.action,
            update.status,
            about.method,
            about.host,
            about.port,
            about.scheme,
            about.would_refuse,
            status_code=about.status_code,
            measured=False,
        )


def _about(report: Report) -> About:
    return About(
        action=report.action,
        method=report.method,
        host=report.host,
        port=report.port,
        status_code=report.status_code,
        scheme=report.scheme,
        would_refuse=report.would_refuse,
        from_proxy=report.from_proxy,
    )
