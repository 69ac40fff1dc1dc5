"""The agent's exceptions, and the one reaction to each.

They must not describe a target's faults: those are values (`models.Failure`), because failing to reach a target is an
answer like any other.

::

    RelayError
    ├── ConfigurationError      report every mistake at once, exit 2
    ├── TokenExpired            say how to get a new token, exit 1
    ├── StateDirectoryBusy      another agent holds the directory, exit 2
    ├── JournalError            the loop backs off; nothing is acknowledged
    │   ├── JournalUnwritable   the disk is full or read-only: admit nothing, retry the writes that are pending
    │   └── JournalDamaged      the agent ends; the next start sets the file aside and salvages what can be read
    ├── NotAdmitted             the outcome of a command counts for nothing: SQS delivers it again
    ├── Interrupted             the stop broke off a request: EINTERRUPTED, or repeated at the next start
    ├── MalformedMessage        answer it if it names a commandId, else count and acknowledge it
    ├── BadRequest              the command ends as FAILURE EBADCOMMAND, and the message names the field
    ├── SecureCommandError      the command ends as FAILURE ENOKEY, EDECRYPT or EREPLAY
    └── PlatformError           back off (jittered, at most 60 s) and try again, except:
        ├── PlatformRefused     401/403: at the start three tries, then exit 3; later keep trying, not ready
        ├── UnknownAgent        404: as PlatformRefused, with a cure of its own
        ├── RateLimited         429: wait at least `retry_after` seconds
        ├── PlatformUnreachable no HTTP answer came; `facts` say whether the proxy is at fault
        ├── NotThePlatform      the answer is not in the format of the platform
        ├── PayloadRefused      do not try again: the command fails, or its answer is sent without the body
        ├── CredentialsExpired  fetch new AWS credentials at once, then repeat once
        └── QueueUnavailable    read the configuration again: the queue is disabled, moved or another agent's

Three more are of one package alone, and caught there: `transport.errors.TransportFault` becomes a `Failure`; `tdp.client` tells its callers
that the agent or its queue is disabled (`AgentDisabled`, `QueueDisabled`); `storage.integrity.CommitsMissing` begins a salvage.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from relay_agent.core.failures import FaultFacts, Obstacle, StorageTrouble


class Service(StrEnum):
    """A part of the platform that is called."""

    API = "api"
    SQS = "sqs"
    LOGS = "logs"
    S3 = "s3"


class Call(StrEnum):
    """A call to the platform, as metrics and messages name it."""

    service: Service

    def __new__(cls, name: str, service: Service = Service.API) -> Self:
        """Make a member whose text is `name`, and which belongs to `service`."""
        call = str.__new__(cls, name)
        call._value_ = name
        call.service = service
        return call

    CONFIG = "agent/config"
    CREDENTIALS = "agent/credentials"
    STATUS = "agent/status"
    METRICS = "agent/systemmetric"
    LOG = "agent/log"
    AGENTS = "agents"
    SQS_RECEIVE = "sqs receive", Service.SQS
    SQS_DELETE = "sqs delete", Service.SQS
    SQS_RETURN = "sqs return", Service.SQS
    SQS_SEND = "sqs send", Service.SQS
    SQS_LOOK = "sqs look", Service.SQS
    LOGS_CREATE = "logs create", Service.LOGS
    LOGS_PUT = "logs put", Service.LOGS
    LOGS_LOOK = "logs look", Service.LOGS
    DOWNLOAD = "payload download", Service.S3
    UPLOAD = "payload upload", Service.S3


class PayloadFault(StrEnum):
    """Why a body cannot be transferred by its presigned URL, however often it is tried."""

    ANSWERED = "answered"
    """S3 answered 4xx: a policy forbids the access, or the object does not exist."""
    EXPIRED = "expired"
    BAD_URL = "bad-url"
    TOO_LARGE = "too-large"
    DAMAGED = "damaged"
    """The body does not match its own encoding: its sender's fault, not S3's."""
    FORBIDDEN = "forbidden"
    """The presigned URL names an address that the agent never calls (docs/protocol.md, "What may be called")."""


class RelayError(Exception):
    """Base of all exceptions that the agent raises on purpose."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with one setting. `variable` is its name, or the file's if a line of it sets nothing."""

    variable: str
    text: str
    independent: bool = False
    """Whether other mistakes of this variable may be independent of it: each is one of those in a file that it names."""

    def __str__(self) -> str:
        return f"{self.variable}: {self.text}"


class ConfigurationError(RelayError):
    """One or more settings are wrong. `mistakes` has one entry for each, never a secret's value."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = list(mistakes)

    @property
    def problems(self) -> list[str]:
        """One line of text for each mistake."""
        return [str(mistake) for mistake in self.mistakes]


JWT_EXPIRED = "the JWT expired on {date}, according to this machine's clock"
NEW_JWT = (
    "create a new token for the service user, and set JWT (or write it to the file of JWT_FILE); if that date is in the future, set this"
    " machine's clock"
)
"""What is wrong with an expired token and what to do, for the start, the checks and the log."""


class TokenExpired(RelayError):
    """The JWT's `exp` is in the past; `ended` is that moment (UTC)."""

    def __init__(self, message: str, ended: datetime | None = None) -> None:
        super().__init__(message)
        self.ended = ended


