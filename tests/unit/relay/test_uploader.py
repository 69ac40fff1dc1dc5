"""Uploads of large answers: retried without delaying others, and given up before the sender stops waiting."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from relay_agent.core import failures
from relay_agent.core.clock import Clock
from relay_agent.core.errors import Call, NotThePlatform, PayloadFault, PayloadRefused, PlatformError
from relay_agent.core.models import Status, Update
from relay_agent.diagnostics import local_causes, platform_causes
from relay_agent.diagnostics.transfer_failures import TELL_SECONDS, DownloadFailures, UploadFailures
from relay_agent.relay.outbox import Upload
from relay_agent.relay.uploader import GIVE_UP_SECONDS, Uploader

START = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """An uploader whose platform is scripted and whose time the test moves."""

    def __init__(self, directory: Path) -> None:
        self.time = 0.0
        self.answers: list[Exception | None] = []
        self.directory = directory
        self.log: list[str] = []
        self.fields: dict[str, object] = {}
        clock = Clock(now=lambda: START + timedelta(seconds=self.time), monotonic=lambda: self.time)
        whatever = cast("Any", self)
        self.failures = UploadFailures(whatever, clock.monotonic)
        self.uploader = Uploader(
            platform=whatever,
            outcomes=whatever,
            spool=whatever,
            outbox=whatever,
            failures=self.failures,
            clock=clock,
            stop=threading.Event(),
        )

    def upload(self, _url: str, _path: Path, seconds: float) -> None:
        assert seconds > 0
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer

    def path(self, name: str) -> Path:
        return self.directory / name

    def warning(self, event: str, **fields: object) -> None:
        self.log.append(event)
        self.fields = fields

    error = info = warning

    def job(self, tell_by: float | None = None, command_id: str = "c") -> Upload:
        until = None if tell_by is None else START + timedelta(seconds=tell_by)
        return Upload(Update(command_id, Status.SUCCESS, "referenced", "c.gz", "http://s3/", FALLBACK, until), self.time)


FALLBACK = '{"commandId":"c","body":{"code":"ERESPONSETOOLARGE","message":"too large"}}'


def because(reason: str) -> str:
    """Return the fallback with the reason added."""
    return FALLBACK.replace("too large", f"too large ({reason})")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_uploaded_answer_is_sent_as_it_was_recorded(world: World) -> None:
    world.answers = [None]
    told = world.uploader.upload(world.job())
    assert told is not None and (told.status, told.message, told.spool) == (Status.SUCCESS, "referenced", None)


def test_a_failed_try_is_due_again_later(world: World) -> None:
    world.answers = [PlatformError(Call.UPLOAD, "S3 answered 503", 503)]
    job = world.job(tell_by=300)
    assert world.uploader.upload(job) is None
    assert 0 < job.due <= 60
    assert world.log == ["upload-failed"]


def test_an_answer_is_sent_without_its_body_before_its_sender_stops_waiting(world: World) -> None:
    job = world.job(tell_by=120)
    world.time = 120 - TELL_SECONDS
    world.answers = [PlatformError(Call.UPLOAD, "ECONNREFUSED")]
    told = world.uploader.upload(job)
    assert told is not None and (told.status, told.message) == (Status.FAILURE, because("payload upload: ECONNREFUSED"))


def test_no_attempt_is_due_after_the_answer_must_be_sent(world: World) -> None:
    job = world.job(tell_by=TELL_SECONDS + 0.1)
    world.answers = [PlatformError(Call.UPLOAD, "ECONNREFUSED")]
    assert world.uploader.upload(job) is None
    assert job.due <= 0.11


def test_without_an_expiry_an_upload_is_given_up_after_an_hour(world: World) -> None:
    job = world.job()
    world.answers = [PlatformError(Call.UPLOAD, "ECONNREFUSED")] * 2
    world.time = GIVE_UP_SECONDS - 1
    assert GIVE_UP_SECONDS == 3600
    assert world.uploader.upload(job) is None
    world.time = GIVE_UP_SECONDS
    told = world.uploader.upload(job)
    assert told is not None and (told.status, told.code) == (Status.FAILURE, "ERESPONSETOOLARGE")


def test_an_upload_that_s3_refuses_is_not_retried(world: World) -> None:
    world.answers = [PayloadRefused(Call.UPLOAD, "S3 answered 403", 403)]
    told = world.uploader.upload(world.job())
    assert told is not None and (told.status, told.message) == (Status.FAILURE, because("payload upload: S3 answered 403"))


# --- what is logged and shown ---


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (PayloadRefused(Call.UPLOAD, "S3 answered 403", 403), platform_causes.S3_REFUSED.about(status=403)),
        (PayloadRefused(Call.UPLOAD, "text", 403, why=PayloadFault.EXPIRED), platform_causes.S3_EXPIRED),
        (PayloadRefused(Call.UPLOAD, "S3 answered 404", 404), platform_causes.S3_GONE),
        (PayloadRefused(Call.UPLOAD, "text", why=PayloadFault.BAD_URL), platform_causes.S3_BAD_URL),
        (FileNotFoundError("gone"), local_causes.SPOOL),
    ],
)
def test_an_answer_that_is_given_up_has_cause_and_cure_in_the_log_and_on_the_page(
    world: World, error: Exception, cause: failures.Cause
) -> None:
    world.answers = [error]
    world.uploader.upload(world.job())
    assert world.log == ["upload-refused"]
    assert (world.fields["cause"], world.fields["cure"]) == (cause.cause, cause.cure)
    assert world.failures.problem is not None and world.failures.problem.cause == cause


def test_the_page_forgets_a_refusal_when_another_answer_is_uploaded_or_an_hour_has_passed(world: World) -> None:
    refused = PayloadRefused(Call.UPLOAD, "S3 answered 403", 403)
    world.answers = [refused, None, refused]
    world.uploader.upload(world.job())
    assert world.failures.problem is not None
    world.uploader.upload(world.job())
    assert world.failures.problem is None
    world.uploader.upload(world.job())
    world.time += 3601
    assert world.failures.problem is None


def test_failing_downloads_are_logged_once_with_cause_and_cure_and_so_is_their_end(world: World) -> None:
    failures = DownloadFailures(cast("Any", world), lambda: world.time)
    failures.note(PayloadRefused(Call.DOWNLOAD, "text", why=PayloadFault.TOO_LARGE))
    assert world.log == [] and failures.problem is None
    for _ in range(5):
        failures.note(NotThePlatform(Call.DOWNLOAD, "a web page answered (403) in Amazon S3's place", 403))
    assert world.log == ["download-failed"]
    assert world.fields["cause"] == platform_causes.NOT_S3.cause
    assert failures.problem is not None and failures.problem.cause is platform_causes.NOT_S3
    failures.note(None)
    assert world.log == ["download-failed", "download-recovered"]
    assert failures.problem is None


AWAY = PlatformError(Call.UPLOAD, "ECONNREFUSED: nobody listens")
UNWELL = PlatformError(Call.UPLOAD, "S3 answered 503", 503)


def test_uploads_that_fail_again_and_again_are_one_line_with_cause_and_cure(world: World) -> None:
    jobs = [world.job(command_id=f"c{number}") for number in range(20)]
    world.answers = [AWAY] * 60
    for _ in range(3):
        for job in jobs:
            world.uploader.upload(job)
    assert world.log == ["upload-failed"]
    assert "Amazon S3" in str(world.fields["cause"]) and "firewall" in str(world.fields["cure"])


def test_a_new_reason_is_logged_and_a_lasting_one_every_five_minutes(world: World) -> None:
    job = world.job()
    world.answers = [AWAY, UNWELL, AWAY, UNWELL]
    for _ in range(3):
        world.uploader.upload(job)
    assert world.log == ["upload-failed"] * 2
    world.time += 300
    world.uploader.upload(job)
    assert world.log == ["upload-failed"] * 3


def test_recovery_is_logged_when_no_answer_waits_for_another_attempt(world: World) -> None:
    first, second = world.job(command_id="first"), world.job(command_id="second")
    world.answers = [AWAY, AWAY, None, None, None, None]
    world.uploader.upload(first)
    world.uploader.upload(second)
    world.uploader.upload(world.job(command_id="other"))
    world.uploader.upload(first)
    assert world.log == ["upload-failed"]
    world.uploader.upload(second)
    world.uploader.upload(world.job(command_id="later"))
    assert world.log == ["upload-failed", "upload-recovered"]


def test_giving_up_an_answer_is_no_recovery(world: World) -> None:
    job = world.job()
    world.answers = [AWAY, PayloadRefused(Call.UPLOAD, "S3 answered 403", 403), None, AWAY]
    world.uploader.upload(job)
    world.uploader.upload(job)
    world.uploader.upload(world.job(command_id="later"))
    assert world.log == ["upload-failed", "upload-refused"]
    world.uploader.upload(world.job(command_id="last"))
    assert world.log[2:] == ["upload-failed"]
