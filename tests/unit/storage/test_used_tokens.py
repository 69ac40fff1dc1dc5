"""Ids of secure commands that were used: none is taken twice, whatever the clock does (PROTOCOL §5)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from relay_agent.storage import retention
from relay_agent.storage.journal import Admission, Incoming, Journal
from tests.unit.storage.scenes import NOW, Time, admitted, forget, states


def test_a_token_belongs_to_the_first_command_that_used_it(opened: Callable[[], Journal]) -> None:
    journal = opened()
    until = (NOW + timedelta(days=1)).timestamp()
    assert journal.remember_token("jti", "a", until)
    assert journal.remember_token("jti", "a", until)
    assert not journal.remember_token("jti", "b", until)
    assert not opened().remember_token("jti", "b", until)


def test_an_expired_token_is_forgotten_and_never_accepted_again(path: Path, journal: Journal, time: Time) -> None:
    exp = (NOW + timedelta(hours=1)).timestamp()
    journal.remember_token("jti", "a", exp)
    journal.retention.prune()
    assert not journal.remember_token("jti", "b", exp)
    time.now += timedelta(hours=2)
    journal.retention.prune()
    assert journal.writer.read("SELECT jti FROM seen_tokens WHERE jti <> ''") == []
    time.now = NOW  # The clock is set back, so that the message has not expired by it.
    for command_id in ("a", "b"):
        assert not journal.remember_token("jti", command_id, exp)
        assert not journal.remember_token("never seen", command_id, exp)
    assert journal.remember_token("later", "c", exp + 1)


def test_a_forgotten_token_stays_refused_after_a_restart_with_the_clock_set_back(opened: Callable[[], Journal], time: Time) -> None:
    journal = opened()
    exp = (NOW + timedelta(hours=1)).timestamp()
    journal.remember_token("jti", "a", exp)
    time.now += timedelta(hours=2)
    journal.retention.prune()
    time.now = NOW
    assert not opened().remember_token("jti", "a", exp)


def test_a_token_whose_command_was_forgotten_is_refused_under_the_same_id_too(
    opened: Callable[[], Journal], time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEEP_IDS", 0)
    journal = opened()
    exp = (NOW + timedelta(days=6)).timestamp()
    admitted(journal, "a")
    assert journal.remember_token("jti", "a", exp)
    forget(journal, time, hours=1)
    assert states(journal) == {}
    admitted(journal, "a")
    assert not journal.remember_token("jti", "a", exp)
    assert not opened().remember_token("jti", "a", exp)


def test_a_token_whose_command_is_not_in_the_journal_is_refused_when_that_comes_again(journal: Journal) -> None:
    """As after damage, or in the journal of an older agent, which forgot ids after a day."""
    exp = (NOW + timedelta(days=6)).timestamp()
    assert journal.remember_token("jti", "a", exp)
    journal.flush()
    admitted(journal, "a", "b")
    assert not journal.remember_token("jti", "a", exp)
    assert journal.remember_token("another", "b", exp)


def test_an_id_that_comes_again_while_it_is_known_keeps_its_token(journal: Journal) -> None:
    admitted(journal, "a")
    assert journal.remember_token("jti", "a", (NOW + timedelta(days=1)).timestamp())
    admitted(journal, "a")
    assert journal.remember_token("jti", "a", (NOW + timedelta(days=1)).timestamp())


def test_admission_finds_a_tokens_owner_by_an_index(journal: Journal) -> None:
    """There may be half a million tokens in a week, and each command would scan them."""
    plan = journal.writer.read("EXPLAIN QUERY PLAN UPDATE seen_tokens SET command_id = '' WHERE command_id = ?", "a")
    assert ["SEARCH" in row[3] and "tokens_owner" in row[3] for row in plan] == [True]


@pytest.mark.parametrize("committed", [True, False])
def test_a_command_that_is_ceded_releases_its_token_and_may_use_it_when_it_is_admitted_again(journal: Journal, committed: bool) -> None:
    exp = (NOW + timedelta(days=1)).timestamp()
    claim = Incoming("a", "body", "receipt", None, NOW.timestamp())
    assert journal.admit([claim]) == [Admission.NEW]
    assert journal.remember_token("jti", "a", exp)
    if committed:
        journal.flush()
    journal.cede(["a"])
    assert journal.admit([claim]) == [Admission.NEW]
    assert journal.remember_token("jti", "a", exp)
    assert not journal.remember_token("jti", "b", exp)


def test_a_command_that_is_ceded_leaves_no_token_and_releases_no_other_commands(journal: Journal) -> None:
    exp = (NOW + timedelta(days=1)).timestamp()
    journal.admit([Incoming(command_id, "body", "receipt", None, NOW.timestamp()) for command_id in ("a", "b")])
    journal.remember_token("jti", "a", exp)
    journal.remember_token("other", "b", exp)
    journal.cede(["a"])
    journal.flush()
    assert journal.writer.read("SELECT jti FROM seen_tokens WHERE jti <> ''") == [("other",)]
    assert not journal.remember_token("other", "a", exp)
