"""The last log lines for the support bundle: how many are kept, and that each is passed on."""

from __future__ import annotations

from relay_agent.telemetry.recent_lines import MAX_BYTES, MAX_LINES, RecentLines
from tests.unit.telemetry.scenes import Sink


def test_every_line_is_passed_on_whether_it_is_kept_or_not() -> None:
    sink = Sink()
    recent = RecentLines(sink)
    for number in range(MAX_LINES + 1):
        recent.accept(number, str(number))
    assert sink.lines == [(number, str(number)) for number in range(MAX_LINES + 1)]


def test_the_newest_lines_are_kept_the_oldest_first() -> None:
    recent = RecentLines(Sink())
    for number in range(MAX_LINES + 2):
        recent.accept(0, str(number))
    assert recent.text().splitlines() == [str(number) for number in range(2, MAX_LINES + 2)]


def test_long_lines_are_kept_up_to_their_bound() -> None:
    recent = RecentLines(Sink())
    for letter in "abc":
        recent.accept(0, letter * (MAX_BYTES // 2))
    assert [line[0] for line in recent.text().splitlines()] == ["b", "c"]


def test_a_line_beyond_the_bound_is_not_kept_and_the_next_one_is() -> None:
    recent = RecentLines(Sink())
    recent.accept(0, "x" * (MAX_BYTES + 1))
    assert recent.text() == ""
    recent.accept(0, "short")
    assert recent.text() == "short\n"
