"""The life of one command, with a real journal and spool and an executor that answers as the test says."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from relay_agent import codec
from relay_agent.errors import Call, JournalError, PayloadRefused, PlatformError
from relay_agent.journal import Journal
from relay_agent.models import Code, Failure, HttpRequest, HttpResponse, Status, Update
from relay_agent.relay import KEPT_IN_MEMORY, Intake, Relay, Report, Task
from relay_agent.secure import Keyring, open_answer
from relay_agent.spool import IN_MEMORY, Buffer
from tests.worlds import (
    AGENT,
    CANARY,
    GDC,
    NOW,
    OTHER,
    RING,
    SECONDS,
    UPLOAD,
    V2,
    World,
    codes,
    message,
    response,
    sealed,
    told,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


# --- intake ---


def test_a_message_becomes_a_task_in_its_hosts_lane_and_is_in_the_journal(world: World) -> None:
    taken = world.take(message({"url": "http://LIMS.example:9005/x"}))
    (task,) = taken.tasks
    assert (task.command.id, task.lane, task.admitted) == ("c-1", "lims.example:9005", 1000.0)
    assert (taken.refused, taken.oddities) == ([], [])
    assert world.states() == {"admitted": 1}


def test_intake_of_nothing_is_nothing(world: World) -> None:
    assert world.take() == Intake([], [], ANY, [])
    assert world.journal.commits == 0


def test_a_batch_is_one_commit(world: World) -> None:
    world.take(*[message(commandId=str(place)) for place in range(10)])
    assert world.journal.commits == 1


def test_a_message_seen_twice_runs_once(world: World) -> None:
    text = message()
    assert len(world.take(text, text).tasks) == 1
    assert world.take(text) == Intake([], [], ANY, [])


def test_an_id_that_comes_back_with_another_body_runs_as_it_came_first_and_is_an_oddity(world: World) -> None:
    first = world.take(message({"url": "http://first.example/"}), message({"url": "http://second.example/"}))
    assert [task.lane for task in first.tasks] == ["first.example:80"]
    assert len(first.oddities) == 1
    later = world.take(message({"url": "http://third.example/"}))
    assert (later.tasks, len(later.oddities)) == ([], 1)


def test_a_malformed_message_that_names_its_command_is_answered_at_once(world: World) -> None:
    taken = world.take(message(expiresAt="soon"))
    (update,), (report,) = taken.refused, world.reports
    assert codes(update) == ("FAILURE", "EBADCOMMAND")
    assert "expiresAt" in told(update)[1]["message"]
    assert (report.id, report.status, report.code) == ("c-1", Status.FAILURE, Code.EBADCOMMAND)
    assert (taken.tasks, world.states()) == ([], {"finished": 1})
    assert world.take(message(expiresAt="soon")) == Intake([], [], ANY, [])


def test_a_malformed_message_without_target_is_answered_in_this_agents_name(world: World) -> None:
    (update,) = world.take(json.dumps({"commandId": "c-1"})).refused
    assert codes(update) == ("FAILURE", "EBADCOMMAND")


def test_a_message_that_names_no_command_is_an_oddity_that_repeats_none_of_it(world: World) -> None:
    taken = world.take(f"{{{CANARY}", json.dumps({"commandId": 5, "x": CANARY}))
    assert (taken.tasks, taken.refused, len(taken.oddities)) == ([], [], 2)
    assert CANARY not in str(taken.oddities)
    assert world.states() == {}


def test_one_malformed_message_holds_up_no_other_of_its_batch(world: World) -> None:
    taken = world.take("{", message(commandId="a"), message(commandId="b", action=None), message(commandId="c"))
    assert [task.command.id for task in taken.tasks] == ["a", "c"]
    assert [update.command_id for update in taken.refused] == ["b"]


@pytest.mark.parametrize("order", [1, -1])
def test_an_id_that_comes_well_formed_and_malformed_in_one_batch_is_answered_once(world: World, order: int) -> None:
    taken = world.take(*[message(), message(action=None)][::order])
    assert len(taken.tasks) + len(taken.refused) == 1


def test_a_payload_does_not_wait_in_memory_twice(world: World) -> None:
    assert world.task().command.payload is None
    large = world.task(commandId="c-2", payload={"url": "http://target.example/", "body": "x" * KEPT_IN_MEMORY})
    assert (large.command.payload, large.request, large.lane) == (None, None, "target.example:80")


def test_a_large_payload_is_read_from_the_journal_again(world: World) -> None:
    body = "x" * KEPT_IN_MEMORY
    assert world.run(payload={"url": "http://target.example/", "body": body}).status is Status.SUCCESS
    assert world.target.asked[0][0].body == body.encode()


def test_a_journal_that_cannot_be_written_takes_nothing_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.journal._writer._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalError):
        world.take(message())
    world.journal._writer._connection.execute("PRAGMA query_only = OFF")
    assert len(world.take(message()).tasks) == 1
    world.journal.close()


def test_a_journal_that_fails_within_intake_loses_no_command_until_the_restart(world: World) -> None:
    world.journal._writer._connection.executescript(
        "CREATE TRIGGER full BEFORE UPDATE OF state ON commands WHEN NEW.state = 'finished' BEGIN SELECT RAISE(ABORT, 'full'); END;"
    )
    messages = [message(commandId="good"), message(commandId="bad", action=None)]
    taken = world.relay.intake([(text, "receipt") for text in messages])
    assert [task.command.id for task in taken.tasks] == ["good"]
    with pytest.raises(JournalError):  # which ends the agent, before anything was said or told
        world.journal.flush()
    assert world.reports == []
    world.journal._writer._connection.execute("DROP TRIGGER full")
    with pytest.raises(JournalError):
        world.journal.close()
    world.journal = Journal(world.directory / "journal.db", world.clock)
    tasks, (update,) = world.again()
    assert ([task.command.id for task in tasks], update.command_id, codes(update)) == (["good"], "bad", ("FAILURE", "EBADCOMMAND"))


# --- how one runs ---


@pytest.mark.parametrize(
    ("status", "wanted"), [(200, "SUCCESS"), (204, "SUCCESS"), (399, "SUCCESS"), (400, "FAILURE"), (404, "FAILURE"), (503, "FAILURE")]
)
def test_a_response_is_success_below_400_and_failure_from_400_on(world: World, status: int, wanted: str) -> None:
    world.target.answers = [response(b"body", status, (("X-A", "1"),))]
    found, body = told(world.run())
    assert (found, body["statusCode"], body["body"], body["headers"]) == (wanted, status, "body", [{"X-A": "1"}])


@pytest.mark.parametrize("code", [Code.ECONNREFUSED, Code.ETIMEDOUT, Code.EPOLICY])
def test_a_fault_of_the_target_is_a_failure_with_its_code_and_no_status_code(world: World, code: Code) -> None:
    world.target.answers = [Failure(code, "said why", "http://target.example/", 7)]
    update = world.run()
    assert codes(update) == ("FAILURE", code)
    assert told(update)[1]["elapsedMs"] == 7


def test_started_is_in_the_journal_before_the_first_byte_and_the_outcome_before_it_is_handed_on(world: World) -> None:
    seen: list[dict[str, int]] = []
    world.target.meanwhile = lambda: seen.append(world.states())
    update = world.run()
    assert seen == [{"started": 1}]
    assert world.states() == {"finished": 1}
    assert world.undelivered() == [update]


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


def test_what_expired_before_it_could_start_is_rejected_and_never_run(world: World) -> None:
    task = world.task()
    world.now += timedelta(minutes=5)
    assert codes(world.process(task)[0]) == ("REJECTED", "EEXPIRED")
    assert world.target.asked == []


def test_a_command_without_expiry_never_expires(world: World) -> None:
    task = world.task(expiresAt=...)
    world.now += timedelta(days=100)
    assert world.process(task)[0].status is Status.SUCCESS


@pytest.mark.parametrize(("payload", "named"), [({}, "url"), ({"url": "http://a/", "timeout": CANARY}, "timeout"), ([], "payload")])
def test_a_payload_that_is_no_request_is_ebadcommand_and_names_the_field(world: World, payload: object, named: str) -> None:
    update = world.run(payload=payload)
    assert codes(update) == ("FAILURE", "EBADCOMMAND")
    assert named in told(update)[1]["message"]
    assert CANARY not in update.message
    assert world.target.asked == []


@pytest.mark.parametrize(
    ("fields", "timeout", "wanted"),
    [({}, None, 300.0), ({}, 30, 30.0), ({}, 1000, 300.0), ({"expiresAt": ...}, None, 120.0), ({"expiresAt": ...}, 1000, 1000.0)],
)
def test_a_commands_time_is_its_own_bounded_by_what_is_left_until_it_expires(
    world: World, fields: dict[str, Any], timeout: int | None, wanted: float
) -> None:
    world.run(payload={"url": "http://target.example/", "timeout": timeout}, **fields)
    assert world.target.asked[0][1].seconds == wanted


def test_a_status_update_never_repeats_the_request(world: World) -> None:
    payload = {
        "url": f"http://me:{CANARY}@target.example/",
        "method": "POST",
        "headers": {"Authorization": CANARY, "Cookie": CANARY},
        "body": CANARY,
    }
    world.target.answers = [Failure(Code.ECONNREFUSED, "connect ECONNREFUSED", "http://target.example/")]
    update, report = world.process(world.task(payload=payload))
    assert CANARY not in update.message + str(report) + repr(world.target.asked[0][0])


def test_the_report_says_what_the_canonical_line_needs(world: World) -> None:
    task = world.task(payload={"url": "http://target.example:81/p?q=1", "method": "POST", "body": "12345", "extra": 1})
    world.time += 0.5

    def later() -> None:
        world.time += 0.25

    world.target.meanwhile = later
    world.target.answers = [response(b"abc", 404)]
    _, report = world.process(task)
    assert report == Report(
        id="c-1",
        action=GDC,
        status=Status.FAILURE,
        method="POST",
        host="target.example",
        port=81,
        status_code=404,
        bytes_in=report.bytes_in,
        bytes_out=5,
        queued_ms=500,
        target_ms=12,
        total_ms=750,
        warnings=("unknown field 'extra' ignored",),
    )


def test_the_report_counts_the_bytes_that_came_in(world: World) -> None:
    world.target.answers = [response(b"abc")]
    assert world.process(world.task())[1].bytes_in == 3


def test_a_command_that_our_own_error_ended_is_answered(world: World) -> None:
    task = world.task()
    world.target.answers = [ZeroDivisionError(CANARY)]
    with pytest.raises(ZeroDivisionError):
        world.process(task)
    update = world.relay.abandon(task)
    assert codes(update) == ("FAILURE", "EINTERRUPTED")
    assert world.undelivered() == [update]


def test_an_answer_that_takes_long_to_be_encoded_is_a_failure_that_says_so_and_leaves_nothing(world: World) -> None:
    class Slow(Buffer):
        """Content whose every piece takes a second of the clock."""

        def chunks(self) -> Iterator[bytes]:
            for piece in super().chunks():
                world.time += 1.0
                yield piece

    content = Slow(None)
    for _ in range(20):
        content.write(b"x" * 64 * 1024)
    world.target.answers = [HttpResponse(200, (), content, None, True, "http://target.example/", 12)]
    status, code = codes(world.run(payload={"url": "http://target.example/", "timeout": 1}))
    assert (status, code) == ("FAILURE", "ETIMEDOUT")
    assert world.reports[-1].code == "ETIMEDOUT"
    assert list(world.spool.directory.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        next(content.chunks())


def test_an_answer_that_came_in_the_last_moment_has_a_moment_to_be_encoded(world: World) -> None:
    world.target.meanwhile = lambda: setattr(world, "time", world.time + 0.999)
    assert world.run(payload={"url": "http://target.example/", "timeout": 1}).status is Status.SUCCESS


@pytest.mark.parametrize(("not_after", "expected"), [(-1, ("REJECTED", "EEXPIRED")), (60, None)])
def test_a_command_is_not_started_after_its_own_moment(world: World, not_after: int, expected: object) -> None:
    payload = {"url": "http://target.example/", "not_after": codec.iso(NOW + timedelta(seconds=not_after))}
    update = world.run(payload=payload)
    assert (codes(update) if update.status is not Status.SUCCESS else None) == expected
    assert len(world.target.asked) == (expected is None)


@pytest.mark.parametrize("payload", [{"timeout": 1e8}, {}])
def test_no_exchange_takes_longer_than_a_day(world: World, payload: dict[str, Any]) -> None:
    world.run(payload={"url": "http://target.example/", **payload}, expiresAt="9999-12-31T23:59:59.9999999Z")
    assert world.target.asked[0][1].seconds == 86_400.0


# --- secure commands ---


SECURE = {"url": "http://target.example/", "method": "POST"}


def test_a_secure_command_is_opened_and_run(world: World) -> None:
    assert world.run(action=V2, payload=sealed(SECURE)).status is Status.SUCCESS
    assert (world.target.asked[0][0].secure, world.target.asked[0][0].method) == (True, "POST")


@pytest.mark.parametrize(
    ("payload", "keys", "code"),
    [
        (sealed(SECURE), Keyring([]), "ENOKEY"),
        (sealed(SECURE), OTHER, "EDECRYPT"),
        (sealed(SECURE, aud="another agent"), RING, "EDECRYPT"),
        (sealed(SECURE, exp=SECONDS), RING, "EDECRYPT"),
        (sealed(SECURE, jti="\ud800"), RING, "EDECRYPT"),
        ({"jwe": "a.b.c"}, RING, "EDECRYPT"),
        ({"jwe": 5}, RING, "EBADCOMMAND"),
        ({}, RING, "EBADCOMMAND"),
        (SECURE, RING, "EBADCOMMAND"),
        (sealed(b"no json"), RING, "EBADCOMMAND"),
        (sealed({"method": "GET"}), RING, "EBADCOMMAND"),
    ],
)
def test_a_secure_command_that_cannot_be_opened_is_a_failure_with_its_code(world: World, payload: object, keys: Keyring, code: str) -> None:
    world.keys = keys
    assert codes(world.run(action=V2, payload=payload)) == ("FAILURE", code)
    assert world.target.asked == []


def test_a_token_used_by_another_command_is_a_replay_and_the_same_command_again_is_not(world: World) -> None:
    payload = sealed(SECURE, jti="once")
    assert world.run(action=V2, payload=payload).status is Status.SUCCESS
    assert codes(world.run(commandId="c-2", action=V2, payload=payload)) == ("FAILURE", "EREPLAY")
    assert world.take(message(action=V2, payload=payload)).tasks == []
    assert len(world.target.asked) == 1


def test_a_token_is_used_by_a_command_whose_plaintext_is_no_request_too(world: World) -> None:
    payload = sealed({"method": "GET"}, jti="once")
    assert codes(world.run(action=V2, payload=payload)) == ("FAILURE", "EBADCOMMAND")
    assert codes(world.run(commandId="c-2", action=V2, payload=payload)) == ("FAILURE", "EREPLAY")


def test_a_secure_command_that_waited_for_a_restart_is_no_replay_of_itself(world: World) -> None:
    world.take(message(action=V2, payload=sealed(SECURE, jti="once")))
    (task,), _ = world.again()
    assert world.process(task)[0].status is Status.SUCCESS


@pytest.mark.parametrize("body", ["", "x" * KEPT_IN_MEMORY], ids=["kept in memory", "read again"])
def test_a_secure_command_whose_exp_passes_while_it_waits_is_not_run(world: World, body: str) -> None:
    task = world.task(action=V2, payload=sealed(SECURE | {"body": body}, exp=SECONDS + 60))
    world.now += timedelta(seconds=60)
    status, code = codes(world.process(task)[0])
    assert (status, code) == (("FAILURE", "EDECRYPT") if body else ("REJECTED", "EEXPIRED"))
    assert world.target.asked == []


def test_a_secure_command_keeps_the_earlier_of_not_after_and_exp(world: World) -> None:
    for late, moment in ((60, NOW + timedelta(seconds=60)), (300, NOW + timedelta(seconds=120))):
        not_after = codec.iso(NOW + timedelta(seconds=late))
        task = world.task(commandId=f"c-{late}", action=V2, payload=sealed(SECURE | {"not_after": not_after}, exp=SECONDS + 120))
        assert isinstance(task.request, HttpRequest)
        assert task.request.not_after == moment


def test_the_journal_holds_a_secure_command_still_encrypted(world: World) -> None:
    world.take(message(action=V2, payload=sealed(SECURE | {"body": CANARY}, jti="once")))
    assert CANARY.encode() not in b"".join(path.read_bytes() for path in world.directory.iterdir() if path.is_file())


HIDDEN = SECURE | {"encrypt_response": True}


def inside(body: dict[str, Any], jti: str = "once") -> dict[str, Any]:
    """What a sealed answer to `c-1` says."""
    found: dict[str, Any] = json.loads(open_answer(body["jwe"], RING, cid="c-1", jti=jti))
    return found


@pytest.mark.parametrize(
    "answer", [response(b"secret", headers=(("Set-Cookie", CANARY),)), Failure(Code.ECONNREFUSED, CANARY, f"http://h/{CANARY}")]
)
def test_an_encrypted_answer_shows_status_or_code_and_nothing_else(world: World, answer: HttpResponse | Failure) -> None:
    world.target.answers = [answer]
    update = world.run(action=V2, payload=sealed(HIDDEN, jti="once"))
    _, body = told(update)
    assert set(body) == ({"statusCode", "jwe"} if isinstance(answer, HttpResponse) else {"code", "jwe"})
    assert CANARY not in update.message
    assert CANARY in json.dumps(inside(body))


@pytest.mark.parametrize("size", [100, 250_000], ids=["in full", "in its brief form"])
def test_a_failure_is_encrypted_in_every_form_in_which_it_is_told(world: World, size: int) -> None:
    world.target.answers = [Failure(Code.ECONNREFUSED, f"connect {CANARY}", f"http://h/{CANARY}{'x' * size}")]
    update = world.run(action=V2, payload=sealed(HIDDEN, jti="once"))
    assert set(told(update)[1]) == {"code", "jwe"}
    assert CANARY not in update.message
    found = inside(told(update)[1])
    assert (found["message"], "url" in found) == (f"connect {CANARY}", size == 100)
    assert len(update.message.encode()) <= codec.MESSAGE_LIMIT


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": f"{CANARY} x"},
        {"headers": {CANARY: 5}},
        {"headers": {f"X-{CANARY}": "a\r\nb"}},
        {"method": f" {CANARY}"},
        {"encrypt_response": CANARY},
    ],
)
def test_a_request_that_is_none_is_told_encrypted_where_it_does_not_say_otherwise(world: World, wrong: dict[str, Any]) -> None:
    update = world.run(action=V2, payload=sealed(HIDDEN | wrong, jti="once"))
    _, body = told(update)
    assert (set(body), body["code"]) == ({"code", "jwe"}, "EBADCOMMAND")
    assert CANARY not in update.message
    assert inside(body)["code"] == "EBADCOMMAND"
    assert world.target.asked == []


def test_what_expired_by_its_own_word_is_told_encrypted(world: World) -> None:
    task = world.task(action=V2, payload=sealed(HIDDEN | {"not_after": codec.iso(NOW + timedelta(seconds=1))}, jti="once"))
    world.now += timedelta(seconds=1)
    _, body = told(world.process(task)[0])
    assert (set(body), inside(body)["code"]) == ({"code", "jwe"}, "EEXPIRED")


def test_a_large_encrypted_answer_is_one_jwe_in_the_spool(world: World) -> None:
    data = b"x" * 1_000_000
    world.target.answers = [response(data)]
    update = world.run(action=V2, payload=sealed(HIDDEN, jti="once"))
    body = json.loads(gzip.decompress(world.spool.path(update.spool or "").read_bytes()))
    assert set(body) == {"statusCode", "jwe"}
    assert inside(body)["body"] == data.decode()


def test_an_encrypted_answer_to_a_plain_command_names_the_command_and_no_jti(world: World) -> None:
    _, body = told(world.run(payload=HIDDEN))
    assert json.loads(open_answer(body["jwe"], RING, cid="c-1", jti=None))["body"] == "ok"


def test_an_encrypted_answer_without_a_key_is_refused_before_anything_is_sent(world: World) -> None:
    world.keys = Keyring([])
    assert codes(world.run(payload=HIDDEN)) == ("FAILURE", "ENOKEY")
    assert world.target.asked == []


def test_what_stands_for_an_encrypted_answer_that_cannot_be_uploaded_is_encrypted_too(world: World) -> None:
    world.target.answers = [response(b"x" * 400_000, headers=(("Set-Cookie", CANARY),))]
    update = world.run(action=V2, payload=sealed(HIDDEN, jti="once"))
    assert CANARY not in (update.fallback or "") + update.message
    assert CANARY in json.dumps(inside(json.loads(update.fallback or "")["body"]))


# --- large answers ---


def test_an_answer_beyond_the_queues_limit_goes_to_the_spool_as_it_is_uploaded(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000)]
    update = world.run()
    assert json.loads(update.message) | {"createdAt": ""} == {
        "commandId": "c-1",
        "targetId": AGENT,
        "status": "SUCCESS",
        "body": None,
        "responseBodyDelivery": "referenced",
        "createdAt": "",
    }
    assert (update.upload_url, world.undelivered(), world.journal.spooled()) == (UPLOAD, [update], {update.spool})
    assert json.loads(gzip.decompress(world.spool.path(update.spool or "").read_bytes()))["body"] == "x" * 300_000


@pytest.mark.parametrize("over", [0, 1])
def test_a_message_is_embedded_up_to_262144_bytes_exactly(world: World, over: int) -> None:
    world.target.answers = [response(b"")]
    bare = len(world.run(commandId="c-0").message.encode())
    world.target.answers = [response(b"x" * (codec.MESSAGE_LIMIT - bare + over))]
    update = world.run()
    assert (update.spool is None) == (over == 0)
    assert over == 1 or len(update.message.encode()) == codec.MESSAGE_LIMIT == 262_144


def test_the_fallback_tells_all_but_the_body(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201, (("X-A", "1"),))]
    body = json.loads(world.run().fallback or "")["body"]
    assert (body["code"], body["statusCode"], body["headers"]) == ("ERESPONSETOOLARGE", 201, [{"X-A": "1"}])


def test_an_answer_too_large_without_upload_url_is_a_failure_and_leaves_no_file(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    update = world.run(responseBodyUploadUrl=...)
    status, body = told(update)
    assert (status, body["code"], body["statusCode"], update.spool) == ("FAILURE", "ERESPONSETOOLARGE", 201, None)
    assert list(world.spool.directory.iterdir()) == []


def test_a_large_answer_is_spoken_of_once_and_only_when_it_is_settled(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    update = world.run()
    assert world.reports == []
    world.time += 7
    world.relay.settle(replace(update, spool=None))
    ((report,), size) = world.reports, 300_000
    assert report.total_ms == 7000  # its upload is part of it
    assert (report.status, report.code, report.status_code, report.bytes_in) == ("SUCCESS", None, 201, size)


def test_a_large_answer_whose_upload_is_refused_is_spoken_of_as_it_is_told(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    update = world.run()
    world.relay.settle(Update(update.command_id, Status.FAILURE, update.fallback or "", code=Code.ERESPONSETOOLARGE))
    ((report,), size) = world.reports, 300_000
    assert (report.status, report.code, report.status_code, report.bytes_in) == ("FAILURE", "ERESPONSETOOLARGE", 201, size)


def test_a_large_answer_that_is_settled_after_a_restart_is_spoken_of_with_what_the_journal_knows(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    world.run(payload={"url": "http://target.example:8080/", "method": "POST"})
    _, (update,) = world.again()
    world.relay.settle(replace(update, spool=None))
    assert world.reports == [Report("c-1", GDC, Status.SUCCESS, "POST", "target.example", 8080, status_code=201, measured=False)]


def test_an_error_answer_whose_body_cannot_be_told_has_the_code_of_that_everywhere(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 404)]
    update = world.run(responseBodyUploadUrl=...)
    (report,) = world.reports
    assert (report.status, report.code, report.status_code) == ("FAILURE", "ERESPONSETOOLARGE", 404)
    assert told(update)[1]["code"] == "ERESPONSETOOLARGE"
    assert world.journal._writer.read("SELECT code FROM commands") == [("ERESPONSETOOLARGE",)]


def test_headers_too_large_for_the_fallback_are_left_out_of_it(world: World) -> None:
    world.target.answers = [response(b"", headers=(("X-A", "x" * 300_000),))]
    fallback = world.run().fallback or ""
    assert len(fallback) < 1000
    assert json.loads(fallback)["body"]["headers"] == []


def test_a_responses_content_is_freed_once_it_is_recorded(world: World) -> None:
    answer = response(b"abc")
    world.target.answers = [answer]
    world.run()
    with pytest.raises(ValueError, match="closed"):
        list(answer.content.chunks())


def test_a_failure_with_a_url_beyond_all_measure_still_fits_the_queue(world: World) -> None:
    world.target.answers = [Failure(Code.ECONNREFUSED, "x", "http://target.example/" + "%E2%82%AC" * 60_000)]
    assert len(world.run().message.encode()) <= codec.MESSAGE_LIMIT


def test_an_answer_with_a_url_beyond_all_measure_has_a_fallback_that_fits(world: World) -> None:
    answer = response(b"x")
    world.target.answers = [HttpResponse(200, (), answer.content, None, True, "http://target.example/" + "x" * 300_000)]
    assert len((world.run().fallback or "").encode()) <= codec.MESSAGE_LIMIT


def test_a_header_name_beyond_all_measure_is_named_within_the_queues_limit(world: World) -> None:
    update = world.run(payload={"url": "http://a/", "headers": {"X" * 270_000: 5}})
    assert len(update.message.encode()) <= codec.MESSAGE_LIMIT


# --- referenced bodies ---


URL = "https://s3.example/get"
NEVER = threading.Event()


def referenced(world: World, body: bytes | list[PlatformError | bytes], **fields: Any) -> Task:
    world.bucket.bodies[URL] = body
    (task,) = world.take(message(body=..., bodyDelivery="referenced", bodyUrl=URL, **fields)).tasks
    assert task.elsewhere
    return task


def test_a_referenced_body_is_fetched_and_gives_the_task_its_lane(world: World) -> None:
    task = world.relay.fetch(referenced(world, b'{"url":"http://lims.example:81/"}'), NEVER)
    assert task is not None
    assert (task.lane, task.elsewhere, world.bucket.asked) == ("lims.example:81", False, [URL])
    assert world.process(task)[0].status is Status.SUCCESS


def test_a_large_referenced_body_waits_in_the_spool_until_it_has_run(world: World) -> None:
    body = json.dumps({"url": "http://target.example/", "body": "x" * KEPT_IN_MEMORY}).encode()
    task = world.relay.fetch(referenced(world, body), NEVER)
    assert task is not None
    assert task.request is None
    assert [path.name for path in world.spool.directory.iterdir()] == [task.body]
    assert world.process(task)[0].status is Status.SUCCESS
    assert world.target.asked[0][0].body == b"x" * KEPT_IN_MEMORY
    assert list(world.spool.directory.iterdir()) == []


def test_a_large_body_takes_no_memory_while_its_request_is_under_way_and_nothing_afterwards(world: World) -> None:
    text = "x" * 3 * IN_MEMORY
    task = world.relay.fetch(referenced(world, json.dumps({"url": "http://target.example/", "body": text}).encode()), NEVER)
    assert task is not None
    world.process(task)
    body = world.target.asked[0][0].body
    assert isinstance(body, Buffer)
    assert (body.size, world.target.sent, world.reports[-1].bytes_out) == (len(text), [text.encode()], len(text))
    with pytest.raises(ValueError, match="closed"):
        next(body.chunks())


def test_a_full_disk_lets_a_large_referenced_body_wait_in_memory(world: World) -> None:
    world.spool.directory.rename(world.directory / "gone")
    text = "x" * 3 * IN_MEMORY
    task = world.relay.fetch(referenced(world, json.dumps({"url": "http://target.example/", "body": text}).encode()), NEVER)
    assert task is not None
    assert (world.process(task)[0].status, world.target.sent) == (Status.SUCCESS, [text.encode()])


@pytest.mark.parametrize("body", [b"no json", b"[]", PayloadRefused(Call.DOWNLOAD, f"S3 answered {403}", 403)])
def test_a_referenced_body_that_is_no_request_or_refused_is_ebadcommand(world: World, body: bytes | PlatformError) -> None:
    task = world.relay.fetch(referenced(world, [body]), NEVER)
    assert task is not None
    update = world.process(task)[0]
    assert codes(update) == ("FAILURE", "EBADCOMMAND")
    assert URL not in update.message


class Passing(threading.Event):
    """A stop that is never set, and whose waits are over at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


