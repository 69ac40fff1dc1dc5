"""Each failure of the platform or AWS has its own cause and cure."""

from __future__ import annotations

import pytest

from relay_agent.core.errors import (
    Call,
    CredentialsExpired,
    NotThePlatform,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    QueueUnavailable,
    RateLimited,
    UnknownAgent,
)
from relay_agent.core.failures import Cause, Code, FaultFacts, Phase
from relay_agent.diagnostics import local_causes, network_causes, platform_causes

TRUST = (Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, Code.DEPTH_ZERO_SELF_SIGNED_CERT)


def reached_nobody(
    code: str, *, call: Call = Call.CONFIG, proxy: str | None = None, status: int | None = None, phase: Phase = Phase.CONNECT
) -> PlatformUnreachable:
    """The error of a call that got no answer."""
    return PlatformUnreachable(call, f"{code}: text", FaultFacts(Code(code), "api.lab.example", 443, phase, proxy=proxy, status=status))


def aws(kind: type[PlatformError], call: Call, code: str, status: int) -> PlatformError:
    """The error of a call that AWS refused."""
    return kind(call, f"AWS says {code}", status, aws_code=code)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (PlatformRefused(Call.CONFIG, "answered 401", 401), platform_causes.REFUSED),
        (aws(PlatformRefused, Call.SQS_RECEIVE, "SignatureDoesNotMatch", 403), platform_causes.CLOCK),
        (UnknownAgent(Call.CONFIG, "answered 404", 404), platform_causes.UNKNOWN_AGENT),
        (NotThePlatform(Call.CONFIG, "answered 301", 301), platform_causes.NOT_THE_PLATFORM),
        (PlatformUnreachable(Call.CONFIG, "ECONNREFUSED"), platform_causes.UNREACHABLE),
        (PlatformUnreachable(Call.SQS_RECEIVE, "ECONNREFUSED"), platform_causes.SQS_UNREACHABLE),
        (PlatformUnreachable(Call.SQS_RECEIVE, "ECONNREFUSED", FaultFacts(None, proxy="http://p:1")), platform_causes.PROXY),
        (PlatformError(Call.CONFIG, "answered 503", 503), platform_causes.PLATFORM_SERVER_ERROR),
        (PlatformError(Call.UPLOAD, "ECONNREFUSED: nobody listens"), platform_causes.S3_UNREACHABLE),
        (PlatformError(Call.UPLOAD, "S3 answered 503", 503), platform_causes.S3_SERVER_ERROR),
        (NotThePlatform(Call.UPLOAD, "a web page answered (200) in Amazon S3's place", 200), platform_causes.NOT_S3),
        (RateLimited(Call.CONFIG, 3.0), platform_causes.BUSY),
        (aws(CredentialsExpired, Call.SQS_RECEIVE, "ExpiredToken", 403), platform_causes.NO_CREDENTIALS),
        (aws(QueueUnavailable, Call.SQS_RECEIVE, "QueueDoesNotExist", 400), platform_causes.NO_QUEUE),
    ],
)
def test_each_failure_has_its_cause_and_cure(error: PlatformError, cause: Cause) -> None:
    assert platform_causes.cause_of(error) is cause


