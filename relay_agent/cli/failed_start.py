"""Says why `run` ends before or without its own log: as a log line on stdout, like every other line; in words on a terminal.

Owns the event `start-failed`. It must not show a secret, or wait for a reader that does not read.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relay_agent.cli.options import INVALID
from relay_agent.core.clock import Clock
from relay_agent.core.errors import ConfigurationError, JournalError, StateDirectoryBusy, TokenExpired
from relay_agent.core.failures import Cause
from relay_agent.diagnostics.local_causes import CONFIGURATION, CRASHED, STATE_BUSY, journal_cause, token_expired
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor
from relay_agent.telemetry.stdout_writer import output
from relay_agent.telemetry.syslog_lines import SyslogLines

DELIVERY_SECONDS = 2.0
"""How long the end may be delayed to deliver the line by syslog."""
_REPORT_IT = f"{CRASHED.cure[0].upper()}{CRASHED.cure[1:]}."


def report_failed_start(code: int, error: Exception, env_file: Path) -> None:
    """Report that the agent cannot start, and ends with this exit code. Code 0: a signal stopped it before it had started."""
    if _terminal():
        _print(*_words(error, env_file))
        return
    lines, deliver = _syslog(env_file)
    logs = Logs("info", Redactor(), stream=sys.stdout, receiver=lines)
    fields: dict[str, Any] = {"code": code, "reason": _reason(error)}
    if isinstance(error, ConfigurationError):
        fields["problems"] = error.problems
    cause = _cause(error)
    if cause is not None:
        fields |= {"cause": cause.cause, "cure": cause.cure}
    if code:
        logs.logger.error("start-failed", **fields)
    else:
        logs.logger.info("start-failed", **fields)
    logs.output.close()
    deliver(logs)


def report_crash(code: int, error: Exception) -> None:
    """Report that a running agent ended with an unexpected exception, of which only the class is shown."""
    if _terminal():
        _print(f"{_unexpected(error)} {_REPORT_IT}")
        return
    logs = Logs("info", Redactor(), stream=sys.stdout)
    logs.logger.error("agent-giving-up", code=code, reason=f"{_unexpected(error)} {_REPORT_IT}")
    logs.output.close()


def _syslog(env_file: Path) -> tuple[SyslogLines | None, Callable[[Logs], None]]:
    """Return where lines for the syslog receiver wait, if the settings name one and can be used so far, and what sends them."""
    # Imported here, because a failed start on a terminal needs none of it.
    from relay_agent.agent.wiring import build_syslog_lines, build_syslog_shipper
    from relay_agent.config.loading import load_usable_settings
    from relay_agent.config.network import SYSLOG_SETTINGS

    with contextlib.suppress(ConfigurationError):
        settings, wrong = load_usable_settings(env_file)
        lines = build_syslog_lines(settings)
        if lines is not None and wrong.isdisjoint(SYSLOG_SETTINGS):

            def deliver(logs: Logs) -> None:
                shipper = build_syslog_shipper(settings, lines, logs.local, Clock())
                if shipper is not None:
                    shipper.flush(DELIVERY_SECONDS)

            return lines, deliver
    return None, lambda _logs: None


def _terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _reason(error: Exception) -> str:
    if isinstance(error, ConfigurationError):
        return INVALID
    expected = isinstance(error, TokenExpired | StateDirectoryBusy | JournalError)
    return str(error) if expected else _unexpected(error)


def _cause(error: Exception) -> Cause | None:
    """Return cause and cure; None if the reason already has both."""
    if isinstance(error, ConfigurationError):
        return CONFIGURATION.about(problems="; ".join(error.problems))
    if isinstance(error, TokenExpired) and error.ended is not None:
        return token_expired(error.ended)
    if isinstance(error, StateDirectoryBusy):
        return STATE_BUSY.about(path=error.path)
    if isinstance(error, JournalError):
        return None if error.trouble is None else journal_cause(error.trouble)
    return None if isinstance(error, TokenExpired) else CRASHED


def _unexpected(error: Exception) -> str:
    return f"The agent ended with an unexpected {type(error).__name__}."


def _words(error: Exception, env_file: Path) -> list[str]:
    if not isinstance(error, ConfigurationError):
        reason, cause = _reason(error), _cause(error)
        return [f"{reason} {_REPORT_IT}" if cause is CRASHED else reason]
    lines = [f"{INVALID}:", *(f"  {problem}" for problem in error.problems)]
    if env_file.is_file():
        return lines
    return [*lines, f"Settings are read from the environment (for a container: agent.env) and from {env_file}, which does not exist here."]


def _print(*lines: str) -> None:
    """Write to stderr; if nothing reads it, end anyway."""
    written = output(sys.stderr, time.monotonic)
    for line in lines:
        written.write(line)
    written.close()