def test_a_body_that_cannot_be_had_at_first_is_fetched_again(world: World) -> None:
    trouble = PlatformError(Call.DOWNLOAD, "S3 answered 503", 503)
    task = world.relay.fetch(referenced(world, [trouble, trouble, b'{"url":"http://target.example/"}']), Passing())
    assert task is not None
    assert world.process(task)[0].status is Status.SUCCESS


def test_a_stop_leaves_a_body_that_was_not_fetched_to_the_next_start(world: World) -> None:
    stop = threading.Event()
    stop.set()
    assert world.relay.fetch(referenced(world, [PlatformError(Call.DOWNLOAD, "S3 answered 503", 503)]), stop) is None
    assert world.states() == {"admitted": 1}
    (task,), _ = world.again()
    assert task.elsewhere


def test_a_referenced_command_that_expired_is_not_fetched(world: World) -> None:
    task = referenced(world, b"{}")
    world.now += timedelta(minutes=5)
    fetched = world.relay.fetch(task, NEVER)
    assert fetched is not None
    assert codes(world.process(fetched)[0]) == ("REJECTED", "EEXPIRED")
    assert world.bucket.asked == []


# --- after a restart ---


def crash(world: World, **fields: Any) -> None:
    """A command that was under way when the agent was killed."""

    def dies() -> None:
        raise KeyboardInterrupt

    world.target.meanwhile = dies
    with pytest.raises(KeyboardInterrupt):
        world.run(**fields)
    world.target.meanwhile = lambda: None


