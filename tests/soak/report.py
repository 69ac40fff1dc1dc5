"""Prints the result of a soak: a table, and for each violation what was seen, what was reported and what the agent logged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.soak.checker import Finding, Kind
from tests.soak.day import Result

LONGEST_RECOVERY_SECONDS = 60.0
_SHOWN = 20
_TEXT = 300


def rows(result: Result) -> list[tuple[str, object]]:
    """The table's lines."""
    supervisor, verdict, recovery = result.supervisor, result.verdict, result.sandbox.recovery
    kinds = [(kind.value, verdict.count(kind)) for kind in Kind]
    return [
        ("seed", result.seed),
        ("seconds", f"{result.seconds:g}"),
        ("commands", len(result.commands.sent)),
        ("outcomes", _counts(result.commands.statuses)),
        ("kills", supervisor.blows["kill"] + supervisor.blows["stop then kill"]),
        ("stops", supervisor.blows["stop"]),
        ("starts", supervisor.starts),
        ("ended unasked", _counts({f"exit {code}": count for code, count in supervisor.own_ends.items()})),
        ("outages", sum(result.outages.values())),
        *((f"  {kind}", count) for kind, count in sorted(result.outages.items())),
        ("answers of the platform lost", result.lost_answers),
        *kinds,
        ("unexpected ends", len(supervisor.problems)),
        ("told of no command", len(result.sandbox.strays)),
        ("repeated, same bytes", verdict.repeated),
        ("interrupted", verdict.interrupted),
        ("bodies not up- or downloaded", verdict.undelivered_bodies),
        ("left on the queue", result.left_on_queue),
        ("settled after, seconds", f"{result.settled_seconds:.1f}"),
        ("longest recovery, seconds", f"{recovery.longest_seconds:.1f} of {recovery.measured}, {recovery.cut_short} cut short"),
        ("errors logged", _counts(result.log.failures)),
    ]


def problems(result: Result) -> list[str]:
    """What makes the soak fail, a line each."""
    found = [f"{finding.kind.value}: command {finding.number}: {finding.text}" for finding in result.verdict.findings]
    found += [f"the agent: {problem}" for problem in result.supervisor.problems]
    found += [f"an update names no command: {stray[:_TEXT]}" for stray in result.sandbox.strays]
    longest = max(result.sandbox.recovery.longest_seconds, result.sandbox.recovery.waiting_seconds)
    if longest > LONGEST_RECOVERY_SECONDS:
        found.append(f"polling was back only {longest:.0f} s after an outage")
    return found


def table(result: Result) -> str:
    """The table as text."""
    lines = rows(result)
    width = max(len(name) for name, _ in lines)
    return "\n".join([*(f"{name:<{width}}  {value}" for name, value in lines), *(f"note: {note}" for note in result.notes)])


def write_violations(result: Result, path: Path) -> None:
    """Put all that is known of the first violations into a file."""
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in problems(result)[:_SHOWN])
        for finding in result.verdict.findings[:_SHOWN]:
            file.writelines(f"{line}\n" for line in _story(result, finding))


def _story(result: Result, finding: Finding) -> Iterator[str]:
    sent = next(command for command in result.commands.sent if command.number == finding.number)
    told = result.commands.told.get(finding.number)
    yield f"\n== {finding.kind.value}: {finding.text}"
    yield f"sent {sent}"
    yield from _list("ended", [end for end in result.supervisor.ends if sent.at <= end <= (told.at if told else end)])
    yield from _list("seen", result.target.ledger.seen().get(finding.number, []))
    yield f"told {told.status} {told.http_status} {told.code} {told.digest} at {told.at}" if told else "told nothing"
    yield from _list("message", [text[:_TEXT] for text in dict.fromkeys(told.texts if told else ())])
    yield from _list("log", list(result.log.about([sent.id])))


def _list(name: str, things: Sequence[object]) -> Iterator[str]:
    yield from (f"{name} {thing}" for thing in things)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
