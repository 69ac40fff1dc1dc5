"""Keeps the agent's process running, as a service manager would, and ends it when the plan says so.

Owns the process, its exit codes and its log. The thread `soak-supervisor` does everything except `blow` and `finish`; the thread
`soak-agent-log` reads the output of one process.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO

from tests.agents import EXECUTABLE

DRAIN_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_STOP_SLACK_SECONDS = 5.0
PAUSE_SECONDS = 0.5
_LOG_BYTES = 48_000_000


class AgentLog:
    """What the agent says, in a file of bounded size, across its restarts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failures: Counter[str] = Counter()
        self._file = path.open("w")
        self._left = _LOG_BYTES
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Take a line, with its newline."""
        with self._lock:
            if '"level":"error"' in line.replace(" ", "") or line.startswith("Traceback"):
                self.failures[line.partition('"event":')[2].strip().partition(",")[0].strip('" }\n') or "Traceback"] += 1
            if self._left > 0:
                self._left -= len(line)
                self._file.write(line if self._left > 0 else "the log ends here: it has its full size\n")
                self._file.flush()

    def about(self, words: Iterable[str], limit: int = 40) -> Iterator[str]:
        """The first lines that hold one of these words."""
        wanted = tuple(words)
        with self.path.open() as lines:
            for line in lines:
                if limit and any(word in line for word in wanted):
                    limit -= 1
                    yield line.rstrip("\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a process was asked to do."""

    kind: str
    at_work: bool
    """Whether the agent was between its start and its stop then: it alone has a handler for SIGTERM."""

    def __str__(self) -> str:
        return self.kind if self.at_work else f"{self.kind}, not at work"

    @property
    def exit_codes(self) -> frozenset[int]:
        """The exit codes that this is a reason for."""
        codes = {"kill": {-9}, "stop": {0}, "stop then kill": {0, -9}}[self.kind]
        return frozenset(codes if self.at_work else codes | {-signal.SIGTERM})


class Supervisor(threading.Thread):
    """Starts the agent again, `pause_seconds` after it has ended. `excused` gives the exit codes for which there is a reason just now.

    `arguments` is the program, if it is not the agent's own.
    """

    def __init__(
        self,
        environment: dict[str, str],
        directory: Path,
        log: AgentLog,
        excused: Callable[[], set[int]],
        arguments: Sequence[str] = (str(EXECUTABLE), "run"),
    ) -> None:
        super().__init__(name="soak-supervisor")
        self.pause_seconds = PAUSE_SECONDS
        self.ends: list[float] = []
        self.readies: list[float] = []
        self.blows: Counter[str] = Counter()
        self.own_ends: Counter[int] = Counter()
        self.starts = 0
        self.problems: list[str] = []
        self._environment = environment
        self._directory = directory
        self._log = log
        self._excused = excused
        self._arguments = list(arguments)
        self._process: subprocess.Popen[str] | None = None
        self._lost = False
        self._frozen = False
        self._asked: queue.Queue[str] = queue.Queue()
        self._finishing = threading.Event()
        self._at_work = threading.Event()
        self._began = monotonic()

    # -- any thread --------------------------------------------------------------------------------

    def blow(self, kind: str) -> None:
        """Do this to the process, when it runs."""
        self._asked.put(kind)

    def send_signal(self, number: signal.Signals) -> bool:
        """Send a signal that stops the process for a while, or lets it go on; return whether the process ran."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        self._frozen = number is signal.SIGSTOP
        return True

    def lose(self) -> None:
        """Kill the agent and never start it again; end this thread."""
        self._lost = True
        self._finishing.set()
        self._asked.put("kill")
        self.join(DRAIN_SECONDS + _STOP_SLACK_SECONDS + 10.0)

    def finish(self) -> None:
        """Stop the agent cleanly and end this thread."""
        self._finishing.set()
        self._asked.put("stop")
        self.join(DRAIN_SECONDS + _STOP_SLACK_SECONDS + 10.0)

    # -- the supervisor's thread -------------------------------------------------------------------

    def run(self) -> None:
        """Start, watch, start again."""
        while not self._finishing.is_set():
            self._one_life()
            self._finishing.wait(self.pause_seconds)

    def _one_life(self) -> None:
        self._at_work.clear()
        process = subprocess.Popen(
            self._arguments,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.starts += 1
        self._process = process
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(process.stdout,), name="soak-agent-log")
        reader.start()
        try:
            asked = self._watch(process)
        finally:
            process.kill()
            code = process.wait()
            reader.join()
        self.ends.append(monotonic())
        self._judge(code, asked)

    def _watch(self, process: subprocess.Popen[str]) -> Asked | None:
        """Wait until the process ends; what it was asked to do, if anything."""
        while process.poll() is None:
            try:
                asked = self._asked.get(timeout=0.05)
            except queue.Empty:
                continue
            if self._finishing.is_set():
                asked = "kill" if self._lost else "stop"
            self.blows[asked] += 1
            if asked == "kill":
                process.kill()
                process.wait()
                return Asked(asked, at_work=True)
            # While Python starts or exits it has no handler: the signal itself ends the process.
            at_work = self._at_work.is_set()
            # A command that the drain aborts may be answered before the process has ended.
            self.ends.append(monotonic())
            process.send_signal(signal.SIGTERM)
            self._wait(process, 0.5 if asked == "stop then kill" else DRAIN_SECONDS + _STOP_SLACK_SECONDS, asked)
            return Asked(asked, at_work)
        return None

    def _wait(self, process: subprocess.Popen[str], seconds: float, asked: str) -> None:
        left = seconds
        while left > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
                return
            left -= 0.0 if self._frozen else _LOOK_SECONDS  # A process that is frozen meanwhile cannot stop.
        if asked == "stop":
            self._report(f"it did not stop within {seconds:g} s of SIGTERM")
        process.kill()

    def _judge(self, code: int, asked: Asked | None) -> None:
        if asked is None or code not in asked.exit_codes:
            self.own_ends[code] += 1
            if code not in self._excused():
                self._report(f"exit code {code} {f'after: {asked}' if asked else 'without being asked'}")

    def _report(self, text: str) -> None:
        line = f"{monotonic() - self._began:6.1f} s, start {self.starts}: {text}"
        self.problems.append(line)
        self._log.write(f"soak: {line}\n")

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                if '"agent-starting"' in line:
                    self._at_work.set()
                elif '"agent-stopped"' in line:
                    self._at_work.clear()
                elif '"agent-ready"' in line:
                    self.readies.append(monotonic())
                self._log.write(line)
