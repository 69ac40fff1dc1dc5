"""The result of a run as text: the counts, each class of known differences, and each peer with an unknown difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.peers.compare import Verdict
from tests.peers.known import Known, explaining
from tests.peers.outcome import Outcome
from tests.peers.script import PORT, Script

_SHOWN = 40


def unknown(verdicts: Iterable[Verdict], table: Sequence[Known]) -> list[Verdict]:
    """The peers for which the agent differs from both others in a way that the table does not explain."""
    return [verdict for verdict in verdicts if _differs(verdict) and explaining(verdict, table) is None]


def summary(verdicts: Sequence[Verdict], table: Sequence[Known]) -> str:
    """How many differ, and how often each known difference was met."""
    apart = [verdict for verdict in verdicts if _differs(verdict)]
    met = Counter(name for verdict in apart for name in explaining(verdict, table) or ["UNKNOWN"])
    lines = [f"{len(verdicts)} peers; the agent is unlike both others for {len(apart)} of them:"]
    return "\n".join([*lines, *(f"  {count:5} {name}" for name, count in sorted(met.items()))])


def standings(verdicts: Iterable[Verdict]) -> str:
    """How often each agreement occurs; if a reset races with data, the numbers vary between runs."""
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(verdict.agreement for verdict in verdicts).items()))


def classes(verdicts: Iterable[Verdict]) -> str:
    """How often the agent stands so, by traits and aspects."""
    met = Counter(
        (verdict.agreement, ", ".join(sorted(verdict.aspects)), verdict.gives, " ".join(sorted(verdict.script.traits)), _words(verdict))
        for verdict in verdicts
        if verdict.agreement != "same"
    )
    return "\n".join(f"{count:4} " + " | ".join(words) for words, count in sorted(met.items()))


def _words(verdict: Verdict) -> str:
    """What each gave, in a word."""
    return " ".join(
        f"{name}={'+'.join(result.kind for result in outcome.results)}{'!' if outcome.waited else ''}"
        for name, outcome in (("agent", verdict.agent), ("curl", verdict.curl), ("requests", verdict.requests))
    )


def detail(verdict: Verdict) -> str:
    """One peer in full."""
    lines = [f"seed {verdict.script.seed}: {verdict.agreement} in {', '.join(sorted(verdict.aspects)) or 'nothing'}"]
    lines += [f"    {line}" for line in _script(verdict.script)]
    for name, outcome in (("agent", verdict.agent), ("curl", verdict.curl), ("requests", verdict.requests)):
        lines += [f"    {name:9}{line}" for line in _outcome(outcome)]
    return "\n".join(lines)


def details(verdicts: Sequence[Verdict]) -> str:
    """The first of many in full."""
    more = [f"and {len(verdicts) - _SHOWN} more"] if len(verdicts) > _SHOWN else []
    return "\n".join([*(detail(verdict) for verdict in verdicts[:_SHOWN]), *more])


def _differs(verdict: Verdict) -> bool:
    return verdict.agreement in ("alone", "all differ")


def _script(script: Script) -> Iterable[str]:
    yield f"{script.kind}: {' '.join(sorted(script.traits))}"
    for ask in script.asks:
        yield f"> {ask.method} {ask.path}{f' Host: {ask.host}' if ask.host else ''}{f' with {len(ask.body)} bytes' if ask.body else ''}"
    for reply in script.replies:
        yield f"< {_short(b''.join(reply.pieces).replace(PORT, b'PORT'), 500)} then {reply.end}"


def _outcome(outcome: Outcome) -> Iterable[str]:
    for result in outcome.results:
        said = f"{result.status} {result.fields} {_short(result.body)}" if result.kind == "answer" else result.detail
        yield f"{result.kind} {said}"[:600]
    seen = " ".join(f"{one.method} {one.target[:80]} {one.cookies} {one.body}" for one in outcome.seen)
    yield f"  asked {seen}; {outcome.connections} connections{'; waited' if outcome.waited else ''}"


def _short(data: bytes, most: int = 160) -> str:
    return f"{data[:most]!r}" + (f"… of {len(data)}" if len(data) > most else "")
