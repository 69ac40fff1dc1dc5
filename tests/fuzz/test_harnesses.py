"""Every harness runs over its seeds, over what was found before, and over inputs drawn near its seeds; without a fuzzer.

It must not take the fuzzer's place: few inputs are drawn, so that harnesses stay in order and what was found stays mended.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.fuzz.found import FOUND
from tests.fuzz.table import HARNESSES

DRAWN = 40


@st.composite
def near(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with one part replaced by another's, or by any bytes."""
    seed, other = draw(st.sampled_from(seeds)), draw(st.sampled_from(seeds))
    start, end = sorted((draw(st.integers(0, len(seed))), draw(st.integers(0, len(seed)))))
    first, last = sorted((draw(st.integers(0, len(other))), draw(st.integers(0, len(other)))))
    put = draw(st.one_of(st.just(other[first:last]), st.binary(max_size=20)))
    return seed[:start] + put + seed[end:]


@pytest.mark.parametrize("name", HARNESSES)
def test_every_harness_accepts_its_seeds(name: str) -> None:
    harness = HARNESSES[name]
    seeds = harness.seeds()
    assert seeds and max(map(len, seeds)) <= harness.longest
    for seed in seeds:
        harness.run(seed)


@pytest.mark.parametrize("name, data", FOUND)
def test_what_was_found_is_mended(name: str, data: bytes) -> None:
    HARNESSES[name].run(data)


@pytest.mark.parametrize("name", HARNESSES)
def test_every_harness_accepts_inputs_near_its_seeds(name: str) -> None:
    harness = HARNESSES[name]

    @settings(max_examples=examples(DRAWN))
    @given(st.one_of(near(harness.seeds()), st.binary(max_size=100)))
    def run(data: bytes) -> None:
        harness.run(data)

    run()
