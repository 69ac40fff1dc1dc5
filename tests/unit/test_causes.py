"""One table of causes and cures: each way in which the platform fails us is told apart, in words that help."""

from __future__ import annotations

import pytest

from relay_agent import causes
from relay_agent.errors import (
    CredentialsExpired,
    NotThePlatform,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    QueueUnavailable,
    RateLimited,
    UnknownAgent,
)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (PlatformRefused("agent/config", "answered 401", 401), causes.REFUSED),
        (PlatformRefused("sqs receive", "AWS says SignatureDoesNotMatch", 403), causes.CLOCK),
        (UnknownAgent("agent/config", "answered 404", 404), causes.UNKNOWN_AGENT),
        (NotThePlatform("agent/config", "answered 301", 301), causes.NOT_THE_PLATFORM),
        (PlatformUnreachable("agent/config", "ECONNREFUSED", False), causes.UNREACHABLE),
        (PlatformUnreachable("sqs receive", "ECONNREFUSED", False), causes.SQS_UNREACHABLE),
        (PlatformUnreachable("sqs receive", "ECONNREFUSED", True), causes.PROXY),
        (PlatformError("agent/config", "answered 407", 407), causes.PROXY),
        (PlatformError("agent/config", "answered 503", 503), causes.UNWELL),
        (PlatformError("payload upload", "ECONNREFUSED: nobody listens"), causes.S3_UNREACHABLE),
        (PlatformError("payload upload", "S3 answered 503", 503), causes.S3_UNWELL),
        (PlatformError("payload upload", "a web page answered (200) in Amazon S3's place", 200), causes.NOT_S3),
        (RateLimited("agent/config", 3.0), causes.BUSY),
        (CredentialsExpired("sqs receive", "AWS says ExpiredToken", 403), causes.NO_CREDENTIALS),
        (QueueUnavailable("sqs receive", "AWS says QueueDoesNotExist", 400), causes.NO_QUEUE),
    ],
)
def test_each_failure_has_its_cause_and_cure(error: PlatformError, cause: causes.Cause) -> None:
    assert causes.cause_of(error) is cause


def test_the_guides_words_are_used() -> None:
    assert "enable the agent's connection" in causes.AGENT_DISABLED.cure
    assert "enable the agent's queue" in causes.QUEUE_DISABLED.cure
    assert "ORG_SLUG and JWT do not match" in causes.REFUSED.cause


def test_what_pauses_the_agent_says_that_it_resumes_by_itself() -> None:
    assert all("the agent resumes by itself" in cause.cure for cause in (causes.JOURNAL, causes.BACKLOG))
