"""A damaged write-ahead log is found, and nothing behind the damage is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.storage.damaged import GOT, IDS, PAGE, Layout, check, check_aside, flipped, frame, start


@pytest.mark.parametrize("place", [0, 4, 8, 12, 16, 20, 24, 31])
def test_a_flipped_header_of_the_log_is_found_and_waiting_commands_count_as_started(in_log: Layout, tmp_path: Path, place: int) -> None:
    found = start(Layout(in_log.db, flipped(in_log.wal, place)).put(tmp_path))
    check(found)
    check_aside(tmp_path, found)
    assert found.runs.keys() <= set(GOT)
    assert found.runs.keys() | found.answers.keys() == set(IDS)
    assert found.damage is not None
    assert (sum(found.damage.salvaged.values()), found.damage.complete) == (len(IDS), False)


@pytest.mark.parametrize("place", [0, 2000])
def test_a_damaged_log_is_set_aside_as_it_was_found(in_log: Layout, tmp_path: Path, place: int) -> None:
    wal = flipped(in_log.wal, frame(in_log.wal, 5) + place)
    aside = check_aside(tmp_path, start(Layout(in_log.db, wal).put(tmp_path)))
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == wal


@pytest.mark.parametrize("within", [0, 4, 8, 16, 24, 24 + 2000, 24 + PAGE - 1])
def test_a_flipped_frame_in_the_middle_of_the_log_is_found(in_log: Layout, tmp_path: Path, within: int) -> None:
    middle = frame(in_log.wal, (len(in_log.wal) - 32) // (24 + PAGE) // 2)
    found = start(Layout(in_log.db, flipped(in_log.wal, middle + within)).put(tmp_path))
    check(found)
    check_aside(tmp_path, found)
    assert found.runs.keys() <= set(GOT)
    assert found.damage is not None
    assert "write-ahead log" in found.damage.reason


@pytest.mark.parametrize("within", [24, 24 + 2000, 24 + PAGE - 1])
def test_a_flipped_last_frame_is_found_where_it_ends_a_commit(in_log: Layout, tmp_path: Path, within: int) -> None:
    found = start(Layout(in_log.db, flipped(in_log.wal, frame(in_log.wal, -1) + within)).put(tmp_path))
    check(found)
    check_aside(tmp_path, found)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    "at",
    [
        ".marker",
        ".fresh",
    ],
)
def test_a_salvage_killed_before_a_rename_is_repeated_and_no_request_is_sent_twice(
    in_log: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = Layout(in_log.db, flipped(in_log.wal, 0)).put(tmp_path)
    whole = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.name.endswith(at):
            raise Killed
        return whole(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            start(path)
    found = start(path)
    check(found)
    assert found.damage is not None
    assert found.runs.keys() | found.answers.keys() == set(IDS)
