"""Admission: messages from the queue and, after a restart, unfinished commands from the journal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from unittest.mock import ANY

import pytest

from relay_agent.core.errors import JournalError, JournalUnwritable, NotAdmitted
from relay_agent.core.failures import Code
from relay_agent.core.models import Status
from relay_agent.relay.intake import Admitted, Intake
from relay_agent.relay.task import KEPT_IN_MEMORY
from relay_agent.storage.journal import Journal
from tests.worlds import CANARY, V2, World, codes, message, reported, response, sealed


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


# --- messages ---


def test_a_message_becomes_a_task_in_its_hosts_lane_and_is_in_the_journal(world: World) -> None:
    taken = world.take(message({"url": "http://LIMS.example:9005/x"}))
    (task,) = taken.tasks
    assert (task.command.id, task.lane, task.admitted) == ("c-1", "lims.example:9005", 1000.0)
    assert (taken.refused, taken.oddities) == ([], [])
    assert world.states() == {"admitted": 1}


def test_a_message_for_another_target_is_run_and_its_answer_names_that_target(world: World) -> None:
    update = world.run(targetId="another")
    assert (update.status, json.loads(update.message)["targetId"]) == (Status.SUCCESS, "another")


def test_an_empty_batch_commits_nothing(world: World) -> None:
    assert world.take() == Admitted([], [], ANY, [])
    assert world.journal.commits == 0


def test_a_batch_is_one_commit(world: World) -> None:
    world.take(*[message(commandId=str(place)) for place in range(10)])
    assert world.journal.commits == 1


def test_a_message_seen_twice_runs_once(world: World) -> None:
    text = message()
    assert len(world.take(text, text).tasks) == 1
    assert world.take(text) == Admitted([], [], ANY, [])


def test_an_id_that_comes_again_with_another_body_runs_with_the_first_and_is_an_oddity(world: World) -> None:
    first = world.take(message({"url": "http://first.example/"}), message({"url": "http://second.example/"}))
    assert [task.lane for task in first.tasks] == ["first.example:80"]
    assert len(first.oddities) == 1
    later = world.take(message({"url": "http://third.example/"}))
    assert (later.tasks, len(later.oddities)) == ([], 1)


def test_a_malformed_message_that_names_its_command_is_answered_once_it_is_released(world: World) -> None:
    taken = world.take(message(expiresAt="soon"))
    assert (taken.tasks, world.reports, world.states()) == ([], [], {"admitted": 1})
    (refusal,) = taken.refused
    update = world.answer(refusal)
    world.journal.flush()
    (report,) = world.reports
    assert codes(update) == ("FAILURE", "EBADCOMMAND")
    assert "expiresAt" in reported(update)[1]["message"]
    assert (report.id, report.status, report.code) == ("c-1", Status.FAILURE, Code.EBADCOMMAND)
    assert world.states() == {"finished": 1}
    assert world.take(message(expiresAt="soon")) == Admitted([], [], ANY, [])


def test_a_malformed_message_without_target_is_answered_in_this_agents_name(world: World) -> None:
    (update,) = world.refuse(json.dumps({"commandId": "c-1"}))
    assert codes(update) == ("FAILURE", "EBADCOMMAND")


def test_a_message_that_names_no_command_is_an_oddity_and_its_text_is_not_logged(world: World) -> None:
    taken = world.take(f"{{{CANARY}", json.dumps({"commandId": 5, "x": CANARY}))
    assert (taken.tasks, taken.refused, len(taken.oddities)) == ([], [], 2)
    assert CANARY not in str(taken.oddities)
    assert world.states() == {}


@pytest.mark.parametrize(
    ("text", "command_id"),
    [
        (message(), "c-1"),
        ('{"metadata": {"commandId": "another"}, ' + message().removeprefix("{"), "c-1"),
        (message(expiresAt="soon"), "c-1"),
        ('{"commandId": "c-1", ', "c-1"),
        ('{"commandId": 5}', None),
        ("", None),
    ],
)
def test_a_messages_id_is_the_one_under_which_it_is_admitted(world: World, text: str, command_id: str | None) -> None:
    assert world.intake.command_id(text) == command_id
    world.take(text)
    assert world.journal.known(["c-1", "another"]) == {command_id} - {None}


def test_one_malformed_message_holds_up_no_other_of_its_batch(world: World) -> None:
    taken = world.take("{", message(commandId="a"), message(commandId="b", action=None), message(commandId="c"))
    assert [task.command.id for task in taken.tasks] == ["a", "c"]
    assert [refusal.command.id for refusal in taken.refused] == ["b"]


@pytest.mark.parametrize("order", [1, -1])
def test_an_id_that_comes_well_formed_and_malformed_in_one_batch_is_answered_once(world: World, order: int) -> None:
    taken = world.take(*[message(), message(action=None)][::order])
    assert len(taken.tasks) + len(taken.refused) == 1


def test_a_payload_is_not_kept_in_memory_beside_its_request(world: World) -> None:
    assert world.task().command.payload is None
    large = world.task(commandId="c-2", payload={"url": "http://target.example/", "body": "x" * KEPT_IN_MEMORY})
    assert (large.command.payload, large.request, large.lane) == (None, None, "target.example:80")


def test_a_journal_that_cannot_be_written_admits_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    text = message({"url": "http://target.example/", "method": "POST"})
    world.journal.writer.use(lambda connection: connection.execute("PRAGMA query_only = ON"))
    with pytest.raises(JournalError):
        world.take(text)
    world.journal.writer.use(lambda connection: connection.execute("PRAGMA query_only = OFF"))
    assert len(world.take(text).tasks) == 1
    world.journal.close()


def test_a_lone_get_shares_one_commit_with_its_outcome(world: World) -> None:
    taken = world.admit(message())
    (task,) = taken.tasks
    assert (taken.until_durable is None, world.journal.commits) == (False, 0)
    world.process(task)
    assert (world.states(), world.journal.commits) == ({"finished": 1}, 1)


def test_a_lone_get_is_durable_once_the_journal_is_flushed_and_its_repetition_is_no_new_command(world: World) -> None:
    until_durable = world.admit(message()).until_durable
    assert until_durable is not None
    until_durable()
    assert (world.journal.commits, world.states()) == (1, {"admitted": 1})
    again = world.admit(message())
    assert (again.tasks, again.until_durable, again.oddities) == ([], None, [])


def test_a_lone_get_that_meets_a_full_disk_is_in_the_journal_as_soon_as_there_is_room(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.journal.writer.use(lambda connection: connection.execute("PRAGMA query_only = ON"))
    taken = world.admit(message())
    assert (len(taken.tasks), taken.until_durable is None) == (1, False)
    with pytest.raises(JournalUnwritable):
        cast("Any", taken.until_durable)()
    for text in (message(commandId="c-2"), message()):  # The disk is known to be full now.
        with pytest.raises(JournalUnwritable):
            world.admit(text)
    world.journal.writer.use(lambda connection: connection.execute("PRAGMA query_only = OFF"))
    assert (world.admit(message()).tasks, world.states()) == ([], {"admitted": 1})
    world.journal.close()


def test_a_lone_get_that_cannot_be_admitted_fails_alone_and_its_outcome_counts_for_nothing(world: World) -> None:
    trigger = "CREATE TRIGGER odd BEFORE INSERT ON commands WHEN NEW.id = 'c-1' BEGIN SELECT RAISE(ABORT, 'odd'); END;"
    world.journal.writer.use(lambda connection: connection.executescript(trigger))
    taken = world.admit(message())
    with pytest.raises(NotAdmitted):
        world.process(taken.tasks[0])
    with pytest.raises(JournalError):
        cast("Any", taken.until_durable)()
    assert (world.reports, world.states()) == ([], {})
    world.run(commandId="c-2")
    world.journal.flush()
    assert (len(world.reports), world.states()) == (1, {"finished": 1})


def test_a_large_answer_of_a_get_that_cannot_be_admitted_leaves_no_file(world: World) -> None:
    trigger = "CREATE TRIGGER odd BEFORE INSERT ON commands BEGIN SELECT RAISE(ABORT, 'odd'); END;"
    world.journal.writer.use(lambda connection: connection.executescript(trigger))
    world.target.answers = [response(os.urandom(1_000_000), text=False)]
    with pytest.raises(NotAdmitted):
        world.process(world.admit(message()).tasks[0])
    assert list(world.spool.directory.iterdir()) == []


@pytest.mark.parametrize(
    "texts",
    [
        [message({"url": "http://target.example/", "method": "POST"})],
        [message({"url": "http://target.example/", "method": "DELETE"})],
        [message({"url": "http://target.example/", "body": "asks for something"})],
        [message({"url": "http://target.example/", "headers": {"X": "x" * KEPT_IN_MEMORY}})],
        [message(sealed({"url": "http://target.example/"}), action=V2)],
        [message(body=..., bodyDelivery="referenced", bodyUrl="https://s3.example/get")],
        [message({"url": "not a url"})],
        [message(expiresAt="soon")],
        [message(), message(commandId="c-2")],
    ],
    ids=["POST", "DELETE", "with a body", "large", "secure", "downloaded", "refused", "malformed", "two"],
)
def test_other_commands_are_durable_before_a_worker_has_them(world: World, texts: list[str]) -> None:
    taken = world.admit(*texts)
    assert (taken.until_durable, world.journal.commits, world.states()) == (None, 1, {"admitted": len(texts)})


def test_a_lone_get_that_another_agent_may_own_is_durable_before_it_is_claimed(world: World) -> None:
    taken = world.intake.admit([(message(), "receipt")], lease_until=world.now.timestamp() + 60)
    assert (taken.until_durable, world.journal.commits) == (None, 1)


def test_a_journal_that_fails_within_intake_loses_no_command_until_the_restart(world: World) -> None:
    trigger = "CREATE TRIGGER full BEFORE UPDATE OF state ON commands WHEN NEW.state = 'finished' BEGIN SELECT RAISE(ABORT, 'full'); END;"
    world.journal.writer.use(lambda connection: connection.executescript(trigger))
    messages = [message(commandId="good"), message(commandId="bad", action=None)]
    taken = world.intake.admit([(text, "receipt") for text in messages])
    assert [task.command.id for task in taken.tasks] == ["good"]
    world.answer(taken.refused[0])
    with pytest.raises(JournalError):  # which ends the agent before anything is logged or sent
        world.journal.flush()
    assert world.reports == []
    world.journal.writer.use(lambda connection: connection.execute("DROP TRIGGER full"))
    with pytest.raises(JournalError):
        world.journal.close()
    world.journal = Journal(world.directory / "journal.db", world.clock)
    tasks, (update,) = world.again()
    assert ([task.command.id for task in tasks], update.command_id, codes(update)) == (["good"], "bad", ("FAILURE", "EBADCOMMAND"))


def test_a_malformed_command_is_not_logged_before_its_answer_is_on_the_disk(world: World) -> None:
    taken = world.intake.admit([(message(expiresAt="soon"), "receipt")])
    assert ([world.answer(refusal).status for refusal in taken.refused], world.reports) == ([Status.FAILURE], [])
    world.journal.flush()
    assert [report.id for report in world.reports] == ["c-1"]


def test_a_malformed_command_that_is_only_claimed_leaves_no_trace_when_it_is_ceded(world: World) -> None:
    taken = world.intake.admit([(message(expiresAt="soon"), "receipt")], world.now.timestamp())
    world.journal.cede([taken.refused[0].command.id])
    world.journal.flush()
    assert (world.reports, world.states()) == ([], {})


def test_a_secure_command_that_was_ceded_runs_when_it_is_admitted_again(world: World) -> None:
    text = message(sealed({"url": "http://target.example/"}), action=V2)
    lease_until = world.now.timestamp()
    for _ in range(3):
        (task,) = world.intake.admit([(text, "receipt")], lease_until).tasks
        world.journal.cede([task.command.id])
    (task,) = world.intake.admit([(text, "receipt")], lease_until).tasks
    assert reported(world.process(task)[0])[0] == "SUCCESS"
    (replayed,) = world.intake.admit([(text.replace("c-1", "c-2"), "receipt")], lease_until).tasks
    assert codes(world.process(replayed)[0]) == ("FAILURE", "EREPLAY")


# --- after a restart ---


def crash(world: World, **fields: Any) -> None:
    """Run a command during which the agent is killed."""

    def dies() -> None:
        raise KeyboardInterrupt

    world.target.meanwhile = dies
    with pytest.raises(KeyboardInterrupt):
        world.run(**fields)
    world.target.meanwhile = lambda: None


def asks(method: str, **headers: str) -> dict[str, Any]:
    return {"url": "http://target.example/", "method": method, "headers": headers}


def test_an_admitted_command_runs_after_a_restart(world: World) -> None:
    world.take(message(payload=asks("POST")))
    (task,), updates = world.again()
    assert updates == []
    assert world.process(task)[0].status is Status.SUCCESS


@pytest.mark.parametrize(
    "payload",
    [asks(method) for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")] + [asks("POST", **{"idempotency-KEY": "k"})],
)
def test_a_started_command_that_may_be_repeated_runs_again(world: World, payload: dict[str, Any]) -> None:
    crash(world, payload=payload)
    (task,), updates = world.again()
    assert updates == []
    assert world.process(task)[0].status is Status.SUCCESS
    assert len(world.target.asked) == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "get", "LOCK"])
def test_a_started_command_that_must_not_be_repeated_is_answered_einterrupted(world: World, method: str) -> None:
    crash(world, payload=asks(method))
    tasks, (update,) = world.again()
    assert tasks == []
    assert codes(update) == ("FAILURE", "EINTERRUPTED")
    assert [(report.method, report.code) for report in world.reports[-1:]] == [(method, "EINTERRUPTED")]
    assert world.again() == ([], [update])


def test_a_command_that_failed_before_its_first_byte_was_sent_may_run_again(world: World) -> None:
    world.target.sends = False
    crash(world, payload=asks("POST"))
    tasks, updates = world.again()
    assert (len(tasks), updates) == (1, [])


def test_a_finished_answer_is_sent_again_byte_for_byte_the_same(world: World) -> None:
    update = world.run()
    world.now += timedelta(hours=3)
    assert world.again() == ([], [update])
    assert world.again() == ([], [update])


def test_a_delivered_command_is_neither_run_nor_answered_again(world: World) -> None:
    world.journal.deliver([world.run().command_id])
    assert world.again() == ([], [])
    assert world.take(message()).tasks == []


def test_a_command_that_expired_while_the_agent_was_down_is_rejected(world: World) -> None:
    world.take(message())
    world.now += timedelta(hours=1)
    (task,), _ = world.again()
    assert codes(world.process(task)[0]) == ("REJECTED", "EEXPIRED")


def test_a_started_command_that_expired_while_the_agent_was_down_is_einterrupted_not_eexpired(world: World) -> None:
    crash(world, payload=asks("PUT"))
    world.now += timedelta(hours=1)
    (task,), _ = world.again()
    assert codes(world.process(task)[0]) == ("FAILURE", "EINTERRUPTED")


def test_a_started_command_that_expires_while_it_waits_again_is_einterrupted_not_eexpired(world: World) -> None:
    crash(world, payload=asks("PUT"))
    (task,), _ = world.again()
    world.now += timedelta(hours=1)
    assert codes(world.process(task)[0]) == ("FAILURE", "EINTERRUPTED")


def test_a_command_that_cannot_be_resumed_is_answered_and_the_others_are_resumed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.take(*[message(commandId=command_id) for command_id in ("first", "bad", "last")])
    right = Intake._resume
    monkeypatch.setattr(Intake, "_resume", lambda intake, unfinished: right(intake, unfinished) if unfinished.id != "bad" else 1 // 0)
    tasks, (update,) = world.again()
    assert ([task.command.id for task in tasks], update.command_id, codes(update)) == (
        ["first", "last"],
        "bad",
        ("FAILURE", "EINTERRUPTED"),
    )
    assert [(command_id, type(error)) for command_id, error in world.set_aside] == [("bad", ZeroDivisionError)]
    assert world.states() == {"admitted": 2, "finished": 1}


def test_an_answer_that_cannot_be_read_back_is_replaced_by_einterrupted_and_the_others_are_sent(world: World) -> None:
    world.run(commandId="bad")
    good = world.run(commandId="good")
    world.journal.flush()
    world.journal.writer.use(lambda connection: connection.execute("UPDATE commands SET status = 'ODD', seal = NULL WHERE id = 'bad'"))
    _, updates = world.again()
    assert [update.command_id for update in updates] == ["bad", "good"]
    assert (codes(updates[0]), updates[1]) == (("FAILURE", "EINTERRUPTED"), good)
    assert [command_id for command_id, _ in world.set_aside] == ["bad"]
    assert world.journal.message("bad") == updates[0].message


def test_many_commands_come_back_in_the_order_they_came(world: World) -> None:
    world.take(*[message(commandId=command_id) for command_id in "zmaq"])
    tasks, _ = world.again()
    assert [task.command.id for task in tasks] == list("zmaq")
