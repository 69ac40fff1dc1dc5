"""Our own exception tree, and the one reaction each class has.

This room owns what can go wrong on *our* side. It must not describe faults of a target: those are
values (`models.Failure`), because failing to reach a target is an answer like any other.

::

    RelayError
    ├── ConfigurationError      say every mistake at once, exit 2
    ├── TokenExpired            say how to get a new one, exit 1
    ├── StateDirectoryBusy      another agent holds the directory, exit 2
    ├── JournalError            the loop that met it backs off; nothing is acknowledged
    │   ├── JournalUnwritable   the disk is full or read-only: nothing is taken in, what is recorded waits until it can be
    │   └── JournalDamaged      the agent ends; the next start sets the file aside and salvages what can be read
    ├── Interrupted             the stop broke off a request: EINTERRUPTED, or left for the next start
    ├── MalformedMessage        answer it when it names a commandId, else count and acknowledge
    ├── BadRequest              the command is FAILURE EBADCOMMAND and names the field
    ├── SecureCommandError      the command is FAILURE ENOKEY, EDECRYPT or EREPLAY
    └── PlatformError           back off (jittered, at most 60 s) and try again, except:
        ├── PlatformRefused     401/403: at start three tries, then exit 3; later keep trying, not ready
        ├── UnknownAgent        404: the same as refused, with its own cure
        ├── RateLimited         429: wait at least `retry_after` seconds
        ├── PlatformUnreachable no HTTP answer came; says whether the proxy is at fault
        ├── NotThePlatform      something answered, but not as the platform does
        ├── PayloadRefused      trying again does not help: the command fails, the answer goes without its body
        ├── CredentialsExpired  fetch new AWS credentials at once, then repeat once
        └── QueueUnavailable    read the configuration again: queue disabled, moved or not ours
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
        """Take the name as the text, and note whose call it is."""
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
    SQS_SEND = "sqs send", Service.SQS
    SQS_LOOK = "sqs look", Service.SQS
    LOGS_CREATE = "logs create", Service.LOGS
    LOGS_PUT = "logs put", Service.LOGS
    LOGS_LOOK = "logs look", Service.LOGS
    DOWNLOAD = "payload download", Service.S3
    UPLOAD = "payload upload", Service.S3


class PayloadFault(StrEnum):
    """Why a body cannot travel by its presigned URL, however often it is tried."""

    ANSWERED = "answered"
    """S3 answered 4xx: a policy forbids it, or nothing is there."""
    EXPIRED = "expired"
    BAD_URL = "bad-url"
    TOO_LARGE = "too-large"
    DAMAGED = "damaged"
    """The body is not what it seems to be: its sender's fault, not S3's."""
    FORBIDDEN = "forbidden"
    """The presigned URL leads where the agent calls nobody (SECURITY §2)."""


class RelayError(Exception):
    """Base of everything this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with one setting. `variable` is its name, or the file of a line that sets none; as a text it begins with that."""

    variable: str
    text: str

    def __str__(self) -> str:
        return f"{self.variable}: {self.text}"


class ConfigurationError(RelayError):
    """One or more settings are wrong; `mistakes` holds one for each, never a secret's value."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = list(mistakes)

    @property
    def problems(self) -> list[str]:
        """One line for each, for people."""
        return [str(mistake) for mistake in self.mistakes]


class TokenExpired(RelayError):
    """The JWT's `exp` lies in the past."""


class StateDirectoryBusy(RelayError):
    """Another agent holds the lock of the state directory."""


class JournalError(RelayError):
    """The journal could not be read or written; what was asked has not happened. `trouble` is None where it is none of the disk's."""

    def __init__(self, message: str, trouble: StorageTrouble | None = None) -> None:
        super().__init__(message)
        self.trouble = trouble

    @property
    def obstacle(self) -> Obstacle:
        """The same, as what keeps the agent from taking anything in."""
        return Obstacle(str(self), self.trouble)


class JournalUnwritable(JournalError):
    """The disk takes nothing now: full, read-only, failing."""


class JournalDamaged(JournalError):
    """The journal's file does not hold what was written to it."""


class Interrupted(RelayError):
    """A request was broken off by the agent's stop, after its first byte had gone out."""


class MalformedMessage(RelayError):
    """A queue message is no command. `command_id` is set where it could still be read."""

    def __init__(self, message: str, command_id: str | None = None, target_id: str | None = None) -> None:
        super().__init__(message)
        self.command_id = command_id
        self.target_id = target_id


class BadRequest(RelayError):
    """A command's payload is not a request (PROTOCOL §3). Names the field, never its value."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field if len(field) <= 100 else field[:99] + "…"
        super().__init__(f"{self.field}: {problem}")


class SecureCommandError(RelayError):
    """A secure command cannot be opened (PROTOCOL §5). `code` is ENOKEY, EDECRYPT or EREPLAY."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PlatformError(RelayError):
    """A call to the platform did not succeed.

    `call` is a `Call`, or a sender's method and path; `service` is whom it was for. `status` is the HTTP status where there was one,
    `aws_code` the name that AWS gives its error; `endpoint` is set where the call went to AWS_ENDPOINT_URL and not to AWS.
    """

    endpoint: str | None = None

    def at(self, endpoint: str | None) -> Self:
        """The same, said of a call to that endpoint."""
        self.endpoint = endpoint
        return self

    def __init__(self, call: Call | str, reason: str, status: int | None = None, *, aws_code: str | None = None) -> None:
        super().__init__(f"{call}: {reason}")
        self.call = call
        self.service = call.service if isinstance(call, Call) else Service.API
        self.reason = reason
        self.status = status
        self.aws_code = aws_code

    @property
    def denied(self) -> bool:
        """Whether AWS says that a policy forbids the call."""
        return self.aws_code in ("AccessDenied", "AccessDeniedException")


class PlatformRefused(PlatformError):
    """The platform answered 401 or 403, or AWS refused a signature.

    `token_ended` is when the JWT that the platform was shown had ended, where it had; `clock_off` how many seconds this machine's
    clock is ahead of AWS's, where its answer told the time.
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
    """No HTTP answer came; `facts` say what stood in the way. `status` is what a proxy answered in the platform's place."""

    def __init__(self, call: Call | str, reason: str, facts: FaultFacts | None = None) -> None:
        self.facts = facts or FaultFacts(None)
        super().__init__(call, reason, self.facts.status)


class PayloadRefused(PlatformError):
    """A body does not travel by this presigned URL: trying again does not help."""

    def __init__(self, call: Call, reason: str, status: int | None = None, *, why: PayloadFault = PayloadFault.ANSWERED) -> None:
        super().__init__(call, reason, status)
        self.why = why


class NotThePlatform(PlatformError):
    """Something answered, but not as the platform does: a web page, a redirect, an answer with a part missing."""


class RateLimited(PlatformError):
    """The platform answered 429; `retry_after` is in seconds (0 where it named none)."""

    def __init__(self, call: Call | str, retry_after: float) -> None:
        super().__init__(call, "answered 429, called too often", 429)
        self.retry_after = retry_after


class CredentialsExpired(PlatformError):
    """AWS says that the temporary credentials are expired or not valid."""


class QueueUnavailable(PlatformError):
    """SQS says that the queue does not exist, or that it is not ours."""
