"""What becomes of a row that was altered in any of its columns: the recovery ends, and nobody else notices.

A real journal and a poller's steps on it; the queue is scripted. Which rows count as altered: `unit/storage/test_row_checks.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence, Set
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.intake import Intake
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.ownership import Ownership, Work
from relay_agent.relay.payload_reader import PayloadReader
from relay_agent.relay.poller import Inbound, Poller
from relay_agent.relay.task import Refusal, Task
from relay_agent.relay.updates import UpdateBuilder
from relay_agent.storage import schema
from relay_agent.storage.journal import Journal
from relay_agent.storage.journal_reader import Reader
from relay_agent.storage.row_checks import altered_rows
from relay_agent.storage.spool import Spool
from relay_agent.tdp.sqs import Deleted, Lease, Received
from relay_agent.telemetry.hourly_summary import Tally
from tests.unit.storage.damaged import AGENT, GOT, IDS, NOW, POSTED, TOLD, WAITING, Layout, answer_of, clock, layout, raw_of, spoil

VALUES = {
    "a text": "'odd'",
    "bytes": "x'ff00'",
    "a text that is not UTF-8": "CAST(x'ff41' AS TEXT)",
    "a number": "12345",
    "a huge number": "1e308",
    "infinity": "9e999",
    "the largest integer": "9223372036854775807",
    "nothing": "NULL",
}
UNIQUE = ("id", "seq")
"""Columns in which no two rows may have the same value."""
ONE_OF_EACH = ("waiting-1", "posted-1", "got-1", "answered-1", "told-1")


@pytest.fixture(scope="module")
def in_file(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A journal with commands of each kind."""
    return layout(tmp_path_factory.mktemp("file"), in_log=False)


class Run:
    """An agent's start on a journal, and the first steps of its poller, to which SQS hands every message again."""

    def __init__(self, path: Path, *, shared: bool = False, again: Sequence[str] = IDS, refused: Set[str] = frozenset()) -> None:
        """`again` are the commands whose messages SQS hands out again, `refused` the receipts that it refuses."""
        self.runs: dict[str, str] = {}
        self.answers: list[str] = []
        self.deleted: set[str] = set()
        self.events: list[str] = []
        self._again = list(again)
        self._refused = refused
        time, spool = clock(), Spool(path.parent / "spool")
        with closing(Journal(path, time)) as journal:
            self.spoiled = journal.spoiled

            def keyring() -> Keyring:
                return Keyring([])

            reader = PayloadReader(agent_id=AGENT, journal=journal, spool=spool, payloads=cast("Any", None), keyring=keyring, clock=time)
            outcomes = Outcomes(
                journal=journal, updates=UpdateBuilder(spool, keyring, time), monotonic=time.monotonic, report=lambda _: None
            )

            def release(work: Work) -> None:
                if isinstance(work, Task):
                    self.runs[work.command.id] = journal.raw(work.command.id)
                else:
                    self.answers.append((outcomes.refuse(work) if isinstance(work, Refusal) else work).message)

            log = cast("Any", SimpleNamespace(**dict.fromkeys(("info", "warning", "error"), lambda event, **_: self.events.append(event))))
            loop = LoopContext(LoopStatus(time), Tally(), log, time)
            lease = Lease(60, time.boottime)
            intake = Intake(agent_id=AGENT, journal=journal, reader=reader, outcomes=outcomes, monotonic=time.monotonic)
            ownership = Ownership(
                shared=shared, lease=lease, journal=journal, clock=time, release=release, count_ceded=lambda _: None, loop=loop
            )
            journal.spooled()
            for task in intake.recover(ownership.resume, lambda command_id, error: pytest.fail(f"{command_id}: {error}")):
                ownership.resume(task)
            queue = SimpleNamespace(receive=self._receive, delete=self._delete)
            poller = Poller(
                platform=cast("Any", SimpleNamespace(inbound=lambda: queue, replaced=lambda _queue: False)),
                platform_status=PlatformStatus(registered=True),
                inbound=Inbound(intake, cast("Any", SimpleNamespace(free=lambda: 10, obstacle=lambda: None)), lease, ownership),
                journal=journal,
                keep_malformed=lambda *_: None,
                disk_full=cast("Any", SimpleNamespace(failing=False, success=lambda: None)),
                stopping=lambda: False,
                loop=loop,
            )
            while True:
                assert poller.step() == 0.0, self.events
                if not self._again:
                    break
            journal.flush()
            self.left = journal.known(IDS)
            journal.retention.prune()

    def _receive(self, most: int, _seconds: float, lease: Lease) -> list[Received]:
        taken, self._again = self._again[:most], self._again[most:]
        return [Received(f"message {one}", raw_of(one), f"new receipt of {one}", lease.end()) for one in taken]

    def _delete(self, receipts: Sequence[str], _still: object) -> Deleted:
        refused = frozenset(place for place, receipt in enumerate(receipts) if receipt in self._refused)
        self.deleted.update(set(receipts) - self._refused)
        return Deleted(frozenset(range(len(receipts))) - refused, refused)

    def answers_to(self, command_id: str) -> list[str]:
        return [text for text in self.answers if json.loads(text)["commandId"] == command_id]

    def check_unharmed(self, others: set[str]) -> None:
        """Check that these commands run or are answered as without damage, and that no answer has another command's id."""
        for command_id in others:
            is_run = command_id in {*WAITING, *GOT}
            assert self.runs.get(command_id) == (raw_of(command_id) if is_run else None)
            answers = self.answers_to(command_id)
            assert len(answers) == (not is_run and command_id not in TOLD), command_id
            for text in answers:
                assert "EINTERRUPTED" in text if command_id in POSTED else text == answer_of(command_id)
            assert f"new receipt of {command_id}" in self.deleted
        assert {json.loads(text)["commandId"] for text in self.answers} <= set(IDS)

    def check_spoiled(self, command_id: str) -> None:
        """Check that nothing false came of the command whose row was spoiled."""
        raw, answers = self.runs.get(command_id), self.answers_to(command_id)
        assert raw in (None, raw_of(command_id))
        assert (raw is not None) + len(answers) <= 1, "it ran, or it was answered"
        assert raw is None or command_id in {*WAITING, *GOT}
        for text in answers:
            assert command_id not in TOLD
            assert "EINTERRUPTED" in text or (command_id.startswith("answered") and text == answer_of(command_id))
        if command_id not in TOLD:
            assert raw is not None or answers, "it is answered where its id can be read"


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("column", schema.COLUMN_NAMES)
def test_no_value_in_any_column_of_a_row_ends_a_recovery_or_harms_another_command(
    in_file: Layout, tmp_path: Path, column: str, value: str
) -> None:
    together = [[command_id] for command_id in ONE_OF_EACH] if column in UNIQUE else [ONE_OF_EACH]
    for ids in together:
        directory = tmp_path / ids[0]
        directory.mkdir()
        path = in_file.put(directory)
        spoiled = {command_id for command_id in ids if spoil(path, f"{column} = {VALUES[value]}", command_id)}
        run = Run(path)
        run.check_unharmed(set(IDS) - spoiled)
        for command_id in spoiled:
            if column == "id":
                # SQS hands the message of one that was answered before out again, and its id is unknown: that cannot be noticed.
                assert command_id in TOLD or len(run.answers_to(command_id)) == 1
                assert command_id in TOLD or command_id not in run.runs
            else:
                run.check_spoiled(command_id)
        with Reader(path, in_use=False).rows() as rows:
            assert len(list(rows)) >= len(IDS) - len(spoiled)  # One that seems to be delivered long ago is forgotten.
        with closing(schema.connect_to_read(path)) as left:
            assert list(altered_rows(left, NOW.timestamp())) == []


