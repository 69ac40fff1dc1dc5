"""The lines of the checks."""

from __future__ import annotations

from relay_agent.cli.checks.preflight import CHECK_IDS
from relay_agent.cli.checks.result import Check, Status
from relay_agent.cli.qualification.check_lines import check_lines
from relay_agent.cli.qualification.lines import Line, Result


def lines(*checks: Check) -> dict[str, Line]:
    return {line.number: line for line in check_lines(checks)}


def test_a_warning_passes_with_a_remark_an_error_fails_and_a_skipped_check_was_not_run() -> None:
    found = lines(
        Check("configuration", Status.OK, "every variable is valid"),
        Check("token", Status.WARNING, "expires soon", "it expires", "renew it"),
        Check("clock", Status.ERROR, "10 minutes off", "it is wrong", "set it"),
        Check("access", Status.SKIPPED, "waits for platform"),
    )
    assert [(found[number].result, found[number].remark) for number in ("OQ-01", "OQ-02", "OQ-03", "OQ-06")] == [
        (Result.PASS, ""),
        (Result.PASS, "Cause: it expires. Cure: renew it."),
        (Result.FAIL, "Cause: it is wrong. Cure: set it."),
        (Result.NOT_RUN, "waits for platform"),
    ]


def test_every_check_has_a_line_even_without_a_result() -> None:
    found = lines()
    assert len(found) == len(CHECK_IDS)
    assert [found.pop(number).result for number in ("OQ-14", "OQ-29")] == [Result.NOT_APPLICABLE] * 2
    assert {line.result for line in found.values()} == {Result.NOT_RUN}


def test_several_targets_have_a_line_each() -> None:
    found = lines(Check("target", Status.OK, "one"), Check("target", Status.ERROR, "two"))
    assert [found[f"OQ-14.{place}"].observed for place in (1, 2)] == ["one", "two"]
