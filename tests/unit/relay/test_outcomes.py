"""How an outcome is recorded and reported: embedded, spooled, encrypted, and never before it is durable."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.clock import iso
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, HttpResponse, Status, Update
from relay_agent.protocol import messages
from relay_agent.protocol.jwe import open_answer
from relay_agent.storage.buffer import Buffer
from relay_agent.telemetry.command_report import Report
from tests.worlds import AGENT, CANARY, GDC, NOW, RING, UPLOAD, V2, World, codes, response, sealed, told


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


def test_the_report_has_everything_the_canonical_log_line_needs(world: World) -> None:
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


def test_a_command_that_an_error_of_the_agent_ended_is_answered(world: World) -> None:
    task = world.task()
    world.target.answers = [ZeroDivisionError(CANARY)]
    with pytest.raises(ZeroDivisionError):
        world.process(task)
    update = world.outcomes.abandon(task)
    assert codes(update) == ("FAILURE", "EINTERRUPTED")
    assert world.undelivered() == [update]


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


def test_an_answer_that_takes_too_long_to_encode_is_etimedout_and_leaves_no_file(world: World) -> None:
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


def test_an_answer_that_came_at_the_last_moment_still_gets_time_to_be_encoded(world: World) -> None:
    world.target.meanwhile = lambda: setattr(world, "time", world.time + 0.999)
    assert world.run(payload={"url": "http://target.example/", "timeout": 1}).status is Status.SUCCESS


def test_a_responses_content_is_freed_once_it_is_recorded(world: World) -> None:
    answer = response(b"abc")
    world.target.answers = [answer]
    world.run()
    with pytest.raises(ValueError, match="closed"):
        list(answer.content.chunks())


# --- encrypted answers ---


HIDDEN = {"url": "http://target.example/", "method": "POST", "encrypt_response": True}


def inside(body: dict[str, Any], jti: str = "once") -> dict[str, Any]:
    """Return the decrypted content of a sealed answer to `c-1`."""
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
def test_a_failure_is_encrypted_in_both_its_forms(world: World, size: int) -> None:
    world.target.answers = [Failure(Code.ECONNREFUSED, f"connect {CANARY}", f"http://h/{CANARY}{'x' * size}")]
    update = world.run(action=V2, payload=sealed(HIDDEN, jti="once"))
    assert set(told(update)[1]) == {"code", "jwe"}
    assert CANARY not in update.message
    found = inside(told(update)[1])
    assert (found["message"], "url" in found) == (f"connect {CANARY}", size == 100)
    assert len(update.message.encode()) <= messages.MESSAGE_LIMIT


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
def test_the_failure_of_an_invalid_request_is_encrypted_unless_it_clearly_asks_otherwise(world: World, wrong: dict[str, Any]) -> None:
    update = world.run(action=V2, payload=sealed(HIDDEN | wrong, jti="once"))
    _, body = told(update)
    assert (set(body), body["code"]) == ({"code", "jwe"}, "EBADCOMMAND")
    assert CANARY not in update.message
    assert inside(body)["code"] == "EBADCOMMAND"
    assert world.target.asked == []


def test_an_expiry_by_not_after_is_answered_encrypted(world: World) -> None:
    task = world.task(action=V2, payload=sealed(HIDDEN | {"not_after": iso(NOW + timedelta(seconds=1))}, jti="once"))
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


def test_the_fallback_of_an_encrypted_answer_is_encrypted_too(world: World) -> None:
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
    world.target.answers = [response(b"x" * (messages.MESSAGE_LIMIT - bare + over))]
    update = world.run()
    assert (update.spool is None) == (over == 0)
    assert over == 1 or len(update.message.encode()) == messages.MESSAGE_LIMIT == 262_144


def test_the_fallback_has_everything_but_the_body(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201, (("X-A", "1"),))]
    body = json.loads(world.run().fallback or "")["body"]
    assert (body["code"], body["statusCode"], body["headers"]) == ("ERESPONSETOOLARGE", 201, [{"X-A": "1"}])


def test_an_answer_too_large_without_upload_url_is_a_failure_and_leaves_no_file(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    update = world.run(responseBodyUploadUrl=...)
    status, body = told(update)
    assert (status, body["code"], body["statusCode"], update.spool) == ("FAILURE", "ERESPONSETOOLARGE", 201, None)
    assert list(world.spool.directory.iterdir()) == []


def test_a_large_answer_is_reported_once_and_only_when_it_is_settled(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    update = world.run()
    assert world.reports == []
    world.time += 7
    world.outcomes.settle(replace(update, spool=None))
    ((report,), size) = world.reports, 300_000
    assert report.total_ms == 7000  # its upload is part of it
    assert (report.status, report.code, report.status_code, report.bytes_in) == ("SUCCESS", None, 201, size)


def test_a_large_answer_whose_upload_is_refused_is_reported_as_it_is_sent(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    update = world.run()
    world.outcomes.settle(Update(update.command_id, Status.FAILURE, update.fallback or "", code=Code.ERESPONSETOOLARGE))
    ((report,), size) = world.reports, 300_000
    assert (report.status, report.code, report.status_code, report.bytes_in) == ("FAILURE", "ERESPONSETOOLARGE", 201, size)


def test_a_large_answer_settled_after_a_restart_is_reported_with_what_the_journal_knows(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    world.run(payload={"url": "http://target.example:8080/", "method": "POST"})
    _, (update,) = world.again()
    world.outcomes.settle(replace(update, spool=None))
    assert world.reports == [Report("c-1", GDC, Status.SUCCESS, "POST", "target.example", 8080, status_code=201, measured=False)]


def test_an_error_response_whose_body_cannot_be_sent_is_eresponsetoolarge_everywhere(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 404)]
    update = world.run(responseBodyUploadUrl=...)
    (report,) = world.reports
    assert (report.status, report.code, report.status_code) == ("FAILURE", "ERESPONSETOOLARGE", 404)
    assert told(update)[1]["code"] == "ERESPONSETOOLARGE"
    assert world.journal.writer.read("SELECT code FROM commands") == [("ERESPONSETOOLARGE",)]


def test_headers_too_large_for_the_fallback_are_left_out_of_it(world: World) -> None:
    world.target.answers = [response(b"", headers=(("X-A", "x" * 300_000),))]
    fallback = world.run().fallback or ""
    assert len(fallback) < 1000
    assert json.loads(fallback)["body"]["headers"] == []


def test_a_failure_with_a_huge_url_still_fits_the_queue(world: World) -> None:
    world.target.answers = [Failure(Code.ECONNREFUSED, "x", "http://target.example/" + "%E2%82%AC" * 60_000)]
    assert len(world.run().message.encode()) <= messages.MESSAGE_LIMIT


def test_an_answer_with_a_huge_url_has_a_fallback_that_fits(world: World) -> None:
    answer = response(b"x")
    world.target.answers = [HttpResponse(200, (), answer.content, None, True, "http://target.example/" + "x" * 300_000)]
    assert len((world.run().fallback or "").encode()) <= messages.MESSAGE_LIMIT
