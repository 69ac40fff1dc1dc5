"""One check's outcome, and what follows from all of them: the JSON report and the exit code (OPERATIONS §1, §2).

This room owns the form. It must not find anything out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from relay_agent.core.exit_codes import EXIT_CONFIGURATION, EXIT_ERROR, EXIT_OK
from relay_agent.core.failures import Cause


class Status(StrEnum):
    """How a check, or a stage of `explain`, came out."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `summary` says what was found; `cause` and `cure` only where something is to be done."""

    id: str
    status: Status
    summary: str
    cause: str | None = None
    cure: str | None = None
    seconds: float = 0.0

    def without(self, mask: Callable[[str], str]) -> Check:
        """The check with its texts masked."""
        cause, cure = (text and mask(text) for text in (self.cause, self.cure))
        return replace(self, summary=mask(self.summary), cause=cause, cure=cure)


def ok(check_id: str, summary: str) -> Check:
    """All is well."""
    return Check(check_id, Status.OK, summary)


def error(cause: Cause, summary: str, check_id: str = "") -> Check:
    """The agent cannot work like this."""
    return Check(check_id or cause.id, Status.ERROR, summary, cause.cause, cause.cure)


def warning(cause: Cause, summary: str, check_id: str = "") -> Check:
    """The agent works, for now or in part."""
    return Check(check_id or cause.id, Status.WARNING, summary, cause.cause, cause.cure)


def report(checks: Sequence[Check]) -> dict[str, Any]:
    """The report as JSON has it."""
    return {"checks": [{**asdict(check), "seconds": round(check.seconds, 3)} for check in checks]}


def exit_code(checks: Sequence[Check]) -> int:
    """0 no error (warnings allowed), 1 an error, 2 the configuration is invalid."""
    failed = {check.id for check in checks if check.status is Status.ERROR}
    return EXIT_CONFIGURATION if "configuration" in failed else EXIT_ERROR if failed else EXIT_OK
