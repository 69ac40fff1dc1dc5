"""What each command of the journal is answered when the agent retires, and when the platform is tried again.

With a real journal, and a platform that is stubbed; answers are delivered in tests/integration/test_retire.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.agent import retirement as module
from relay_agent.agent.retirement import ANSWER_SECONDS, NEVER_STARTED, NO_ANSWER, Retirement
from relay_agent.agent.signals import Signals
from relay_agent.core.clock import Clock, Deadline
from relay_agent.core.errors import Call, JournalError, PlatformError, RateLimited
from relay_agent.core.models import ACTIONS_PLAIN, Status, Update
from relay_agent.relay.task import INTERRUPTED
from relay_agent.storage.journal import Journal
from relay_agent.tdp.sqs import Deleted, Received
from tests.unit.cli.checks.scenes import settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class World:
    """A stopped agent's journal, its retirement, and a time that passes by waiting alone."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.time = 0.0
        self.clock = Clock(now=lambda: NOW + timedelta(seconds=self.time), monotonic=lambda: self.time, boottime=lambda: self.time)
        self.signals = Signals()
        self.waits: list[float] = []
        self.signal_during_wait = 0
        self.faults: list[Exception] = []
        self.tried = 0
        self.deletes = Deleted(frozenset({0}), frozenset())
        """What SQS says to a delete."""
        self.refused: set[str] = set()
        """Receipts that SQS refuses."""
        self.messages: list[Received] = []
        """What the queue holds."""
        self.did: list[str] = []
        self.returned: list[str] = []
        """Receipts of messages that were given back."""
        self.deleted: list[str] = []
        self.sent: dict[str, Any] = {}
        """The answers that the platform took, by command."""
        self.closed = False
        monkeypatch.setattr(self.signals, "wait", self._wait)
        journal = Journal(directory / "journal.db", self.clock)
        self.fill(journal)
        journal.close()

    def fill(self, journal: Journal) -> None:
        """One command of each kind, and one whose message was not deleted yet."""
        for name in ("ended", "waiting", "posted", "fetched", "undeleted"):
            journal.admit([(name, message(name, "GET" if name == "fetched" else "POST"), f"receipt of {name}")])
            if name != "undeleted":
                journal.acked([name])
        journal.finish(Update("ended", Status.SUCCESS, '{"body": "its own"}'))
        journal.start("posted", repeatable=False)
        journal.start("fetched", repeatable=True)

    def retirement(self, log: io.StringIO | None = None) -> Retirement:
        stream = log or io.StringIO()
        made = Retirement(settings(RELAY_STATE_DIR=str(self.directory)), clock=self.clock, stream=stream, signals=self.signals)
        client = SimpleNamespace(
            refresh_config=self._refresh,
            credentials=SimpleNamespace(renew=lambda _refused: None),
            config=SimpleNamespace(source_queue="https://sqs/in"),
            inbound=lambda: SimpleNamespace(delete=self._delete, receive=self._receive, give_back=self._give_back),
            close=lambda: setattr(self, "closed", True),
        )
        made._platform = cast("Any", SimpleNamespace(client=client, status=SimpleNamespace(registered=False)))
        made._start_sending = lambda: self.did.append("start sending")  # type: ignore[method-assign]
        made._finish_sending = self._send  # type: ignore[method-assign]
        self.made = made
        return made

    def answers(self) -> dict[str, Any]:
        """What the outbox holds, by command."""
        found: dict[str, Any] = {}
        while entries := self.made._flow.outbox.take(0.0):
            found |= {entry.command_id: json.loads(entry.message or "{}") for entry in entries}
        return found

    def _send(self, _deadline: Deadline) -> None:
        answers = self.answers()
        self.sent |= answers
        self.made._flow.journal.deliver(answers)

    def _delete(self, receipts: Sequence[str], _still: object) -> Deleted:
        self.deleted += receipts
        refused = frozenset(place for place, receipt in enumerate(receipts) if receipt in self.refused)
        return Deleted(frozenset(range(len(receipts))) - refused, refused) if self.refused else self.deletes

    def _receive(self, _count: int, seconds: int, _lease: object) -> list[Received]:
        self.did.append("receive")
        received, self.messages = self.messages, []
        self.time += 0.0 if received else seconds
        return received

    def _give_back(self, receipts: Sequence[str]) -> None:
        self.returned += receipts

    def _refresh(self) -> bool:
        self.tried += 1
        if self.faults:
            raise self.faults.pop(0)
        return True

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.time += seconds
        return len(self.waits) == self.signal_during_wait


