"""Problems that `status_pages` adds to those of `admin.status`: damage, a full backlog, unusable secrets, unknown variables.

The pages themselves are tested with whole agents (`test_agent_pages.py`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.agent.status_pages import disk_problems, journal_problems, secret_problems, unknown_variable_problems
from relay_agent.core.failures import Cause
from relay_agent.diagnostics.local_causes import BACKLOG, JOURNAL_DAMAGED, JOURNAL_ROWS_DAMAGED, KEYS, TOKEN_UNUSABLE


def journal(aside: str | None, spoiled: int) -> Any:
    return SimpleNamespace(damage=None if aside is None else SimpleNamespace(aside=aside), spoiled=spoiled)


@pytest.mark.parametrize(
    ("aside", "spoiled", "causes"),
    [
        (None, 0, []),
        ("journal.db.1", 0, [JOURNAL_DAMAGED]),
        (None, 3, [JOURNAL_ROWS_DAMAGED]),
        ("journal.db.1", 3, [JOURNAL_DAMAGED, JOURNAL_ROWS_DAMAGED]),
    ],
)
def test_a_damaged_journal_is_a_problem(aside: str | None, spoiled: int, causes: list[Cause]) -> None:
    found = journal_problems(journal(aside, spoiled))
    assert [problem.cause for problem in found] == causes
    assert all((aside or "3 rows") in problem.reason or "3 rows" in problem.reason for problem in found)


def test_a_backlog_is_a_problem_while_there_is_one() -> None:
    disk = SimpleNamespace(backlog=True, backlog_bytes=2_500_000_000)
    assert [(problem.reason, problem.cause) for problem in disk_problems(cast("Any", disk))] == [
        ("more than 2.5 GB wait to be sent to the platform", BACKLOG)
    ]
    disk.backlog = False
    assert disk_problems(cast("Any", disk)) == []


@pytest.mark.parametrize(
    ("token", "keys", "causes"),
    [(False, False, []), (True, False, [TOKEN_UNUSABLE]), (False, True, [KEYS]), (True, True, [TOKEN_UNUSABLE, KEYS])],
)
def test_new_secrets_that_cannot_be_used_are_problems(token: bool, keys: bool, causes: list[Any]) -> None:
    secrets = SimpleNamespace(token=SimpleNamespace(unusable=token), keys=SimpleNamespace(unusable=keys))
    assert [problem.cause for problem in secret_problems(cast("Any", secrets))] == causes


def test_an_unknown_variable_comes_with_the_nearest_that_is_known() -> None:
    near, far = unknown_variable_problems([("RELAY_WORKRES", "RELAY_WORKERS"), ("RELAY_X", None)])
    assert (near.reason, "it may be meant as RELAY_WORKERS" in near.cause.cause + near.cause.cure) == (
        "RELAY_WORKRES is not a setting of the agent",
        True,
    )
    assert "no setting resembles it" in far.cause.cause + far.cause.cure
