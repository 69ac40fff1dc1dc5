"""Which targets were called stays known for three months, although the journal forgets commands after a day (`call_history`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTION_SECURE, Status, Update
from relay_agent.storage import call_history
from relay_agent.storage.call_history import CalledTarget
from relay_agent.storage.journal import About, Journal
from relay_agent.storage.journal_reader import Reader

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAIN = "TetraScience.Connector.gdc.HttpRequest"
LIMS = About(PLAIN, "GET", "lims", 443, 200, "https")


class Kept:
    """A journal and its wall clock."""

    def __init__(self, path: Path) -> None:
        self.now = NOW
        self.journal = Journal(path, Clock(now=lambda: self.now))
        self._reader = Reader(path, in_use=True)
        self._count = 0

    def call(self, about: About, code: Code | None = None) -> None:
        """Take one command from admitted to delivered."""
        self._count += 1
        command_id = f"c-{self._count}"
        self.journal.admit([(command_id, "x", "receipt")])
        self.journal.acked([command_id])
        self.journal.finish(Update(command_id, Status.SUCCESS, "y", code=code), about)
        self.journal.deliver([command_id])
        self.journal.flush()

    def pass_days(self, days: int) -> None:
        """Let days pass, and old commands be removed."""
        self.now += timedelta(days=days)
        self.journal.retention.prune()

    def calls(self, days: int = 90) -> list[CalledTarget]:
        """What was called in the last days."""
        return self._reader.calls((self.now - timedelta(days=days)).timestamp())

    def counted(self, days: int = 90) -> list[tuple[str, int, int]]:
        """Host, commands and answers."""
        return [(call.host, call.commands, call.answered) for call in self.calls(days)]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    one = Kept(tmp_path / "journal.db")
    yield one
    one.journal.close()


def test_commands_are_counted_by_target_whether_or_not_the_journal_still_has_them(kept: Kept) -> None:
    kept.call(LIMS)
    kept.call(About(PLAIN, "GET", "lims", 443, None, "https"))
    kept.pass_days(2)
    assert kept.journal.counts()["delivered"] == 0
    kept.call(LIMS)
    assert kept.calls() == [CalledTarget("https", "lims", 443, "GET", False, 3, 2, kept.now.timestamp())]


def test_scheme_port_method_and_secrecy_distinguish_targets(kept: Kept) -> None:
    others = (
        About(PLAIN, "GET", "lims", 443, 200, "http"),
        About(PLAIN, "GET", "lims", 444, 200, "https"),
        About(PLAIN, "POST", "lims", 443, 200, "https"),
        About(ACTION_SECURE, "GET", "lims", 443, 200, "https"),
    )
    for about in (LIMS, *others):
        kept.call(about)
    for _ in range(2):
        found = {(call.scheme, call.port, call.method, call.secure) for call in kept.calls()}
        assert found == {
            ("https", 443, "GET", False),
            ("http", 443, "GET", False),
            ("https", 444, "GET", False),
            ("https", 443, "POST", False),
            ("https", 443, "GET", True),
        }
        kept.pass_days(2)


def test_only_the_days_that_are_asked_for_count(kept: Kept) -> None:
    kept.call(LIMS)
    kept.pass_days(10)
    assert (kept.counted(days=5), kept.counted(days=11)) == ([], [("lims", 1, 1)])


def test_what_was_called_too_long_ago_is_forgotten(kept: Kept) -> None:
    kept.call(LIMS)
    kept.pass_days(2)
    kept.pass_days(call_history.KEEP_DAYS)
    assert kept.counted(days=365) == []


def test_hosts_that_senders_invent_take_no_more_than_a_bounded_number_of_rows(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_history, "MAX_ROWS", 3)
    kept.call(LIMS)
    kept.pass_days(2)
    for number in range(5):
        kept.call(About(PLAIN, "GET", f"invented-{number}", 80, None, "http"))
    kept.pass_days(2)
    assert [host for host, _, _ in kept.counted()] == ["invented-3", "invented-4", "lims"], "what answered once is kept"


def test_invented_hosts_that_answer_push_out_nothing_that_is_called_more_often(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_history, "MAX_ROWS", 4)
    for _ in range(3):
        kept.call(LIMS)
        kept.pass_days(2)
    for number in range(5):
        for _ in range(2):
            kept.call(About(PLAIN, "GET", f"invented-{number}", 80, 200, "http"))
    kept.pass_days(2)
    assert kept.counted() == [("lims", 3, 3), ("invented-4", 2, 2)]


def test_the_rows_of_one_day_are_bounded_at_once_and_the_most_used_are_kept(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_history, "MAX_ROWS_A_DAY", 2)
    for host, times, status in (("often", 3, 200), ("rare", 1, 200), ("twice", 2, 200), ("silent", 4, None)):
        for _ in range(times):
            kept.call(About(PLAIN, "GET", host, 443, status, "https"))
    kept.pass_days(2)
    assert kept.counted() == [("often", 3, 3), ("twice", 2, 2)]


def test_a_proxy_s_answer_does_not_count_as_the_target_s(kept: Kept) -> None:
    kept.call(About(PLAIN, "GET", "nowhere", 443, 503, "https", from_proxy=True))
    assert kept.counted() == [("nowhere", 1, 0)]
    kept.pass_days(2)
    assert kept.counted() == [("nowhere", 1, 0)]


def test_what_the_policy_refused_or_would_have_is_counted_apart(kept: Kept) -> None:
    kept.call(LIMS)
    kept.call(replace(LIMS, status_code=None), Code.EPOLICY)
    kept.call(replace(LIMS, would_refuse="no rule"))
    kept.call(replace(LIMS, status_code=None), Code.ECONNREFUSED)
    for _ in range(2):
        assert [(call.commands, call.answered, call.refused) for call in kept.calls()] == [(4, 2, 2)]
        kept.pass_days(2)
    kept.call(replace(LIMS, status_code=None), Code.EPOLICY)
    kept.pass_days(0)
    assert [(call.commands, call.answered, call.refused) for call in kept.calls()] == [(5, 2, 3)]


def test_a_command_that_never_had_a_target_is_not_counted(kept: Kept) -> None:
    kept.call(About(PLAIN))
    assert kept.calls() == []
    kept.pass_days(2)
    assert kept.calls() == []


def test_a_journal_of_an_older_version_has_no_calls(kept: Kept, tmp_path: Path) -> None:
    kept.journal.writer.commit(lambda connection: connection.execute("DROP TABLE daily_calls"))
    kept.journal.writer.commit(lambda connection: connection.execute("ALTER TABLE commands DROP COLUMN from_proxy"))
    assert kept.calls() == []
    with Reader(tmp_path / "journal.db", in_use=True).rows() as rows:
        assert list(rows) == []
