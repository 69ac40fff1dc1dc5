"""What is wrong, in an administrator's words, and what to do about it: one table for every place that says so.

This room owns causes and cures. It must not find anything out: it is given an error.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Cause:
    """`id` is the check's (OPERATIONS §2)."""

    id: str
    cause: str
    cure: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong just now: what was seen, and the row of the table."""

    reason: str
    cause: Cause


REFUSED = Cause(
    "access",
    "ORG_SLUG and JWT do not match, or the token's user lacks the role",
    "take ORG_SLUG and JWT from the same organisation, with a service user that may run agents",
)
UNKNOWN_AGENT = Cause(
    "agent",
    "AGENT_ID is not known in this organisation",
    "copy AGENT_ID from the agent's page in the organisation that ORG_SLUG names",
)
AGENT_DISABLED = Cause("enabled", "the agent is disabled", "enable the agent's connection on the Agents page")
QUEUE_DISABLED = Cause("queue", "the agent's queue is disabled", "enable the agent's queue on the Agents page")
NO_CREDENTIALS = Cause(
    "credentials", "AWS does not take the temporary credentials", "check this machine's clock; the agent fetches new ones"
)
NO_QUEUE = Cause(
    "sqs",
    "the queue does not exist, or AWS does not let this agent use it",
    "enable the agent's queue on the Agents page; if it is enabled, ask the platform's support",
)
CLOCK = Cause("clock", "AWS refuses the signature", "set this machine's clock (NTP)")
BUSY = Cause("platform", "the platform asks to be called less often", "nothing: the agent waits as long as it is told to")
JOURNAL = Cause(
    "state-dir",
    "the journal cannot be written",
    "see that the disk of RELAY_STATE_DIR is neither full nor read-only; the agent resumes by itself once there is room",
)
BACKLOG = Cause(
    "state-dir",
    "so many answers wait for the platform that more would fill the disk",
    "see why they cannot be sent or uploaded (send-failed, upload-failed); the agent resumes by itself once less waits",
)
JOURNAL_DAMAGED = Cause(
    "state-dir",
    "the journal did not hold what was written to it: it was set aside, and what could be read of it is in the new one",
    "check the disk (its SMART values, the system's log) and who else writes to RELAY_STATE_DIR; keep the file set aside for the"
    " vendor's support, then delete it; commands of which nothing could be read are answered by nobody: ask their senders",
)
KEYS = Cause(
    "secure-key",
    "the file of SECURE_COMMAND_KEY_FILE changed, and holds no usable key: those from before stay in force",
    "write 32 bytes as base64, base64url or 64 hex digits into it (relay-agent keygen makes a key); several with commas between them",
)
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
S3_UNREACHABLE = Cause(
    "platform",
    "the platform's bucket, Amazon S3, cannot be reached",
    "open the firewall outbound to S3 in the agent's AWS region (https, *.s3.<region>.amazonaws.com), or let the proxy pass it",
)
S3_UNWELL = Cause("platform", "Amazon S3 answers with an error of its own", "nothing for now: the agent keeps trying")
NOT_S3 = Cause(
    "platform",
    "something answers in Amazon S3's place",
    "check whether a proxy or a log-in page answers in its place, and that AWS_ENDPOINT_URL is not set",
)
ACK_REFUSED = Cause(
    "sqs",
    "the queue did not let single messages be deleted, mostly because their visibility timeout had passed",
    "nothing: they come again and are recognised; if it lasts, raise the queue's visibility timeout",
)
PROXY = Cause(
    "platform",
    "the proxy does not let the agent through to the platform",
    "check the proxy's address, its user and password, and its rules (https_proxy, http_proxy, RELAY_PLATFORM_PROXY), or no_proxy",
)
NOT_THE_PLATFORM = Cause(
    "platform",
    "something answers at API_TARGET, but it is not the platform's API",
    "check API_TARGET (the API's address, with https, not the web page's), and whether a proxy or a log-in page answers in its place",
)
NOT_AWS = Cause(
    "sqs",
    "something answers in Amazon SQS's place",
    "check whether a proxy or a log-in page answers in its place, and that AWS_ENDPOINT_URL is not set",
)
TOKEN_EXPIRED = Cause(
    "token", "the time of the JWT is over", "create a new token for the service user and set JWT, or the file of JWT_FILE"
)
TOKEN_ENDS = Cause("token", "the time of the JWT is over soon", TOKEN_EXPIRED.cure)
LOGS = Cause(
    "cloudwatch",
    "CloudWatch Logs cannot be reached, or does not take the lines",
    "nothing for the agent's work; to see its log on the platform, open the firewall outbound to CloudWatch Logs in the agent's AWS region"
    " (https, logs.<region>.amazonaws.com), or let the proxy pass it",
)
STUCK = Cause(
    "agent",
    "a part of the agent stands still",
    "nothing for now: after 5 minutes the agent ends, and its supervisor starts it again; if that repeats, send a support bundle"
    " (relay-agent support-bundle)",
)
CAUGHT = Cause(
    "target",
    "a request outlasts its own time limit",
    "nothing for now: after 5 minutes the agent ends, and its supervisor starts it again; if that repeats, send a support bundle"
    " (relay-agent support-bundle)",
)
STARTING = Cause("platform", "the agent has just started", "nothing: it reads its configuration from the platform now")
STOPPING = Cause("agent", "the agent was asked to stop", "nothing: it finishes what runs; start it again to take in commands")
NO_ANSWERS = Cause("sqs", "the platform's queue for answers does not take them", "nothing for now: answers are kept, and sent again")
NOT_READ = Cause("sqs", "the platform's queue does not answer", SQS_UNREACHABLE.cure)
UNWELL = Cause("platform", "the platform answers with an error of its own", "nothing for now: the agent keeps trying")

_BY_KIND: tuple[tuple[type[PlatformError], Cause], ...] = (
    (UnknownAgent, UNKNOWN_AGENT),
    (RateLimited, BUSY),
    (CredentialsExpired, NO_CREDENTIALS),
    (QueueUnavailable, NO_QUEUE),
    (NotThePlatform, NOT_THE_PLATFORM),
)
_PROXY_AUTHENTICATION_REQUIRED = 407


def cause_of(error: PlatformError) -> Cause:
    """The row of the table that fits."""
    if isinstance(error, PlatformRefused):
        return CLOCK if error.call.startswith("sqs") else REFUSED
    if error.status == _PROXY_AUTHENTICATION_REQUIRED:
        return PROXY
    if error.call.startswith("payload"):
        return _cause_at_s3(error)
    if isinstance(error, PlatformUnreachable):
        unreachable = SQS_UNREACHABLE if error.call.startswith("sqs") else UNREACHABLE
        return PROXY if error.at_proxy else unreachable
    if isinstance(error, NotThePlatform) and error.call.startswith("sqs"):
        return NOT_AWS
    return next((cause for kind, cause in _BY_KIND if isinstance(error, kind)), UNWELL)


def _cause_at_s3(error: PlatformError) -> Cause:
    """Bodies travel by presigned URL: neither our token nor our signature can be at fault."""
    if error.status is None:
        return S3_UNREACHABLE
    return NOT_S3 if error.status < 300 else S3_UNWELL