def asks(method: str, **headers: str) -> dict[str, Any]:
    return {"url": "http://target.example/", "method": method, "headers": headers}


def test_what_was_admitted_runs_after_a_restart(world: World) -> None:
    world.take(message(payload=asks("POST")))
    (task,), updates = world.again()
    assert updates == []
    assert world.process(task)[0].status is Status.SUCCESS


@pytest.mark.parametrize(
    "payload",
    [asks(method) for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")] + [asks("POST", **{"idempotency-KEY": "k"})],
)
def test_what_was_under_way_and_may_be_repeated_runs_again(world: World, payload: dict[str, Any]) -> None:
    crash(world, payload=payload)
    (task,), updates = world.again()
    assert updates == []
    assert world.process(task)[0].status is Status.SUCCESS
    assert len(world.target.asked) == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "get", "LOCK"])
def test_what_was_under_way_and_may_not_be_repeated_is_answered_einterrupted(world: World, method: str) -> None:
    crash(world, payload=asks(method))
    tasks, (update,) = world.again()
    assert tasks == []
    assert codes(update) == ("FAILURE", "EINTERRUPTED")
    assert [(report.method, report.code) for report in world.reports[-1:]] == [(method, "EINTERRUPTED")]
    assert world.again() == ([], [update])


def test_what_failed_before_a_byte_went_out_may_run_again(world: World) -> None:
    world.target.sends = False
    crash(world, payload=asks("POST"))
    tasks, updates = world.again()
    assert (len(tasks), updates) == (1, [])


