"""Causes and cures for what the platform and AWS refuse or do not answer."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus

from relay_agent.core.errors import (
    Call,
    CredentialsExpired,
    NotThePlatform,
    PayloadFault,
    PayloadRefused,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    QueueUnavailable,
    RateLimited,
    Service,
    UnknownAgent,
)
from relay_agent.core.failures import Cause, FaultFacts
from relay_agent.diagnostics.local_causes import SET_CLOCK, clock_is_off, clock_off, token_expired
from relay_agent.diagnostics.network_causes import (
    ON_THE_WAY,
    TO_LOGS,
    TO_PLATFORM,
    TO_S3,
    TO_SQS,
    Destination,
    on_the_way,
)

REFUSED = Cause(
    "access",
    "the platform refuses the token: ORG_SLUG and JWT do not match, its user lacks the role, or it was revoked or belongs to another"
    " deployment",
    "take ORG_SLUG, JWT and API_TARGET from the same organisation, with a service user that may run agents; or create a new token",
)
UNKNOWN_AGENT = Cause(
    "agent",
    "this organisation has no agent with the id AGENT_ID",
    "copy AGENT_ID from the agent's page in the organisation that ORG_SLUG names",
)
NOT_USER_DEFINED = Cause(
    "agent",
    "AGENT_ID belongs to an agent of another type ({kind}), not to a user-defined agent",
    "create a user-defined agent on the Agents page, and set AGENT_ID to its id",
)
AGENT_DISABLED = Cause("enabled", "the agent is disabled", "enable the agent's connection on the Agents page")
QUEUE_DISABLED = Cause("queue", "the agent's queue is disabled", "enable the agent's queue on the Agents page")
NO_CREDENTIALS = Cause(
    "credentials",
    "AWS does not accept the temporary credentials",
    f"wait: the agent fetches new ones; if the problem lasts, {SET_CLOCK}",
)
NO_QUEUE = Cause(
    "sqs",
    "the queue does not exist, or this agent is not allowed to use it",
    "enable the agent's queue on the Agents page; if it is enabled, ask the platform's support",
)
SQS_POLICY = Cause(
    "sqs",
    "AWS answers AccessDenied: an AWS (IAM) policy does not let this agent use its queue; credentials and this machine's clock are fine",
    "ask the platform's support to check the policies of the queue and of the role; if calls go through a VPC endpoint, check its policy"
    " too",
)
ACK_REFUSED = Cause(
    "sqs",
    "the queue refused to delete some messages, usually because their visibility timeout had passed",
    "wait: they arrive again, and are not run twice; if the problem lasts, raise RELAY_LEASE_SECONDS",
)
CLOCK = Cause(
    "clock",
    "AWS refuses the signature: this machine's clock is more than 5 minutes off, or a proxy changes the requests",
    f"{SET_CLOCK}; if the clock is right, make sure that no proxy rewrites calls to AWS",
)
BUSY = Cause(
    "platform", "the platform limits the rate of calls (429)", "wait: the agent tries again after the time that the platform gives"
)
SLOW = Cause(
    "platform",
    "the platform took {seconds} s to answer; the agent works, but commands take longer",
    "check the network connection, the DNS server and the proxy, if any",
)
PLATFORM_SERVER_ERROR = Cause(
    "platform",
    "the platform, or a proxy in its place, answers with a server error",
    "wait: the agent keeps trying; if the problem lasts, look at the log of the proxy, if any, and ask the platform's support",
)
NOT_THE_PLATFORM = Cause(
    "platform",
    "the answer at API_TARGET is not from the platform's API",
    "check API_TARGET (the API's address, with https, not the web page's), and whether a proxy, a firewall's block page or a log-in page"
    " answers in its place",
)
NOT_AWS = Cause(
    "sqs",
    "the answer is not from {service}",
    "check whether a proxy, a firewall's block page or a log-in page answers in its place, and that AWS_ENDPOINT_URL is not set",
)
AWS_ENDPOINT = Cause(
    "sqs",
    "AWS_ENDPOINT_URL is set, so calls to AWS go to {url} instead; this is meant for emulators such as the sandbox",
    "remove AWS_ENDPOINT_URL from the environment and from .env",
)
AWS_BUSY = Cause(
    "sqs",
    "{service} limits the rate of calls (throttling)",
    "wait: the agent tries again with longer pauses; if the problem lasts, ask the platform's support to raise the quota",
)
AWS_SERVER_ERROR = Cause(
    "sqs",
    "{service} answers with a server error ({reason})",
    "wait: the agent keeps trying; if the problem lasts, check the AWS Health Dashboard for the agent's region, or ask the platform's"
    " support",
)
LOGS_POLICY = Cause(
    "cloudwatch",
    "AWS answers AccessDenied: an AWS (IAM) policy does not let this agent write to its log group",
    "ask the platform's support to check the role's policy; if calls go through a VPC endpoint, check its policy too",
)
NO_LOG_GROUP = Cause(
    "cloudwatch",
    "the agent's log group does not exist",
    "save the agent's settings on the Agents page again, or ask the platform's support to create the log group",
)
NO_LOG_GROUP_NAMED = Cause("cloudwatch", "the platform names no log group for this agent", "ask the platform's support")
NO_LOGS = Cause(
    "cloudwatch",
    "log lines cannot be delivered to CloudWatch Logs; the agent works without it, and writes the same lines to stdout",
    "allow CloudWatch Logs in the agent's AWS region (https, logs.<region>.amazonaws.com) in the outbound firewall and in the proxy, if"
    " any; if AWS answers AccessDenied, ask the platform's support",
)
S3_UNREACHABLE = Cause(
    "platform",
    "the platform's bucket, Amazon S3, cannot be reached",
    "allow S3 in the agent's AWS region (https, *.s3.<region>.amazonaws.com) in the outbound firewall and in the proxy, if any",
)
S3_EXPIRED = Cause(
    "platform",
    "the presigned URL for a large body had expired when it was used (it is valid for an hour at most)",
    "find out what delayed the command: upload-failed or download-failed in the log before this, or a slow target; then have its sender"
    " send it again",
)
S3_REFUSED = Cause(
    "platform",
    "Amazon S3 answers {status} to the platform's presigned URL: a policy of the bucket, of the signing role or of a VPC endpoint forbids"
    " the call, or a proxy changes it",
    "ask the platform's support to check the policies of the bucket and of the role; if calls go through a VPC endpoint or a proxy, make"
    " sure that it passes GET and PUT to *.s3.<region>.amazonaws.com unchanged",
)
S3_GONE = Cause(
    "platform",
    "Amazon S3 has no object at the platform's presigned URL (404): the body or its bucket was deleted",
    "have its sender send the command again; if this happens again, ask the platform's support",
)
S3_BAD_URL = Cause("platform", "the platform gave a presigned URL that is invalid", "ask the platform's support")
S3_SERVER_ERROR = Cause("platform", "Amazon S3 answers with a server error", AWS_SERVER_ERROR.cure)
NOT_S3 = replace(NOT_AWS.about(service="Amazon S3"), id="platform")
STARTING = Cause(
    "platform", "the agent has just started, and reads its configuration from the platform", "wait until it has read its configuration"
)
NO_ANSWERS = Cause(
    "sqs", "the platform's queue for answers does not accept them", "wait: the agent keeps the answers, and tries to send them again"
)
UNREACHABLE = Cause(
    "platform",
    "the platform cannot be reached",
    "check API_TARGET, DNS, the outbound firewall, and the proxy (http_proxy, https_proxy, no_proxy, RELAY_PLATFORM_PROXY)",
)
SQS_UNREACHABLE = Cause(
    "sqs",
    "the platform's queue, Amazon SQS, cannot be reached",
    "allow SQS in the agent's AWS region (https, sqs.<region>.amazonaws.com) in the outbound firewall and in the proxy, if any",
)
NOT_READ = Cause("sqs", "the platform's queue does not answer", SQS_UNREACHABLE.cure)
PROXY = Cause(
    "platform",
    "the proxy does not connect the agent to the platform",
    "check the proxy's address, user and password (https_proxy, http_proxy, RELAY_PLATFORM_PROXY), no_proxy, and the proxy's own rules",
)
_BY_KIND: tuple[tuple[type[PlatformError], Cause], ...] = (
    (UnknownAgent, UNKNOWN_AGENT),
    (RateLimited, BUSY),
    (CredentialsExpired, NO_CREDENTIALS),
    (NotThePlatform, NOT_THE_PLATFORM),
)
_FOR_NOW = frozenset({408, 429})
_DESTINATIONS = {Service.API: TO_PLATFORM, Service.SQS: TO_SQS, Service.LOGS: TO_LOGS, Service.S3: TO_S3}
_NO_LOG_GROUP_CODE = "ResourceNotFoundException"
_NOT_SENT = {
    Service.API: UNREACHABLE,
    Service.SQS: SQS_UNREACHABLE,
    Service.LOGS: NO_LOGS,
    Service.S3: S3_UNREACHABLE,
}


def cause_of(error: PlatformError) -> Cause:
    """Return the cause and cure of a failed call to the platform or to AWS."""
    cause = _at_endpoint(error, _cause_of(error))
    if error.service is not Service.LOGS:
        return cause
    return Cause(TO_LOGS.id, f"log lines are not delivered (the agent works without them): {cause.cause}", cause.cure)


def _at_endpoint(error: PlatformError, cause: Cause) -> Cause:
    """Name AWS_ENDPOINT_URL first if it is set: calls then go to an emulator, which explains any answer that is not AWS's."""
    if error.endpoint is None or not isinstance(error, PlatformUnreachable | NotThePlatform | CredentialsExpired):
        return cause
    row = AWS_ENDPOINT.about(url=error.endpoint)
    return Cause(cause.id, f"{cause.cause}; {row.cause}", f"{row.cure}; if you set it on purpose: {cause.cure}")


