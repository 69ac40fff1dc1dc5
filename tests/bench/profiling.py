"""Where the time goes: a contender sampled with py-spy during bursts, and its fsyncs counted with strace.

Both slow it down, so that neither happens while anything is timed.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.bench.comparison import HOSTS, TRACED, measure, settle, warm_up, work_off
from tests.bench.contenders import Contender
from tests.bench.processes import bare_sqs, target
from tests.bench.results import Plan, Results, Say
from tests.bench.works import WORKS, Maker, burst

PROFILE_HERTZ = 250
STRACED = 1000
MOST_CALLS = 16
ATTACH_SECONDS = 1.0


def count_fsyncs(place: Path, plan: Plan, results: Results) -> None:
    """Put the fsyncs of a command into the results: fsync(2) and fdatasync(2), as strace sees them in a run of its own."""
    if shutil.which("strace") is None:
        results.notes.append("fsyncs: not counted, there is no strace here")
        return
    with target(place, HOSTS) as peer:
        for contender in plan.contenders:
            works = [work for work in WORKS if work.name in TRACED and any(work.name == each.name for each in plan.works)]
            if contender.slow or contender.emulated or contender.missing() or not works:
                continue
            with tempfile.TemporaryDirectory(dir=place) as directory, bare_sqs() as sqs:
                trace = Path(directory) / "trace.txt"
                # -D keeps the process id; with seccomp nothing else is stopped.
                strace = ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", str(trace))
                with contender.running(Path(directory), sqs, peer, strace) as run:
                    maker = Maker(sqs, peer)
                    settle(run, contender, 0, sqs, 0.0)
                    warm_up(maker, contender)
                    for work in works:
                        before = _traced(trace)
                        measure(maker, run, contender, work, TRACED[work.name])
                        fsyncs = (_traced(trace) - before) / TRACED[work.name]
                        for found in results.works:
                            if (found.contender, found.work) == (contender.name, work.name):
                                found.fsyncs = fsyncs


def _traced(trace: Path) -> int:
    """How many calls were begun: one that another thread's line cuts in two says `resumed` the second time."""
    return sum("sync(" in line for line in trace.read_text().splitlines()) if trace.exists() else 0


def profile(place: Path, contender: Contender, commands: int, into: Path, say: Say) -> None:
    """Sample a contender with py-spy during bursts, count its system calls with strace, and print both.

    Written are folded stacks of the threads that hold the interpreter, a flame graph of the same, and the system calls.
    """
    folded, flames, calls = (into / f"{contender.name}.{kind}" for kind in ("folded", "svg", "strace"))
    with (
        target(place, HOSTS) as peer,
        bare_sqs() as sqs,
        tempfile.TemporaryDirectory(dir=place) as directory,
        contender.running(Path(directory), sqs, peer) as run,
    ):
        maker = Maker(sqs, peer)
        settle(run, contender, 1, sqs, 0.0)
        warm_up(maker, contender)
        for file, kind in ((folded, "raw"), (flames, "flamegraph")):
            with _beside(_py_spy(kind, file, run.process.pid)):
                work_off(maker, burst(maker, commands), 300)
        if shutil.which("strace"):
            with _beside(["strace", "-c", "-f", "-q", "-o", str(calls), "-p", str(run.process.pid)]):
                work_off(maker, burst(maker, min(commands, STRACED)), 300)
    for line in hottest(folded.read_text().splitlines()):
        say(line)
    if calls.exists():
        say(f"  system calls of {min(commands, STRACED):,} commands (strace -c; the times are mostly strace's own)")
        for line in calls.read_text().splitlines()[:MOST_CALLS]:
            say(f"  {line}")
    for file in (folded, flames, calls):
        if file.exists():
            say(f"  written: {file}")


def _py_spy(kind: str, file: Path, pid: int) -> list[str]:
    program = Path(sys.executable).with_name("py-spy")
    found = program if program.exists() else shutil.which("py-spy")
    if not found:
        raise SystemExit("py-spy is missing: pip install py-spy, or make bench")
    options = f"record --gil --rate {PROFILE_HERTZ} --format {kind} --pid {pid} --output"
    return [str(found), *options.split(), str(file)]


@contextlib.contextmanager
def _beside(command: list[str]) -> Iterator[None]:
    """Run a program beside a process, and end it with SIGINT so that it writes what it has."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        threading.Event().wait(ATTACH_SECONDS)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    if process.returncode not in (0, -signal.SIGINT, 128 + signal.SIGINT):
        raise SystemExit(f"{command[0]} failed: {errors.decode()[-500:]}")


def hottest(folded: Iterable[str], most: int = 40) -> list[str]:
    """Return a table of the functions with the most interpreter time: within and below them, and in themselves."""
    inclusive: dict[str, int] = {}
    own: dict[str, int] = {}
    total = 0
    for line in folded:
        stack, _, number = line.rpartition(" ")
        count = int(number)
        names = [_without_line(frame) for frame in stack.split(";")]
        total += count
        for name in set(names):
            inclusive[name] = inclusive.get(name, 0) + count
        own[names[-1]] = own.get(names[-1], 0) + count
    rows = (
        sorted(inclusive, key=lambda name: (-inclusive[name], name))[:most] + sorted(own, key=lambda name: (-own[name], name))[: most // 2]
    )
    lines = [f"  {total:,} samples with the interpreter's lock; with what is below, in itself"]
    return lines + [f"  {inclusive[name] / total:6.1%} {own.get(name, 0) / total:6.1%}  {name}" for name in dict.fromkeys(rows)]


def _without_line(frame: str) -> str:
    """`send (transport/session.py:41)` is the function, whatever its line."""
    return frame.rpartition(":")[0] + ")" if frame.endswith(")") and frame.rpartition(":")[2][:-1].isdigit() else frame
