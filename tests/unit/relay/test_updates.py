"""The form in which an outcome goes out: embedded, encrypted, or in the spool with a fallback."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from typing import Any

import pytest

from relay_agent.core.clock import iso
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, HttpResponse
from relay_agent.protocol import messages
from relay_agent.protocol.json_bounds import MAX_DEPTH, MAX_VALUES
from relay_agent.protocol.jwe import open_answer
from tests.worlds import AGENT, CANARY, NOW, RING, UPLOAD, V2, World, reported, response, sealed

HIDDEN = {"url": "http://target.example/", "method": "POST", "encrypt_response": True}


def inside(body: dict[str, Any], jti: str = "once") -> dict[str, Any]:
    """Return the decrypted content of a sealed answer to `c-1`."""
    found: dict[str, Any] = json.loads(open_answer(body["jwe"], RING, cid="c-1", jti=jti))
    return found


# --- encrypted answers ---


@pytest.mark.parametrize(
    "answer", [response(b"secret", headers=(("Set-Cookie", CANARY),)), Failure(Code.ECONNREFUSED, CANARY, f"http://h/{CANARY}")]
)
def test_an_encrypted_answer_shows_status_or_code_and_nothing_else(world: World, answer: HttpResponse | Failure) -> None:
    world.target.answers = [answer]
    update = world.run(action=V2, payload=sealed(HIDDEN, jti="once"))
    _, body = reported(update)
    assert set(body) == ({"statusCode", "jwe"} if isinstance(answer, HttpResponse) else {"code", "jwe"})
    assert CANARY not in update.message
    assert CANARY in json.dumps(inside(body))


@pytest.mark.parametrize("size", [100, 250_000], ids=["in full", "in its brief form"])
def test_a_failure_is_encrypted_in_both_its_forms(world: World, size: int) -> None:
    world.target.answers = [Failure(Code.ECONNREFUSED, f"connect {CANARY}", f"http://h/{CANARY}{'x' * size}")]
    update = world.run(action=V2, payload=sealed(HIDDEN, jti="once"))
    assert set(reported(update)[1]) == {"code", "jwe"}
    assert CANARY not in update.message
    found = inside(reported(update)[1])
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
    _, body = reported(update)
    assert (set(body), body["code"]) == ({"code", "jwe"}, "EBADCOMMAND")
    assert CANARY not in update.message
    assert inside(body)["code"] == "EBADCOMMAND"
    assert world.target.asked == []


@pytest.mark.parametrize(
    "plaintext",
    [
        HIDDEN | {"body": [0] * (MAX_VALUES + 1)},
        HIDDEN | {"url": CANARY, "encrypt_response": 0},
        HIDDEN | {"url": CANARY, "encrypt_response": ""},
        f'{{"url": "{CANARY}"'.encode(),
        b'{"url": "\xff"}',
        b'{"a":' * (MAX_DEPTH + 1),
    ],
    ids=["too many values", "zero", "an empty text", "cut off", "not UTF-8", "too deep"],
)
def test_the_failure_of_a_plaintext_that_may_ask_for_encryption_is_encrypted(world: World, plaintext: dict[str, Any] | bytes) -> None:
    """Whether it asks cannot be known of a text that cannot be read, and `0` is not `false`."""
    _, body = reported(world.run(action=V2, payload=sealed(plaintext, jti="once")))
    assert (set(body), body["code"]) == ({"code", "jwe"}, "EBADCOMMAND")
    assert inside(body)["code"] == "EBADCOMMAND"
    assert world.target.asked == []


@pytest.mark.parametrize("asked", [{}, {"encrypt_response": None}, {"encrypt_response": False}])
def test_the_failure_of_a_request_that_does_not_ask_for_encryption_is_not_encrypted(world: World, asked: dict[str, Any]) -> None:
    _, body = reported(world.run(action=V2, payload=sealed({"method": "GET"} | asked, jti="once")))
    assert (body["code"], "jwe" in body) == ("EBADCOMMAND", False)


def test_an_expiry_by_not_after_is_answered_encrypted(world: World) -> None:
    task = world.task(action=V2, payload=sealed(HIDDEN | {"not_after": iso(NOW + timedelta(seconds=1))}, jti="once"))
    world.now += timedelta(seconds=1)
    _, body = reported(world.process(task)[0])
    assert (set(body), inside(body)["code"]) == ({"code", "jwe"}, "EEXPIRED")


def test_a_large_encrypted_answer_is_one_jwe_in_the_spool(world: World) -> None:
    data = b"x" * 1_000_000
    world.target.answers = [response(data)]
    update = world.run(action=V2, payload=sealed(HIDDEN, jti="once"))
    body = json.loads(gzip.decompress(world.spool.path(update.spool or "").read_bytes()))
    assert set(body) == {"statusCode", "jwe"}
    assert inside(body)["body"] == data.decode()


def test_an_encrypted_answer_to_a_plain_command_names_the_command_and_no_jti(world: World) -> None:
    _, body = reported(world.run(payload=HIDDEN))
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
    status, body = reported(update)
    assert (status, body["code"], body["statusCode"], update.spool) == ("FAILURE", "ERESPONSETOOLARGE", 201, None)
    assert list(world.spool.directory.iterdir()) == []


def test_an_error_response_whose_body_cannot_be_sent_is_eresponsetoolarge_everywhere(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 404)]
    update = world.run(responseBodyUploadUrl=...)
    (report,) = world.reports
    assert (report.status, report.code, report.status_code) == ("FAILURE", "ERESPONSETOOLARGE", 404)
    assert reported(update)[1]["code"] == "ERESPONSETOOLARGE"
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