def _cause_of(error: PlatformError) -> Cause:
    to = _DESTINATIONS[error.service]
    if isinstance(error, PlatformRefused):
        return _of_refusal(error) if to is TO_PLATFORM else _of_signature(error)
    if isinstance(error, PlatformUnreachable):
        return _unreachable(error, to)
    if error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return on_the_way(FaultFacts(None, "it", status=error.status), to)
    if to is TO_S3:
        return _of_s3(error)
    if to is not TO_PLATFORM:
        return _of_aws(error, to)
    if error.status == HTTPStatus.BAD_REQUEST and error.call is Call.AGENTS:
        return UNKNOWN_AGENT  # The agent's id is all that this call sends.
    return next((cause for kind, cause in _BY_KIND if isinstance(error, kind)), PLATFORM_SERVER_ERROR)


def _of_refusal(error: PlatformRefused) -> Cause:
    return REFUSED if error.token_ended is None else token_expired(error.token_ended)


def _of_signature(error: PlatformRefused) -> Cause:
    off = error.clock_off
    return clock_off(off) if off is not None and clock_is_off(off) else CLOCK


def _unreachable(error: PlatformUnreachable, to: Destination) -> Cause:
    facts = error.facts
    if facts.host and facts.code in ON_THE_WAY:
        return on_the_way(facts, to)
    return PROXY if facts.proxy is not None else _NOT_SENT[error.service]


