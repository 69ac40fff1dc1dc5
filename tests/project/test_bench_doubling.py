"""The table of foreign inputs that `make bench` measures."""

from __future__ import annotations

import pytest

from tests.bench import doubling


@pytest.mark.parametrize("row", doubling.TABLE, ids=lambda row: row.name)
def test_each_row_makes_an_input_of_any_length_and_runs_on_it(row: doubling.Row) -> None:
    for length in (128, 512):
        row.run(row.make(length))


def test_what_is_quadratic_is_over_and_what_is_linear_is_not() -> None:
    rows = [
        doubling.Row("linear", lambda n: "a" * n, lambda text: sum(1 for _ in text), 4096),
        doubling.Row("quadratic", lambda n: "a" * n, lambda text: sum(1 for _ in text for _ in text), 1024),
    ]
    linear, quadratic = doubling.measure(rows)
    assert quadratic.lengths == (256, 512, 1024)
    assert quadratic.over and not linear.over
