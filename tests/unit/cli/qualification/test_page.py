"""The page of a report: what it holds, and that foreign text stays text. How it looks is tested in a browser."""

from __future__ import annotations

import re

from relay_agent.cli.qualification.lines import judged, not_run
from relay_agent.cli.qualification.page import render
from relay_agent.cli.qualification.report import Report
from tests.unit.cli.qualification.scenes import SUBJECT

MARKUP = "<img src=x onerror=alert(1)>"
REPORT = Report(
    SUBJECT,
    (
        judged("IQ-01", "1", "1", good=True),
        judged("IQ-04.1", "requests 2", MARKUP, good=True),
        judged("IQ-04.2", "idna 3", "2", good=False, remark=MARKUP),
        judged("OQ-02", "valid", "valid", good=True, remark="expires soon"),
        not_run("OQ-16", "200", "no agent runs"),
    ),
)
PAGE = render(REPORT, "report.json", "ab" * 32)


def test_it_names_report_time_host_agent_and_the_json_with_its_sha256() -> None:
    for text in (SUBJECT.report_id, "2026-11-29 01:30:00", SUBJECT.host, str(SUBJECT.agent_id), "report.json", "ab" * 32):
        assert text in PAGE


def test_each_line_is_in_a_row_with_expected_observed_and_result() -> None:
    rows = re.findall(r'<tr(?: class="remarked")?><th scope="row">([A-Z]+-[\d.]+)</th>.*?>([a-z ]+)</td></tr>', PAGE)
    assert rows == [("IQ-01", "pass"), ("IQ-04.1", "pass"), ("IQ-04.2", "fail"), ("OQ-02", "pass"), ("OQ-16", "not run")]
    assert '</tr>\n<tr class="remark"><td colspan="5"><b>Remark:</b> expires soon</td></tr>' in PAGE
    assert PAGE.count("Each library has a supported version</td>") == 1


def test_everything_that_a_person_must_judge_is_listed_first() -> None:
    listed = PAGE.partition("Deviations and remarks")[2].partition("</ul>")[0]
    assert re.findall(r"<li>([A-Z]+-[\d.]+), ([a-z ]+) ", listed) == [("IQ-04.2", "fail"), ("OQ-02", "pass"), ("OQ-16", "not run")]
    assert "Not everything is as expected." in PAGE
    assert "1 of those that passed has a remark to judge." in PAGE


def test_it_has_a_place_for_two_signatures_with_date() -> None:
    signatures = PAGE.partition("Signatures")[2]
    for text in ("Performed by", "Reviewed by", "Signature", "Date"):
        assert text in signatures


def test_foreign_text_is_no_markup_and_the_page_loads_nothing() -> None:
    assert MARKUP not in PAGE and "&lt;img src=x" in PAGE
    assert not re.search(r"<(script|link|img|iframe)|\b(src|href)=\"|url\(|@import", PAGE)
