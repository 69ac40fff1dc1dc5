"""The comparison: each contender in turn does each work, for several rounds, and every answer is checked."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from tests.bench.checking import Wrong, check
from tests.bench.contenders import Contender, Run, keyring
from tests.bench.emulated import emulated
from tests.bench.processes import BareSqs, Target, bare_sqs, target
from tests.bench.results import Found, Plan, Process, Results, Say, percentile, shown
from tests.bench.works import Load, Maker, Work, burst

HOSTS = 100
WARM_UP = 100
SETTLE_SECONDS = 1.5
AFTER_SECONDS = 0.3
SHIPPING_SECONDS = 8.0
LARGEST = "answer-50m"
TRACED = {"alone": 50, "burst": 1000}
CALLS_APART = ("REST", "S3", "PutLog", "CreateLog", "DescribeLog")


def compare(place: Path, plan: Plan, say: Say) -> Results:
    """Run all rounds; the order of the contenders changes from one to the next, so that none is always the first."""
    results = Results()
    contenders = []
    for contender in plan.contenders:
        missing = contender.missing()
        if missing:
            results.notes.append(f"{contender.title}: not measured, {missing}")
            say(f"  {results.notes[-1]}")
        else:
            contenders.append(contender)
    began = time.monotonic()
    with target(place, HOSTS) as peer:
        for number in range(plan.rounds):
            plan = _in_time(plan, number, time.monotonic() - began, results, say)
            turn = number % max(1, len(contenders))
            for contender in [*contenders[turn:], *contenders[:turn]]:
                with tempfile.TemporaryDirectory(dir=place) as directory:
                    (emulated if contender.emulated else _one)(Path(directory), plan, contender, number + 1, peer, results, say)
    return results


def _in_time(plan: Plan, done: int, seconds: float, results: Results, say: Say) -> Plan:
    """Return what the next round has: what a round takes is known from those that are done."""
    always = [work for work in plan.works if work.always]
    if not done or len(always) == len(plan.works) or seconds / done * (done + 1) <= plan.minutes * 60:
        return plan
    results.notes.append(f"{plan.minutes:g} minutes are not enough for all: from round {done + 1} on only alone and burst")
    say(f"  {results.notes[-1]}")
    return replace(plan, works=always)


def _one(place: Path, plan: Plan, contender: Contender, number: int, peer: Target, results: Results, say: Say) -> None:
    with bare_sqs() as sqs, contender.running(place, sqs, peer) as run:
        process = settle(run, contender, number, sqs, plan.idle_seconds)
        results.processes.append(process)
        maker = Maker(sqs, peer)
        warm_up(maker, contender)
        for work in plan.works:
            commands = plan.count(contender, work)
            if not commands:
                continue
            found = measure(maker, run, contender, work, commands)
            found.round = number
            results.works.append(found)
            if work.name == "burst":
                process.after_bytes = run.process.resident_bytes()
            say(shown(found))
        if any(work.name == LARGEST and plan.count(contender, work) for work in plan.works):
            process.peak_bytes = run.process.peak_bytes()


def settle(run: Run, contender: Contender, number: int, sqs: BareSqs, idle_seconds: float) -> Process:
    """Wait for the first poll, then look at the process while it has nothing to do."""
    patience = threading.Event()
    while (first_poll := sqs.report()["first_poll"]) is None:
        run.process.resident_bytes()  # Raises if it has ended.
        patience.wait(0.02)
    patience.wait(SETTLE_SECONDS)
    start_bytes = run.process.resident_bytes()
    before = run.process.cpu_seconds()
    patience.wait(idle_seconds)
    idle = (run.process.cpu_seconds() - before) / idle_seconds * 100 if idle_seconds else math.nan
    return Process(contender.name, number, first_poll - run.began, start_bytes, idle, run.process.threads())


def warm_up(maker: Maker, contender: Contender) -> None:
    """Have connections, credentials and all else that happens once behind it."""
    load = burst(maker, 5 if contender.slow else WARM_UP)
    work_off(maker, load, 60)


def measure(maker: Maker, run: Run, contender: Contender, work: Work, commands: int) -> Found:
    """Let a running contender do one work.

    Raises:
        Wrong: an answer is missing, wrong, or came twice; or the target was called more or less often than it should be.
    """
    load = work.make(maker, commands)
    (hits, connections), log_bytes, cpu = maker.target.counts(), run.log_bytes(), run.process.cpu_seconds()
    work_off(maker, load, work.patience_seconds)
    _after(maker.sqs, commands if work.ships and contender.promises else 0)
    cpu = run.process.cpu_seconds() - cpu
    log_bytes = run.log_bytes() - log_bytes
    report = maker.sqs.report()
    check(report, load.expected, maker.sqs.upload, keyring() if load.sealed else None)
    after = maker.target.counts()
    if after[0] - hits != commands:
        raise Wrong(f"the target was called {after[0] - hits} times for {commands} commands")
    times = [(each["handed"][0], each["answered"]) for each in report["commands"].values()]
    waits = sorted(answered - handed for handed, answered in times)
    calls = {name: count for name, count in report["calls"].items() if not name.startswith(CALLS_APART)}
    return Found(
        contender.name,
        work.name,
        0,
        commands,
        max(answered for _, answered in times) - report["released"],
        cpu / commands * 1000,
        percentile(waits, 50) * 1000,
        percentile(waits, 99) * 1000,
        log_bytes / commands,
        sum(calls.values()) / commands,
        report["calls"],
        (after[1] - connections) / commands,
    )


def work_off(maker: Maker, load: Load, patience_seconds: float) -> None:
    """Release commands and wait for their answers.

    Raises:
        Wrong: some are missing.
    """
    maker.sqs.load(load.messages, load.pause)
    progress = maker.sqs.wait(patience_seconds)
    if progress["answered"] < progress["expected"]:
        raise Wrong(f"{progress['answered']} of {progress['expected']} commands were answered within {patience_seconds:g} s")


def _after(sqs: BareSqs, shipped: int) -> None:
    """Wait for what a contender still does when the last answer has arrived, so that it is counted too: deletes, log lines."""
    patience = threading.Event()
    patience.wait(AFTER_SECONDS)
    for _ in range(int(SHIPPING_SECONDS / 0.1)):
        progress = sqs.wait(0)
        if progress["log_events"] >= shipped and not progress["flying"]:
            break
        patience.wait(0.1)
