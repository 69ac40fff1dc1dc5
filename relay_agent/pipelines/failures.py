"""Why a request through the agent has no response: which exception a direct call would raise, and whether the target may have acted.

Owns this judgement, which requests and httpx share. It must not raise either library's exceptions: `requests_adapter` and `httpx` do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, auto

from relay_agent.core.errors import PlatformError, RateLimited, RelayError, SecureCommandError
from relay_agent.pipelines.encoding import Answer, BadAnswer
from relay_agent.pipelines.spool import NoPlace


class Kind(Enum):
    """What a direct call would have failed with."""

    CONNECT = auto()
    CONNECT_TIMEOUT = auto()
    PROXY = auto()
    TLS = auto()
    READ_TIMEOUT = auto()
    LOST = auto()
    """The connection broke, or what came was not HTTP."""
    BODY = auto()
    """The response's body was cut short."""
    DECODING = auto()
    REDIRECTS = auto()
    URL = auto()
    HEADER = auto()
    REFUSED = auto()
    """No direct call fails like this, and a retry cannot help: 401, an unknown agent, a policy, a wrong key."""


_NOTHING_SENT = frozenset({Kind.CONNECT, Kind.CONNECT_TIMEOUT, Kind.PROXY, Kind.TLS})
_REPEATABLE = _NOTHING_SENT | {Kind.READ_TIMEOUT, Kind.LOST, Kind.BODY}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no response. `code` is one of PROTOCOL §4, a command's status, or the platform's HTTP status."""

    kind: Kind
    code: str
    message: str
    certain: bool = True
    """Whether `kind` is proven: what the platform says of a secure command is not."""

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def repeatable(self) -> bool:
        """Whether a repetition may help."""
        return self.kind in _REPEATABLE

    @property
    def nothing_sent(self) -> bool:
        """Whether it is certain that the target got nothing, so that any method may be repeated."""
        return self.certain and self.kind in _NOTHING_SENT

    def unproven(self) -> Trouble:
        """Return what it counts as if the platform may have made it up: a repetition must never seem to be safe."""
        kind = Kind.READ_TIMEOUT if self.kind is Kind.CONNECT_TIMEOUT else self.kind
        return replace(self, kind=kind, certain=False)


class Unreached(PlatformError):
    """A call to the platform got no HTTP answer; `kind` and `code` say why, as of any call.

    `certain` is whether it is proven that the platform got nothing.
    """

    def __init__(self, call: str, reason: str, kind: Kind, code: str, *, certain: bool = False) -> None:
        super().__init__(call, reason)
        self.kind = kind
        self.code = code
        self.certain = certain


class TooLarge(RelayError):
    """The request is larger than the platform accepts a command; nothing was posted."""


class NoAnswer(RelayError):
    """A command was not finished in time. `status` is the last that the platform gave, empty if it gave none."""

    def __init__(self, command_id: str, status: str, seconds: float, last_error: str = "") -> None:
        command = f" (command {command_id})" if command_id else ""
        super().__init__(f"no answer within {seconds:g} s; {last_error or _progress(status)}{command}")
        self.command_id = command_id
        self.status = status


def trouble_of_error(error: RelayError, *, secure: bool) -> Trouble:
    """Return why an exchange failed that raised one of our exceptions."""
    text = str(error)
    if isinstance(error, NoAnswer):
        return Trouble(Kind.READ_TIMEOUT, "ETIMEDOUT", text)
    if isinstance(error, Unreached):
        return Trouble(error.kind, error.code, text, error.certain)
    if isinstance(error, RateLimited):
        # The platform says that it did not take the command.
        found = Trouble(Kind.CONNECT, "429", text)
        return found.unproven() if secure else found
    if isinstance(error, PlatformError):
        lost = error.status is not None and error.status >= 500
        return Trouble(Kind.LOST if lost else Kind.REFUSED, str(error.status or "EBADRESPONSE"), text)
    if isinstance(error, TooLarge):
        return Trouble(Kind.REFUSED, "EMSGSIZE", text)
    if isinstance(error, SecureCommandError | NoPlace):
        return Trouble(Kind.REFUSED, error.code, text)
    code = "EDECRYPT" if secure and isinstance(error, BadAnswer) else "EBADRESPONSE"
    return Trouble(Kind.REFUSED, code, text)


def trouble_of_answer(answer: Answer, *, secure: bool) -> Trouble:
    """Return why an answer is no response."""
    kind, certain = _kind(answer.code, answer.message)
    found = Trouble(kind, answer.code, answer.message, certain)
    return found.unproven() if secure and not answer.sealed else found


_BY_CODE: dict[str, Kind] = {
    **dict.fromkeys(("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED"), Kind.CONNECT),
    **dict.fromkeys(("UNSENT", "ESHUTDOWN"), Kind.CONNECT),  # The platform or the agent never started it.
    "EEXPIRED": Kind.CONNECT_TIMEOUT,
    **dict.fromkeys(("CERT_HAS_EXPIRED", "DEPTH_ZERO_SELF_SIGNED_CERT", "UNABLE_TO_VERIFY_LEAF_SIGNATURE"), Kind.TLS),
    **dict.fromkeys(("ERR_TLS_CERT_ALTNAME_INVALID", "EPROTO"), Kind.TLS),
    **dict.fromkeys(("ETIMEDOUT", "EXPIRED"), Kind.READ_TIMEOUT),
    "ETOOMANYREDIRECTS": Kind.REDIRECTS,
    **dict.fromkeys(("EBADCOMMAND", "EPOLICY", "ENOKEY", "EDECRYPT", "EREPLAY", "UNKNOWN_COMMAND", "ERESPONSETOOLARGE"), Kind.REFUSED),
}

_AFTER = re.compile(r"after a (redirect|challenge): ")
"""An earlier request of the same command was answered: whatever happened to the last one, a target has received something."""
# To the target, to a proxy, or by a SOCKS proxy to the target.
_NO_CONNECTION = re.compile(r"(proxy \S+: )?connect\b|the proxy \S+ answered\b")
_NOT_SENT_IN_TIME = re.compile(r"connect\b|name resolution|the TLS handshake|the tunnel|proxy\b|the target is busy|.*the target was busy")
# Cases of one code that differ only by the message (PROTOCOL §4).
_BY_MESSAGE: tuple[tuple[str, re.Pattern[str], Kind], ...] = (
    ("EBADCOMMAND", re.compile(r"url\b"), Kind.URL),
    ("EBADCOMMAND", re.compile(r"headers\b"), Kind.HEADER),
    ("EBADRESPONSE", re.compile(r".*Content-Length", re.DOTALL), Kind.HEADER),
    ("EBADRESPONSE", re.compile(r".*within the header block", re.DOTALL), Kind.BODY),
    ("EBADRESPONSE", re.compile(r".*Content-Encoding", re.DOTALL), Kind.DECODING),
    ("EBADRESPONSE", re.compile(r".*\bbody\b", re.DOTALL), Kind.BODY),
    ("ETIMEDOUT", _NOT_SENT_IN_TIME, Kind.CONNECT_TIMEOUT),
    ("EHOSTUNREACH", _NO_CONNECTION, Kind.CONNECT),
    ("ENETUNREACH", _NO_CONNECTION, Kind.CONNECT),
)
_PROXY = re.compile(r"(the )?proxy\b")
_THROUGH_A_PROXY = frozenset({Kind.CONNECT, Kind.LOST, Kind.TLS})


def _kind(code: str, message: str) -> tuple[Kind, bool]:
    """Return what it counts as, and whether it is certain that this happened before anything was sent, if the kind says so."""
    after = _AFTER.match(message)
    if after is not None:
        kind, _ = _kind(code, message[after.end() :])
        return (Kind.READ_TIMEOUT if kind is Kind.CONNECT_TIMEOUT else kind), False
    by_message = next((kind for named, pattern, kind in _BY_MESSAGE if code == named and pattern.match(message)), None)
    kind = by_message or _BY_CODE.get(code, Kind.LOST)
    certain = kind is not Kind.LOST and code != "EPROTO"  # With TLS 1.3 the request may be under way when the alert comes.
    return (Kind.PROXY if kind in _THROUGH_A_PROXY and _PROXY.match(message) else kind), certain


def _progress(status: str) -> str:
    """Return what an unfinished command's status means."""
    if status == "PROCESSING":
        return "the agent is still working on it"
    if status in ("CREATED", "PENDING"):
        return f"the command is still {status}: is the agent running, and is its queue enabled?"
    return "the platform did not give the command's status"
