"""What `make bench` prints and draws, and what it takes for a wrong answer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.bench import growth, report
from tests.bench.charts import Lines, lines
from tests.bench.checking import Text, Wrong, check, fnv1a
from tests.bench.profiling import hottest
from tests.bench.results import Found, Process, Results, percentile

TITLES = {"agent": "the agent", "floor": "the floor"}
WORKS = {"burst": "all at once", "alone": "one at a time"}


def found(contender: str, work: str, number: int, seconds: float, p50_ms: float = 5.0) -> Found:
    return Found(contender, work, number, 1000, seconds, 1.0, p50_ms, 2 * p50_ms, 300.0, 0.3, {"ReceiveMessage": 300})


@pytest.fixture
def results() -> Results:
    made = Results()
    for number, (agent, floor) in enumerate(((1.0, 2.0), (2.0, 3.0), (4.0, 4.0)), 1):
        made.works += [found("agent", "burst", number, agent), found("floor", "burst", number, floor)]
        made.works += [found("agent", "alone", number, 10.0, 6.0 + number), found("floor", "alone", number, 10.0, 4.0)]
        made.processes += [Process(name, number, 1.0, 50_000_000 * size, 0.1, 3, 60_000_000) for name, size in (("agent", 2), ("floor", 1))]
    return made


def row(table: list[str], title: str) -> list[str]:
    (line,) = [line for line in table if line.startswith(f"| {title}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_come_first_and_are_taken_within_a_round(results: Results) -> None:
    table = report.summary(results, TITLES)
    assert row(table, " |")[:3] == ["", "agent : floor", "the agent"]
    assert row(table, "commands/s, burst") == [
        "commands/s, burst",
        "× 1.50 (1.00–2.00)",
        "500 (250–1,000)",
        "333 (250–500)",
    ]
    assert row(table, "received → answered, alone, p50")[1:] == ["+4.0 (+3.0 to +5.0) ms", "8.0 (7.0–9.0)", "4.0"]
    assert row(table, "memory at start")[1:] == ["× 2.00", "100", "50"]
    assert row(table, "idle CPU")[1] == "–"


def test_a_row_that_nobody_has_is_left_out(results: Results) -> None:
    assert not any("fsyncs" in line for line in report.summary(results, TITLES))


def test_each_work_has_a_row_for_each_contender(results: Results) -> None:
    table = report.details(results, TITLES, WORKS)
    assert len(table) == 2 + 4
    assert row(table, "all at once | the agent")[2:5] == ["× 1.50 (1.00–2.00)", "× 1.00", "+0.0 ms"]


def test_without_a_floor_there_are_no_ratios(results: Results) -> None:
    alone = Results([each for each in results.works if each.contender == "agent"], results.processes[:1])
    assert row(report.summary(alone, {"agent": "the agent"}), "commands/s, burst")[1:] == ["500 (250–1,000)"]


def test_the_terminal_s_table_has_aligned_columns(results: Results) -> None:
    shown = report.text(report.summary(results, TITLES))
    assert len({line.index("  ", 2) for line in shown if line.startswith("  m")}) >= 1
    assert all(not line.startswith("|") for line in shown)
    assert len({len(line) for line in shown}) == 1


def test_results_are_written_as_json_markdown_and_svg(results: Results, tmp_path: Path) -> None:
    paths = report.write(tmp_path, results, {"processor": "a <fast> one"}, TITLES, WORKS)
    assert [path.suffix for path in paths] == [".json", ".md", ".svg"]
    raw = json.loads(paths[0].read_text())
    assert raw["machine"] == {"processor": "a <fast> one"} and raw["works"][0]["rate"] == 1000.0
    assert "- processor: a <fast> one" in paths[1].read_text()
    assert ElementTree.fromstring(paths[2].read_text()).tag.endswith("svg")


def test_growth_is_drawn_and_repeated_measurements_are_medians() -> None:
    points = [growth.Point("hosts", "again", x, rate, 1.0, 80.0, 5.0, 9.0) for rate in (1.0, 9.0, 4.0) for x in (1, 1000)]
    merged = growth.medians(points)
    assert [(point.x, point.rate) for point in merged] == [(1, 4.0), (1000, 4.0)]
    assert "1,000" in growth.table(merged)[3]
    assert ElementTree.fromstring(growth.plot(merged)).tag.endswith("svg")
    assert "polyline" in lines("a <title>", [Lines("p", "x", {"s": [(0, 0.0)]})])


def test_a_percentile_is_a_value_of_the_sample() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (1, 50, 51, 99)] == [1.0, 2.0, 3.0, 4.0]


def test_the_hottest_functions_are_added_up_over_lines_and_stacks() -> None:
    table = hottest(["run (a.py:1);send (b.py:2) 3", "run (a.py:1);send (b.py:9);send (b.py:2) 1"])
    assert table[1:] == ["  100.0%   0.0%  run (a.py)", "  100.0% 100.0%  send (b.py)"]


# --- what is right ---


def answered(*finals: dict[str, Any], handed: int = 1) -> dict[str, Any]:
    updates = [(1.0, json.dumps({"commandId": "x", "responseBodyDelivery": "embedded", **final})) for final in finals]
    command = {"handed": [0.5] * handed, "answered": 1.0, "updates": updates}
    return {"commands": {"x": command}, "unmatched": [], "waiting": 0, "flying": 0}


RIGHT = {"status": "SUCCESS", "body": {"statusCode": 200, "body": "expected"}}
PROCESSING = {"status": "PROCESSING", "body": {}}


def test_one_right_answer_after_any_progress_is_right() -> None:
    check(answered(PROCESSING, RIGHT), {"x": "expected"}, lambda _name: b"")


def test_a_large_answer_is_looked_for_where_it_was_uploaded() -> None:
    packed = gzip.compress(json.dumps(RIGHT["body"]).encode())
    check(answered(RIGHT | {"body": None, "responseBodyDelivery": "referenced"}), {"x": "expected"}, {"x": packed}.__getitem__)


@pytest.mark.parametrize(
    "report_, why",
    [
        (answered(), "0 final answers"),
        (answered(PROCESSING), "0 final answers"),
        (answered(RIGHT, RIGHT), "2 final answers"),
        (answered(RIGHT, handed=2), "handed out 2 times"),
        (answered(RIGHT | {"status": "FAILURE"}), "FAILURE"),
        (answered(RIGHT | {"body": {"statusCode": 500, "body": "expected"}}), "statusCode 500"),
        (answered(RIGHT | {"body": {"statusCode": 200, "body": "another's"}}), "the body is"),
        (answered(RIGHT) | {"unmatched": ["{}"]}, "an update for no command"),
        (answered(RIGHT) | {"flying": 1}, "1 are in flight"),
    ],
)
def test_whatever_is_lost_doubled_or_altered_is_wrong(report_: dict[str, Any], why: str) -> None:
    with pytest.raises(Wrong, match=why):
        check(report_, {"x": "expected"}, lambda _name: b"")


def test_the_text_that_the_target_sends_begins_with_the_id_and_its_sum_is_fnv_1a() -> None:
    text = Text()
    assert text.answer("abc", 1000).startswith("abc") and len(text.answer("abc", 1000)) == 1000
    assert text.answer("abc", 1000)[3:] == text.answer("xyz", 1000)[3:]
    assert len(text.answer("abc", 2_500_000)) == 2_500_000
    assert text.answer("abc", 0) == "abc"
    assert fnv1a(b"foobar") == 0x85944171F73967E8