def test_what_was_finished_is_told_byte_for_byte_the_same(world: World) -> None:
    update = world.run()
    world.now += timedelta(hours=3)
    assert world.again() == ([], [update])
    assert world.again() == ([], [update])


def test_what_was_delivered_is_neither_run_nor_told_again(world: World) -> None:
    world.journal.deliver([world.run().command_id])
    assert world.again() == ([], [])
    assert world.take(message()).tasks == []


def test_what_expired_while_the_agent_was_down_is_rejected(world: World) -> None:
    world.take(message())
    world.now += timedelta(hours=1)
    (task,), _ = world.again()
    assert codes(world.process(task)[0]) == ("REJECTED", "EEXPIRED")


def test_what_was_under_way_and_expired_meanwhile_is_einterrupted_and_not_called_never_run(world: World) -> None:
    crash(world, payload=asks("PUT"))
    world.now += timedelta(hours=1)
    (task,), _ = world.again()
    assert codes(world.process(task)[0]) == ("FAILURE", "EINTERRUPTED")


def test_what_was_under_way_and_expires_while_it_waits_again_is_not_called_never_run(world: World) -> None:
    crash(world, payload=asks("PUT"))
    (task,), _ = world.again()
    world.now += timedelta(hours=1)
    assert codes(world.process(task)[0]) == ("FAILURE", "EINTERRUPTED")


