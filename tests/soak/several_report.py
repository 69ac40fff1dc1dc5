"""Prints the result of a soak of several agents: a table, and the story of each violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.soak.checker import Finding, Kind
from tests.soak.losses import Loss
from tests.soak.report import counts, listed, seen_and_reported
from tests.soak.several import Result

_SHOWN = 20
_TEXT = 300


def rows(result: Result) -> list[tuple[str, object]]:
    """The table's lines."""
    machines, verdict, witness = result.machines, result.verdict, result.sandbox.witness
    again = sum(len(events) > 1 for events in list(witness.handed_out.values()))
    owned = Counter(events[0].port for events in list(witness.deleted.values()))
    return [
        ("seed", result.seed),
        ("agents", f"{result.agents}, and one in the place of the lost machine" if len(machines) > result.agents else result.agents),
        ("seconds", f"{result.seconds:.0f}, settled after {result.settled_seconds:.1f}"),
        ("commands", f"{len(result.commands.sent)}, half of them in one message group, the others in many"),
        ("outcomes", counts(result.commands.statuses)),
        ("owned by", counts({machine.name: owned[machine.sqs.port] for machine in machines})),
        ("starts", counts({machine.name: machine.supervisor.starts for machine in machines})),
        ("misfortunes", sum(result.happened.values())),
        *((f"  {kind}", times) for kind, times in sorted(result.happened.items())),
        ("handed out more than once", again),
        ("deletes refused", sum(witness.refused.values())),
        *((kind.value, verdict.count(kind)) for kind in Kind),
        ("not promised, counted apart", sum(map(len, result.losses.values()))),
        (f"  {Loss.MACHINE.value}", len(result.losses.get(Loss.MACHINE, []))),
        (f"  {Loss.UNKNOWN_DELETE.value}", _by_delete(result)),
        ("unexpected ends", sum(len(machine.supervisor.problems) for machine in machines)),
        ("updates for no command", len(result.sandbox.unmatched_updates)),
        ("repeated, same bytes", verdict.repeated),
        ("interrupted", verdict.interrupted),
        ("left on the queue", result.left_on_queue),
        ("errors logged", counts(sum((machine.log.failures for machine in machines), Counter()))),
    ]


def _by_delete(result: Result) -> str:
    """How many, and by how many deletes: one may hold ten commands."""
    lost = result.losses.get(Loss.UNKNOWN_DELETE, [])
    return f"{len(lost)}, of {len({result.evidence.deleted[command_id][0].at for command_id in lost})} deletes"


def problems(result: Result) -> list[str]:
    """What makes the soak fail, a line each."""
    found = [f"{finding.kind.value}: command {finding.number}: {finding.text}" for finding in result.verdict.findings]
    found += [f"{machine.name}: {problem}" for machine in result.machines for problem in machine.supervisor.problems]
    found += [f"an update names no command: {stray[:_TEXT]}" for stray in result.sandbox.unmatched_updates]
    if result.left_on_queue:
        found.append(f"{result.left_on_queue} messages are left on the queue")
    return found


def write_stories(result: Result, path: Path) -> None:
    """Put all that is known of the first violations, and of each loss that is counted apart, into a file."""
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in problems(result)[:_SHOWN])
        for finding in result.verdict.findings[:_SHOWN]:
            file.writelines(f"{line}\n" for line in _story(result, finding))
        ids = {command.id: command.number for command in result.commands.sent}
        for loss, lost in result.losses.items():
            for command_id in lost[: None if loss is Loss.UNKNOWN_DELETE else _SHOWN]:
                finding = Finding(Kind.LOST, ids[command_id], loss.value)
                file.writelines(f"{line}\n" for line in _story(result, finding))


def _story(result: Result, finding: Finding) -> Iterator[str]:
    sent = next(command for command in result.commands.sent if command.number == finding.number)
    reported = result.commands.reported.get(finding.number)
    names, witness = {machine.sqs.port: machine.name for machine in result.machines}, result.sandbox.witness
    yield f"\n== {finding.kind.value}: {finding.text}"
    yield f"sent {sent}"
    for what, events in (("handed out to", witness.handed_out), ("deleted by", witness.deleted)):
        yield from listed(what, [f"{names.get(event.port)} at {event.at:.2f}" for event in list(events.get(sent.id, []))])
    yield from listed("held by", [name for name, ids in result.evidence.journals.items() if sent.id in ids])
    until, deleted = reported.at if reported else sent.at + 60.0, result.evidence.deleted.get(sent.id, ())
    yield from listed("lease", [f"until {one.lease_until:.2f}" for one in deleted])
    struck = [one for one in result.evidence.struck if one.agent in {by.agent for by in deleted}]
    yield from listed("struck", [one for one in struck if one.end >= sent.at and one.begin <= until])
    yield from seen_and_reported(sent, reported, result.target)
    for machine in result.machines:
        yield from listed(f"log of {machine.name}", list(machine.log.about([sent.id])))
