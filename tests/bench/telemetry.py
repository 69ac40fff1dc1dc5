"""The cost of logging and metrics per command: their CPU time divided by the agent's, both measured in one run of a real process.

`measure` starts the agent through this module (`python -m tests.bench.telemetry run`), which times telemetry's calls inside it and
writes the result at its end. Waiting is not CPU time. A garbage collection (40 ms, one or two per thousand commands) counts for the
whole but for no part, since it may happen anywhere.
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from relay_agent.agent.log_shipper import LogShipper
from relay_agent.telemetry import command_report
from relay_agent.telemetry.hourly_summary import Tally
from relay_agent.telemetry.metrics import Metrics
from tests import agents

FOUND = "BENCH_FOUND"
PATIENCE_SECONDS = 300.0
WARMING = 2
"""Commands that are not counted."""


@dataclass(frozen=True)
class Shares:
    """CPU seconds of an agent from its second command on to its end, and those of them that went into telemetry."""

    commands: int
    whole: float
    lines: float
    """Into the commands' lines: redacted, rendered and put into the buffers."""
    writing: float
    """Into stdout: its thread."""
    shipping: float
    """Into CloudWatch."""
    metrics: float
    counts: float

    @property
    def ratio(self) -> float:
        """Telemetry's part of the whole."""
        return (self.lines + self.writing + self.shipping + self.metrics + self.counts) / self.whole


def measure(place: Path, workers: int, commands: int) -> Shares:
    """Let an agent work off commands that wait on its queue, with a target that answers at once."""
    from relay_agent.sandbox.server import Sandbox
    from tests.targets import ByteTarget, reply

    with tempfile.TemporaryDirectory(dir=place) as name, Sandbox() as sandbox, ByteTarget() as target:
        target.on("/", reply(body="done"))
        directory, wrapper = Path(name), Path(name) / "timed-agent"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", __name__])} "$@"\n')
        wrapper.chmod(0o700)
        found = directory / "found.json"
        environment = {"RELAY_WORKERS": str(workers), FOUND: str(found), "PYTHONPATH": str(Path(__file__).parents[2])}
        with (
            mock.patch.object(agents, "EXECUTABLE", wrapper),
            agents.running(agents.RunningAgent(sandbox, directory, {**environment})) as agent,
        ):
            agent.get(target.url("/"))  # Warm-up: credentials, connections and everything else that happens once, CloudWatch's too.
            agents.wait_until(sandbox, lambda: any('"command"' in event["message"] for event in sandbox.log_events(agent.agent_id)))
            agent.get(target.url("/"))  # The measurement starts here.
            asked = [agent.create({"method": "POST", "url": target.url("/"), "body": "x" * 200}) for _ in range(commands)]
            agents.wait_until(sandbox, lambda: all(command.final for command in asked), PATIENCE_SECONDS)
            agent.stop()
        return Shares(commands, **json.loads(found.read_text()))


# --- within the agent's process ---


class _Garbage(threading.local):
    """What collections of garbage took of each thread's CPU."""

    seconds = 0.0
    began = 0.0

    def note(self, phase: str, _info: object) -> None:
        """What `gc.callbacks` calls at a collection's start and end."""
        if phase == "start":
            self.began = time.thread_time()
        else:
            self.seconds += time.thread_time() - self.began


class _Spent:
    """Adds up the CPU of threads within some calls, without what the adding costs."""

    def __init__(self, garbage: _Garbage) -> None:
        self._garbage = garbage
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._own = min(_reading() for _ in range(100))

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            collected, began = self._garbage.seconds, time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                spent = time.thread_time() - began - self._own - (self._garbage.seconds - collected)
                with self._lock:
                    self.seconds += spent

        return timed


def _reading() -> float:
    """What reading the clock takes by itself."""
    began = time.thread_time()
    return time.thread_time() - began


def _cpu_of(name: str) -> float:
    """CPU seconds of a thread since it was started."""
    (thread,) = [thread for thread in threading.enumerate() if thread.name == name and thread.ident is not None]
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))


class _Watch:
    """What telemetry takes, from the first command's line on."""

    def __init__(self) -> None:
        garbage = _Garbage()
        gc.callbacks.append(garbage.note)
        self._parts = {name: _Spent(garbage) for name in ("lines", "shipping", "metrics", "counts")}
        self._before = WARMING
        self._first: dict[str, float] = {}
        parts = self._parts
        self._patch(command_report, "command_line", self._from_now(parts["lines"].counted(command_report.command_line)))
        self._patch(LogShipper, "ship_once", parts["shipping"].counted(LogShipper.ship_once))
        self._patch(Metrics, "command_finished", parts["metrics"].counted(Metrics.command_finished))
        self._patch(Tally, "count", parts["counts"].counted(Tally.count))
        self._patch(Tally, "finished", parts["counts"].counted(Tally.finished))

    def found(self) -> dict[str, float]:
        """The seconds of each part, and of the whole."""
        return {name: seconds - self._first[name] for name, seconds in self._now().items()}

    def _now(self) -> dict[str, float]:
        parts = {name: part.seconds for name, part in self._parts.items()}
        return {"whole": time.process_time(), "writing": _cpu_of("stdout"), **parts}

    def _from_now(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            result = call(*arguments, **named)
            self._before -= 1
            if self._before == 0:
                self._first = self._now()
            return result

        return noted

    @staticmethod
    def _patch(owner: object, name: str, replacement: Callable[..., Any]) -> None:
        mock.patch.object(owner, name, replacement).start()


def _run() -> None:
    from relay_agent.cli.main import main

    watch = _Watch()
    try:
        main()
    finally:
        Path(os.environ[FOUND]).write_text(json.dumps(watch.found()))


if __name__ == "__main__":
    _run()
