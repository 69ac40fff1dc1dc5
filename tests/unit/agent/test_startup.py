"""The start: a disk that does not let the journal be opened, what is said of what was found, and what the last run left.

Owns the proof of `startup`, without an agent: the journal's place is taken where a disk must be full.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.agent import startup
from relay_agent.agent.signals import Signals
from relay_agent.agent.startup import open_journal, recover, say_what_was_found
from relay_agent.agent.wiring import Flow, Storage
from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalError, JournalUnwritable
from relay_agent.core.failures import Cause, Obstacle
from relay_agent.core.models import Status, Update


class Log:
    """A log that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.events.append((event, fields))


class Failures:
    """In the place of the repeated failure `disk-full`."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def failure(self, reason: str, _cause: Cause) -> None:
        self.said.append(reason)

    def success(self) -> None:
        self.said.append("over")


def storage(directory: Path, failures: Failures) -> Storage:
    return cast(
        "Storage",
        SimpleNamespace(
            directory=SimpleNamespace(journal=directory / "journal.db"),
            disk=SimpleNamespace(make_room=lambda: None, look=lambda: None),
            disk_full=failures,
        ),
    )


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "NO_DISK_SECONDS", 0.0)


def opens(monkeypatch: pytest.MonkeyPatch, *outcomes: object) -> None:
    """Let the journal open in these ways, one after the other."""
    left = list(outcomes)

    def journal(*_: object, **__: object) -> object:
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(startup, "Journal", journal)


def test_a_full_disk_is_waited_for_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, JournalUnwritable("the disk is full"), JournalUnwritable("the disk is full"), "a journal")
    failures, shown = Failures(), list[Obstacle]()
    journal = open_journal(storage(tmp_path, failures), Clock(), Signals(), others=lambda: 0, waiting=shown.append)
    assert cast("Any", journal) == "a journal"
    assert failures.said == ["the disk is full", "the disk is full", "over"]
    assert [obstacle.reason for obstacle in shown] == ["the disk is full", "the disk is full"]


def test_a_signal_ends_the_wait_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, JournalUnwritable("the disk is full"))
    signals = Signals()

    def waiting(_obstacle: Obstacle) -> None:
        signals.count = 1

    with pytest.raises(JournalUnwritable):
        open_journal(storage(tmp_path, Failures()), Clock(), signals, others=lambda: 0, waiting=waiting)


def test_another_error_is_not_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, JournalError("a newer agent's"))
    failures = Failures()
    with pytest.raises(JournalError, match="newer"):
        open_journal(storage(tmp_path, failures), Clock(), Signals(), others=lambda: 0, waiting=lambda _obstacle: None)
    assert failures.said == []


def test_damage_and_unknown_variables_are_logged_each_with_its_event() -> None:
    log = Log()
    damage = SimpleNamespace(reason="torn", aside="journal.db.1", salvaged=1, unreadable=["x"] * 60, complete=False)
    journal = SimpleNamespace(damage=damage, spoiled=2)
    say_what_was_found(cast("Any", log), cast("Any", journal), [("RELAY_WORKRES", "RELAY_WORKERS")])
    assert [event for event, _ in log.events] == ["unknown-setting", "journal-damaged", "journal-rows-damaged"]
    assert len(log.events[1][1]["unreadable"]) == 50


def test_a_sound_start_says_nothing() -> None:
    log = Log()
    say_what_was_found(cast("Any", log), cast("Any", SimpleNamespace(damage=None, spoiled=0)), [])
    assert log.events == []


def test_what_the_last_run_left_is_queued_again() -> None:
    log, queued, answers, alive, orphans = Log(), [], [], [], []

    def recovered(put: Any, set_aside: Any) -> list[str]:
        put(Update("c1", Status.SUCCESS, "done"))
        set_aside("c2", ValueError("odd"))
        return ["task"]

    flow = SimpleNamespace(
        spool=SimpleNamespace(remove_orphans=orphans.append),
        journal=SimpleNamespace(spooled=lambda: {"kept"}),
        outbox=SimpleNamespace(put=answers.append, pending=lambda: len(answers)),
        intake=SimpleNamespace(recover=recovered),
        gate=SimpleNamespace(enqueue=queued.append),
    )
    recover(cast("Flow", flow), cast("Any", log), lambda: alive.append(True))
    assert (queued, len(answers), len(alive), orphans) == (["task"], 1, 1, [{"kept"}])
    assert [event for event, _ in log.events] == ["command-set-aside", "recovered"]
    assert log.events[1][1] == {"commands": 1, "answers": 1}
