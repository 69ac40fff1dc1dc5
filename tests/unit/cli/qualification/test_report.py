"""The report's judgement, its JSON, and what it says was not tested."""

from __future__ import annotations

import json

import pytest

from relay_agent.cli.qualification.lines import Line, judged, not_applicable, not_run
from relay_agent.cli.qualification.report import Report
from tests.unit.cli.qualification.scenes import SUBJECT

GOOD = judged("IQ-01", "1", "1", good=True)


@pytest.mark.parametrize(
    "line, as_expected",
    [
        (judged("IQ-02", "1", "1", good=True, remark="to judge"), True),
        (not_applicable("IQ-08", "1", "no policy"), True),
        (judged("IQ-02", "1", "2", good=False), False),
        (not_run("IQ-02", "1", "why"), False),
    ],
    ids=["remark", "not applicable", "fail", "not run"],
)
def test_all_is_as_expected_unless_a_line_failed_or_was_not_run(line: Line, as_expected: bool) -> None:
    report = Report(SUBJECT, (GOOD, line))
    assert report.as_expected is as_expected
    assert report.to_json()["report"]["result"] == ("as expected" if as_expected else "not as expected")


def test_the_json_holds_every_line_with_expected_and_observed() -> None:
    found = json.loads(Report(SUBJECT, (GOOD, not_run("OQ-16", "200", "no agent"))).json_text())
    assert found["report"]["made"] == "2026-11-29T01:30:00Z"
    assert found["report"]["counts"] == {"pass": 1, "fail": 0, "not run": 1, "not applicable": 0}
    assert [line["number"] for line in found["lines"]] == ["IQ-01", "OQ-16"]
    assert found["lines"][1].keys() == {"number", "requirement", "expected", "observed", "result", "remark"}


def test_what_was_not_run_is_said_and_what_did_not_pass_is_not_said_to_be_tested() -> None:
    passed = Report(SUBJECT, tuple(judged(f"OQ-{number}", "", "", good=True) for number in range(16, 29)))
    assert [text.split(":")[0] for text in passed.tested] == ["OQ-16", "OQ-17", "OQ-20 to OQ-28"]
    failed = Report(SUBJECT, (not_run("OQ-16", "", "no agent runs"), judged("OQ-21", "", "", good=False)))
    assert failed.tested == []
    assert failed.untested[0] == "OQ-16: no agent runs"
    assert any("restart of the running agent" in text for text in failed.untested)


def test_secrets_are_masked_in_every_text_but_the_report_s_id() -> None:
    line = judged("IQ-01", "canary", "canary", good=True, remark="canary")
    masked = Report(SUBJECT, (line,)).masked(lambda text: text.replace("canary", "***").replace("lab", "***"))
    assert "canary" not in masked.json_text() and "lab" not in masked.json_text()
    assert masked.subject.report_id == SUBJECT.report_id
