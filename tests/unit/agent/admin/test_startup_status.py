"""What the pages show before the journal is open: alive, not ready, and the same form as afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from relay_agent.agent.admin.status_page import render
from relay_agent.core.failures import Obstacle, StorageTrouble
from relay_agent.diagnostics.local_causes import journal_cause
from relay_agent.storage.journal import Journal
from tests.unit.agent.admin.statuses import CLOCK, NOW, World, starting
from tests.unit.storage.scenes import admitted


@pytest.fixture
def running(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


def test_it_is_alive_since_a_restart_would_not_help_and_not_ready_for_the_disk_s_reason(tmp_path: Path) -> None:
    status = starting(tmp_path)
    assert [problem.reason for problem in status.ready()] == ["the journal is being opened"]
    status.obstacle = Obstacle("the disk is full", StorageTrouble.FULL)
    assert status.live() == []
    assert [(problem.reason, problem.cause) for problem in status.ready()] == [("the disk is full", journal_cause(StorageTrouble.FULL))]


def test_the_page_says_that_it_starts_and_why_it_waits(tmp_path: Path) -> None:
    status = starting(tmp_path)
    status.obstacle = Obstacle("the disk is full", StorageTrouble.FULL)
    page = status.status()
    assert (page["state"], page["sentence"]) == ("starting", f"Starting: {journal_cause(StorageTrouble.FULL).cause}.")
    assert (page["problems"][0]["reason"], page["threads"][0]["problem"]) == ("the disk is full", "the disk is full")
    assert (page["workers"], page["queue"], page["logLines"]["waiting"]) == (
        {"busy": 0, "total": 3},
        {"enabled": None, "waiting": 0, "capacity": 100, "shared": False},
        7,
    )


def test_the_page_has_the_fields_of_a_running_agent_s(tmp_path: Path, running: World) -> None:
    """Programs read both, and the page for people is made of either."""
    page = starting(tmp_path).status()
    whole = running.status.status()
    assert page.keys() == whole.keys()
    assert page["agent"].keys() == whole["agent"].keys()
    assert page["threads"][0].keys() == whole["threads"][0].keys()
    assert len(page["lastHour"]) == len(whole["lastHour"])
    assert "opening the journal" in render(page, [], refresh=True)


def test_a_journal_that_can_be_read_is_shown_nevertheless(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", CLOCK)
    admitted(journal, "a")
    status = starting(tmp_path)
    assert (status.status()["journal"]["admitted"], [one.id for one in status.recent()]) == (1, ["a"])
    journal.close()


def test_a_journal_that_cannot_be_read_leaves_the_rest(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"nothing that SQLite wrote" * 500)
    status = starting(tmp_path)
    assert (set(status.status()["journal"]), status.recent()) == ({"bytes"}, [])


@pytest.mark.parametrize(("ends", "names"), [(None, {"start"}), (NOW + timedelta(days=1), {"start", "token_expiry"})])
def test_the_metrics_have_the_start_and_the_token_s_expiry_if_there_is_one(tmp_path: Path, ends: datetime | None, names: set[str]) -> None:
    found = starting(tmp_path, ends).moments()
    assert (found.keys(), found["start"]) == (names, NOW.timestamp())
