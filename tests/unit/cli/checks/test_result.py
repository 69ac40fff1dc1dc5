"""The report of the checks and its exit code (docs/operations.md)."""

from __future__ import annotations

import json

import pytest

from relay_agent.cli.checks.result import Check, error, exit_code, report, warning
from relay_agent.diagnostics import local_causes
from tests.unit.cli.checks.scenes import BAD, GOOD


def test_the_report_has_the_fields_of_the_contract() -> None:
    assert report([warning(local_causes.NO_KEY, "none")]) == {
        "checks": [
            {
                "id": "secure-key",
                "status": "warning",
                "summary": "none",
                "cause": local_causes.NO_KEY.cause,
                "cure": local_causes.NO_KEY.cure,
                "seconds": 0.0,
            }
        ]
    }
    json.dumps(report([GOOD]))


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        ([GOOD, warning(local_causes.NO_KEY, "")], 0),
        ([GOOD, BAD], 1),
        ([error(local_causes.CONFIGURATION, ""), BAD], 2),
        ([warning(local_causes.UNKNOWN_VARIABLES, ""), GOOD], 0),
    ],
)
def test_the_exit_code_is_0_with_warnings_1_with_an_error_and_2_for_the_configuration(checks: list[Check], code: int) -> None:
    assert exit_code(checks) == code
