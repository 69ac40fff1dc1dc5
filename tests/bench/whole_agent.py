"""The whole agent under load against the sandbox: commands per second, and the fsyncs that the kernel saw.

strace counts the fsyncs in a separate run, since it slows the agent down.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from relay_agent.sandbox.server import Sandbox
from tests import agents
from tests.agents import RunningAgent, running, wait_until
from tests.targets import ByteTarget, reply

PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Load:
    """What an agent made of so many commands; `fsyncs` is None where strace is missing."""

    commands: int
    seconds: float
    fsyncs: int | None

    @property
    def rate(self) -> float:
        """Commands per second."""
        return self.commands / self.seconds


def measure(place: Path, workers: int, commands: int, targets: int) -> Load:
    """Let an agent work off commands that wait on its queue, spread over so many targets, each of which answers at once."""
    seconds, _ = _work_off(place, workers, commands, targets, None)
    if shutil.which("strace") is None:
        return Load(commands, seconds, None)
    with tempfile.NamedTemporaryFile(dir=place, suffix=".strace") as trace:
        _, fsyncs = _work_off(place, workers, commands, targets, Path(trace.name))
    return Load(commands, seconds, fsyncs)


def _work_off(place: Path, workers: int, commands: int, targets: int, trace: Path | None) -> tuple[float, int]:
    with (
        tempfile.TemporaryDirectory(dir=place) as directory,
        Sandbox() as sandbox,
        _targets(targets) as urls,
        _traced(Path(directory), trace),
    ):
        agent = RunningAgent(sandbox, Path(directory), {"RELAY_WORKERS": str(workers)})
        with running(agent):
            agent.get(urls[0])  # Warm-up: credentials, connections and everything else that happens once.
            before = _fsyncs(trace)
            began = time.monotonic()
            asked = [agent.create({"method": "POST", "url": urls[number % targets], "body": "x" * 200}) for number in range(commands)]
            wait_until(sandbox, lambda: all(command.final for command in asked), PATIENCE_SECONDS)
            seconds = time.monotonic() - began
            fsyncs = _fsyncs(trace) - before
            assert {command.status for command in asked} == {"SUCCESS"}
            agent.stop()
    return seconds, fsyncs


@contextmanager
def _targets(count: int) -> Iterator[list[str]]:
    targets = [ByteTarget() for _ in range(count)]
    try:
        for target in targets:
            target.on("/", reply(body="done"))
        yield [target.url("/") for target in targets]
    finally:
        for target in targets:
            target.close()


@contextmanager
def _traced(directory: Path, trace: Path | None) -> Iterator[None]:
    """Start agents under strace: -D keeps their process id, and seccomp stops them at nothing but what is counted."""
    if trace is None:
        yield
        return
    wrapper = directory / "traced-agent"
    strace = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join([*strace, str(agents.EXECUTABLE)])} "$@"\n')
    wrapper.chmod(0o700)
    with mock.patch.object(agents, "EXECUTABLE", wrapper):
        yield


def _fsyncs(trace: Path | None) -> int:
    """How many calls were begun: one that another thread's line cuts in two says `resumed` the second time."""
    if trace is None:
        return 0
    return sum("sync(" in line for line in trace.read_text().splitlines())
