"""Times: which can be stored, and how far this machine's clock is from the one that wrote a `Date` field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.clock import FAR_FUTURE, FAR_PAST, clock_offset, from_timestamp

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DATE = "Sun, 01 Mar 2026 12:00:00 GMT"


@pytest.mark.parametrize("ahead", [-400.0, 0.0, 400.0])
def test_the_offset_is_that_of_the_middle_of_the_exchange(ahead: float) -> None:
    asked = NOW + timedelta(seconds=ahead - 2.5)
    assert clock_offset(DATE, asked, asked + timedelta(seconds=6)) == ahead


def test_a_date_that_was_rounded_down_is_taken_for_the_middle_of_its_second() -> None:
    assert clock_offset(DATE, NOW, NOW) == -0.5


@pytest.mark.parametrize("date", [None, "", "yesterday", "x" * 100_000, "Sun, 01 Mar 2026 12:00:00 -0000"])
def test_without_a_date_there_is_no_offset(date: str | None) -> None:
    assert clock_offset(date, NOW, NOW) is None


@given(seconds=st.floats() | st.integers() | st.just(253402300800.0))
def test_any_number_of_seconds_gives_a_time(seconds: float) -> None:
    assert FAR_PAST <= from_timestamp(seconds) <= FAR_FUTURE
