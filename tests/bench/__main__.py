"""Compare the agent with what a short program would do, on this machine: `python -m tests.bench`.

`--only` takes contenders (agent, floor …), works (burst, alone …) and single parts of the agent (commits, age …), in any order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench import comparison, growth, machine, profiling, report
from tests.bench.contenders import CONTENDERS
from tests.bench.parts import PARTS, Choice
from tests.bench.results import IDLE_SECONDS, MINUTES, Plan
from tests.bench.works import WORKS

COMMANDS = 3000


def main() -> None:
    """Run what was chosen."""
    options = _options()
    options.directory = options.directory.resolve()
    options.directory.mkdir(parents=True, exist_ok=True)
    options.results.mkdir(parents=True, exist_ok=True)
    chosen = set(options.only or ())
    if options.profile:
        for contender in [each for each in CONTENDERS if each.name in chosen] or CONTENDERS[:1]:
            profiling.profile(options.directory, contender, options.commands or COMMANDS, options.results, _say)
        return
    if options.grow is not None:
        _grow(options)
        return
    for part in [name for name in PARTS if name in chosen]:
        PARTS[part](Choice(options.directory, options.rounds, options.commands, options.agent_commands, options.plot))
    if not chosen or chosen - set(PARTS):
        _compare(options, chosen)


def _compare(options: argparse.Namespace, chosen: set[str]) -> None:
    contenders = [each for each in CONTENDERS if each.name in chosen] or list(CONTENDERS)
    works = [each for each in WORKS if each.name in chosen] or list(WORKS)
    plan = Plan(contenders, works, options.rounds or 3, options.commands, options.idle_seconds, options.minutes)
    described = machine.describe(options.directory)
    titles, named = {each.name: each.title for each in contenders}, {each.name: each.title for each in works}
    others = machine.Others()
    results = comparison.compare(options.directory, plan, _say)
    profiling.count_fsyncs(options.directory, plan, results)
    described["load"] += f" before, {machine.load()} after; other programs used {others.percent():.0f} % of all cores' time meanwhile"
    for lines in (report.summary(results, titles), report.details(results, titles, named)):
        print("", *report.text(lines), sep="\n")
    print("", *(f"  {name}: {value}" for name, value in described.items()), *(f"  {note}" for note in results.notes), sep="\n")
    for path in report.write(options.results, results, described, titles, named, results.notes):
        print(f"  written: {path}")


def _grow(options: argparse.Namespace) -> None:
    described = machine.describe(options.directory)
    others = machine.Others()
    points = growth.grow(options.directory, options.grow or list(growth.CURVES), options.rounds or 1, options.commands, _say)
    described["load"] += f" before; other programs used {others.percent():.0f} % of all cores' time meanwhile"
    print("", *report.text(growth.table(points)), sep="\n")
    for path in growth.write(options.results, points, described):
        print(f"  written: {path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    names = [each.name for each in CONTENDERS] + [each.name for each in WORKS] + list(PARTS)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="how often each is measured (the comparison: 3, --grow: 1)")
    parser.add_argument("--commands", type=int, help="a burst's (3000), those in a row of --grow (20000), `age`'s (100000)")
    parser.add_argument("--agent-commands", type=int, default=500, help="how many commands `whole-agent` and `telemetry` give the agent")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS, help="how long idle CPU is measured for")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after this long a new round has only the works `alone` and `burst`")
    parser.add_argument("--profile", action="store_true", help="sample the agent with py-spy during a burst, and print where the time goes")
    parser.add_argument(
        "--grow", nargs="*", choices=list(growth.CURVES), metavar="CURVE", help=f"how the agent grows: some of {', '.join(growth.CURVES)}"
    )
    parser.add_argument("--directory", type=Path, default=Path("build/bench"), help="where journals lie: on the disk that counts")
    parser.add_argument("--results", type=Path, default=Path("bench/results"), help="where results are written")
    parser.add_argument("--plot", type=Path, help="where the plot of `agents` is written, as SVG")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