def message(command_id: str, method: str = "POST") -> str:
    payload = {"method": method, "url": "http://dev.lab.example/"}
    return json.dumps(
        {
            "commandId": command_id,
            "targetId": "9b9f275c-a60d-454f-8c6c-1ea094e3fd38",
            "action": min(ACTIONS_PLAIN),
            "createdAt": "2026-03-01T12:00:00Z",
            "expiresAt": "2026-03-01T13:00:00Z",
            "body": payload,
            "bodyDelivery": "embedded",
        }
    )


def referenced(command_id: str) -> str:
    """A command whose body must be downloaded."""
    return json.dumps(
        json.loads(message(command_id, "GET")) | {"body": None, "bodyDelivery": "referenced", "bodyUrl": "https://s3.example/b"}
    )


@pytest.fixture
def world(environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, environment)
    yield made
    if not made.closed:
        made.made._close()


def test_each_command_is_answered_by_what_is_known_of_it(world: World) -> None:
    retired = world.retirement().run(60.0)
    assert (retired.ended, retired.shutdown, retired.interrupted, retired.ceded) == (1, 2, 2, 0)
    assert world.sent.pop("ended") == {"body": "its own"}
    failures = {name: (answer["body"]["code"], answer["body"]["message"]) for name, answer in world.sent.items()}
    assert failures == {
        "waiting": ("ESHUTDOWN", NEVER_STARTED),
        "undeleted": ("ESHUTDOWN", NEVER_STARTED),
        "posted": ("EINTERRUPTED", INTERRUPTED),
        "fetched": ("EINTERRUPTED", INTERRUPTED),
    }


@pytest.mark.parametrize(
    ("request_of", "text"),
    [
        (lambda: message("new"), NEVER_STARTED),
        (lambda: message("new", "GET"), NO_ANSWER),
        (lambda: referenced("new"), NO_ANSWER),
        (lambda: message("new").replace("http://dev", "dev"), NO_ANSWER),
    ],
    ids=["POST", "GET", "not known", "malformed"],
)
def test_that_nothing_was_sent_is_said_only_of_a_request_that_is_known_and_asks_for_a_change(
    world: World, request_of: Callable[[], str], text: str
) -> None:
    """The start of any other is recorded with the next commit, which a crash may have prevented."""
    journal = Journal(world.directory / "journal.db", world.clock)
    journal.admit([("new", request_of(), "receipt of new")])
    journal.acked(["new"])
    journal.close()
    world.retirement().run(60.0)
    assert (world.sent["new"]["body"]["code"], world.sent["new"]["body"]["message"]) == ("ESHUTDOWN", text)


def test_a_journal_whose_answers_were_all_sent_is_emptied(world: World) -> None:
    retired = world.retirement().run(60.0)
    assert (retired.unsent, retired.undeleted, retired.problem, len(world.sent)) == (0, 0, None, 5)
    assert world.deleted == ["receipt of undeleted"]
    assert world.closed
    journal = Journal(world.directory / "journal.db", world.clock)
    assert set(journal.counts().values()) == {0}
    journal.close()


def test_a_damaged_journal_is_logged_and_counts_as_one_with_unanswered_commands_once(world: World) -> None:
    (world.directory / "journal.db").write_bytes(b"no journal" * 500)
    log = io.StringIO()
    made = world.retirement(log)
    assert (made.run(60.0).damaged, "journal-damaged" in log.getvalue()) == (True, True)
    assert not world.retirement().run(60.0).damaged


def test_a_command_whose_message_is_still_in_the_queue_is_not_answered(world: World) -> None:
    world.deletes = Deleted(frozenset(), frozenset(), "InternalError")
    retired = world.retirement().run(20.0)
    assert (retired.undeleted, retired.unsent, retired.shutdown) == (1, 1, 1)
    assert "undeleted" not in world.sent
    assert retired.problem is not None and "may still be in the queue" in retired.problem


