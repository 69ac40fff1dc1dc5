"""The ends of leases are kept on a clock that nobody can set until the machine restarts."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay_agent.core.clock import Clock
from relay_agent.storage.boot_clock import FILE_NAME, settled, this_boot

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BEYOND = '{"boot": "first", "offset_seconds": 1' + "0" * 400 + "}"


class Machine:
    """A machine whose time of day can be set, and which can be restarted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wall, self.booted, self.boot = NOW, 1000.0, "first"

    def clock(self) -> Clock:
        """Start the agent: its clock for leases."""
        clock = Clock(now=lambda: self.wall, boottime=lambda: self.booted)
        return settled(clock, self.directory, lambda: self.boot)

    def pass_seconds(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.booted += seconds


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_it_starts_with_the_time_of_day_and_runs_with_the_machine(machine: Machine) -> None:
    clock = machine.clock()
    assert clock.now() == NOW
    machine.pass_seconds(90.5)
    assert (clock.now(), clock.boottime()) == (NOW + timedelta(seconds=90.5), 1090.5)


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_time_of_day_that_is_set_changes_nothing_even_after_a_restart_of_the_agent(machine: Machine, jump: timedelta) -> None:
    running = machine.clock()
    machine.wall += jump
    machine.pass_seconds(3)
    assert running.now() == machine.clock().now() == NOW + timedelta(seconds=3)


def test_after_a_restart_of_the_machine_the_time_of_day_is_asked_again(machine: Machine) -> None:
    machine.clock()
    machine.wall, machine.booted, machine.boot = NOW + HOUR, 5.0, "second"
    assert machine.clock().now() == NOW + HOUR


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"first"', '{"boot": "first"}', '{"boot": "first", "offset_seconds": "x"}', BEYOND, "\xff"]
)
def test_a_file_that_says_nothing_is_written_again(machine: Machine, text: str) -> None:
    path = machine.directory / FILE_NAME
    path.write_bytes(text.encode("latin-1"))
    assert machine.clock().now() == NOW
    machine.wall += HOUR
    assert machine.clock().now() == NOW
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_an_id_of_the_boot_or_a_disk_it_settles_for_the_agents_own_run(machine: Machine) -> None:
    machine.boot = ""
    machine.clock()
    assert list(machine.directory.iterdir()) == []
    machine.boot, machine.directory = "first", machine.directory / "missing"
    running = machine.clock()
    machine.wall += HOUR
    assert (running.now(), machine.clock().now()) == (NOW, NOW + HOUR)


def test_this_boot_has_one_id() -> None:
    assert this_boot() == this_boot()