def test_a_command_that_cannot_be_taken_up_again_is_answered_and_keeps_no_other_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.take(*[message(commandId=command_id) for command_id in ("first", "bad", "last")])
    right = Relay._taken_up
    monkeypatch.setattr(Relay, "_taken_up", lambda relay, left: right(relay, left) if left.id != "bad" else 1 // 0)
    tasks, (update,) = world.again()
    assert ([task.command.id for task in tasks], update.command_id, codes(update)) == (
        ["first", "last"],
        "bad",
        ("FAILURE", "EINTERRUPTED"),
    )
    assert [(command_id, type(error)) for command_id, error in world.set_aside] == [("bad", ZeroDivisionError)]
    assert world.states() == {"admitted": 2, "finished": 1}


def test_an_answer_that_cannot_be_read_back_is_told_as_interrupted_for_good_and_keeps_no_other_from_it(world: World) -> None:
    world.run(commandId="bad")
    good = world.run(commandId="good")
    world.journal.flush()
    world.journal._writer._connection.execute("UPDATE commands SET tell_by = 'soon' WHERE id = 'bad'")
    _, updates = world.again()
    assert [update.command_id for update in updates] == ["bad", "good"]
    assert (codes(updates[0]), updates[1]) == (("FAILURE", "EINTERRUPTED"), good)
    assert [command_id for command_id, _ in world.set_aside] == ["bad"]
    assert world.journal.message("bad") == updates[0].message


def test_many_commands_come_back_in_the_order_they_came(world: World) -> None:
    world.take(*[message(commandId=command_id) for command_id in "zmaq"])
    tasks, _ = world.again()
    assert [task.command.id for task in tasks] == list("zmaq")


def test_an_unknown_action_is_rejected_without_its_body(world: World) -> None:
    (task,) = world.take(message(action="Other", body=None, bodyDelivery="referenced", bodyUrl="http://nowhere.invalid/")).tasks
    assert not task.elsewhere
    assert codes(world.process(task)[0]) == ("REJECTED", "UNKNOWN_COMMAND")


def test_nothing_is_said_of_a_malformed_command_before_its_answer_is_on_the_disk(world: World) -> None:
    taken = world.relay.intake([(message(expiresAt="soon"), "receipt")])
    assert ([update.status for update in taken.refused], world.reports) == ([Status.FAILURE], [])
    world.journal.flush()
    assert [report.id for report in world.reports] == ["c-1"]
