"""Of commands without a final status, only two kinds are excused, each with its proof; and misfortunes come from their seed.

Owns the proof of the rules of a soak of several agents. It must not run one.
"""

from __future__ import annotations

from itertools import islice, pairwise

import pytest

from tests.soak import misfortunes
from tests.soak.losses import SLACK_SECONDS, Deleted, Evidence, Loss, Struck
from tests.soak.misfortunes import Misfortune, draw

DELETED = {"id": [Deleted("agent 1", 10.0, 15.0)]}
BEYOND = Struck("agent 1", 10.1, 16.0)


def test_what_a_lost_machine_s_journal_holds_went_with_it() -> None:
    evidence = Evidence({"agent 1": set(), "agent 2": {"id"}}, {"agent 2"})
    assert evidence.judge("id") is Loss.MACHINE
    assert evidence.judge("another") is Loss.FAULT


def test_a_delete_of_which_an_agent_could_not_know_until_its_lease_had_ended_is_the_documented_loss() -> None:
    assert Evidence({"agent 1": set()}, set(), DELETED, [BEYOND]).judge("id") is Loss.UNKNOWN_DELETE


def test_misfortunes_one_on_the_other_count_as_one() -> None:
    struck = [Struck("agent 1", 13.0, 16.0), Struck("agent 1", 9.0, 12.0)]
    assert Evidence({}, set(), DELETED, struck).judge("id") is Loss.UNKNOWN_DELETE


@pytest.mark.parametrize(
    "struck",
    [
        [],
        [Struck("agent 2", 10.1, 16.0)],
        [Struck("agent 1", 10.1, 15.0 - 2 * SLACK_SECONDS)],
        [Struck("agent 1", 10.0 + 2 * SLACK_SECONDS, 16.0)],
        [Struck("agent 1", 2.0, 9.0)],
        [Struck("agent 1", 9.0, 10.1), Struck("agent 1", 14.0, 16.0)],
    ],
    ids=["not struck", "another was", "back within the lease", "struck later", "struck before", "heard between"],
)
def test_a_deleted_command_that_is_lost_without_that_is_a_fault(struck: list[Struck]) -> None:
    assert Evidence({"agent 1": set()}, set(), DELETED, struck).judge("id") is Loss.FAULT


def test_what_a_living_agent_holds_or_nobody_deleted_is_a_fault() -> None:
    assert Evidence({"agent 1": {"id"}}, set(), DELETED, [BEYOND]).judge("id") is Loss.FAULT
    assert Evidence({"agent 1": set()}, set(), {}, [BEYOND]).judge("id") is Loss.FAULT


def some(seed: int) -> list[Misfortune]:
    return list(islice(draw(seed, 3), 200))


def test_a_seed_always_draws_the_same_misfortunes_in_order() -> None:
    assert some(7) == some(7)
    assert some(7) != some(8)
    assert some(7) == sorted(some(7), key=lambda misfortune: misfortune.start)


def test_every_agent_meets_every_misfortune_one_at_a_time() -> None:
    for place in range(3):
        of_one = [misfortune for misfortune in some(1) if misfortune.agent == place]
        assert {misfortune.kind for misfortune in of_one} == set(misfortunes.KINDS) - {misfortunes.SLOW_DELETES}
        clocks = [one for one in of_one if one.kind in misfortunes.CLOCKS]
        others = [one for one in of_one if one.kind not in misfortunes.CLOCKS]
        for following in (clocks, others):
            assert all(one.end < next_one.start for one, next_one in pairwise(following))
    assert any(misfortune.kind == misfortunes.SLOW_DELETES for misfortune in some(1))
