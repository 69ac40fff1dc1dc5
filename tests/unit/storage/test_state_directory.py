"""The state directory: private, locked by one agent at a time, and what is said of one that cannot be used."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.core.errors import ConfigurationError, StateDirectoryBusy
from relay_agent.storage import commit_counter
from relay_agent.storage.state_directory import StateDirectory, held, obstacle
from tests.unit.storage.scenes import files_open_in

NOBODY = 65_534
KEPT = ["journal.db", "journal.db-wal", "journal.db-shm", "reserve", commit_counter.FILE_NAME, "spool", "agent.lock"]
only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of a user without root's rights, as whom the test then runs, whoever started it."""
    made, ours = Path(tempfile.mkdtemp()), os.getuid()
    if ours == 0:
        os.chown(made, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)
    yield made
    if ours == 0:
        os.setresuid(0, 0, 0)
    shutil.rmtree(made, ignore_errors=True)


def as_root(path: Path, text: str = "") -> Path:
    """Write a file that the user of the test may not open."""
    os.setresuid(0, 0, 0)
    path.write_text(text)
    path.chmod(0o600)
    os.setresuid(NOBODY, NOBODY, 0)
    return path


def problem(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        StateDirectory(path)
    assert {mistake.variable for mistake in caught.value.mistakes} == {"RELAY_STATE_DIR"}
    return "\n".join(caught.value.problems)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- opened ---


def test_a_missing_directory_is_created_with_its_parents_for_its_owner_only(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path / "a" / "state")
    assert (mode(directory.path), mode(directory.path / "agent.lock")) == (0o700, 0o600)
    directory.close()


def test_a_directory_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    StateDirectory(tmp_path).close()
    assert mode(tmp_path) == 0o700


@only_root
def test_a_directory_of_another_user_keeps_its_mode(tmp_path: Path) -> None:
    """A group may give the agent access to it."""
    os.chown(tmp_path, NOBODY, NOBODY)
    tmp_path.chmod(0o770)
    StateDirectory(tmp_path).close()
    assert mode(tmp_path) == 0o770


def test_the_files_have_fixed_names_in_it(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    found = [directory.journal, directory.spool, directory.socket]
    directory.close()
    assert found == [tmp_path / "journal.db", tmp_path / "spool", tmp_path / "admin.sock"]


# --- the lock ---


def test_a_second_agent_is_refused_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path)
    with pytest.raises(StateDirectoryBusy, match=f"another agent is running on {tmp_path}; stop it, or set RELAY_STATE_DIR"):
        StateDirectory(tmp_path)
    assert held(tmp_path)
    first.close()
    StateDirectory(tmp_path).close()


def test_an_agent_that_is_refused_leaves_no_file_open(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path)
    before = files_open_in(tmp_path)
    for _ in range(3):
        with pytest.raises(StateDirectoryBusy):
            StateDirectory(tmp_path)
    assert files_open_in(tmp_path) == before
    first.close()


def test_two_directories_do_not_lock_each_other(tmp_path: Path) -> None:
    one, other = StateDirectory(tmp_path / "one"), StateDirectory(tmp_path / "other")
    one.close()
    assert (held(tmp_path / "one"), held(tmp_path / "other")) == (False, True)
    other.close()


def test_only_a_lock_that_an_agent_has_is_held(tmp_path: Path) -> None:
    assert not held(tmp_path)
    StateDirectory(tmp_path).close()
    assert (tmp_path / "agent.lock").exists()
    assert not held(tmp_path)


# --- what cannot be used ---


def test_a_directory_that_may_not_be_written_is_a_mistake_of_its_setting(place: Path) -> None:
    place.chmod(0o500)
    told = problem(place / "state")
    assert told.startswith(f"RELAY_STATE_DIR: cannot write {place / 'state'} (Permission denied); ")
    assert "set a directory that the agent's user may write" in told


def test_a_file_in_its_place_is_a_mistake_of_its_setting(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert "(File exists)" in problem(tmp_path / "state")


@only_root
def test_a_lock_of_another_user_is_named_with_both_users_and_the_cure(place: Path) -> None:
    lock = as_root(place / "agent.lock")
    assert f"{lock} belongs to user 0, and the agent runs as user {NOBODY}: change its owner (chown -R {NOBODY})" in problem(place)


@pytest.mark.parametrize("name", [name for name in KEPT if name != "agent.lock"])
def test_a_file_that_an_earlier_run_left_unwritable_is_named(place: Path, name: str) -> None:
    (place / name).write_text("")
    (place / name).chmod(0o400)
    assert problem(place).startswith(f"RELAY_STATE_DIR: cannot write {place / name}; ")
    assert files_open_in(place) == []
    assert not held(place)


def test_every_unwritable_file_is_a_mistake_of_its_own(place: Path) -> None:
    for name in ("journal.db", "reserve"):
        (place / name).write_text("")
        (place / name).chmod(0o400)
    assert len(problem(place).splitlines()) == 2


# --- looked at from outside ---


def test_a_directory_that_can_be_used_or_created_has_no_obstacle_and_nothing_is_changed(place: Path) -> None:
    assert obstacle(place) is None
    assert obstacle(place / "a" / "state") is None
    assert list(place.iterdir()) == []


def test_below_a_file_there_can_be_no_directory(place: Path) -> None:
    (place / "a").write_text("")
    assert obstacle(place / "a" / "state") == (place / "a", "; it is not a directory")


def test_the_nearest_directory_that_exists_must_be_writable(place: Path) -> None:
    place.chmod(0o500)
    found = obstacle(place / "a" / "state")
    assert found is not None and (found[0], "on a disk that is not read-only" in found[1]) == (place, True)


@pytest.mark.parametrize("name", KEPT)
def test_a_file_in_it_that_may_not_be_written_is_the_obstacle(place: Path, name: str) -> None:
    (place / name).write_text("")
    assert obstacle(place) is None
    (place / name).chmod(0o400)
    found = obstacle(place)
    assert found is not None and found[0] == place / name


def test_files_in_a_parent_are_none_of_its_own(place: Path) -> None:
    (place / "journal.db").write_text("")
    (place / "journal.db").chmod(0o400)
    assert obstacle(place / "state") is None


@only_root
def test_the_cure_for_another_user_s_file_names_both_users(place: Path) -> None:
    as_root(place / "reserve")
    found = obstacle(place)
    assert found is not None and f"change its owner (chown -R {NOBODY})" in found[1]
