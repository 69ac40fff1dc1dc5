"""AWS's errors as errors of ours."""

from __future__ import annotations

import email.utils
import re
from datetime import UTC, datetime, timedelta

import pytest

from relay_agent.core.errors import (
    Call,
    CredentialsExpired,
    PlatformError,
    PlatformRefused,
    QueueUnavailable,
    RateLimited,
)
from relay_agent.diagnostics import local_causes
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.tdp.aws_clients import platform_error
from tests.unit.tdp.scenes import aws_error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ExpiredToken", CredentialsExpired),
        ("InvalidClientTokenId", CredentialsExpired),
        ("AWS.SimpleQueueService.NonExistentQueue", QueueUnavailable),
        ("com.amazonaws.sqs#QueueDoesNotExist", QueueUnavailable),
        ("AccessDenied", QueueUnavailable),
        ("SignatureDoesNotMatch", PlatformRefused),
        ("RequestTimeTooSkewed", PlatformRefused),
        ("ThrottlingException", RateLimited),
        ("RequestThrottled", RateLimited),
        ("InternalError", PlatformError),
    ],
)
def test_an_aws_error_becomes_a_platform_error_without_awss_text(code: str, kind: type[PlatformError]) -> None:
    error = platform_error(Call.SQS_RECEIVE, aws_error(code))
    assert type(error) is kind
    assert "canary" not in str(error)


def test_an_overlong_error_code_is_truncated() -> None:
    assert len(str(platform_error(Call.SQS_RECEIVE, aws_error("A" * 1_000_000)))) < 200


def test_half_of_a_surrogate_pair_in_an_error_code_is_replaced() -> None:
    assert str(platform_error(Call.SQS_RECEIVE, aws_error("A\ud800"))).endswith("AWS says A?")


@pytest.mark.parametrize(
    ("off", "reported"),
    [(600, "(599|600) s behind"), (-600, "(600|601) s ahead of"), (5, "refuses the signature"), (None, "refuses the signature")],
)
def test_a_rejected_signature_gives_the_clock_offset_in_the_words_of_check(off: float | None, reported: str) -> None:
    error = aws_error("RequestTimeTooSkewed", 403)
    if off is not None:
        date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=off), usegmt=True)
        error.response["ResponseMetadata"]["HTTPHeaders"] = {"date": date}
    cause = cause_of(platform_error(Call.SQS_RECEIVE, error))
    assert cause.id == "clock"
    assert re.search(reported, cause.cause)
    assert cause.cure.startswith(local_causes.CLOCK_OFF.cure)
