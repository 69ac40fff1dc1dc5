"""`python -m tests.fuzz --seconds 60 --seed 1 --only response`: fuzz every harness for its share of the time; exit 1 for a finding.

The corpus grows in build/fuzz, so that a later run begins with what an earlier one reached.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from time import monotonic

from tests.fuzz.run import Run, fuzz
from tests.fuzz.table import HARNESSES

NO_ATHERIS = "No atheris here: nothing was fuzzed. Run `make fuzz`, which installs it, or says on which Python it can."


def main() -> int:
    """Run it."""
    arguments = _arguments()
    if importlib.util.find_spec("atheris") is None:
        print(NO_ATHERIS, file=sys.stderr)
        return 2
    names = arguments.only or list(HARNESSES)
    end, runs = monotonic() + arguments.seconds, list[Run]()
    overhead = 0.0
    for place, name in enumerate(names):
        share = (end - monotonic()) / (len(names) - place)
        seconds, began = max(1, round(share - overhead)), monotonic()
        run = fuzz(HARNESSES[name], seconds, arguments.seed, arguments.corpus)
        overhead = max(0.0, monotonic() - began - seconds)  # To load and to instrument everything.
        print(run.line, flush=True)
        runs.append(run)
    found = [run for run in runs if run.failed]
    for run in found:
        print(f"\n{run.finding}")
    executions = sum(run.executions for run in runs)
    print(f"{executions:,} executions of {len(runs)} harnesses, {len(found)} with a finding", file=sys.stderr)
    if found:
        print("Mend each, and add its line to tests/fuzz/found.py", file=sys.stderr)
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the parsers of foreign text.")
    parser.add_argument("--seconds", type=int, default=120, help="for all harnesses together; each gets at least one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(HARNESSES), nargs="+", metavar="NAME", help=f"of {', '.join(HARNESSES)}")
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"), help="where inputs that reached something new are kept")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
