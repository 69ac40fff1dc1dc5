"""`python -m tests.soak --seconds 60 --seed 1` (or `--minutes`): run a soak and print the result; exit 0 only without violations.

Everything is on loopback; the files are in build/soak.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from time import monotonic
from types import FrameType

from tests.soak import ground
from tests.soak.day import Day
from tests.soak.report import problems, table, write_violations

DIRECTORY = Path("build/soak")
_LEAST_SECONDS, _MOST_SECONDS = 10.0, 4 * 3600.0
_PRINTED = 20


def main() -> int:
    """Run it."""
    arguments = _arguments()
    if not arguments.inside:
        ground.enter(sys.argv[1:])
    signal.signal(signal.SIGTERM, _interrupt)
    began = monotonic()

    def say(text: str) -> None:
        print(f"{monotonic() - began:6.1f} s  {text}", flush=True)

    directory = DIRECTORY.resolve()
    with Day(arguments.seed, arguments.seconds, directory, arguments.inside, say) as day:
        result = day.run()
        wrong = problems(result)
        print(table(result))
        if not wrong:
            print("nothing was lost, doubled, falsely told or answered twice")
            return 0
        violations = directory / "violations.txt"
        write_violations(result, violations)
        print(*wrong[:_PRINTED], sep="\n")
        print(f"{len(wrong)} violations; more in {violations} and {result.log.path}")
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A simulated day of outages for the agent.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=_seconds, default=60.0)
    length.add_argument("--minutes", type=_minutes, dest="seconds", metavar="MINUTES")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(ground.INSIDE, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _minutes(text: str) -> float:
    return _bounded(float(text) * 60.0)


def _seconds(text: str) -> float:
    return _bounded(float(text))


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
