"""Uploads of large answers: tried again without holding up others, and given up before the sender does."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_agent.core.errors import Call, PayloadRefused, PlatformError
from relay_agent.core.models import Status
from relay_agent.diagnostics.transfer_failures import FALLBACK_LEAD_SECONDS
from relay_agent.relay.uploader import GIVE_UP_SECONDS
from tests.unit.relay.scenes import FALLBACK, Uploads


@pytest.fixture
def world(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path)


def because(reason: str) -> str:
    """Return the fallback with the reason added."""
    return FALLBACK.replace("too large", f"too large ({reason})")


def test_an_uploaded_answer_is_sent_as_it_was_recorded(world: Uploads) -> None:
    world.answers = [None]
    reported = world.uploader.upload(world.job())
    assert reported is not None and (reported.status, reported.message, reported.spool) == (Status.SUCCESS, "referenced", None)


def test_a_failed_try_is_due_again_later(world: Uploads) -> None:
    world.answers = [PlatformError(Call.UPLOAD, "S3 answered 503", 503)]
    job = world.job(tell_by=300)
    assert world.uploader.upload(job) is None
    assert 0 < job.due <= 60
    assert world.log == ["upload-failed"]


def test_an_answer_is_sent_without_its_body_before_its_sender_stops_waiting(world: Uploads) -> None:
    job = world.job(tell_by=120)
    world.time = 120 - FALLBACK_LEAD_SECONDS
    world.answers = [PlatformError(Call.UPLOAD, "ECONNREFUSED")]
    reported = world.uploader.upload(job)
    assert reported is not None and (reported.status, reported.message) == (Status.FAILURE, because("payload upload: ECONNREFUSED"))


def test_no_attempt_is_due_after_the_answer_must_be_sent(world: Uploads) -> None:
    job = world.job(tell_by=FALLBACK_LEAD_SECONDS + 0.1)
    world.answers = [PlatformError(Call.UPLOAD, "ECONNREFUSED")]
    assert world.uploader.upload(job) is None
    assert job.due <= 0.11


def test_without_an_expiry_an_upload_is_given_up_after_an_hour(world: Uploads) -> None:
    job = world.job()
    world.answers = [PlatformError(Call.UPLOAD, "ECONNREFUSED")] * 2
    world.time = GIVE_UP_SECONDS - 1
    assert GIVE_UP_SECONDS == 3600
    assert world.uploader.upload(job) is None
    world.time = GIVE_UP_SECONDS
    reported = world.uploader.upload(job)
    assert reported is not None and (reported.status, reported.code) == (Status.FAILURE, "ERESPONSETOOLARGE")


def test_an_upload_that_s3_refuses_is_not_retried(world: Uploads) -> None:
    world.answers = [PayloadRefused(Call.UPLOAD, "S3 answered 403", 403)]
    reported = world.uploader.upload(world.job())
    assert reported is not None and (reported.status, reported.message) == (Status.FAILURE, because("payload upload: S3 answered 403"))