@pytest.mark.parametrize(
    ("error", "check", "reported"),
    [
        (reached_nobody("ENOTFOUND"), "platform", "the name api.lab.example does not exist"),
        (reached_nobody("EAI_AGAIN"), "platform", "DNS server does not answer"),
        (reached_nobody("ECONNREFUSED"), "platform", "refuses connections on port 443"),
        (reached_nobody("ETIMEDOUT"), "platform", "does not answer on port 443"),
        (reached_nobody("ETIMEDOUT", phase=Phase.FIRST_BYTE), "platform", "accepts the connection"),
        (reached_nobody("EHOSTUNREACH"), "platform", "no route to the host"),
        (reached_nobody("UNABLE_TO_VERIFY_LEAF_SIGNATURE"), "platform", "which the agent does not trust"),
        (
            reached_nobody("ECONNREFUSED", proxy="http://p:1"),
            "platform",
            "proxy http://p:1, not the platform, fails: nothing",
        ),
        (
            reached_nobody("EBADRESPONSE", proxy="http://p:1", status=403),
            "platform",
            "proxy http://p:1, not the platform, answered 403",
        ),
        (reached_nobody("EBADRESPONSE", proxy="http://p:1", status=407), "platform", "answered 407: it requires a user and password"),
        (PlatformError(Call.CONFIG, "answered 407", 407), "platform", "answered 407: it requires a user and password"),
        (reached_nobody("ETIMEDOUT", call=Call.SQS_RECEIVE), "sqs", "does not answer on port 443"),
        (reached_nobody("ETIMEDOUT", call=Call.LOGS_LOOK), "cloudwatch", "does not answer on port 443"),
        (aws(QueueUnavailable, Call.SQS_LOOK, "AccessDenied", 403), "sqs", "an AWS (IAM) policy does not let this agent"),
        (aws(PlatformError, Call.SQS_LOOK, "403", 403), "sqs", "the answer is not from Amazon SQS"),
        (PlatformError(Call.AGENTS, "answered 400", 400), "agent", "no agent with the id AGENT_ID"),
        (
            aws(PlatformError, Call.SQS_RECEIVE, "InternalError", 500),
            "sqs",
            "Amazon SQS answers with a server error (AWS says Inter",
        ),
        (RateLimited(Call.SQS_RECEIVE, 0.0), "sqs", "Amazon SQS limits the rate of calls"),
        (aws(PlatformError, Call.LOGS_PUT, "403", 403), "cloudwatch", "the answer is not from Amazon CloudWatch Logs"),
        (
            aws(QueueUnavailable, Call.LOGS_PUT, "AccessDeniedException", 400),
            "cloudwatch",
            "an AWS (IAM) policy does not let this agent write",
        ),
        (aws(PlatformError, Call.LOGS_PUT, "ResourceNotFoundException", 400), "cloudwatch", "log group does not exist"),
    ],
)
def test_each_network_fault_has_its_own_cause(error: PlatformError, check: str, reported: str) -> None:
    found = platform_causes.cause_of(error)
    assert found.id == check
    assert reported in found.cause


def test_each_failure_of_cloudwatch_has_its_own_cure_and_says_that_the_agent_works_without_it() -> None:
    errors: list[PlatformError] = [
        RateLimited(Call.LOGS_PUT, 0.0),
        PlatformRefused(Call.LOGS_PUT, "AWS says InvalidSignatureException", 400, aws_code="InvalidSignatureException", clock_off=-600.0),
        reached_nobody("UNABLE_TO_VERIFY_LEAF_SIGNATURE", call=Call.LOGS_PUT),
        reached_nobody("ETIMEDOUT", call=Call.LOGS_PUT),
        aws(QueueUnavailable, Call.LOGS_PUT, "AccessDeniedException", 400),
        aws(PlatformError, Call.LOGS_PUT, "ResourceNotFoundException", 400),
        aws(PlatformError, Call.LOGS_PUT, "ServiceUnavailableException", 503),
        aws(CredentialsExpired, Call.LOGS_PUT, "ExpiredTokenException", 400),
    ]
    found = [platform_causes.cause_of(error) for error in errors]
    assert len({one.cause for one in found}) == len({one.cure for one in found}) == len(errors)
    assert all(one.id == "cloudwatch" and "the agent works without them" in one.cause for one in found)
    assert [errors[place].reason for place, one in enumerate(found) if "firewall" in one.cure] == ["ETIMEDOUT: text"]
    assert "600 s behind" in found[1].cause and found[1].cure == local_causes.CLOCK_OFF.cure


def test_each_cure_of_a_fault_between_agent_and_platform_names_its_setting() -> None:
    for code in network_causes.ON_THE_WAY:
        if code not in (Code.ERESPONSETOOLARGE, Code.ETOOMANYREDIRECTS, Code.EBADCOMMAND, *TRUST):
            assert "API_TARGET" in platform_causes.cause_of(reached_nobody(code)).cure


def test_a_407_s_cure_says_where_user_and_password_go() -> None:
    cure = platform_causes.cause_of(reached_nobody("EBADRESPONSE", proxy="http://p:1", status=407)).cure
    assert "put user and password into the proxy's URL (https_proxy" in cure
    assert "an @ after them" in cure


def test_the_terms_of_the_user_guide_are_used() -> None:
    assert "enable the agent's connection" in platform_causes.AGENT_DISABLED.cure
    assert "enable the agent's queue" in platform_causes.QUEUE_DISABLED.cure
    assert "ORG_SLUG and JWT do not match" in platform_causes.REFUSED.cause
