"""Causes and cures of what the platform and AWS refuse or do not answer."""

from __future__ import annotations

from dataclasses import replace

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
from relay_agent.diagnostics.local_causes import CLOCK_SECONDS, SET_CLOCK, clock_off, token_expired
from relay_agent.diagnostics.network_causes import (
    ON_THE_WAY,
    PROXY_AUTHENTICATION_REQUIRED,
    TO_LOGS,
    TO_PLATFORM,
    TO_S3,
    TO_SQS,
    Destination,
    on_the_way,
)

REFUSED = Cause(
    "access",
    "ORG_SLUG and JWT do not match, the token's user lacks the role, or the token was revoked or is another deployment's",
    "take ORG_SLUG, JWT and API_TARGET from the same organisation, with a service user that may run agents; or create a new token",
)


UNKNOWN_AGENT = Cause(
    "agent",
    "AGENT_ID is not known in this organisation",
    "copy AGENT_ID from the agent's page in the organisation that ORG_SLUG names",
)


NOT_USER_DEFINED = Cause(
    "agent",
    "AGENT_ID names an agent of another type ({kind}), not a user-defined one",
    "create a user-defined agent on the Agents page, and take its id as AGENT_ID",
)


AGENT_DISABLED = Cause("enabled", "the agent is disabled", "enable the agent's connection on the Agents page")


QUEUE_DISABLED = Cause("queue", "the agent's queue is disabled", "enable the agent's queue on the Agents page")


NO_CREDENTIALS = Cause(
    "credentials", "AWS does not take the temporary credentials", f"nothing for now: the agent fetches new ones; if it lasts, {SET_CLOCK}"
)


NO_QUEUE = Cause(
    "sqs",
    "the queue does not exist, or AWS does not let this agent use it",
    "enable the agent's queue on the Agents page; if it is enabled, ask the platform's support",
)


SQS_POLICY = Cause(
    "sqs",
    "AWS answers AccessDenied: a policy does not let this agent use its queue, though its credentials and this machine's clock are right",
    "ask the platform's support to look at the queue's and the role's policy; if calls leave by a VPC endpoint, at that one's too",
)


ACK_REFUSED = Cause(
    "sqs",
    "the queue did not let single messages be deleted, mostly because their visibility timeout had passed",
    "nothing: they come again and are recognised; if it lasts, raise the queue's visibility timeout",
)


CLOCK = Cause(
    "clock",
    "AWS refuses the signature: this machine's clock is more than 5 minutes off, or something on the way changes what is sent",
    f"{SET_CLOCK}; if it is right, see that no proxy rewrites calls to AWS",
)


BUSY = Cause("platform", "the platform asks to be called less often", "nothing: the agent waits as long as it is told to")


SLOW = Cause(
    "platform",
    "the platform took {seconds} s to answer, which is slow",
    "look at the line, the DNS server and the proxy on the way; the agent works, and commands take longer",
)


UNWELL = Cause(
    "platform",
    "the platform, or a proxy in its place, answers with an error of its own",
    "nothing for now: the agent keeps trying; if it lasts, ask the platform's support, and look at the log of the proxy where there is one",
)


NOT_THE_PLATFORM = Cause(
    "platform",
    "something answers at API_TARGET, but it is not the platform's API",
    "check API_TARGET (the API's address, with https, not the web page's), and whether a proxy, a firewall's block page or a log-in page"
    " answers in its place",
)


NOT_AWS = Cause(
    "sqs",
    "something answers in {service}'s place",
    "check whether a proxy, a firewall's block page or a log-in page answers in its place, and that AWS_ENDPOINT_URL is not set",
)


AWS_ENDPOINT = Cause(
    "sqs",
    "AWS_ENDPOINT_URL is set: calls for AWS go to {url}, and not to AWS; that is for emulators such as the sandbox",
    "take AWS_ENDPOINT_URL away, from the environment and from .env",
)


AWS_BUSY = Cause(
    "sqs",
    "{service} asks to be called less often (throttling)",
    "nothing for now: the agent calls less often, and what waits is sent later; if it lasts, ask the platform's support to raise its quota",
)


AWS_UNWELL = Cause(
    "sqs",
    "{service} answers with an error of its own ({reason})",
    "nothing for now: the agent keeps trying; if it lasts, look at AWS's health page for the agent's region, or ask the platform's support",
)


LOGS_POLICY = Cause(
    "cloudwatch",
    "AWS answers AccessDenied: a policy does not let this agent write to its log group",
    "ask the platform's support to look at the role's policy; if calls leave by a VPC endpoint, at that one's too",
)


NO_LOG_GROUP = Cause(
    "cloudwatch", "the agent's log group does not exist", "ask the platform's support to make it again, or save the agent's settings anew"
)


NO_LOG_GROUP_NAMED = Cause("cloudwatch", "the platform names no log group for this agent", "ask the platform's support")


NO_LOGS = Cause(
    "cloudwatch",
    "log lines cannot be delivered to CloudWatch Logs; the agent works without, and says the same on stdout",
    "open the firewall outbound to CloudWatch Logs in the agent's AWS region (https, logs.<region>.amazonaws.com), or let the proxy pass"
    " it; if it answers AccessDenied, ask the platform's support",
)


S3_UNREACHABLE = Cause(
    "platform",
    "the platform's bucket, Amazon S3, cannot be reached",
    "open the firewall outbound to S3 in the agent's AWS region (https, *.s3.<region>.amazonaws.com), or let the proxy pass it",
)


