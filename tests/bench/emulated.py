"""The agent on the sandbox, with real SQS semantics but an emulator's CPU and tick: how far its figures can be trusted.

The sandbox runs in the bench's own process; times are the platform's, from a command's creation to its final status.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from relay_agent.sandbox.server import Sandbox
from tests.agents import body, finals, wait_until
from tests.bench.checking import Wrong
from tests.bench.contenders import Contender, Run
from tests.bench.processes import BareSqs, Target
from tests.bench.results import Found, Plan, Process, Results, Say, percentile, shown
from tests.bench.works import TEXT

PATIENCE_SECONDS = 120.0
SETTLE_SECONDS = 1.5
WARM_UP = 20
AFTER_SECONDS = 0.3
SIZE = 1000


def emulated(place: Path, plan: Plan, contender: Contender, number: int, peer: Target, results: Results, say: Say) -> None:
    """Measure one round of it."""
    with Sandbox(visibility_timeout=60) as sandbox:
        agent_id = sandbox.agent_id
        nowhere = BareSqs(9)  # The sandbox's addresses take the place of these.
        with contender.running(place, nowhere, peer, **sandbox.environment(agent_id)) as run:
            wait_until(sandbox, lambda: any(call.operation == "ReceiveMessage" for call in list(sandbox.aws_calls)), PATIENCE_SECONDS)
            first_poll = time.monotonic() - run.began
            threading.Event().wait(SETTLE_SECONDS)
            start_bytes, cpu = run.process.resident_bytes(), run.process.cpu_seconds()
            threading.Event().wait(plan.idle_seconds)
            idle = (run.process.cpu_seconds() - cpu) / plan.idle_seconds * 100 if plan.idle_seconds else float("nan")
            process = Process(contender.name, number, first_poll, start_bytes, idle, run.process.threads())
            results.processes.append(process)
            _work(sandbox, run, peer, WARM_UP, False)
            for work in plan.works:
                commands = plan.count(contender, work)
                if commands:
                    found = _work(sandbox, run, peer, commands, work.name == "alone")
                    found.contender, found.work, found.round = contender.name, work.name, number
                    results.works.append(found)
                    say(shown(found))
                if work.name == "burst":
                    process.after_bytes = run.process.resident_bytes()


def _work(sandbox: Sandbox, run: Run, peer: Target, commands: int, alone: bool) -> Found:
    sandbox.aws_calls.clear()
    log_bytes, cpu = run.log_bytes(), run.process.cpu_seconds()
    asked = []
    for place in range(commands):
        name = f"emulated-{place}"
        command = sandbox.command(sandbox.create_command(sandbox.agent_id, {"method": "GET", "url": peer.url(f"/1k?id={name}")}))
        asked.append((command, TEXT.answer(name, SIZE)))
        if alone:
            sandbox.wait_final(command.id, PATIENCE_SECONDS)
    wait_until(sandbox, lambda: all(command.final for command, _ in asked), PATIENCE_SECONDS)
    threading.Event().wait(AFTER_SECONDS)
    cpu = run.process.cpu_seconds() - cpu
    for command, expected in asked:
        if command.status != "SUCCESS" or len(finals(command)) != 1 or body(command)["body"] != expected:
            raise Wrong(f"{command.id}: {command.status} {str(command.response_body)[:200]}")
    waits = sorted((command.updated_at - command.created_at).total_seconds() for command, _ in asked)
    calls: dict[str, int] = {}
    for call in list(sandbox.aws_calls):
        if call.operation in ("ReceiveMessage", "DeleteMessageBatch", "SendMessageBatch"):
            calls[call.operation] = calls.get(call.operation, 0) + 1
    first = min(command.created_at for command, _ in asked)
    seconds = (max(command.updated_at for command, _ in asked) - first).total_seconds()
    return Found(
        contender="",
        work="",
        round=0,
        commands=commands,
        seconds=seconds,
        cpu_ms=cpu / commands * 1000,
        p50_ms=percentile(waits, 50) * 1000,
        p99_ms=percentile(waits, 99) * 1000,
        log_bytes=(run.log_bytes() - log_bytes) / commands,
        sqs_calls=sum(calls.values()) / commands,
        calls=calls,
    )
