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
        ├── CredentialsExpired  fetch new AWS credentials at once, then repeat once
        └── QueueUnavailable    read the configuration again: queue disabled, moved or not ours
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate of a TLS handshake that was refused: its issuer, the names it is for, its first and last day; `roots` are
    the trusted ones, by the settings that give them.
    """

    issuer: str
    names: str
    begins: str
    ends: str
    roots: str


class RelayError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigurationError(RelayError):
    """One or more settings are wrong; `problems` holds one line for each, never a secret's value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class TokenExpired(RelayError):
    """The JWT's `exp` lies in the past."""


class StateDirectoryBusy(RelayError):
    """Another agent holds the lock of the state directory."""


class JournalError(RelayError):
    """The journal could not be read or written; what was asked has not happened."""


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

    `call` names it ("agent/config", "sqs receive"); `status` is the HTTP status where there was one; `endpoint` is set where the
    call went to AWS_ENDPOINT_URL and not to AWS.
    """

    endpoint: str | None = None

    def at(self, endpoint: str | None) -> Self:
        """The same, said of a call to that endpoint."""
        self.endpoint = endpoint
        return self

    def __init__(self, call: str, reason: str, status: int | None = None) -> None:
        super().__init__(f"{call}: {reason}")
        self.call = call
        self.reason = reason
        self.status = status


class PlatformRefused(PlatformError):
    """The platform answered 401 or 403, or AWS refused a signature.

    `token_ended` is when the JWT that the platform was shown had ended, where it had; `clock_off` how many seconds this machine's
    clock is ahead of AWS's, where its answer told the time.
    """

    def __init__(
        self,
        call: str,
        reason: str,
        status: int | None = None,
        *,
        token_ended: datetime | None = None,
        clock_off: float | None = None,
    ) -> None:
        super().__init__(call, reason, status)
        self.token_ended = token_ended
        self.clock_off = clock_off


class UnknownAgent(PlatformError):
    """The platform answered 404: no such agent in this organisation."""


class PlatformUnreachable(PlatformError):
    """No HTTP answer came. `at_proxy` says that it was the proxy that stood in the way.

    `code` is what a command would be told (PROTOCOL §4), `host` and `port` what was called, `proxy` the masked URL of the
    proxy at fault; `status` is what that proxy answered, `shown` the certificate that was refused, `trouble` what TLS failed for
    (`models.TlsTrouble`). Each is None where it is not known.
    """

    def __init__(
        self,
        call: str,
        reason: str,
        at_proxy: bool,
        *,
        code: str | None = None,
        host: str | None = None,
        port: int | None = None,
        proxy: str | None = None,
        status: int | None = None,
        shown: Shown | None = None,
        trouble: str | None = None,
    ) -> None:
        super().__init__(call, reason, status)
        self.at_proxy = at_proxy
        self.code = code
        self.host = host
        self.port = port
        self.proxy = proxy
        self.shown = shown
        self.trouble = trouble


class NotThePlatform(PlatformError):
    """Something answered, but not as the platform does: a web page, a redirect, an answer with a part missing."""


class RateLimited(PlatformError):
    """The platform answered 429; `retry_after` is in seconds (0 where it named none)."""

    def __init__(self, call: str, retry_after: float) -> None:
        super().__init__(call, "answered 429, called too often", 429)
        self.retry_after = retry_after


class CredentialsExpired(PlatformError):
    """AWS says that the temporary credentials are expired or not valid."""


class QueueUnavailable(PlatformError):
    """SQS says that the queue does not exist, or that it is not ours."""
