"""Failed transfers to and from S3: what the log and the page say of them, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from relay_agent.core import failures
from relay_agent.core.errors import Call, NotThePlatform, PayloadFault, PayloadRefused, PlatformError
from relay_agent.diagnostics import local_causes, platform_causes
from relay_agent.diagnostics.transfer_failures import DownloadFailures
from tests.unit.relay.scenes import Uploads


@pytest.fixture
def world(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path)


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
    world: Uploads, error: Exception, cause: failures.Cause
) -> None:
    world.answers = [error]
    world.uploader.upload(world.job())
    assert world.log == ["upload-refused"]
    assert (world.fields["cause"], world.fields["cure"]) == (cause.cause, cause.cure)
    assert world.failures.problem is not None and world.failures.problem.cause == cause


def test_the_page_forgets_a_refusal_when_another_answer_is_uploaded_or_an_hour_has_passed(world: Uploads) -> None:
    refused = PayloadRefused(Call.UPLOAD, "S3 answered 403", 403)
    world.answers = [refused, None, refused]
    world.uploader.upload(world.job())
    assert world.failures.problem is not None
    world.uploader.upload(world.job())
    assert world.failures.problem is None
    world.uploader.upload(world.job())
    world.time += 3601
    assert world.failures.problem is None


def test_failing_downloads_are_logged_once_with_cause_and_cure_and_so_is_their_end(world: Uploads) -> None:
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


def test_uploads_that_fail_again_and_again_are_one_line_with_cause_and_cure(world: Uploads) -> None:
    jobs = [world.job(command_id=f"c{number}") for number in range(20)]
    world.answers = [AWAY] * 60
    for _ in range(3):
        for job in jobs:
            world.uploader.upload(job)
    assert world.log == ["upload-failed"]
    assert "Amazon S3" in str(world.fields["cause"]) and "firewall" in str(world.fields["cure"])


def test_a_new_reason_is_logged_and_a_lasting_one_every_five_minutes(world: Uploads) -> None:
    job = world.job()
    world.answers = [AWAY, UNWELL, AWAY, UNWELL]
    for _ in range(3):
        world.uploader.upload(job)
    assert world.log == ["upload-failed"] * 2
    world.time += 300
    world.uploader.upload(job)
    assert world.log == ["upload-failed"] * 3


def test_recovery_is_logged_when_no_answer_waits_for_another_attempt(world: Uploads) -> None:
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


def test_giving_up_an_answer_is_no_recovery(world: Uploads) -> None:
    job = world.job()
    world.answers = [AWAY, PayloadRefused(Call.UPLOAD, "S3 answered 403", 403), None, AWAY]
    world.uploader.upload(job)
    world.uploader.upload(job)
    world.uploader.upload(world.job(command_id="later"))
    assert world.log == ["upload-failed", "upload-refused"]
    world.uploader.upload(world.job(command_id="last"))
    assert world.log[2:] == ["upload-failed"]
