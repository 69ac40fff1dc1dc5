"""What the demo runs: the sandbox, the demonstration target, and the agent as a process of its own.

This module owns their start and stop. It must not send commands. Threads: the main thread calls `start` and `stop`;
`demo-agent-watch` waits for the agent's end.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from relay_agent.core.errors import RelayError
from relay_agent.protocol.jwe import generate_key
from relay_agent.sandbox.demo.rows import Addresses
from relay_agent.sandbox.hosting import HOST
from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget

AGENT = Path(sys.executable).with_name("relay-agent")
READY_SECONDS = 30.0
_DRAIN_SECONDS = 5
_STOP_SECONDS = 10.0
_LOG_LINES = 12
_LOG_COLUMNS = 400


class StageError(RelayError):
    """Something could not be started; the message says what."""


class AgentProcess:
    """The process `relay-agent run`, with its own environment, and its log in a file."""

    def __init__(self, environment: Mapping[str, str], directory: Path, on_end: Callable[[], None]) -> None:
        self._log = directory / "agent.log"
        self._on_end = on_end
        with self._log.open("wb") as log:
            # A process group of its own, so that Ctrl-C reaches only the demo, which then stops the agent as a supervisor would.
            self._process = subprocess.Popen(
                [AGENT, "run"], cwd=directory, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        self.pid = self._process.pid
        self._watch = threading.Thread(target=self._wait, name="demo-agent-watch", daemon=True)
        self._watch.start()

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def stop(self) -> int:
        """Stop it with SIGTERM, after 10 s with SIGKILL, and return its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._watch.join()
        return code

    def last_lines(self) -> list[str]:
        """Return the last lines of its log."""
        lines = self._log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
        return [line[:_LOG_COLUMNS] for line in lines]

    def _wait(self) -> None:
        self._process.wait()
        self._on_end()


class Stage:
    """Everything the demo runs, on this machine only.

    `over` is set when the agent has ended. `overrides` replace variables of the agent's environment.
    """

    def __init__(self, overrides: Mapping[str, str] | None = None) -> None:
        self.over = threading.Event()
        self.key = generate_key()
        self.log: list[str] = []
        self._overrides = overrides or {}
        self._undo = contextlib.ExitStack()
        self._directory = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="relay-demo-")))
        self.sandbox = Sandbox(agent_name="demo agent")
        self.target = DemoTarget()
        self.agent: AgentProcess | None = None
        self.agent_code: int | None = None

    def start(self) -> None:
        """Start platform, target and agent, in this order.

        Raises:
            StageError: one of them cannot be started.
        """
        try:
            for part in (self.sandbox, self.target):
                self._undo.callback(part.stop)
                part.start()
            self._refused = self._undo.enter_context(contextlib.closing(_bound_socket()))
            self.agent = AgentProcess(self._environment(), self._directory, self._on_agent_end)
        except OSError as error:
            raise StageError(f"cannot start on this machine: {error.filename or ''} {error.strerror}") from None

    def wait_ready(self) -> None:
        """Wait until the agent polls for commands.

        Raises:
            StageError: it does not within READY_SECONDS, or it ended.
        """
        ready = self.sandbox.changes.wait(lambda: self.over.is_set() or self.sandbox.under_way["ReceiveMessage"] > 0, READY_SECONDS)
        if self.over.is_set():
            raise StageError(self.what_ended)
        if not ready:
            raise StageError(f"the agent did not poll for commands within {READY_SECONDS:g} s")

    def stop(self) -> None:
        """Stop everything, the agent first, and remove every file. May be called twice."""
        try:
            if self.agent is not None:
                self.agent_code = self.agent.stop()
                self.log = self.agent.last_lines()
                self.agent = None
        finally:
            self._undo.close()

    @property
    def addresses(self) -> Addresses:
        """The URLs to send requests to."""
        return Addresses(self.target.http_url, self.target.https_url, f"http://{HOST}:{self._refused.getsockname()[1]}/")

    @property
    def what_ended(self) -> str:
        """A message that the agent has ended, with its exit code."""
        code = self.agent.exit_code if self.agent is not None else self.agent_code
        return f"the agent ended by itself with exit code {code}"

    def _environment(self) -> dict[str, str]:
        """Return the agent's whole environment; it inherits nothing from this process."""
        return {
            **self.sandbox.environment(),
            "SECURE_COMMAND_KEY": self.key,
            "RELAY_CA_FILE": self.target.ca_file,
            "RELAY_STATE_DIR": str(self._directory / "state"),
            "RELAY_ADMIN_ADDR": "off",
            "RELAY_DRAIN_SECONDS": str(_DRAIN_SECONDS),
            "TMPDIR": str(self._directory),
            **self._overrides,
        }

    def _on_agent_end(self) -> None:
        self.over.set()
        self.sandbox.changes.touch()


def _bound_socket() -> socket.socket:
    """Return a socket that is bound but does not listen, so that connections to its port are refused."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.bind((HOST, 0))
    return held
