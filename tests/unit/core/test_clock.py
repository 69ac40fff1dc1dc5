"""Moments that can be stored, whatever number stands for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.clock import FAR_FUTURE, FAR_PAST, from_timestamp


@given(seconds=st.floats() | st.integers() | st.just(253402300800.0))
def test_any_number_of_seconds_is_some_moment(seconds: float) -> None:
    assert FAR_PAST <= from_timestamp(seconds) <= FAR_FUTURE
