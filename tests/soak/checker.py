"""Compares what was sent, what the targets received and what was reported to the platform; lists the contradictions.

Rules only, without I/O: lost, doubled, falsely successful, falsely failed, altered, answered twice. Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

SENT_NOTHING = frozenset({"ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "EBADCOMMAND"})
"""Codes that say: the target has not seen this request."""
BROKE_OFF = frozenset({"ECONNRESET", "EPIPE", "ETIMEDOUT"})
"""Codes that leave open what the target saw."""
PROVOKED = frozenset({"ECONNREFUSED", "ECONNRESET", "EPIPE"})
"""Codes that only a target out of order gives. (A time-out may be the fault of a busy machine.)"""


class Kind(StrEnum):
    """What can be wrong."""

    LOST = "lost"
    DOUBLED = "doubled"
    FALSE_SUCCESS = "falsely successful"
    FALSE_FAILURE = "falsely failed"
    ALTERED = "altered"
    TWICE = "answered twice"


@dataclass(frozen=True, slots=True)
class Sent:
    """One command. `repeatable`: the request may be sent twice; `referenced`: its body had to be downloaded first."""

    number: int
    id: str
    method: str
    repeatable: bool
    digest: str
    at: float
    referenced: bool = False
    instrument: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of a target; `digest` is its body's, which no two answers share."""

    status: int
    digest: str


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request that a target saw; `answer` is None where it gave none, or half of one."""

    method: str
    digest: str
    at: float
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    """What was finally reported to the platform. `texts` are all final messages, in order of arrival."""

    status: str
    at: float
    http_status: int | None = None
    digest: str | None = None
    code: str | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be."""

    kind: Kind
    number: int
    text: str


@dataclass(slots=True)
class Verdict:
    """All that was found, and what was counted though it is allowed."""

    findings: list[Finding] = field(default_factory=list)
    repeated: int = 0
    interrupted: int = 0
    undelivered_bodies: int = 0

    def count(self, kind: Kind) -> int:
        """How many findings of a kind."""
        return sum(finding.kind is kind for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When the agent's process ended, in whatever way, or was asked to; and from when to when each instrument was out of order, or the
    agent's disk full.
    """

    ends: Sequence[float] = ()
    troubles: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    full: Sequence[tuple[float, float]] = ()

    def ended(self, command: Sent, reported: Reported) -> bool:
        """Whether the agent ended while this command was open."""
        return any(command.at <= end <= reported.at for end in self.ends)

    def troubled(self, command: Sent, reported: Reported) -> bool:
        """Whether the command's instrument was out of order while it was open."""
        return any(begin <= reported.at and command.at <= end for begin, end in self.troubles.get(command.instrument, ()))

    def disk_was_full(self, command: Sent, reported: Reported) -> bool:
        """Whether the agent's disk was full while the command was open."""
        return any(begin <= reported.at and command.at <= end for begin, end in self.full)


def check(
    sent: Iterable[Sent], seen: Mapping[int, Sequence[Request]], reported: Mapping[int, Reported], circumstances: Circumstances
) -> Verdict:
    """Judge every command."""
    verdict = Verdict()
    for command in sent:
        requests, answer = seen.get(command.number, ()), reported.get(command.number)
        problems = _requests(command, requests)
        if answer is None:
            problems.append((Kind.LOST, "no final status was reported"))
        else:
            distinct = len(set(answer.texts))
            verdict.repeated += max(0, len(answer.texts) - distinct)
            verdict.interrupted += answer.code == "EINTERRUPTED"
            verdict.undelivered_bodies += answer.code in ("EBADCOMMAND", "ERESPONSETOOLARGE")
            if distinct > 1:
                problems.append((Kind.TWICE, f"{distinct} different final messages"))
            problems += _answer(answer, requests) if answer.code is None else _failure(command, answer, requests, circumstances)
        verdict.findings += [Finding(kind, command.number, text) for kind, text in problems]
    return verdict


def _requests(command: Sent, requests: Sequence[Request]) -> list[tuple[Kind, str]]:
    problems = []
    if not command.repeatable and len(requests) > 1:
        problems.append((Kind.DOUBLED, f"the target saw this {command.method} {len(requests)} times"))
    if any((request.method, request.digest) != (command.method, command.digest) for request in requests):
        problems.append((Kind.ALTERED, "the target saw another method or body than was sent"))
    return problems


def _answer(reported: Reported, requests: Sequence[Request]) -> list[tuple[Kind, str]]:
    """An HTTP answer was reported: the target must have given exactly that answer to a request."""
    given = [request.answer for request in requests if request.answer is not None]
    kind = Kind.FALSE_SUCCESS if reported.status == "SUCCESS" else Kind.FALSE_FAILURE
    if reported.http_status is None:
        return [(kind, f"{reported.status} with neither a statusCode nor a code")]
    if reported.status != ("SUCCESS" if reported.http_status < 400 else "FAILURE"):
        return [(kind, f"{reported.status} with statusCode {reported.http_status}")]
    if Answer(reported.http_status, reported.digest or "") not in given:
        return [(Kind.FALSE_SUCCESS, f"statusCode {reported.http_status} with a body that the target never gave to this command")]
    return []


def _too_large(command: Sent, reported: Reported, requests: Sequence[Request], circumstances: Circumstances) -> str | None:
    """Return what is wrong with ERESPONSETOOLARGE: an answer that cannot be uploaded has its status, one that found no place has none."""
    given = {request.answer.status for request in requests if request.answer}
    if reported.http_status is not None:
        return None if reported.http_status in given else "ERESPONSETOOLARGE for an answer that the target never gave"
    if given and circumstances.disk_was_full(command, reported):
        return None
    return "ERESPONSETOOLARGE without a status, and no answer came while the disk was full"


def _failure(command: Sent, reported: Reported, requests: Sequence[Request], circumstances: Circumstances) -> list[tuple[Kind, str]]:
    """A failure without an answer was reported: it must be possible in the circumstances."""
    code = reported.code or ""
    if reported.status == "SUCCESS":
        return [(Kind.FALSE_SUCCESS, f"SUCCESS with the code {code}")]
    wrong, ended = None, circumstances.ended(command, reported)
    if code in PROVOKED and not circumstances.troubled(command, reported):
        wrong = f"{code}, and nothing was wrong with the target meanwhile"
    elif code == "EINTERRUPTED":
        if command.repeatable and not command.referenced:  # S3 may refuse its body a second time
            wrong = "EINTERRUPTED for a request that may be repeated"
        elif not ended:
            wrong = "EINTERRUPTED, and the agent did not end meanwhile"
    elif code in SENT_NOTHING:
        # A repeatable request may have been sent again, by the agent's next run or because a kept connection broke,
        # and then been refused.
        if requests and not (command.repeatable and (ended or circumstances.troubled(command, reported))):
            wrong = f"{code}, and the target had seen the whole request"
        elif code == "EBADCOMMAND" and not command.referenced:
            wrong = "EBADCOMMAND for a command whose body came with it"
    elif code == "ERESPONSETOOLARGE":
        wrong = _too_large(command, reported, requests, circumstances)
    elif code not in BROKE_OFF:
        wrong = f"the code {code}, for which nothing here is a reason"
    return [(Kind.FALSE_FAILURE, wrong)] if wrong else []