def test_a_message_that_comes_again_is_recognised_by_its_own_id_though_another_commands_is_in_it(world: World) -> None:
    world.refused = {"receipt of undeleted"}
    text = '{"metadata": {"commandId": "parent"}, ' + message("undeleted").removeprefix("{")
    world.messages = [Received("again", text, "its new receipt")]
    retired = world.retirement().run(60.0)
    assert (world.deleted, retired.undeleted, retired.shutdown) == (["receipt of undeleted", "its new receipt"], 0, 2)


def test_messages_of_other_commands_are_held_until_the_queue_is_found_empty_and_then_given_back(world: World) -> None:
    world.refused = {"receipt of undeleted"}
    world.messages = [Received(str(place), message(f"other-{place}"), f"receipt of other-{place}") for place in range(12)]
    retired = world.retirement().run()
    assert (retired.undeleted, retired.unsent, retired.problem) == (0, 0, None)
    assert world.returned == [f"receipt of other-{place}" for place in range(12)]
    assert world.time == 81.0, "the lease and the time that a receive waits, and the receive that finds nothing"
    assert world.tried == 1, "the configuration is not read again for each receive"


def test_messages_of_other_commands_are_given_back_also_if_the_time_is_over(world: World) -> None:
    world.refused = {"receipt of undeleted"}
    world.messages = [Received("1", message("other"), "receipt of other")]
    assert world.retirement().run(5.0).undeleted == 1
    assert world.returned == ["receipt of other"]


def test_answers_are_sent_while_the_message_of_another_command_is_waited_for(world: World) -> None:
    world.refused = {"receipt of undeleted"}
    retired = world.retirement().run(5.0)
    assert world.did[:2] == ["start sending", "receive"]
    assert (len(world.sent), retired.undeleted, retired.unsent) == (4, 1, 1)


def test_without_a_limit_there_is_time_for_a_message_to_come_again_and_then_for_the_answers(world: World) -> None:
    world.faults = [unreachable() for _ in range(500)]
    (world.directory / "lease").write_text("900")
    assert world.retirement().run().unsent == 5
    assert 920 + ANSWER_SECONDS - 60 <= world.time <= 920 + ANSWER_SECONDS


def test_while_a_delete_fails_nothing_is_received(world: World) -> None:
    """A receive would only keep other agents from the messages that it brings."""
    world.deletes = Deleted(frozenset(), frozenset(), "InternalError")
    world.retirement().run(20.0)
    assert "receive" not in world.did


def test_answers_that_the_platform_does_not_take_stay_and_are_counted(world: World) -> None:
    made = world.retirement()
    made._finish_sending = lambda _deadline: None  # type: ignore[method-assign]
    retired = made.run(60.0)
    assert (retired.unsent, retired.problem) == (5, "the platform did not take every answer within 60 s")
    journal = Journal(world.directory / "journal.db", world.clock)
    assert journal.counts()["finished"] == 5
    journal.close()


def test_a_platform_that_comes_back_in_time_gets_the_answers(world: World) -> None:
    world.faults = [unreachable(), RateLimited(Call.CONFIG, 20.0)]
    retired = world.retirement().run(60.0)
    assert (retired.problem, world.tried) == (None, 3)
    assert world.waits[1] >= 20.0, "a platform that asks for a pause gets it"


def test_a_platform_that_stays_away_is_given_up_before_the_time_is_over(world: World) -> None:
    world.faults = [unreachable() for _ in range(50)]
    retired = world.retirement().run(60.0)
    assert (retired.unsent, world.sent) == (5, {})
    assert retired.problem == str(unreachable())
    assert retired.cause is not None
    assert world.time < 60.0


def test_a_signal_ends_the_tries(world: World) -> None:
    world.faults, world.signal_during_wait = [unreachable() for _ in range(50)], 2
    retired = world.retirement().run(60.0)
    assert (retired.unsent, world.tried, len(world.waits)) == (5, 2, 2)


def test_the_journal_is_closed_and_the_lock_released_whatever_happens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: Retirement) -> None:
        raise JournalError("cannot be read")

    monkeypatch.setattr(module.Retirement, "_resume", fails)
    with pytest.raises(JournalError):
        world.retirement().run()
    assert world.closed
    monkeypatch.undo()
    world.retirement()  # Takes the lock again.
    world.closed = False


def unreachable() -> PlatformError:
    return PlatformError(Call.CONFIG, "no route")