class StateDirectoryBusy(RelayError):
    """Another agent holds the lock of the state directory `path`."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class JournalError(RelayError):
    """The journal could not be read or written; nothing was changed. `trouble` is None if the disk is not the cause."""

    def __init__(self, message: str, trouble: StorageTrouble | None = None) -> None:
        super().__init__(message)
        self.trouble = trouble

    @property
    def obstacle(self) -> Obstacle:
        """The reason for admitting no commands that follows from this error."""
        return Obstacle(str(self), self.trouble)


class JournalUnwritable(JournalError):
    """Nothing can be written at present: the disk is full, read-only or failing."""


class JournalDamaged(JournalError):
    """The journal's file does not hold what was written to it."""


class Interrupted(RelayError):
    """The agent's stop broke off a request of which bytes had already been sent."""


class NotAdmitted(RelayError):
    """The journal could not admit a command that has run meanwhile: its outcome counts for nothing, and SQS delivers it again."""


class MalformedMessage(RelayError):
    """A queue message is not a command. `command_id` is None if it could not be read."""

    def __init__(self, message: str, command_id: str | None = None, target_id: str | None = None) -> None:
        super().__init__(message)
        self.command_id = command_id
        self.target_id = target_id


class BadRequest(RelayError):
    """A command's payload is not a valid request (PROTOCOL §3). The text names the field, never its value."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field if len(field) <= 100 else field[:99] + "…"
        super().__init__(f"{self.field}: {problem}")


class SecureCommandError(RelayError):
    """A secure command cannot be decrypted or is refused (PROTOCOL §5). `code` is ENOKEY, EDECRYPT or EREPLAY."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PlatformError(RelayError):
    """A call to the platform failed.

    `call` is a `Call`, or a sender's method and path; `service` is the service that was called. `status` is the HTTP status and
    `aws_code` the name of AWS's error, each None if there was none. `endpoint` is AWS_ENDPOINT_URL if the call went there, not to AWS.
    """

    endpoint: str | None = None

    def __init__(self, call: Call | str, reason: str, status: int | None = None, *, aws_code: str | None = None) -> None:
        super().__init__(f"{call}: {reason}")
        self.call = call
        self.service = call.service if isinstance(call, Call) else Service.API
        self.reason = reason
        self.status = status
        self.aws_code = aws_code

    def at(self, endpoint: str | None) -> Self:
        """Set the endpoint that was called, and return the error itself."""
        self.endpoint = endpoint
        return self

    @property
    def denied(self) -> bool:
        """Whether an AWS policy forbids the call."""
        return self.aws_code in ("AccessDenied", "AccessDeniedException")


class PlatformRefused(PlatformError):
    """The platform answered 401 or 403, or AWS refused a signature.

    `token_ended` is the time at which the JWT that was sent expired, None if it had not. `clock_off` is by how many seconds
    this machine's clock is ahead of AWS's, None if the answer has no date.
    """

    def __init__(
        self,
        call: Call | str,
        reason: str,
        status: int | None = None,
        *,
        aws_code: str | None = None,
        token_ended: datetime | None = None,
        clock_off: float | None = None,
    ) -> None:
        super().__init__(call, reason, status, aws_code=aws_code)
        self.token_ended = token_ended
        self.clock_off = clock_off


class UnknownAgent(PlatformError):
    """The platform answered 404: no such agent in this organisation."""


class PlatformUnreachable(PlatformError):
    """There was no HTTP answer; `facts` say why. `status` is that of a proxy which answered in the platform's place."""

    def __init__(self, call: Call | str, reason: str, facts: FaultFacts | None = None) -> None:
        self.facts = facts or FaultFacts(None)
        super().__init__(call, reason, self.facts.status)


class PayloadRefused(PlatformError):
    """A body cannot be transferred by this presigned URL; trying again does not help."""

    def __init__(self, call: Call, reason: str, status: int | None = None, *, why: PayloadFault = PayloadFault.ANSWERED) -> None:
        super().__init__(call, reason, status)
        self.why = why


class NotThePlatform(PlatformError):
    """The answer is not in the format of the platform: a web page, a redirect, an answer with a part missing."""


class RateLimited(PlatformError):
    """The platform answered 429. `retry_after` is in seconds, 0 if the answer names none."""

    def __init__(self, call: Call | str, retry_after: float) -> None:
        super().__init__(call, "answered 429: too many calls", 429)
        self.retry_after = retry_after


class CredentialsExpired(PlatformError):
    """AWS says that the temporary credentials are expired or not valid."""


class QueueUnavailable(PlatformError):
    """SQS answered that the queue does not exist, or that it is not this agent's."""
