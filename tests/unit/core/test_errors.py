"""The agent's exceptions carry what is known as fields, and their texts repeat no value that may be a secret or too long."""

from __future__ import annotations

import pytest

from relay_agent.core.errors import (
    BadRequest,
    Call,
    ConfigurationError,
    JournalDamaged,
    JournalError,
    JournalUnwritable,
    Mistake,
    PayloadFault,
    PayloadRefused,
    PlatformError,
    PlatformUnreachable,
    RateLimited,
    Service,
)
from relay_agent.core.failures import Code, FaultFacts, Obstacle, StorageTrouble


def test_every_call_is_a_text_and_knows_its_service() -> None:
    assert (Call.CONFIG, Call.SQS_SEND, Call.LOGS_PUT) == ("agent/config", "sqs send", "logs put")
    assert {call.service for call in Call} == set(Service)
    assert {call for call in Call if call.service is Service.S3} == {Call.DOWNLOAD, Call.UPLOAD}
    assert {call.partition(" ")[0] for call in Call if call.service in (Service.SQS, Service.LOGS)} == {"sqs", "logs"}


def test_a_platform_error_begins_with_its_call_and_names_its_service() -> None:
    error = PlatformError(Call.SQS_SEND, "answered 503", 503, aws_code="ServiceUnavailable")
    assert (str(error), error.service, error.status, error.endpoint) == ("sqs send: answered 503", Service.SQS, 503, None)
    assert PlatformError("POST /v1/commands", "answered 503").service is Service.API


def test_an_error_at_another_endpoint_names_it_and_is_the_same_error() -> None:
    error = PlatformError(Call.SQS_SEND, "x")
    assert error.at("http://127.0.0.1:1") is error
    assert error.endpoint == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("code", "denied"), [("AccessDenied", True), ("AccessDeniedException", True), ("ExpiredToken", False), (None, False)]
)
def test_only_these_codes_mean_that_a_policy_forbids_the_call(code: str | None, denied: bool) -> None:
    assert PlatformError(Call.SQS_LOOK, "x", 403, aws_code=code).denied == denied


def test_a_platform_that_is_unreachable_has_the_status_of_the_proxy_that_answered_in_its_place() -> None:
    facts = FaultFacts(Code.EBADRESPONSE, status=407)
    assert (PlatformUnreachable(Call.CONFIG, "x", facts).status, PlatformUnreachable(Call.CONFIG, "x", facts).facts) == (407, facts)
    assert PlatformUnreachable(Call.CONFIG, "x").facts == FaultFacts(None)


def test_a_rate_limit_is_a_429_with_its_wait_and_a_refused_payload_says_why() -> None:
    assert (RateLimited(Call.CONFIG, 7.0).status, RateLimited(Call.CONFIG, 7.0).retry_after) == (429, 7.0)
    assert PayloadRefused(Call.UPLOAD, "x").why is PayloadFault.ANSWERED


def test_a_configuration_error_lists_every_mistake_by_its_variable() -> None:
    error = ConfigurationError(Mistake("JWT", "is not set"), Mistake("ORG_SLUG", "is empty"))
    assert error.problems == ["JWT: is not set", "ORG_SLUG: is empty"]
    assert str(error) == "JWT: is not set; ORG_SLUG: is empty"


def test_an_error_of_the_journal_is_the_obstacle_that_keeps_commands_out() -> None:
    error = JournalUnwritable("the disk is full", StorageTrouble.FULL)
    assert error.obstacle == Obstacle("the disk is full", StorageTrouble.FULL)
    assert JournalError("x").obstacle == Obstacle("x")
    assert not issubclass(JournalUnwritable, JournalDamaged)
    assert not issubclass(JournalDamaged, JournalUnwritable)


@pytest.mark.parametrize(("field", "shown"), [("headers[0].X", "headers[0].X"), ("x" * 100, "x" * 100), ("x" * 101, "x" * 99 + "\u2026")])
def test_a_bad_request_names_its_field_and_cuts_one_that_is_too_long(field: str, shown: str) -> None:
    error = BadRequest(field, "is not a number")
    assert (error.field, str(error)) == (shown, f"{shown}: is not a number")
