"""Where the agent's outcome differs from those of curl and requests, aspect by aspect. `known` lists the accepted differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.peers.outcome import Outcome, Result
from tests.peers.script import Script

Agreement = Literal["same", "unlike one", "alone", "all differ"]
_NO_ANSWER = frozenset({"reset", "bad"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the agent compares with the other two clients."""

    script: Script
    agent: Outcome
    curl: Outcome
    requests: Outcome
    agreement: Agreement
    aspects: frozenset[str]
    """The aspects in which it differs from both; if it differs from only one, those."""

    @property
    def gives(self) -> str:
        """The agent's outcome in one word: "answer", or the code of the first failure."""
        bad = next((result for result in self.agent.results if result.kind != "answer"), None)
        return "answer" if bad is None else bad.detail.partition(":")[0]


def judge(script: Script, agent: Outcome, curl: Outcome, requests: Outcome) -> Verdict:
    """Compare all three."""
    unseen = {"requests"} if script.tunnel else set()  # The agent requests a tunnel, the others the answer itself.
    from_curl, from_requests = differing(agent, curl) - unseen, differing(agent, requests) - unseen
    agreement: Agreement = "same"
    aspects: set[str] = set()
    if from_curl and from_requests:
        aspects = from_curl & from_requests or from_curl | from_requests
        agreement = "all differ" if differing(curl, requests) else "alone"
    elif from_curl or from_requests:
        agreement, aspects = "unlike one", from_curl | from_requests
    return Verdict(script, agent, curl, requests, agreement, frozenset(aspects))


def differing(one: Outcome, other: Outcome) -> set[str]:
    """The aspects in which two outcomes differ."""
    found = {
        f"{aspect}{'' if not number else ' of the second'}"
        for number, (left, right) in enumerate(zip(one.results, other.results, strict=True))
        for aspect in _differing(left, right)
    }
    if one.seen != other.seen:
        found.add("requests")
    if one.waited != other.waited:
        found.add("waiting")
    if len(one.results) > 1 and one.connections != other.connections:
        found.add("connections")
    return found


def _differing(one: Result, other: Result) -> set[str]:
    if one.kind != other.kind:
        failed = "answer" not in (one.kind, other.kind)
        alike = one.kind in _NO_ANSWER and other.kind in _NO_ANSWER
        return {"code"} if failed and alike else {"failure"} if failed else {"outcome"}
    return {aspect for aspect in ("status", "fields", "body") if getattr(one, aspect) != getattr(other, aspect)}
