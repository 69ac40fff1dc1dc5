"""The demo as a program: its exit code, its rows, and that it leaves nothing behind; what a new user sees of `make demo`."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from relay_agent.sandbox.demo.rows import ROWS
from relay_agent.sandbox.demo.table import OK, Board

pytestmark = pytest.mark.timeout(120)  # Each starts a whole platform, in a process of its own.
DEMO = [sys.executable, "-m", "relay_agent.sandbox.demo"]
SPOILT = """
import dataclasses, sys
from relay_agent.sandbox.demo.__main__ import Demo
from relay_agent.sandbox.demo.rows import ROWS, expect_summary
wrong = lambda completed, addresses: expect_summary(completed, "SUCCESS 201") or ""
sys.exit(Demo([dataclasses.replace(ROWS[0], judge=wrong), ROWS[3]]).run())
"""
NO_AGENT = """
import sys
from relay_agent.sandbox.demo.__main__ import Demo
sys.exit(Demo(agent_overrides={"AGENT_ID": "<agent id>"}).run())
"""
DYING_AGENT = """
import dataclasses, os, signal, sys
from relay_agent.sandbox.demo import __main__ as demo
from relay_agent.sandbox.demo.rows import ROWS
shown = demo.Demo(ROWS)
def kill(completed, addresses):
    os.kill(shown._stage.agent.pid, signal.SIGKILL)
    shown._stage.over.wait(10)
    return ""
shown._board.lines[1].row = dataclasses.replace(ROWS[1], judge=kill)
sys.exit(shown.run())
"""


class Showing:
    """A demo under way, with a directory for temporary files of its own."""

    def __init__(self, command: list[str], directory: Path, **environment: str) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            command,
            cwd=directory.parent,
            env={**os.environ, "TMPDIR": str(directory), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell's background job ignores SIGINT, and so would the demo.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.agent: psutil.Process | None = None
        self.output = ""

    def read_until(self, text: str) -> None:
        """Read its output up to the line that holds `text`, and note the agent's process on the way."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line
            if "relay-agent run, process " in line:
                self.agent = psutil.Process(int(line.partition("process ")[2].partition(";")[0]))
            if text in line:
                return
        raise AssertionError(f"{text!r} did not come:\n{self.output}")

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def finish(self, seconds: float = 100.0) -> int:
        """Read the rest; its exit code, within so many seconds."""
        self.output += self._process.communicate(timeout=seconds)[0]
        return self._process.returncode

    def nothing_left(self) -> bool:
        """Whether no agent runs, no port listens and no temporary file is left."""
        return (self.agent is None or not self.agent.is_running()) and not list(self._directory.iterdir())

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        if self.agent is not None and self.agent.is_running():
            self.agent.kill()


@pytest.fixture
def show(tmp_path: Path) -> Iterator[object]:
    showings = []

    def start(*command: str, **environment: str) -> Showing:
        directory = tmp_path / f"tmp{len(showings)}"
        directory.mkdir()
        showings.append(Showing(list(command) or DEMO, directory, **environment))
        return showings[-1]

    yield start
    for showing in showings:
        showing.kill()


def test_every_row_is_as_it_should_be_and_nothing_is_left(show, tmp_path: Path) -> None:
    """The demo ends with 0 and leaves no process and no file, whatever settings, proxy and `.env` it finds."""
    (tmp_path / ".env").write_text("RELAY_WORKERS=many\n")
    showing = show(http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9", API_TARGET="nonsense", RELAY_QUEUE_SIZE="none")
    showing.read_until("is polling for commands")
    assert showing.finish() == 0, showing.output
    for row in ROWS:
        assert any(line.startswith("ok ") and f" {row.name} " in line for line in showing.output.splitlines()), row.name
    assert "12 of 12 commands returned" in showing.output
    assert "The agent stopped with exit code 0" in showing.output
    assert "through S3: 5,000,000 bytes" in showing.output
    assert showing.agent is not None
    assert showing.nothing_left()


@pytest.mark.parametrize("columns", [60, 79, 80, 120])
def test_a_terminal_of_any_width_shows_each_command_on_one_line(columns: int) -> None:
    """The notes are in a column if the terminal is wide enough, else below their rows."""
    console = Console(file=io.StringIO(), force_terminal=True, width=columns, color_system=None, legacy_windows=False)
    board = Board(ROWS, console)
    with board.shown():
        for line in board.lines:
            line.result, line.seconds = "FAILURE ECONNREFUSED", 0.063
            board.done(line, OK, "plate reader PR-1042 is idle")
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().rpartition(" result ")[2].splitlines()
    assert all(len(text.rstrip()) <= columns for text in last)
    for row in ROWS:
        [place] = [number for number, text in enumerate(last) if f" {row.name} " in text]
        assert "FAILURE ECONNREFUSED" in last[place]
        assert "63 ms" in last[place]
        assert "plate reader" in last[place + (columns < 80)]


def test_a_wrong_answer_names_its_row_and_ends_non_zero(show) -> None:
    showing = show(sys.executable, "-c", SPOILT)
    showing.read_until("is polling for commands")
    assert showing.finish() == 1, showing.output
    assert "FAILED  JSON GET: should be SUCCESS 201" in showing.output
    assert "1 of 2 commands returned" in showing.output
    assert '"event":"agent-stopped"' in showing.output.partition("last log lines:")[2]
    assert showing.nothing_left()


def test_an_agent_that_does_not_start_is_reported_with_its_own_message(show) -> None:
    showing = show(sys.executable, "-c", NO_AGENT)
    assert showing.finish() == 1, showing.output
    assert "FAILED  starting: the agent ended by itself with exit code 2" in showing.output
    assert "AGENT_ID" in showing.output.partition("last log lines:")[2]
    assert showing.nothing_left()


def test_an_agent_that_dies_on_the_way_ends_the_demo_at_once(show) -> None:
    showing = show(sys.executable, "-c", DYING_AGENT)
    showing.read_until("is polling for commands")
    assert showing.finish(30) == 1, showing.output
    assert showing.output.count("not sent") == 10
    assert "2 of 12 commands returned" in showing.output
    assert "FAILED  JSON GET" not in showing.output
    assert "FAILED  the agent ended by itself with exit code -9" in showing.output
    assert showing.nothing_left()


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("Starting a platform", signal.SIGINT),
        ("Starting a platform", signal.SIGTERM),
        ("is polling for commands", signal.SIGINT),
        (" fast, in parallel ", signal.SIGINT),
        (" fast, in parallel ", signal.SIGTERM),
    ],
)
def test_an_interrupt_stops_everything(show, moment: str, number: signal.Signals) -> None:
    """Ctrl-C while it starts, or while commands are under way, ends with 130, and leaves no process and no file."""
    showing = show()
    showing.read_until(moment)
    showing.send(number)
    assert showing.finish(30) == 128 + number, showing.output
    assert "Traceback" not in showing.output
    assert showing.nothing_left()
