"""The longest lease of the runs whose messages may still be in the queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_agent.storage.earlier_lease import FILE_NAME, earlier_lease


def test_a_first_run_has_only_its_own_lease(tmp_path: Path) -> None:
    assert earlier_lease(tmp_path, 60, unsettled=False) == 60
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_shorter_lease_does_not_shorten_it_while_messages_of_earlier_runs_may_be_in_the_queue(tmp_path: Path) -> None:
    assert [earlier_lease(tmp_path, seconds, unsettled=True) for seconds in (60, 5, 5, 90, 30)] == [60, 60, 60, 90, 90]


def test_it_begins_anew_once_nothing_of_earlier_runs_is_in_the_queue(tmp_path: Path) -> None:
    earlier_lease(tmp_path, 3600, unsettled=True)
    assert earlier_lease(tmp_path, 60, unsettled=False) == 60
    assert earlier_lease(tmp_path, 5, unsettled=True) == 60


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"-5", b"1" * 20])
def test_a_damaged_file_says_nothing(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(damaged)
    assert earlier_lease(tmp_path, 60, unsettled=True) == 60


def test_a_disk_that_cannot_be_written_prevents_nothing(tmp_path: Path) -> None:
    assert earlier_lease(tmp_path / "missing", 60, unsettled=False) == 60
