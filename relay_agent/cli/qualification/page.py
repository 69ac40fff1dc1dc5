"""The report as one HTML file that prints on A4 or Letter, with a block for signatures.

Owns the page's look. It loads nothing, has no script, and shows the SHA-256 of the JSON that belongs to it. It must not decide a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from itertools import groupby

from relay_agent.cli.qualification.lines import Line, Result
from relay_agent.cli.qualification.report import Report

PARTS = {"IQ": "Installation qualification", "OQ": "Operational qualification"}
SIGNATURES = ("Performed by", "Reviewed by")
_CLASSES = {Result.PASS: "pass", Result.FAIL: "fail", Result.NOT_RUN: "open", Result.NOT_APPLICABLE: "none"}
STYLE = resources.files(__package__).joinpath("static", "report.css").read_text(encoding="utf-8")


def render(report: Report, json_name: str, json_sha256: str) -> str:
    """Return the page of a report, which belongs to the JSON file of that name and SHA-256."""
    subject = report.subject
    title = f"Qualification of Relay Agent {subject.agent_version}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}, {escape(subject.report_id)}</title>
<style>{STYLE.replace("REPORT_ID", f"Relay Agent qualification {subject.report_id}")}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="dim">Installation and operational qualification, by <code>relay-agent qualify</code></p>
</header>
<main>
{_facts(report, json_name, json_sha256)}
{_verdict(report)}
{_deviations(report.lines)}
{"".join(_part(part, name, report.lines) for part, name in PARTS.items())}
<section>
<h2>What was tested, and what was not</h2>
<p>Tested with commands:</p>
{_list(report.tested or ["nothing"])}
<p>Not tested by this report:</p>
{_list(report.untested)}
</section>
{_signatures(subject.report_id)}
</main>
</body>
</html>
"""


def _facts(report: Report, json_name: str, json_sha256: str) -> str:
    subject = report.subject
    facts = (
        ("Report", subject.report_id),
        ("Time (UTC)", f"{subject.made:%Y-%m-%d %H:%M:%S}"),
        ("Host", subject.host),
        ("User", subject.user),
        ("Agent version", subject.agent_version),
        ("Agent id", subject.agent_id or "unknown"),
        ("Organisation", subject.organisation or "unknown"),
        ("Platform", subject.api_target or "unknown"),
        ("State directory", subject.state_directory),
        ("JSON of this report", json_name),
    )
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>\n" for name, value in facts)
    return f'<dl class="facts">\n{rows}<dt>Its SHA-256</dt><dd><code>{json_sha256}</code></dd>\n</dl>'


def _verdict(report: Report) -> str:
    kind, text = ("pass", "Everything is as expected.") if report.as_expected else ("fail", "Not everything is as expected.")
    remarks = sum(bool(line.remark) for line in report.lines if line.result is Result.PASS)
    counts = [f"{report.count(result)} {result.value}" for result in Result if report.count(result)]
    more = f" {remarks} of those that passed {'has' if remarks == 1 else 'have'} a remark to judge." if remarks else ""
    return f"""<section class="verdict {kind}" aria-label="Result">
<strong>{text}</strong>
<p>{len(report.lines)} lines: {", ".join(counts)}.{more}</p>
</section>"""


def _deviations(lines: Sequence[Line]) -> str:
    """Return the list of what a person must look at; the tables have the details."""
    items = [
        f"{line.number}, {line.result.value} ({line.requirement}): {line.remark or line.observed}"
        for line in lines
        if line.result in (Result.FAIL, Result.NOT_RUN) or (line.result is Result.PASS and line.remark)
    ]
    return f"<section>\n<h2>Deviations and remarks</h2>\n{_list(items or ['none'])}\n</section>"


def _part(part: str, name: str, lines: Sequence[Line]) -> str:
    of_part = [line for line in lines if line.number.startswith(part)]
    rows = "".join(_rows(list(group)) for _, group in groupby(of_part, lambda line: line.number.partition(".")[0]))
    return f"""<section class="lines">
<h2>{name} ({part})</h2>
<table>
<colgroup><col class="number"><col class="requirement"><col><col><col class="result"></colgroup>
<thead><tr><th scope="col">No.</th><th scope="col">Requirement</th><th scope="col">Expected</th><th scope="col">Observed</th>\
<th scope="col">Result</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
</section>
"""


def _rows(group: list[Line]) -> str:
    """Return the rows of one number; a line that is repeated has its requirement once, above its rows."""
    first = group[0]
    if len(group) == 1:
        return _row(first, f'<td>{escape(first.requirement)}</td><td data-label="Expected">{escape(first.expected)}</td>')
    number = first.number.partition(".")[0]
    head = f'<tr class="group"><th scope="row">{number}</th><td colspan="4">{escape(first.requirement)}</td></tr>\n'
    return head + "".join(_row(line, f'<td colspan="2" data-label="Expected">{escape(line.expected)}</td>') for line in group)


def _row(line: Line, cells: str) -> str:
    """Return a row, and below it the row of its remark."""
    begin, remark = "<tr>", ""
    if line.remark:
        begin, remark = '<tr class="remarked">', f'<tr class="remark"><td colspan="5"><b>Remark:</b> {escape(line.remark)}</td></tr>\n'
    return (
        f'{begin}<th scope="row">{line.number}</th>{cells}<td data-label="Observed">{escape(line.observed) or "–"}</td>'
        f'<td data-label="Result" class="{_CLASSES[line.result]}">{line.result.value}</td></tr>\n{remark}'
    )


def _signatures(report_id: str) -> str:
    rows = "".join(f'<tr><th scope="row">{who}</th><td></td><td></td><td></td></tr>\n' for who in SIGNATURES)
    return f"""<section class="sign">
<h2>Signatures</h2>
<p>Report {escape(report_id)}. The signature of the reviewer confirms that each deviation and each remark was judged.</p>
<div class="blank">Judgement of deviations and remarks:</div>
<table>
<thead><tr><th scope="col"></th><th scope="col">Name</th><th scope="col">Signature</th><th scope="col">Date</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
</section>"""


def _list(items: Iterable[str]) -> str:
    return "<ul>\n" + "".join(f"<li>{escape(item)}</li>\n" for item in items) + "</ul>"