def test_an_untouched_journal_has_no_altered_row(in_file: Layout, tmp_path: Path) -> None:
    run = Run(in_file.put(tmp_path))
    assert run.spoiled == 0
    run.check_unharmed(set(IDS))


@pytest.mark.parametrize("value", ["'odd'", "CAST(x'ff41' AS TEXT)", "x'ff'", "9e999"])
@pytest.mark.parametrize("column", ["receipt", "lease_until", "acked", "id"])
def test_on_a_shared_queue_no_value_harms_another_command(in_file: Layout, tmp_path: Path, column: str, value: str) -> None:
    path = in_file.put(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE commands SET acked = 1, receipt = NULL WHERE id NOT LIKE 'waiting%'")
        connection.execute("UPDATE commands SET lease_until = ? WHERE id LIKE 'waiting%'", (NOW.timestamp() + 30,))
    assert spoil(path, f"{column} = {value}", "waiting-1")
    run = Run(path, shared=True)
    run.check_unharmed(set(IDS) - {"waiting-1"})
    run.check_spoiled("waiting-1")


@pytest.mark.parametrize("value", ["'odd'", "CAST(x'ff41' AS TEXT)", "x'ff'", "9e999"])
def test_a_claim_whose_lease_cannot_be_read_is_ceded_as_another_agent_may_have_run_it(in_file: Layout, tmp_path: Path, value: str) -> None:
    path = in_file.put(tmp_path)
    for command_id in ("waiting-1", "posted-1"):
        assert spoil(path, f"lease_until = {value}", command_id)
    run = Run(path, shared=True, again=(), refused={"receipt of waiting-1"})
    assert "waiting-1" not in run.runs
    assert "waiting-1" not in run.left, "it can be admitted again"
    assert "posted-1" in run.left, "it started, so it was this agent's"


def test_a_row_whose_id_cannot_be_read_is_named_and_answered_by_the_id_of_its_message(in_file: Layout, tmp_path: Path) -> None:
    path = in_file.put(tmp_path)
    assert spoil(path, "id = CAST(x'ff' || 'posted-2' AS TEXT)", "posted-2")
    with closing(Journal(path, clock())) as journal:
        assert (journal.spoiled, journal.nameless) == (1, ("\\xffposted-2",))
    run = Run(path)
    (answer,) = run.answers_to("posted-2")
    assert "EINTERRUPTED" in answer
    assert "posted-2" not in run.runs


@pytest.mark.parametrize("altered", ["'answesed-2'", "CAST(x'ff' || 'nswered-2' AS TEXT)"])
def test_a_finished_command_whose_id_was_altered_is_answered_under_the_id_of_its_answer_and_not_run_again(
    in_file: Layout, tmp_path: Path, altered: str
) -> None:
    path = in_file.put(tmp_path)
    assert spoil(path, f"id = {altered}", "answered-2")
    run = Run(path)
    assert (run.spoiled, run.answers_to("answered-2")) == (1, [answer_of("answered-2")])
    run.check_unharmed(set(IDS))
