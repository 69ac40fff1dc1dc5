"""How one command runs: whether it may start, how long it may take, and what its outcome counts as."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.clock import iso
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, Status
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.task import KEPT_IN_MEMORY
from tests.worlds import NOW, SECONDS, V2, World, codes, message, reported, response, sealed


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


@pytest.mark.parametrize(
    ("status", "wanted"), [(200, "SUCCESS"), (204, "SUCCESS"), (399, "SUCCESS"), (400, "FAILURE"), (404, "FAILURE"), (503, "FAILURE")]
)
def test_a_response_is_success_below_400_and_failure_from_400_on(world: World, status: int, wanted: str) -> None:
    world.target.answers = [response(b"body", status, (("X-A", "1"),))]
    found, body = reported(world.run())
    assert (found, body["statusCode"], body["body"], body["headers"]) == (wanted, status, "body", [{"X-A": "1"}])


@pytest.mark.parametrize("code", [Code.ECONNREFUSED, Code.ETIMEDOUT, Code.EPOLICY])
def test_a_fault_of_the_target_is_a_failure_with_its_code_and_no_status_code(world: World, code: Code) -> None:
    world.target.answers = [Failure(code, "said why", "http://target.example/", 7)]
    update = world.run()
    assert codes(update) == ("FAILURE", code)
    assert reported(update)[1]["elapsedMs"] == 7


def test_started_is_in_the_journal_before_the_first_byte_and_the_outcome_before_it_is_handed_on(world: World) -> None:
    seen: list[dict[str, int]] = []
    world.target.meanwhile = lambda: seen.append(world.states())
    update = world.run()
    assert seen == [{"started": 1}]
    assert world.states() == {"finished": 1}
    assert world.undelivered() == [update]


@pytest.mark.parametrize(
    ("fields", "durable"),
    [
        ({"payload": {"url": "http://target.example/", "method": "POST"}}, True),
        ({"payload": {"url": "http://target.example/", "method": "PUT"}}, True),
        ({"payload": {"url": "http://target.example/", "method": "GET", "body": "x"}}, True),
        ({"payload": sealed({"url": "http://target.example/", "method": "GET"}), "action": V2}, True),
        ({"payload": {"url": "http://target.example/", "method": "GET"}}, False),
    ],
    ids=["POST", "PUT", "GET with a body", "secure GET", "GET"],
)
def test_started_is_durable_before_the_first_byte_unless_the_request_asks_for_no_change(
    world: World, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], durable: bool
) -> None:
    waits: list[bool] = []
    start = world.journal.start

    def record(command_id: str, repeatable: bool, *, wait: bool = True) -> None:
        waits.append(wait)
        start(command_id, repeatable, wait=wait)

    monkeypatch.setattr(world.journal, "start", record)
    world.run(**fields)
    assert waits == [durable]


def test_a_command_that_never_reached_the_target_was_never_started(world: World) -> None:
    world.target.sends = False
    world.target.meanwhile = lambda: pytest.fail(str(world.states())) if world.states() != {"admitted": 1} else None
    world.target.answers = [Failure(Code.ENOTFOUND, "x")]
    assert codes(world.run()) == ("FAILURE", "ENOTFOUND")


def test_an_action_we_do_not_know_is_rejected_and_never_run_even_when_expired(world: World) -> None:
    assert codes(world.run(action="TetraScience.Other")) == ("REJECTED", "UNKNOWN_COMMAND")
    task = world.task(commandId="c-2", action="TetraScience.Other")
    world.now += timedelta(hours=1)
    assert codes(world.process(task)[0]) == ("REJECTED", "UNKNOWN_COMMAND")
    assert world.target.asked == []


def test_a_command_that_expired_before_it_could_start_is_rejected_and_never_run(world: World) -> None:
    task = world.task()
    world.now += timedelta(minutes=5)
    assert codes(world.process(task)[0]) == ("REJECTED", "EEXPIRED")
    assert world.target.asked == []


def test_a_command_without_expiry_never_expires(world: World) -> None:
    task = world.task(expiresAt=...)
    world.now += timedelta(days=100)
    assert world.process(task)[0].status is Status.SUCCESS


@pytest.mark.parametrize(
    ("fields", "timeout", "wanted"),
    [({}, None, 300.0), ({}, 30, 30.0), ({}, 1000, 300.0), ({"expiresAt": ...}, None, 120.0), ({"expiresAt": ...}, 1000, 1000.0)],
)
def test_the_time_limit_is_the_commands_own_and_at_most_the_time_until_it_expires(
    world: World, fields: dict[str, Any], timeout: int | None, wanted: float
) -> None:
    world.run(payload={"url": "http://target.example/", "timeout": timeout}, **fields)
    assert world.target.asked[0][1].seconds == wanted


@pytest.mark.parametrize(("not_after", "expected"), [(-1, ("REJECTED", "EEXPIRED")), (60, None)])
def test_a_command_is_not_started_after_its_not_after(world: World, not_after: int, expected: object) -> None:
    payload = {"url": "http://target.example/", "not_after": iso(NOW + timedelta(seconds=not_after))}
    update = world.run(payload=payload)
    assert (codes(update) if update.status is not Status.SUCCESS else None) == expected
    assert len(world.target.asked) == (expected is None)


@pytest.mark.parametrize("payload", [{"timeout": 1e8}, {}])
def test_no_exchange_takes_longer_than_a_day(world: World, payload: dict[str, Any]) -> None:
    world.run(payload={"url": "http://target.example/", **payload}, expiresAt="9999-12-31T23:59:59.9999999Z")
    assert world.target.asked[0][1].seconds == 86_400.0


def test_an_unknown_action_is_rejected_without_its_body(world: World) -> None:
    (task,) = world.take(message(action="Other", body=None, bodyDelivery="referenced", bodyUrl="http://nowhere.invalid/")).tasks
    assert not task.needs_download
    assert codes(world.process(task)[0]) == ("REJECTED", "UNKNOWN_COMMAND")


# --- secure commands ---


@pytest.mark.parametrize("body", ["", "x" * KEPT_IN_MEMORY], ids=["kept in memory", "read again"])
def test_a_secure_command_whose_exp_passes_while_it_waits_is_not_run(world: World, body: str) -> None:
    task = world.task(action=V2, payload=sealed({"url": "http://target.example/", "body": body}, exp=SECONDS + 60))
    world.now += timedelta(seconds=60)
    status, code = codes(world.process(task)[0])
    assert (status, code) == (("FAILURE", "EDECRYPT") if body else ("REJECTED", "EEXPIRED"))
    assert world.target.asked == []


def test_an_encrypted_answer_without_a_key_is_refused_before_anything_is_sent(world: World) -> None:
    world.keys = Keyring([])
    assert codes(world.run(payload={"url": "http://target.example/", "encrypt_response": True})) == ("FAILURE", "ENOKEY")
    assert world.target.asked == []
