"""Payloads: decoding, decryption, download, and the failure of a bad one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.clock import iso
from relay_agent.core.errors import Call, PayloadRefused, PlatformError
from relay_agent.core.models import HttpRequest, Status
from relay_agent.protocol import messages
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.payload_reader import KEPT_IN_MEMORY
from relay_agent.relay.task import Task
from relay_agent.storage.buffer import IN_MEMORY, Buffer
from tests.worlds import CANARY, NOW, OTHER, RING, SECONDS, V2, World, codes, message, sealed, told


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
    assert named in told(update)[1]["message"]
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


NEVER = threading.Event()


def referenced(world: World, body: bytes | list[PlatformError | bytes], **fields: Any) -> Task:
    world.bucket.bodies[URL] = body
    (task,) = world.take(message(body=..., bodyDelivery="referenced", bodyUrl=URL, **fields)).tasks
    assert task.needs_download
    return task


def test_a_referenced_body_is_downloaded_and_determines_the_lane(world: World) -> None:
    task = world.reader.download(referenced(world, b'{"url":"http://lims.example:81/"}'), NEVER)
    assert task is not None
    assert (task.lane, task.needs_download, world.bucket.asked) == ("lims.example:81", False, [URL])
    assert world.process(task)[0].status is Status.SUCCESS


def test_a_large_referenced_body_waits_in_the_spool_until_it_has_run(world: World) -> None:
    body = json.dumps({"url": "http://target.example/", "body": "x" * KEPT_IN_MEMORY}).encode()
    task = world.reader.download(referenced(world, body), NEVER)
    assert task is not None
    assert task.request is None
    assert [path.name for path in world.spool.directory.iterdir()] == [task.body]
    assert world.process(task)[0].status is Status.SUCCESS
    assert world.target.asked[0][0].body == b"x" * KEPT_IN_MEMORY
    assert list(world.spool.directory.iterdir()) == []


def test_a_large_body_takes_no_memory_while_its_request_is_under_way_and_nothing_afterwards(world: World) -> None:
    text = "x" * 3 * IN_MEMORY
    task = world.reader.download(referenced(world, json.dumps({"url": "http://target.example/", "body": text}).encode()), NEVER)
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
    task = world.reader.download(referenced(world, json.dumps({"url": "http://target.example/", "body": text}).encode()), NEVER)
    assert task is not None
    assert (world.process(task)[0].status, world.target.sent) == (Status.SUCCESS, [text.encode()])


@pytest.mark.parametrize("body", [b"no json", b"[]", PayloadRefused(Call.DOWNLOAD, f"S3 answered {403}", 403)])
def test_a_referenced_body_that_is_no_request_or_refused_is_ebadcommand(world: World, body: bytes | PlatformError) -> None:
    task = world.reader.download(referenced(world, [body]), NEVER)
    assert task is not None
    update = world.process(task)[0]
    assert codes(update) == ("FAILURE", "EBADCOMMAND")
    assert URL not in update.message


class Passing(threading.Event):
    """A stop event that is never set and whose waits return at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


def test_a_failed_download_is_retried(world: World) -> None:
    away = PlatformError(Call.DOWNLOAD, "S3 answered 503", 503)
    task = world.reader.download(referenced(world, [away, away, b'{"url":"http://target.example/"}']), Passing())
    assert task is not None
    assert world.process(task)[0].status is Status.SUCCESS


def test_a_download_that_fails_for_two_minutes_fails_the_command(world: World) -> None:
    class Minutes(Passing):
        """Each wait takes a minute."""

        def wait(self, timeout: float | None = None) -> bool:
            world.time += 60
            return False

    away = PlatformError(Call.DOWNLOAD, "S3 answered 503", 503)
    task = world.reader.download(referenced(world, [away, away, away, b'{"url":"http://target.example/"}']), Minutes())
    assert task is not None
    assert codes(world.process(task)[0]) == ("FAILURE", "EBADCOMMAND")
    assert len(world.bucket.asked) == 3


def test_after_a_stop_the_next_start_downloads_the_body(world: World) -> None:
    stop = threading.Event()
    stop.set()
    assert world.reader.download(referenced(world, [PlatformError(Call.DOWNLOAD, "S3 answered 503", 503)]), stop) is None
    assert world.states() == {"admitted": 1}
    (task,), _ = world.again()
    assert task.needs_download


def test_an_expired_referenced_command_is_not_downloaded(world: World) -> None:
    task = referenced(world, b"{}")
    world.now += timedelta(minutes=5)
    downloaded = world.reader.download(task, NEVER)
    assert downloaded is not None
    assert codes(world.process(downloaded)[0]) == ("REJECTED", "EEXPIRED")
    assert world.bucket.asked == []
