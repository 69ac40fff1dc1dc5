"""Peers for which a run of `make peers` failed or should have: each is played again to the agent, curl and requests.

Owns the list of their seeds: the seed of each new difference is added here with its mend. `tests/peers` owns how peers are drawn,
played and compared, docs/http-truth.md which differences are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers import curl_client, draw, known, report
from tests.peers.trial import Trio, trio

pytestmark = pytest.mark.skipif(curl_client.found() is None, reason="needs curl")

PEERS = {
    4242001271: {"location:fragment", "method:PUT", "redirect:301"},  # requests sends no body to the same URL again
    6149015: {"location:fragment", "method:PUT", "redirect:302", "redirect:loop"},
    5000373: {"status:blanks-other"},  # a tab before the status was EBADRESPONSE
    5008895: {"status:blanks-other"},
    5000148: {"chunked:none"},  # `Transfer-Encoding: none` was EBADRESPONSE
    5001085: {"chunked:none-alone"},
    5000823: {"chunked:none-and-chunked"},
}
"""By seed, the traits on account of which the peer is here."""


@pytest.fixture(scope="module")
def clients() -> Iterator[Trio]:
    with trio() as found:
        yield found


@pytest.mark.parametrize("seed", PEERS)
def test_a_peer_that_was_answered_wrongly_once_differs_only_as_the_document_says(clients: Trio, seed: int) -> None:
    script = draw.script(seed)
    assert script is not None
    wrong = report.unknown([clients.try_out(script)], known.read())
    assert not wrong, report.details(wrong)


def test_each_seed_still_draws_the_peer_that_it_is_listed_for() -> None:
    """A change of the generator draws others: then a new seed must be found for the same traits."""
    for seed, traits in PEERS.items():
        script = draw.script(seed)
        assert script is not None
        assert traits <= script.traits, f"seed {seed} is {sorted(script.traits)} now: find another one with {sorted(traits)}"