def _of_aws(error: PlatformError, to: Destination) -> Cause:
    if isinstance(error, CredentialsExpired):
        return NO_CREDENTIALS
    if isinstance(error, QueueUnavailable) or error.aws_code == _NO_LOG_GROUP_CODE:
        denied, gone = (LOGS_POLICY, NO_LOG_GROUP) if to is TO_LOGS else (SQS_POLICY, NO_QUEUE)
        return denied if error.denied else gone
    if isinstance(error, RateLimited):
        row = AWS_BUSY
    elif isinstance(error, NotThePlatform) or (error.aws_code or "").isdigit():
        row = NOT_AWS  # AWS gives its errors a name; a bare status comes from something else.
    else:
        row = AWS_SERVER_ERROR
    return replace(row.about(service=to.service, reason=error.reason), id=to.id)


def _of_s3(error: PlatformError) -> Cause:
    """Bodies travel by presigned URL, so neither our token nor our signature can be wrong."""
    why = error.why if isinstance(error, PayloadRefused) else None
    if isinstance(error, NotThePlatform):
        return NOT_S3
    if why is PayloadFault.BAD_URL:
        return S3_BAD_URL
    if error.status is None:
        return S3_UNREACHABLE
    if error.status in _FOR_NOW or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return S3_SERVER_ERROR
    if error.status < HTTPStatus.BAD_REQUEST:
        return NOT_S3
    if error.status == HTTPStatus.NOT_FOUND:
        return S3_GONE
    return S3_EXPIRED if why is PayloadFault.EXPIRED else S3_REFUSED.about(status=error.status)
