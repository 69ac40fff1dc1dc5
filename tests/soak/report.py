"""Prints the result of a soak: a table, and for each violation what was seen, what was reported and what the agent logged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.soak.checker import Finding, Kind, Reported, Sent
from tests.soak.day import Result
from tests.soak.target import CountingTarget

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
        ("outcomes", counts(result.commands.statuses)),
        ("kills", supervisor.blows["kill"] + supervisor.blows["stop then kill"]),
        ("stops", supervisor.blows["stop"]),
        ("starts", supervisor.starts),
        ("ended unasked", counts({f"exit {code}": count for code, count in supervisor.own_ends.items()})),
        ("outages", sum(result.outages.values())),
        *((f"  {kind}", count) for kind, count in sorted(result.outages.items())),
        ("answers of the platform lost", result.lost_answers),
        *kinds,
        ("unexpected ends", len(supervisor.problems)),
        ("updates for no command", len(result.sandbox.unmatched_updates)),
        ("repeated, same bytes", verdict.repeated),
        ("interrupted", verdict.interrupted),
        ("bodies not up- or downloaded", verdict.undelivered_bodies),
        ("left on the queue", result.left_on_queue),
        ("settled after, seconds", f"{result.settled_seconds:.1f}"),
        ("longest recovery, seconds", f"{recovery.longest_seconds:.1f} of {recovery.measured}, {recovery.cut_short} cut short"),
        ("errors logged", counts(result.log.failures)),
    ]


def problems(result: Result) -> list[str]:
    """What makes the soak fail, a line each."""
    found = [f"{finding.kind.value}: command {finding.number}: {finding.text}" for finding in result.verdict.findings]
    found += [f"the agent: {problem}" for problem in result.supervisor.problems]
    found += [f"an update names no command: {stray[:_TEXT]}" for stray in result.sandbox.unmatched_updates]
    longest = max(result.sandbox.recovery.longest_seconds, result.sandbox.recovery.waiting_seconds)
    if longest > LONGEST_RECOVERY_SECONDS:
        found.append(f"polling was back only {longest:.0f} s after an outage")
    return found


def table(lines: Sequence[tuple[str, object]], notes: Sequence[str] = ()) -> str:
    """The table as text."""
    width = max(len(name) for name, _ in lines)
    return "\n".join([*(f"{name:<{width}}  {value}" for name, value in lines), *(f"note: {note}" for note in notes)])


def write_violations(result: Result, path: Path) -> None:
    """Put all that is known of the first violations into a file."""
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in problems(result)[:_SHOWN])
        for finding in result.verdict.findings[:_SHOWN]:
            file.writelines(f"{line}\n" for line in _story(result, finding))


def _story(result: Result, finding: Finding) -> Iterator[str]:
    sent = next(command for command in result.commands.sent if command.number == finding.number)
    reported = result.commands.reported.get(finding.number)
    yield f"\n== {finding.kind.value}: {finding.text}"
    yield f"sent {sent}"
    yield from listed("ended", [end for end in result.supervisor.ends if sent.at <= end <= (reported.at if reported else end)])
    yield from seen_and_reported(sent, reported, result.target)
    yield from listed("log", list(result.log.about([sent.id])))


def seen_and_reported(sent: Sent, reported: Reported | None, target: CountingTarget) -> Iterator[str]:
    """What the target saw of a command, and what the platform was told, a line each."""
    yield from listed("seen", target.ledger.seen().get(sent.number, []))
    if reported:
        yield f"reported {reported.status} {reported.http_status} {reported.code} {reported.digest} at {reported.at}"
    else:
        yield "reported nothing"
    yield from listed("message", [text[:_TEXT] for text in dict.fromkeys(reported.texts if reported else ())])


def listed(name: str, things: Sequence[object]) -> Iterator[str]:
    """A line for each thing."""
    yield from (f"{name} {thing}" for thing in things)


def counts(found: Mapping[str, int]) -> str:
    """Several counts in one line."""
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items())) or "none"
