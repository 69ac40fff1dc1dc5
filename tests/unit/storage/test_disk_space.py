"""Space on the disk: the reserve, when it is freed, and when nothing is admitted."""

from __future__ import annotations

import shutil
import stat
from collections import namedtuple
from pathlib import Path

import pytest

from relay_agent.cli.checks.local_checks import state_dir
from relay_agent.cli.checks.result import Status
from relay_agent.core.failures import StorageTrouble
from relay_agent.storage.disk_space import Disk

MB = 1024 * 1024
Usage = namedtuple("Usage", "total used free")


class Space:
    """Replaces the figures of the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 1000 * MB
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1000 * MB, 1000 * MB - self.free, self.free))


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Space:
    return Space(monkeypatch)


def test_the_reserve_is_made_and_freed_once(tmp_path: Path, space: Space) -> None:
    disk = Disk(tmp_path, reserve_bytes=MB)
    assert disk.obstacle is not None
    disk.look()
    reserve = tmp_path / "reserve"
    assert (disk.obstacle, reserve.stat().st_size, stat.S_IMODE(reserve.stat().st_mode)) == (None, MB, 0o600)
    assert reserve.stat().st_blocks * 512 >= MB
    assert disk.make_room()
    assert not reserve.exists()
    assert not disk.make_room()
    assert disk.obstacle is not None and disk.obstacle.trouble is StorageTrouble.FULL


def test_the_reserve_is_freed_as_soon_as_a_look_finds_the_disk_full(tmp_path: Path, space: Space) -> None:
    """So that an answer finds space, though the journal has tried no commit since."""
    disk = Disk(tmp_path, reserve_bytes=MB)
    disk.look()
    space.free = MB // 4 - 1
    disk.look()
    assert not (tmp_path / "reserve").exists()
    assert disk.obstacle is not None and disk.obstacle.trouble is StorageTrouble.FULL


def test_the_reserve_of_an_earlier_run_serves_the_next_start_on_a_full_disk(tmp_path: Path, space: Space) -> None:
    Disk(tmp_path, reserve_bytes=MB).look()
    space.free = 0
    assert Disk(tmp_path, reserve_bytes=MB).make_room()


def test_the_reserve_is_made_again_once_there_is_space_for_twice_as_much(tmp_path: Path, space: Space) -> None:
    disk = Disk(tmp_path, reserve_bytes=MB)
    disk.look()
    disk.make_room()
    space.free = 2 * MB - 1
    disk.look()
    assert disk.obstacle is not None
    space.free = 2 * MB
    disk.look()
    assert disk.obstacle is None


def test_nothing_is_admitted_while_the_disk_is_almost_full(tmp_path: Path, space: Space) -> None:
    disk = Disk(tmp_path, reserve_bytes=MB)
    disk.look()
    for free, taken in ((MB, True), (MB - 1, False), (2 * MB - 1, False), (2 * MB, True), (MB, True)):
        space.free = free
        disk.look()
        assert (disk.obstacle is None) is taken, free


@pytest.mark.parametrize("reserve", [True, False], ids=["reserve", "no reserve"])
@pytest.mark.parametrize("free", [0, 7, 8, 12, 16, 500])
def test_check_calls_a_disk_full_where_an_agent_does_and_in_its_words(tmp_path: Path, space: Space, reserve: bool, free: int) -> None:
    disk = Disk(tmp_path)
    disk.look()
    if not reserve:
        disk.make_room()
    space.free = free * MB
    disk.look()
    found = state_dir(tmp_path, mounted=list)
    assert (found.status is Status.ERROR) is (disk.obstacle is not None)
    assert (disk.obstacle.reason if disk.obstacle else f"{free * MB // 1_000_000} MB free") in found.summary
    assert ("is full" in (found.cause or "")) is (disk.obstacle is not None)


def test_a_backlog_beyond_its_limit_is_detected(tmp_path: Path, space: Space) -> None:
    disk = Disk(tmp_path, reserve_bytes=MB, backlog_bytes=MB)
    disk.look()
    assert not disk.backlog
    (tmp_path / "journal.db.damaged-20260301T120000Z").write_bytes(b"x" * (MB + 1))
    disk.look()
    assert not disk.backlog
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "answer.json.gz").write_bytes(b"x" * (MB + 1))
    disk.look()
    assert disk.backlog
    (tmp_path / "spool" / "answer.json.gz").unlink()
    disk.look()
    assert not disk.backlog
