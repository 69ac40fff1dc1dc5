"""Agents for tests: the real `relay-agent run` as a process, and the same agent on a thread of the test's process.

How an agent is started against a sandbox, watched through its log lines, and ended.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from relay_agent.agent.admin.client import ask
from relay_agent.agent.agent import Agent
from relay_agent.agent.signals import Signals
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Clock, Deadline
from relay_agent.core.loop import Loop
from relay_agent.core.models import ACTION_HTTP
from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.server import Sandbox
from tests.forked import Nursery, Process

SECURE_REQUEST = "TetraScience.Connector.http.Request.V2"
SHORTEST_LEASE_SECONDS = 5
PATIENCE_SECONDS = 20.0
THREAD_SECONDS = 5.0
"""How long a thread of a stopped agent may take to end, on a busy machine."""
EXECUTABLE = Path(sys.executable).with_name("relay-agent")
Json = dict[str, Any]
nursery: Nursery | None = None
"""Where processes of `relay-agent` come from, unless they start as a whole; tests set it (conftest.py), soak and bench do not."""


class LogLines:
    """The lines an agent logs, as they come. Written by one thread, read and waited for by the test's."""

    def __init__(self) -> None:
        self.raw: list[str] = []
        self._changed = threading.Condition()
        self._over = False

    def feed(self, line: str) -> None:
        """Take one line, without its newline."""
        with self._changed:
            self.raw.append(line)
            self._changed.notify_all()

    def end(self) -> None:
        """Say that no line will follow."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def parsed(self) -> list[Json]:
        """Every line as JSON."""
        with self._changed:
            return [json.loads(line) for line in self.raw]

    def wait(self, event: str, timeout: float, **fields: Any) -> Json:
        """Wait for a line of that event with these fields; fail loudly when it does not come."""
        seen = 0
        found: list[Json] = []

        def look() -> bool:
            nonlocal seen
            fresh, seen = self.raw[seen:], len(self.raw)
            lines = [json.loads(line) for line in fresh]
            found.extend(line for line in lines if line["event"] == event and fields.items() <= line.items())
            return bool(found) or self._over

        with self._changed:
            self._changed.wait_for(look, timeout)
        if not found:
            raise AssertionError(f"no line {event} {fields or ''} within {timeout:g} s; the last lines: {self.raw[-8:]}")
        return found[0]


class _Watched:
    """What both kinds of agent offer a test."""

    def __init__(self, sandbox: Sandbox, agent_id: str) -> None:
        self.sandbox = sandbox
        self.agent_id = agent_id
        self.lines = LogLines()

    @property
    def logs(self) -> list[Json]:
        """The log lines so far, in order."""
        return self.lines.parsed()

    def events(self, event: str) -> list[Json]:
        """The log lines of one event."""
        return [line for line in self.logs if line["event"] == event]

    def wait_log(self, event: str, timeout: float = PATIENCE_SECONDS, **fields: Any) -> Json:
        """Wait for a log line; fail loudly when it does not come."""
        return self.lines.wait(event, timeout, **fields)

    def create(self, payload: Json, action: str = ACTION_HTTP, **options: Any) -> Command:
        """Create a command for this agent."""
        return self.sandbox.command(self.sandbox.create_command(self.agent_id, payload, action, **options))

    def ask(self, payload: Json, action: str = ACTION_HTTP, timeout: float = PATIENCE_SECONDS, **options: Any) -> Command:
        """Create a command and wait for its final status."""
        return self.sandbox.wait_final(self.create(payload, action, **options).id, timeout)

    def ask_until_logged(self, payload: Json, action: str = ACTION_HTTP) -> Command:
        """Ask, and wait for the command's log line too: it is written after the answer was handed on."""
        command = self.ask(payload, action)
        self.wait_log("command", status=command.status, id=command.id)
        return command

    def get(self, url: str, **fields: Any) -> Command:
        """Have the agent fetch a URL, and wait for the answer."""
        return self.ask({"method": "GET", "url": url, **fields})

    def calls(self) -> list[tuple[str, str]]:
        """This agent's REST calls so far: method and the last part of the path."""
        return [(call.method, call.path.rpartition("/agent/")[2]) for call in rest_calls(self.sandbox, self.agent_id)]


