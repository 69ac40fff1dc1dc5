"""The start: waiting for a full disk, logging damage and unknown variables, resuming what the last run left.

Without an agent; where a disk must be full, opening the journal is stubbed.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.agent import startup
from relay_agent.agent.signals import Signals
from relay_agent.agent.startup import log_findings, open_journal, recover
from relay_agent.agent.wiring import Flow, Storage
from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalError, JournalUnwritable
from relay_agent.core.failures import Cause, Obstacle
from relay_agent.core.models import Status, Update
from relay_agent.diagnostics.local_causes import JOURNAL_DAMAGED, JOURNAL_ROWS_DAMAGED


class Log:
    """A stub log that keeps its lines."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.events.append((event, fields))


class Failures:
    """A stub of the repeated failure `disk-full`."""

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
    """Make opening the journal have these outcomes, one after the other."""
    left = list(outcomes)

    def journal(*_: object, **__: object) -> object:
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(startup, "Journal", journal)


def test_the_start_waits_for_a_full_disk_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, JournalUnwritable("the disk is full"), JournalUnwritable("the disk is full"), "a journal")
    failures, shown = Failures(), list[Obstacle]()
    journal = open_journal(storage(tmp_path, failures), Clock(), Signals(), in_flight=lambda: 0, waiting=shown.append)
    assert cast("Any", journal) == "a journal"
    assert failures.said == ["the disk is full", "the disk is full", "over"]
    assert [obstacle.reason for obstacle in shown] == ["the disk is full", "the disk is full"]


def test_a_signal_ends_the_wait_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, JournalUnwritable("the disk is full"))
    signals = Signals()

    def waiting(_obstacle: Obstacle) -> None:
        signals.count = 1

    with pytest.raises(JournalUnwritable):
        open_journal(storage(tmp_path, Failures()), Clock(), signals, in_flight=lambda: 0, waiting=waiting)


def test_the_start_does_not_wait_for_another_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, JournalError("a newer agent's"))
    failures = Failures()
    with pytest.raises(JournalError, match="newer"):
        open_journal(storage(tmp_path, failures), Clock(), Signals(), in_flight=lambda: 0, waiting=lambda _obstacle: None)
    assert failures.said == []


def test_damage_and_unknown_variables_are_logged_each_with_its_event() -> None:
    log = Log()
    damage = SimpleNamespace(reason="torn", aside="journal.db.1", salvaged=1, unreadable=["x"] * 60, complete=False)
    journal = SimpleNamespace(damage=damage, spoiled=2, nameless=("a\\xff",))
    log_findings(cast("Any", log), cast("Any", journal), [("RELAY_WORKRES", "RELAY_WORKERS")])
    assert [event for event, _ in log.events] == ["unknown-setting", "journal-damaged", "journal-rows-damaged"]
    assert len(log.events[1][1]["unreadable"]) == 50
    assert (log.events[2][1]["commands"], log.events[2][1]["unreadable"]) == (2, ["a\\xff"])
    assert [event["cause"] for _, event in log.events[1:]] == [JOURNAL_DAMAGED.cause, JOURNAL_ROWS_DAMAGED.cause]


def test_a_start_without_findings_logs_nothing() -> None:
    log = Log()
    log_findings(cast("Any", log), cast("Any", SimpleNamespace(damage=None, spoiled=0)), [])
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
        outbox=SimpleNamespace(pending=lambda: len(answers)),
        inbound=SimpleNamespace(
            intake=SimpleNamespace(recover=recovered),
            ownership=SimpleNamespace(resume=lambda work: (answers if isinstance(work, Update) else queued).append(work)),
        ),
    )
    recover(cast("Flow", flow), cast("Any", log), lambda: alive.append(True))
    assert (queued, len(answers), len(alive), orphans) == (["task"], 1, 1, [{"kept"}])
    assert [event for event, _ in log.events] == ["command-set-aside", "recovered"]
    assert log.events[1][1] == {"commands": 1, "answers": 1}
