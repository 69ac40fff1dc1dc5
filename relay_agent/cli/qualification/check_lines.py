"""The checks of `relay-agent check` as lines of a qualification (OQ-01 to OQ-14, OQ-29).

Owns how a check's status becomes a result: a warning passes, with a remark that a person must judge; one that is a choice of the site
does not apply. It must not check anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay_agent.cli.checks.result import Check, Status
from relay_agent.cli.qualification.lines import CHECK_EXPECTED, CHECK_LINES, Line, judged, not_applicable, not_run, numbered


def check_lines(checks: Sequence[Check]) -> list[Line]:
    """Return the line of each check, in order; several checks of one target each have their own."""
    lines = []
    for check_id, number in CHECK_LINES.items():
        found = [check for check in checks if check.id == check_id]
        if not found:
            lines.append(_missing(number, check_id))
        else:
            lines += [_line(one, check) for one, check in zip(numbered(number, len(found)), found, strict=True)]
    return lines


def _missing(number: str, check_id: str) -> Line:
    if check_id == "target":
        return not_applicable(number, CHECK_EXPECTED[check_id], "no --target was given")
    if check_id == "syslog":
        return not_applicable(number, CHECK_EXPECTED[check_id], "RELAY_LOG_SYSLOG is not set")
    return not_run(number, CHECK_EXPECTED[check_id], "the check gave no result")


def _line(number: str, check: Check) -> Line:
    expected = CHECK_EXPECTED[check.id]
    if check.status is Status.SKIPPED:
        return not_run(number, expected, check.summary)
    if check.optional and check.status is Status.WARNING:
        return not_applicable(number, expected, f"{check.summary}: {check.cause}")
    remark = " ".join(f"{label}: {text}." for label, text in (("Cause", check.cause), ("Cure", check.cure)) if text)
    return judged(number, expected, check.summary, check.status is not Status.ERROR, remark)
