"""Payloads: decoding, decryption, download, and the failure of a bad one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.clock import iso
from relay_agent.core.errors import Call, NotThePlatform, PayloadRefused, PlatformError, PlatformUnreachable
from relay_agent.core.failures import Code, FaultFacts
from relay_agent.core.models import HttpRequest, Status
from relay_agent.protocol import messages
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.payload_reader import DOWNLOAD_SECONDS, MISSING_SECONDS, Download
from relay_agent.relay.task import KEPT_IN_MEMORY, Task
from relay_agent.storage.buffer import IN_MEMORY, Buffer
from tests.worlds import CANARY, NOW, OTHER, RING, SECONDS, V2, World, codes, message, reported, sealed


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


# --- plain ---


@pytest.mark.parametrize(("payload", "named"), [({}, "url"), ({"url": "http://a/", "timeout": CANARY}, "timeout"), ([], "payload")])
def test_an_invalid_payload_is_ebadcommand_and_the_field_is_named(world: World, payload: object, named: str) -> None:
    update = world.run(payload=payload)
    assert codes(update) == ("FAILURE", "EBADCOMMAND")
    assert named in reported(update)[1]["message"]
    assert CANARY not in update.message
    assert world.target.asked == []


def test_the_failure_for_a_huge_header_name_fits_the_queue(world: World) -> None:
    update = world.run(payload={"url": "http://a/", "headers": {"X" * 270_000: 5}})
    assert len(update.message.encode()) <= messages.MESSAGE_LIMIT


def test_a_large_payload_is_read_from_the_journal_again(world: World) -> None:
    body = "x" * KEPT_IN_MEMORY
    assert world.run(payload={"url": "http://target.example/", "body": body}).status is Status.SUCCESS
    assert world.target.asked[0][0].body == body.encode()


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


def test_a_command_with_an_invalid_plaintext_uses_up_its_token_too(world: World) -> None:
    payload = sealed({"method": "GET"}, jti="once")
    assert codes(world.run(action=V2, payload=payload)) == ("FAILURE", "EBADCOMMAND")
    assert codes(world.run(commandId="c-2", action=V2, payload=payload)) == ("FAILURE", "EREPLAY")


def test_a_secure_command_that_waited_for_a_restart_is_no_replay_of_itself(world: World) -> None:
    world.take(message(action=V2, payload=sealed(SECURE, jti="once")))
    (task,), _ = world.again()
    assert world.process(task)[0].status is Status.SUCCESS


def test_a_secure_command_keeps_the_earlier_of_not_after_and_exp(world: World) -> None:
    for late, moment in ((60, NOW + timedelta(seconds=60)), (300, NOW + timedelta(seconds=120))):
        not_after = iso(NOW + timedelta(seconds=late))
        task = world.task(commandId=f"c-{late}", action=V2, payload=sealed(SECURE | {"not_after": not_after}, exp=SECONDS + 120))
        assert isinstance(task.request, HttpRequest)
        assert task.request.not_after == moment


def test_the_journal_holds_a_secure_command_still_encrypted(world: World) -> None:
    world.take(message(action=V2, payload=sealed(SECURE | {"body": CANARY}, jti="once")))
    assert CANARY.encode() not in b"".join(path.read_bytes() for path in world.directory.iterdir() if path.is_file())


# --- referenced bodies ---


URL = "https://s3.example/get"


def referenced(world: World, body: bytes | list[PlatformError | bytes], **fields: Any) -> Task:
    world.bucket.bodies[URL] = body
    (task,) = world.take(message(body=..., bodyDelivery="referenced", bodyUrl=URL, **fields)).tasks
    assert task.needs_download
    return task


def test_a_referenced_body_is_downloaded_and_determines_the_lane(world: World) -> None:
    task = world.reader.download(Download(referenced(world, b'{"url":"http://lims.example:81/"}')))
    assert task is not None
    assert (task.lane, task.needs_download, world.bucket.asked) == ("lims.example:81", False, [URL])
    assert world.process(task)[0].status is Status.SUCCESS


def test_a_large_referenced_body_waits_in_the_spool_until_it_has_run(world: World) -> None:
    body = json.dumps({"url": "http://target.example/", "body": "x" * KEPT_IN_MEMORY}).encode()
    task = world.reader.download(Download(referenced(world, body)))
    assert task is not None
    assert task.request is None
    assert [path.name for path in world.spool.directory.iterdir()] == [task.body]
    assert world.process(task)[0].status is Status.SUCCESS
    assert world.target.asked[0][0].body == b"x" * KEPT_IN_MEMORY
    assert list(world.spool.directory.iterdir()) == []


def test_a_large_body_takes_no_memory_while_its_request_is_under_way_and_nothing_afterwards(world: World) -> None:
    text = "x" * 3 * IN_MEMORY
    task = world.reader.download(Download(referenced(world, json.dumps({"url": "http://target.example/", "body": text}).encode())))
    assert task is not None
    world.process(task)
    body = world.target.asked[0][0].body
    assert isinstance(body, Buffer)
    assert (body.size, world.target.sent, world.reports[-1].bytes_out) == (len(text), [text.encode()], len(text))
    with pytest.raises(ValueError, match="closed"):
        next(body.chunks())


def test_with_a_full_disk_a_large_referenced_body_waits_in_memory(world: World) -> None:
    world.spool.directory.rename(world.directory / "gone")
    text = "x" * 3 * IN_MEMORY
    task = world.reader.download(Download(referenced(world, json.dumps({"url": "http://target.example/", "body": text}).encode())))
    assert task is not None
    assert (world.process(task)[0].status, world.target.sent) == (Status.SUCCESS, [text.encode()])


@pytest.mark.parametrize("body", [b"no json", b"[]", PayloadRefused(Call.DOWNLOAD, f"S3 answered {403}", 403)])
def test_a_referenced_body_that_is_no_request_or_refused_is_ebadcommand(world: World, body: bytes | PlatformError) -> None:
    task = world.reader.download(Download(referenced(world, [body])))
    assert task is not None
    update = world.process(task)[0]
    assert codes(update) == ("FAILURE", "EBADCOMMAND")
    assert URL not in update.message


AWAY = PlatformError(Call.DOWNLOAD, "S3 answered 503", 503)


def tries(world: World, job: Download, seconds: float = 0.0) -> Task:
    """Return the task once a try ends it; each try is made when it is due and takes `seconds`."""
    while (task := world.reader.download(job)) is None:
        assert job.due > world.time
        world.time = max(job.due, world.time + seconds)
    return task


def test_a_failed_download_is_retried(world: World) -> None:
    task = tries(world, Download(referenced(world, [AWAY, AWAY, b'{"url":"http://target.example/"}'])))
    assert world.process(task)[0].status is Status.SUCCESS


def test_a_download_that_fails_for_two_minutes_fails_the_command(world: World) -> None:
    task = tries(world, Download(referenced(world, [AWAY, AWAY, AWAY, b'{"url":"http://target.example/"}'])), 60.0)
    assert codes(world.process(task)[0]) == ("FAILURE", "EBADCOMMAND")
    assert len(world.bucket.asked) == 3


def test_the_last_try_is_due_when_the_time_for_the_download_is_over_or_the_command_expires(world: World) -> None:
    soon = (world.now + timedelta(seconds=0.1)).isoformat()
    expiring = Download(referenced(world, [AWAY, AWAY], commandId="expiring", expiresAt=soon))
    assert world.reader.download(expiring) is None
    assert expiring.due == pytest.approx(world.time + 0.1)
    failing = Download(referenced(world, [AWAY, AWAY], commandId="failing"))
    assert world.reader.download(failing) is None
    end = world.time + DOWNLOAD_SECONDS
    world.time = end - 0.1
    assert world.reader.download(failing) is None
    assert failing.due == pytest.approx(end)


def unreachable(code: Code, proxy: str | None = None) -> PlatformUnreachable:
    return PlatformUnreachable(Call.DOWNLOAD, f"{code}: nothing", FaultFacts(code, proxy=proxy))


@pytest.mark.parametrize("error", [PlatformError(Call.DOWNLOAD, "S3 answered 302", 302), NotThePlatform(Call.DOWNLOAD, "a web page", 307)])
def test_a_redirect_in_place_of_a_body_fails_the_command_at_once(world: World, error: PlatformError) -> None:
    task = world.reader.download(Download(referenced(world, [error])))
    assert task is not None
    assert codes(world.process(task)[0]) == ("FAILURE", "EBADCOMMAND")


def test_a_host_of_a_body_that_does_not_exist_is_looked_up_a_second_time_and_not_a_third(world: World) -> None:
    missing, began = unreachable(Code.ENOTFOUND), world.time
    task = tries(world, Download(referenced(world, [missing, missing, missing])))
    assert codes(world.process(task)[0]) == ("FAILURE", "EBADCOMMAND")
    assert (len(world.bucket.asked), world.time - began) == (2, MISSING_SECONDS)


@pytest.mark.parametrize("error", [unreachable(Code.EAI_AGAIN), unreachable(Code.ENOTFOUND, "http://proxy.example:3128"), AWAY])
def test_a_fault_that_may_pass_is_retried_more_often(world: World, error: PlatformError) -> None:
    task = tries(world, Download(referenced(world, [error, error, error, b'{"url":"http://target.example/"}'])))
    assert world.process(task)[0].status is Status.SUCCESS


def test_after_a_stop_the_next_start_downloads_the_body(world: World) -> None:
    assert world.reader.download(Download(referenced(world, [AWAY]))) is None
    assert world.states() == {"admitted": 1}
    (task,), _ = world.again()
    assert task.needs_download


def test_an_expired_referenced_command_is_not_downloaded(world: World) -> None:
    task = referenced(world, b"{}")
    world.now += timedelta(minutes=5)
    downloaded = world.reader.download(Download(task))
    assert downloaded is not None
    assert codes(world.process(downloaded)[0]) == ("REJECTED", "EEXPIRED")
    assert world.bucket.asked == []
