"""`python -m tests.bench`: print the cost of the agent's parts as ratios within this run."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from tests.bench import age, commits, doubling, start, telemetry, whole_agent

COMMIT_COMMANDS = 500
TARGETS_SECONDS = (0.002, 0.05)


def main() -> None:
    """Run the chosen measurements, the quick ones first."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--commands", type=int, default=100_000, help="how old the journal gets (1000000 takes a quarter of an hour)")
    parser.add_argument("--agent-commands", type=int, default=500, help="how many commands the whole agent is given")
    parser.add_argument("--directory", type=Path, default=Path("build/bench"), help="where the journals lie: on the disk that counts")
    parser.add_argument("--only", choices=["doubling", "commits", "start", "telemetry", "agent", "age"], help="one measurement alone")
    options = parser.parse_args()
    options.directory = options.directory.resolve()
    options.directory.mkdir(parents=True, exist_ok=True)
    if options.only in (None, "doubling"):
        _say_doubling()
    if options.only in (None, "commits"):
        _say_commits(options.directory)
    if options.only in (None, "start"):
        _say_start(options.directory)
    if options.only in (None, "telemetry"):
        _say_telemetry(options.directory, options.agent_commands)
    if options.only in (None, "agent"):
        _say_agent(options.directory, options.agent_commands)
    if options.only in (None, "age"):
        _say_age(options.directory, options.commands)


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
    print(f"  turn about with a new journal: {found.against_new_median:.2f} times its rate")
    print(f"  the files: {found.first_bytes / 1e6:.1f} MB then, {found.last_bytes / 1e6:.1f} MB now, with {found.rows:,} rows")
    print(f"  the longest that a batch waited: {found.first.longest_seconds:.3f} s then, {found.last.longest_seconds:.3f} s now")


if __name__ == "__main__":
    main()
