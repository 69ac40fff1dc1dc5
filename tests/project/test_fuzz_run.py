"""The fuzzer's command reads libFuzzer's output: how much was tried, what was reached, and the input of a finding.

Owns the proof with hand-made output. It must not start a fuzzer.
"""

from __future__ import annotations

from tests.fuzz.harness import joined, parts
from tests.fuzz.run import read

STARTED = "INFO: Running with entropic power schedule\n#2\tINITED cov: 76 ft: 80 corp: 5/1Kb\n#9\tNEW    cov: 78 ft: 90 corp: 6/1Kb\n"
STATISTICS = "stat::number_of_executed_units: 12345\nstat::new_units_added:          7\n"


def test_a_run_without_a_finding_is_one_line() -> None:
    run = read("url", 0, f"{STARTED}#12345\tDONE   cov: 81 ft: 95 corp: 9/1Kb\n{STATISTICS}", None)
    assert (run.failed, run.executions, run.coverage, run.added) == (False, 12345, (76, 81), 7)
    assert run.line == "url: 12,345 executions, coverage 76 to 81, 7 new inputs: nothing found"


def test_a_finding_shows_its_traceback_and_its_input_as_a_line_of_found() -> None:
    run = read("url", 77, f"{STARTED} === Uncaught Python exception: ===\nAssertionError: two ports\n{STATISTICS}", b"\x00'\xff")
    assert run.failed
    assert run.finding.splitlines() == [
        "--- url",
        "=== Uncaught Python exception: ===",
        "AssertionError: two ports",
        """    ('url', b"\\x00'\\xff"),""",
    ]


def test_a_harness_that_cannot_be_loaded_is_a_finding_without_an_input() -> None:
    run = read("url", 1, "Traceback (most recent call last):\nImportError: no such module", None)
    assert (run.failed, run.executions, run.coverage) == (True, 0, (0, 0))
    assert "ImportError" in run.finding


def test_an_input_is_split_into_as_many_parts_as_asked() -> None:
    assert parts(joined("a", b"b", "c"), 3) == [b"a", b"b", b"c"]
    assert parts(b"a\0b\0c", 2) == [b"a", b"b\0c"]
    assert parts(b"", 3) == [b"", b"", b""]
