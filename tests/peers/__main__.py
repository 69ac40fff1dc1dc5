"""`python -m tests.peers --count 3000 --seed 1`: odd peers against the agent, curl and requests; exit 1 for an unknown difference.

Everything is on loopback.
"""

from __future__ import annotations

import argparse
import sys
from time import monotonic

from tests.peers import curl_client, draw, known, report
from tests.peers.trial import trio

_MOST = 100_000
_CONFIRMED = 200
"""Of more peers than these something is wrong with all."""
_APART = 1_000_000
"""Seeds of peers between two seeds of runs."""


def main() -> int:
    """Run it."""
    arguments = _arguments()
    if curl_client.found() is None:
        print("no curl here: the peers were not tried (Debian: apt-get install curl)")
        return 0
    if arguments.replay is not None:
        scripts = [drawn for drawn in (draw.script(seed) for seed in arguments.replay) if drawn is not None]
    else:
        scripts = list(draw.scripts(arguments.seed * _APART, arguments.count, arguments.only))
    began = monotonic()
    table = known.read()
    with trio() as clients:
        verdicts = clients.try_all(scripts)
        verdicts = clients.confirmed(verdicts, report.unknown(verdicts, table)[:_CONFIRMED])
    wrong = report.unknown(verdicts, table)
    print(report.summary(verdicts, table))
    if arguments.classes:
        print(report.classes(verdicts))
    if arguments.replay is not None or arguments.verbose:
        print(report.details([verdict for verdict in verdicts if arguments.replay or verdict.agreement != "same"]))
    elif wrong:
        print(report.details(wrong))
    print(f"{monotonic() - began:.0f} s with {curl_client.version()}: {report.standings(verdicts)}", file=sys.stderr)
    if wrong:
        print(f"{len(wrong)} unknown differences: mend each, or explain it in docs/http-truth.md. A peer again: --replay SEED")
        print("Then add its seed to tests/contract/test_replayed_peers.py.")
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description="Odd peers, each against the agent, curl and requests.")
    parser.add_argument("--count", type=_count, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=sorted(draw.KINDS), help="peers of this kind only")
    parser.add_argument("--replay", type=int, nargs="+", metavar="SEED", help="these peers only, in full")
    parser.add_argument(
        "--classes", action="store_true", help="count every difference by what the peers have, where it is from one of the two only too"
    )
    parser.add_argument("--verbose", action="store_true", help="show each peer with a difference, known or not, in full")
    return parser.parse_args()


def _count(text: str) -> int:
    if not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"from 1 to {_MOST}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
