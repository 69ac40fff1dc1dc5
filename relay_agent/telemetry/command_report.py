"""What the log, the metrics and the hourly summary say of a finished command (OPERATIONS §4).

This module owns the command's one canonical line. It must not decide what came of a command.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relay_agent.core.models import ACTION_SECURE, Command, Status
from relay_agent.telemetry.hourly_summary import Tally
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.logs import WITHHELD
from relay_agent.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Report:
    """What the canonical log line and the metrics say of a finished command; nothing secret.

    `bytes_in` came from the target, `bytes_out` went to it.
    """

    id: str
    action: str
    status: Status
    method: str | None = None
    host: str | None = None
    port: int | None = None
    code: str | None = None
    status_code: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    queued_ms: int = 0
    target_ms: int = 0
    total_ms: int = 0
    measured: bool = True
    """Whether bytes and times are known."""
    warnings: tuple[str, ...] = ()

    @property
    def secure(self) -> bool:
        """Whether the request came encrypted (PROTOCOL §5)."""
        return self.action == ACTION_SECURE


def tell(log: Logger, metrics: Metrics, tally: Tally, report: Report) -> None:
    """Log, count and measure a finished command."""
    if report.warnings:
        log.warning("command-warning", id=report.id, warnings=list(report.warnings))
    command_line(log, report)
    code = report.code or (str(report.status_code) if report.status_code else None)
    queued_seconds = report.queued_ms / 1000 if report.measured else None
    target_seconds = report.target_ms / 1000 if report.measured and report.method is not None else None  # Without one no target was called.
    metrics.command_finished(report.action, report.status, code, queued_seconds, target_seconds)
    tally.finished(report.status)


def command_line(log: Logger, report: Report) -> None:
    """Log the one canonical line of a command, at most 500 bytes with its newline (OPERATIONS §4).

    Unknown fields are left out: a command refused before it was read has no host, and one not `measured` no bytes and times.
    Only this machine's log names the target of a secure command: the platform receives these lines too (PROTOCOL §5).
    """
    known = {
        "method": report.method,
        "host": report.host,
        "port": report.port,
        "status": report.status,
        "code": report.code,
        "statusCode": report.status_code,
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
    if report.secure:
        fields[WITHHELD] = "method.host.port"
    log.info("command", **fields)


def command_crashed(log: Logger, error: Exception, command: Command) -> None:
    """Log the agent's own error that ended a command.

    The platform receives this line too: of a secure command it gets neither the error's text nor where it happened.
    """
    withheld = {WITHHELD: "exception.traceback"} if command.secure else {}
    log.error("command-crashed", id=command.id, exc_info=error, **withheld)