class RunningAgent(_Watched):
    """A real `relay-agent run`. Use it with `with`; nothing of it survives the block.

    `environment` is added to the sandbox's; a value of None removes a variable. `whole` starts a new Python, which loads all modules.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        directory: Path,
        environment: dict[str, str | None] | None = None,
        agent_id: str | None = None,
        *,
        whole: bool = False,
    ) -> None:
        super().__init__(sandbox, agent_id or sandbox.add_agent())
        directory.mkdir(exist_ok=True, parents=True)
        self.directory = directory
        self.environment = agent_environment(sandbox, self.agent_id, directory, environment)
        self._whole = whole or nursery is None
        self._process: subprocess.Popen[bytes] | Process | None = None
        self._reader: threading.Thread | None = None
        self._errors = directory / "stderr.txt"

    def start(self, change: dict[str, str | None] | None = None) -> Self:
        """Start the process; what it logged before is forgotten. `change` is made to its environment first, as in the constructor."""
        self.lines = LogLines()
        merged = {**self.environment, **(change or {})}
        self.environment = {name: value for name, value in merged.items() if value is not None}
        reading, writing = os.pipe()
        with Path(os.devnull).open() as nothing, os.fdopen(writing, "wb") as output, self._errors.open("w") as errors:
            streams = (nothing.fileno(), output.fileno(), errors.fileno())
            self._process = _start(["run"], self.directory, self.environment, streams, whole=self._whole)
        self._reader = threading.Thread(target=self._read, args=(reading, self.lines), name="agent-stdout")
        self._reader.start()
        return self

    def ready(self) -> Self:
        """Wait until the agent is registered."""
        self.wait_log("agent-ready")
        return self

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running().pid

    @property
    def resident_bytes(self) -> int:
        """The memory that the process has now."""
        (line,) = [line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    @property
    def errors(self) -> str:
        """What it wrote to stderr."""
        return self._errors.read_text()

    def send_signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal."""
        self._running().send_signal(number)

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Wait for the process's end, and give its exit code."""
        code = self._running().wait(timeout)
        assert self._reader is not None
        self._reader.join(timeout)
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = PATIENCE_SECONDS) -> int:
        """Ask it to stop, and give its exit code."""
        self.send_signal(number)
        return self.wait(timeout)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._running().kill()
        self.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        if self._reader is not None:
            self._reader.join(PATIENCE_SECONDS)

    def _running(self) -> subprocess.Popen[bytes] | Process:
        assert self._process is not None, "not started"
        return self._process

    @staticmethod
    def _read(reading: int, lines: LogLines) -> None:
        with os.fdopen(reading, encoding="utf-8") as stream:
            for line in stream:
                lines.feed(line.rstrip("\n"))
        lines.end()


class _Stream(io.StringIO):
    """Where an agent on a thread logs to."""

    def __init__(self, lines: LogLines) -> None:
        super().__init__()
        self._lines = lines

    def write(self, text: str) -> int:
        for line in text.splitlines():
            self._lines.feed(line)
        return len(text)


def built(sandbox: Sandbox, directory: Path, lines: LogLines, signals: Signals) -> Agent:
    """An agent that is only built, on the caller's thread."""
    environment = agent_environment(sandbox, sandbox.add_agent(), directory)
    return Agent(_settings(environment), stream=_Stream(lines), signals=signals)


def _settings(environment: dict[str, str]) -> Settings:
    return Settings(**{name: value for name, value in environment.items() if name.startswith("RELAY_") or name in _SETTINGS})  # type: ignore[arg-type]


