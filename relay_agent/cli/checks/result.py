"""The result of a check, and what follows from all results: the JSON report and the exit code (docs/operations.md, "Checks").

It must not check anything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from relay_agent.core.exit_codes import EXIT_CONFIGURATION, EXIT_ERROR, EXIT_OK
from relay_agent.core.failures import Cause


class Status(StrEnum):
    """The outcome of a check, or of a stage of `explain`."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `summary` says what was found; `cause` and `cure` are set only if there is something to do.

    `optional` marks a warning that a site may leave for ever, of which no monitoring should warn.
    """

    id: str
    status: Status
    summary: str
    cause: str | None = None
    cure: str | None = None
    seconds: float = 0.0
    optional: bool = False

    def without(self, mask: Callable[[str], str]) -> Check:
        """Return the check with its texts masked."""
        cause, cure = (text and mask(text) for text in (self.cause, self.cure))
        return replace(self, summary=mask(self.summary), cause=cause, cure=cure)


def ok(check_id: str, summary: str) -> Check:
    """Return a check that passed."""
    return Check(check_id, Status.OK, summary)


def error(cause: Cause, summary: str, check_id: str = "") -> Check:
    """Return a check with an error: the agent cannot work like this."""
    return Check(check_id or cause.id, Status.ERROR, summary, cause.cause, cause.cure)


def warning(cause: Cause, summary: str, check_id: str = "", *, optional: bool = False) -> Check:
    """Return a check with a warning: the agent works for now, or in part."""
    return Check(check_id or cause.id, Status.WARNING, summary, cause.cause, cause.cure, optional=optional)


def warnings(check_id: str, found: Sequence[tuple[Cause, str]], before: str = "") -> Check:
    """Return one warning with everything that was found; a cure that several have is given once."""
    cause = "; ".join(row.cause for row, _ in found)
    cure = "; ".join(dict.fromkeys(row.cure for row, _ in found))
    return warning(Cause(check_id, cause, cure), before + "; ".join(said for _, said in found))


def report(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the report for `--json`."""
    rows = [{**asdict(check), "seconds": round(check.seconds, 3)} for check in checks]
    return {"checks": [{name: value for name, value in row.items() if name != "optional"} for row in rows]}


def exit_code(checks: Sequence[Check]) -> int:
    """Return 0 for no error (warnings allowed), 1 for an error, 2 for an invalid configuration."""
    failed = {check.id for check in checks if check.status is Status.ERROR}
    return EXIT_CONFIGURATION if "configuration" in failed else EXIT_ERROR if failed else EXIT_OK
