"""`python -m tests.soak --seconds 60 --seed 1` (or `--minutes`): run a soak and print the result; exit 0 only without violations.

`--agents 3 --count 10000` runs several agents on one queue until so many commands are sent.

Everything is on loopback; the files are in build/soak.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import FrameType

from tests.soak import ground, several_report
from tests.soak.day import Day
from tests.soak.harvest import MOST_COMMANDS
from tests.soak.report import problems, rows, table, write_violations
from tests.soak.several import Site

DIRECTORY = Path("build/soak")
_LEAST_SECONDS, _MOST_SECONDS = 10.0, 4 * 3600.0
_MOST_AGENTS = 9
_LEAST_COMMANDS = 100
_PRINTED = 20


def main() -> int:
    """Run it."""
    arguments = _arguments()
    if not arguments.inside and arguments.agents == 1:
        ground.enter(sys.argv[1:])
    signal.signal(signal.SIGTERM, _interrupt)
    began = monotonic()

    def say(text: str) -> None:
        print(f"{monotonic() - began:6.1f} s  {text}", flush=True)

    directory = DIRECTORY.resolve()
    return _several(arguments, directory, say) if arguments.agents > 1 else _alone(arguments, directory, say)


def _alone(arguments: argparse.Namespace, directory: Path, say: Callable[[str], None]) -> int:
    with Day(arguments.seed, arguments.seconds, directory, arguments.inside, say) as day:
        result = day.run()
        wrong = problems(result)
        print(table(rows(result), result.notes))
        if not wrong:
            print("nothing was lost, doubled, reported falsely or answered twice")
            return 0
        violations = directory / "violations.txt"
        write_violations(result, violations)
        print(*wrong[:_PRINTED], sep="\n")
        print(f"{len(wrong)} violations; more in {violations} and {result.log.path}")
        return 1


def _several(arguments: argparse.Namespace, directory: Path, say: Callable[[str], None]) -> int:
    with Site(arguments.seed, arguments.agents, arguments.count, directory, say) as site:
        result = site.run()
        wrong = several_report.problems(result)
        print(table(several_report.rows(result)))
        stories = directory / "several" / "stories.txt"
        several_report.write_stories(result, stories)
        if not wrong:
            print("nothing that is promised was lost, doubled, reported falsely or given two outcomes")
            return 0
        print(*wrong[:_PRINTED], sep="\n")
        print(f"{len(wrong)} violations; more in {stories} and the logs beside it")
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A simulated day of outages for the agent.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=_seconds, default=60.0)
    length.add_argument("--minutes", type=_minutes, dest="seconds", metavar="MINUTES")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--agents", type=int, choices=range(1, _MOST_AGENTS + 1), default=1, help="how many agents share the queue")
    parser.add_argument("--count", type=_commands, default=1000, help="how many commands several agents are given")
    parser.add_argument(ground.INSIDE, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _minutes(text: str) -> float:
    return _bounded(float(text) * 60.0)


def _seconds(text: str) -> float:
    return _bounded(float(text))


def _commands(text: str) -> int:
    if not _LEAST_COMMANDS <= int(text) <= MOST_COMMANDS:
        raise argparse.ArgumentTypeError(f"from {_LEAST_COMMANDS} to {MOST_COMMANDS} commands")
    return int(text)


def _bounded(seconds: float) -> float:
    if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"from {_LEAST_SECONDS:g} to {_MOST_SECONDS:g} seconds")
    return seconds


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Like Ctrl-C: every `with` ends what it started.
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started has been ended")