class ThreadedAgent(_Watched):
    """The same agent on a thread of this process, quicker to start. Use it with `with`; no thread survives the block."""

    def __init__(
        self,
        sandbox: Sandbox,
        directory: Path,
        environment: dict[str, str | None] | None = None,
        agent_id: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(sandbox, agent_id or sandbox.add_agent())
        directory.mkdir(exist_ok=True, parents=True)
        self.environment = agent_environment(sandbox, self.agent_id, directory, environment)
        self._clock = clock
        self._signals = Signals()
        self._thread: threading.Thread | None = None
        self._code: int | None = None
        self._loops: list[Loop] = []

    def start(self) -> Self:
        """Build the agent and run it on its thread."""
        settings = _settings(self.environment)
        self.agent = agent = Agent(settings, clock=self._clock, stream=_Stream(self.lines), signals=self._signals)
        self._loops = [*(thread.loop for thread in agent.threads.all), agent.pages.loop]
        self._thread = threading.Thread(target=self._run, args=(agent,), name="agent-main")
        self._thread.start()
        return self

    def ready(self) -> Self:
        """Wait until the agent is registered."""
        self.wait_log("agent-ready")
        return self

    def send_signal(self) -> None:
        """Do what a signal's handler does."""
        self._signals.count += 1
        self._signals.wake()

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Wait for its end, and give its exit code."""
        assert self._thread is not None
        self._thread.join(timeout)
        if self._thread.is_alive() or self._code is None:
            raise AssertionError(f"the agent still runs after {timeout:g} s; the last lines: {self.lines.raw[-8:]}")
        return self._code

    def stop(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Ask it to stop, and give its exit code."""
        self.send_signal()
        return self.wait(timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._signals.count = max(1, self._signals.count)
            self._signals.wake()
            self._thread.join(PATIENCE_SECONDS)
        for loop in self._loops:
            if loop.ident is not None:
                loop.join(THREAD_SECONDS)
        survivors = [loop.name for loop in self._loops if loop.is_alive()]
        assert not survivors, f"threads survive the agent: {survivors}"

    def _run(self, agent: Agent) -> None:
        try:
            self._code = agent.run()
        finally:
            self.lines.end()


_SETTINGS = frozenset(
    {
        "API_TARGET",
        "ORG_SLUG",
        "AGENT_ID",
        "JWT",
        "JWT_FILE",
        "AWS_ENDPOINT_URL",
        "SECURE_COMMAND_KEY",
        "SECURE_COMMAND_KEY_FILE",
        "no_proxy",
        "http_proxy",
        "https_proxy",
    }
)


def agent_environment(sandbox: Sandbox, agent_id: str, directory: Path, more: dict[str, str | None] | None = None) -> dict[str, str]:
    """All that an agent's process is given: nothing is inherited but what a program needs to run at all."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    ours = {"RELAY_STATE_DIR": str(directory / "state"), "RELAY_ADMIN_ADDR": "off", "RELAY_DRAIN_SECONDS": "10"}
    if sandbox.visibility_timeout < SHORTEST_LEASE_SECONDS:  # Its messages are to come back soon after a kill.
        ours["RELAY_LEASE_SECONDS"] = str(SHORTEST_LEASE_SECONDS)
    wanted: dict[str, str | None] = {**inherited, **sandbox.environment(agent_id), **ours, **(more or {})}
    return {name: value for name, value in wanted.items() if value is not None}


def run_once(
    arguments: list[str], directory: Path, environment: dict[str, str], stdin: bytes = b"", timeout: float = 30.0
) -> subprocess.CompletedProcess[bytes]:
    """Run one `relay-agent` command to its end."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        streams = (given.fileno(), output.fileno(), errors.fileno())
        process = _start(arguments, directory, environment, streams, whole=nursery is None)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE_SECONDS)
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())


def _start(
    arguments: list[str], directory: Path, environment: dict[str, str], streams: tuple[int, int, int], *, whole: bool
) -> subprocess.Popen[bytes] | Process:
    """Start a `relay-agent` command with these descriptors as its stdin, stdout and stderr."""
    if nursery is not None and not whole:
        return nursery.start(arguments, directory, environment, streams)
    given, output, errors = streams
    return subprocess.Popen([EXECUTABLE, *arguments], cwd=directory, env=environment, stdin=given, stdout=output, stderr=errors)


@contextlib.contextmanager
def running(agent: RunningAgent | ThreadedAgent) -> Iterator[Any]:
    """Start an agent, wait until it is registered, and end it."""
    with agent:
        yield agent.ready()


def page(agent: RunningAgent | ThreadedAgent, path: str) -> tuple[int, str]:
    """The status code and the text of one of an agent's own pages."""
    code, text = ask(Path(agent.environment["RELAY_STATE_DIR"]) / "admin.sock", path)
    return code, text.decode()


def rest_calls(sandbox: Sandbox, agent_id: str) -> list[Any]:
    """The REST calls that an agent made as one, in order."""
    return [call for call in sandbox.requests if agent_id in ((call.json or {}).get("agentId"), call.fields.get("agentId"))]


def wait_until(sandbox: Sandbox, predicate: Callable[[], bool], timeout: float = PATIENCE_SECONDS) -> None:
    """Wait until something holds, about the sandbox or not; looked at with every change there, and at least every 50 ms.

    A fault's `hits` and an agent's log lines are no changes of the sandbox.
    """
    deadline = Deadline(timeout)
    while not deadline.passed:
        with contextlib.suppress(TimeoutError):
            sandbox.wait(predicate, 0.05)
            return
    raise AssertionError(f"what was waited for did not happen within {timeout:g} s")


def statuses(command: Command) -> list[str]:
    """The statuses that arrived for a command, in order."""
    return [json.loads(text)["status"] for text in command.updates]


def finals(command: Command) -> list[str]:
    """The final statuses among them."""
    return [status for status in statuses(command) if status != "PROCESSING"]


def answers(command: Command) -> set[str]:
    """The different final texts that the platform received; on a slow machine the agent sends PROCESSING before."""
    return {text for text in list(command.updates) if json.loads(text)["status"] != "PROCESSING"}


def body(command: Command) -> Json:
    """A command's response body."""
    assert isinstance(command.response_body, dict), command.response_body
    return command.response_body
