"""How a finished command appears in the log, the metrics and the hourly summary (docs/logs.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relay_agent.core.models import ACTION_SECURE, Command, Status
from relay_agent.telemetry.hourly_summary import Tally
from relay_agent.telemetry.logger import WITHHELD, Logger
from relay_agent.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Report:
    """A finished command as the log and the metrics show it; nothing secret.

    `bytes_in` were received from the target, `bytes_out` were sent to it.
    """

    id: str
    action: str
    status: Status
    method: str | None = None
    host: str | None = None
    port: int | None = None
    scheme: str | None = None
    would_refuse: str | None = None
    """The policy's rule that will refuse the call once the policy is enforced."""
    code: str | None = None
    status_code: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    queued_ms: int = 0
    target_ms: int = 0
    total_ms: int = 0
    measured: bool = True
    """Whether the numbers of bytes and milliseconds are known."""
    warnings: tuple[str, ...] = ()
    from_proxy: bool = False
    """Whether a proxy answered in the target's place, or may have."""

    @property
    def secure(self) -> bool:
        """Whether the request was encrypted (PROTOCOL §5)."""
        return self.action == ACTION_SECURE


def report_command(log: Logger, metrics: Metrics, tally: Tally, report: Report) -> None:
    """Write a finished command to the log, and count it in the metrics and the tally."""
    if report.warnings:
        log.warning("command-warning", id=report.id, warnings=list(report.warnings))
    command_line(log, report)
    code = report.code or (str(report.status_code) if report.status_code else None)
    queued_seconds = report.queued_ms / 1000 if report.measured else None
    # A report without a method is of a command for which no target was called.
    target_seconds = report.target_ms / 1000 if report.measured and report.method is not None else None
    metrics.command_finished(report.action, report.status, code, queued_seconds, target_seconds)
    tally.finished(report.status)


def command_line(log: Logger, report: Report) -> None:
    """Log the one canonical line of a command, at most 500 bytes with its newline (docs/logs.md).

    Unknown fields are left out: a command that was refused before it was decoded has no host, one that is not `measured` has no
    bytes and times.
    """
    known = {
        "method": report.method,
        "host": report.host,
        "port": report.port,
        "status": report.status,
        "code": report.code,
        "statusCode": report.status_code,
        "wouldRefuse": report.would_refuse,
    }
    fields: dict[str, Any] = {"id": report.id, "action": report.action} | {
        name: value for name, value in known.items() if value is not None
    }
    if report.measured:
        fields["bytesIn"] = report.bytes_in
        fields["bytesOut"] = report.bytes_out
        fields["queuedMs"] = report.queued_ms
        fields["targetMs"] = report.target_ms
        fields["totalMs"] = report.total_ms
    if report.secure:  # The lines are sent to the platform, which must not learn the target of a secure command (PROTOCOL §5).
        fields[WITHHELD] = "method.host.port.wouldRefuse"
    log.info("command", **fields)


def command_crashed(log: Logger, error: Exception, command: Command) -> None:
    """Log an internal error of the agent that ended a command."""
    # The line is sent to the platform: for a secure command without the error's text, and without the place in the code.
    withheld = {WITHHELD: "exception.traceback"} if command.secure else {}
    log.error("command-crashed", id=command.id, exc_info=error, **withheld)
