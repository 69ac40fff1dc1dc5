"""Which rows count as altered. What an agent does with them: `integration/test_altered_rows.py`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from relay_agent.storage import schema
from relay_agent.storage.journal import Journal
from relay_agent.storage.row_checks import _KINDS, altered_rows
from tests.unit.storage.damaged import IDS, NOW, Layout, clock, spoil


def altered(path: Path) -> int:
    """How many rows count as altered."""
    with closing(schema.connect_to_read(path)) as connection:
        return len(list(altered_rows(connection, NOW.timestamp())))


def test_every_column_of_the_schema_but_id_and_state_has_a_rule() -> None:
    assert _KINDS.keys() == set(schema.COLUMN_NAMES) - {"id", "state"}


def test_an_untouched_journal_has_no_altered_row(in_file: Layout, tmp_path: Path) -> None:
    assert altered(in_file.put(tmp_path)) == 0


@pytest.mark.parametrize("column", _KINDS)
def test_a_value_of_a_type_that_no_column_has_makes_its_row_an_altered_one(in_file: Layout, tmp_path: Path, column: str) -> None:
    path = in_file.put(tmp_path)
    text_or_bytes = "'odd'" if column == "seal" else "x'ff00'"
    assert spoil(path, f"{column} = {text_or_bytes}", "posted-1")
    assert altered(path) == 1


def test_a_command_of_which_neither_id_nor_message_can_be_read_is_not_answered_and_does_not_run_again(
    in_file: Layout, tmp_path: Path
) -> None:
    path = in_file.put(tmp_path)
    assert spoil(path, "raw = 'odd', id = CAST(x'ff41' AS TEXT)", "posted-1")
    with closing(Journal(path, clock())) as journal:
        assert (journal.spoiled, journal.nameless) == (1, ("\\xffA",))
        assert "receipt of posted-1" in {receipt for _, receipt in journal.unacked()}
        assert [one.id for one in journal.unfinished() if one.id not in IDS] == []


@pytest.mark.parametrize("value", ["'odd'", "9e999", "x'ff'"])
def test_an_altered_time_of_a_used_token_leaves_it_used_and_refuses_no_other(tmp_path: Path, value: str) -> None:
    path, exp = tmp_path / "journal.db", NOW.timestamp() + 60
    with closing(Journal(path, clock())) as journal:
        journal.remember_token("used", "one", exp)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO seen_tokens VALUES ('', '', 1.0)")
        connection.execute(f"UPDATE seen_tokens SET forget_at = {value}")
    with closing(Journal(path, clock())) as journal:
        journal.retention.prune()
        assert not journal.remember_token("used", "another", exp)
        assert journal.remember_token("new", "another", exp)
