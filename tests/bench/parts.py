"""The cost of single parts of the agent, each printed as ratios within this run: `python -m tests.bench --only doubling commits`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench import age, commits, doubling, several, start, telemetry, whole_agent

COMMIT_COMMANDS = 500
TARGETS_SECONDS = (0.002, 0.05)
AGE_COMMANDS = 100_000


@dataclass(frozen=True)
class Choice:
    """What the command line says about parts."""

    directory: Path
    rounds: int | None
    commands: int | None
    agent_commands: int
    plot: Path | None


def _say_doubling() -> None:
    print(f"Foreign text, twice and four times as long: CPU time, and its ratio for each doubling (over {doubling.OVER}: not linear)")
    over = []
    for found in doubling.measure(doubling.TABLE):
        costs = ", ".join(f"{length:,}: {seconds * 1000:.3f} ms" for length, seconds in zip(found.lengths, found.seconds, strict=True))
        ratios = " and ".join(f"{ratio:.2f}" for ratio in found.ratios)
        print(f"  {found.name}: {ratios}{'  <- over' if found.over else ''} ({costs})", flush=True)
        over += [found.name] if found.over else []
    print(f"  over {doubling.OVER}: {', '.join(over) or 'none'}")


def _say_commits(place: Path) -> None:
    for seconds in TARGETS_SECONDS:
        print(f"Group commit: {COMMIT_COMMANDS} commands, all states together; a target that takes {seconds * 1000:g} ms")
        for workers in commits.WORKERS:
            waits = commits.loaded(place, workers, COMMIT_COMMANDS, seconds)
            hurries = commits.without_linger(partial(commits.loaded, place, workers, COMMIT_COMMANDS, seconds))
            print(
                f"  {workers:>2} workers: {waits.commits_each:.2f} fsyncs a command, {hurries.commits_each:.2f} without the linger;"
                f" {waits.rate / hurries.rate:.2f} times the commands in a second"
            )
    print("A lone command's time in the journal, with the linger over without it")
    for slow in (0, 8):
        for apart, how in ((commits.APART_SECONDS, "one now and then"), (0.0, "one after the other")):
            waits_seconds, hurries_seconds = commits.lone(place, slow, apart)
            print(f"  {how}, beside {slow} slow ones: {waits_seconds / hurries_seconds:.2f} ({waits_seconds * 1000:.1f} ms)")


def _say_start(place: Path) -> None:
    print(f"From the start to the first poll, as a multiple of a start that does nothing: the quickest of {start.ROUNDS}")
    _say_one_start("as a process", start.of_a_process(place))
    missing = start.image_is_missing()
    if missing is None:
        _say_one_start("as a container", start.of_the_image())
    else:
        print(f"  as a container: not measured, {missing}")


def _say_one_start(how: str, found: start.Start) -> None:
    print(f"  {how}: {found.ratio:.1f} times ({found.seconds:.2f} s and {found.idle_seconds:.2f} s)", flush=True)


def _say_agent(place: Path, commands: int) -> None:
    print(f"The whole agent and its sandbox on one machine: {commands} commands, targets that answer at once")
    for workers, targets in ((8, 1), (16, 1), (16, 4)):
        load = whole_agent.measure(place, workers, commands, targets)
        fsyncs = "fsyncs not counted (no strace here)" if load.fsyncs is None else f"{load.fsyncs / load.commands:.2f} fsyncs a command"
        print(f"  {workers:>2} workers, {targets} target{'s'[: targets - 1]}: {fsyncs}, {load.rate:.0f} commands in a second")


def _say_agents(place: Path, rounds: int, plot: Path) -> None:
    print(
        f"Several agents on one queue, {several.WORKERS} workers each; targets take {several.TARGET_SECONDS * 1000:g} ms,"
        f" calls to SQS {several.SQS_SECONDS * 1000:g} ms; commands in a second, medians, and times one agent in the same round"
    )
    rates = several.measure(place, rounds, lambda line: print(line, flush=True))
    print(*several.table(rates), sep="\n")
    plot.write_text(several.plot(rates))
    print(f"  the plot is {plot}")


def _say_telemetry(place: Path, commands: int) -> None:
    print(f"Logging and metrics: their part of the agent's CPU for a command, {commands} commands, a target that answers at once")
    for workers in (1, 16):
        shares = telemetry.measure(place, workers, commands)
        parts = {
            "lines": shares.lines,
            "stdout": shares.writing,
            "CloudWatch": shares.shipping,
            "metrics": shares.metrics,
            "counts": shares.counts,
        }
        split = ", ".join(f"{name} {spent / shares.whole:.1%}" for name, spent in parts.items())
        print(f"  {workers:>2} workers: {shares.ratio:.1%} ({split}) of {shares.whole / shares.commands * 1000:.2f} ms")


def _say_age(place: Path, commands: int) -> None:
    print(f"Age: {commands:,} commands through one journal, its upkeep beside them")
    found = age.measure(place, commands, lambda line: print(line, flush=True))
    print(f"  the last {age.SAMPLE:,} ran at {found.ratio:.2f} times the rate of the first {age.SAMPLE:,}")
    print(f"  alternately with a new journal: {found.against_new_median:.2f} times its rate")
    print(f"  the files: {found.first_bytes / 1e6:.1f} MB then, {found.last_bytes / 1e6:.1f} MB now, with {found.rows:,} rows")
    print(f"  the longest that a batch waited: {found.first.longest_seconds:.3f} s then, {found.last.longest_seconds:.3f} s now")


PARTS: dict[str, Callable[[Choice], None]] = {
    "doubling": lambda _choice: _say_doubling(),
    "commits": lambda choice: _say_commits(choice.directory),
    "start": lambda choice: _say_start(choice.directory),
    "telemetry": lambda choice: _say_telemetry(choice.directory, choice.agent_commands),
    "whole-agent": lambda choice: _say_agent(choice.directory, choice.agent_commands),
    "agents": lambda choice: _say_agents(
        choice.directory, choice.rounds or several.ROUNDS, choice.plot or choice.directory / "several-agents.svg"
    ),
    "age": lambda choice: _say_age(choice.directory, choice.commands or AGE_COMMANDS),
}
"""By name, the quick ones first."""