S3_EXPIRED = Cause(
    "platform",
    "the presigned URL by which a large body travels had expired when it was used; none lives longer than an hour",
    "see what held the command up: upload-failed or download-failed before this, or a command that took that long; let its sender send it"
    " again",
)


S3_REFUSED = Cause(
    "platform",
    "Amazon S3 answers {status} to the platform's presigned URL: a policy of the bucket, of the role that signed or of a VPC endpoint on"
    " the way forbids it, or something on the way changes what is sent",
    "ask the platform's support to look at the bucket's and the role's policy; where calls leave by a VPC endpoint or a proxy, see that it"
    " passes GET and PUT to *.s3.<region>.amazonaws.com unchanged",
)


S3_GONE = Cause(
    "platform",
    "Amazon S3 has nothing at the platform's presigned URL (it answers 404): the body is gone, or its bucket",
    "let its sender send the command again; if that repeats, ask the platform's support",
)


S3_BAD_URL = Cause("platform", "the platform gave a presigned URL that is none", "ask the platform's support")


S3_UNWELL = Cause("platform", "Amazon S3 answers with an error of its own", AWS_UNWELL.cure)


NOT_S3 = replace(NOT_AWS.about(service="Amazon S3"), id="platform")


STARTING = Cause("platform", "the agent has just started", "nothing: it reads its configuration from the platform now")


NO_ANSWERS = Cause("sqs", "the platform's queue for answers does not take them", "nothing for now: answers are kept, and sent again")


UNREACHABLE = Cause(
    "platform",
    "the platform cannot be reached",
    "check API_TARGET, DNS, the firewall's outbound rules, and the proxy (http_proxy, https_proxy, no_proxy, RELAY_PLATFORM_PROXY)",
)


SQS_UNREACHABLE = Cause(
    "sqs",
    "the platform's queue, Amazon SQS, cannot be reached",
    "open the firewall outbound to SQS in the agent's AWS region (https, sqs.<region>.amazonaws.com), or let the proxy pass it",
)


NOT_READ = Cause("sqs", "the platform's queue does not answer", SQS_UNREACHABLE.cure)


PROXY = Cause(
    "platform",
    "the proxy does not let the agent through to the platform",
    "check the proxy's address, its user and password, and its rules (https_proxy, http_proxy, RELAY_PLATFORM_PROXY), or no_proxy",
)


_BY_KIND: tuple[tuple[type[PlatformError], Cause], ...] = (
    (UnknownAgent, UNKNOWN_AGENT),
    (RateLimited, BUSY),
    (CredentialsExpired, NO_CREDENTIALS),
    (NotThePlatform, NOT_THE_PLATFORM),
)


_BAD_REQUEST = 400


_NOT_FOUND = 404


_SERVER_ERROR = 500


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
    """The row of the table that fits."""
    cause = _at_endpoint(error, _cause_of(error))
    if error.service is not Service.LOGS:
        return cause
    return Cause(TO_LOGS.id, f"log lines are not delivered, without which the agent works: {cause.cause}", cause.cure)


def _at_endpoint(error: PlatformError, cause: Cause) -> Cause:
    """The row, where an emulator's address that was left standing explains whatever AWS does not answer."""
    if error.endpoint is None or not isinstance(error, PlatformUnreachable | NotThePlatform | CredentialsExpired):
        return cause
    row = AWS_ENDPOINT.about(url=error.endpoint)
    return Cause(cause.id, f"{cause.cause}; {row.cause}", f"{row.cure}; where it is meant: {cause.cure}")


def _cause_of(error: PlatformError) -> Cause:
    to = _DESTINATIONS[error.service]
    if isinstance(error, PlatformRefused):
        return _of_refusal(error) if to is TO_PLATFORM else _of_signature(error)
    if isinstance(error, PlatformUnreachable):
        return _unreachable(error, to)
    if error.status == PROXY_AUTHENTICATION_REQUIRED:
        return on_the_way(FaultFacts(None, "it", status=error.status), to)
    if to is TO_S3:
        return _of_s3(error)
    if to is not TO_PLATFORM:
        return _of_aws(error, to)
    if error.status == _BAD_REQUEST and error.call is Call.AGENTS:
        return UNKNOWN_AGENT  # The only thing that this call says is the agent's id.
    return next((cause for kind, cause in _BY_KIND if isinstance(error, kind)), UNWELL)


def _of_refusal(error: PlatformRefused) -> Cause:
    return REFUSED if error.token_ended is None else token_expired(error.token_ended)


def _of_signature(error: PlatformRefused) -> Cause:
    off = error.clock_off
    return CLOCK if off is None or abs(off) < CLOCK_SECONDS else clock_off(off)


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
        row = NOT_AWS  # AWS names its errors; a bare status is somebody else's.
    else:
        row = AWS_UNWELL
    return replace(row.about(service=to.service, reason=error.reason), id=to.id)


def _of_s3(error: PlatformError) -> Cause:
    """Bodies travel by presigned URL: neither our token nor our signature can be at fault."""
    why = error.why if isinstance(error, PayloadRefused) else None
    if isinstance(error, NotThePlatform):
        return NOT_S3
    if why is PayloadFault.BAD_URL:
        return S3_BAD_URL
    if error.status is None:
        return S3_UNREACHABLE
    if error.status in _FOR_NOW or error.status >= _SERVER_ERROR:
        return S3_UNWELL
    if error.status < _BAD_REQUEST:
        return NOT_S3
    if error.status == _NOT_FOUND:
        return S3_GONE
    return S3_EXPIRED if why is PayloadFault.EXPIRED else S3_REFUSED.about(status=error.status)
