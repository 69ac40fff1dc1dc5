"""How long an agent takes from its start to its first poll, as a multiple of a process that starts and does nothing.

For the agent as a process here, and for the image in a container.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay_agent.sandbox.server import Sandbox
from tests.agents import EXECUTABLE, RunningAgent, wait_until
from tests.image import engine
from tests.image.engine import CONFINED, DIST, MARK, Container, docker, fresh_name, image

ROUNDS = 8
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Start:
    """The quickest of several starts, and of those that do nothing."""

    seconds: float
    idle_seconds: float

    @property
    def ratio(self) -> float:
        """How many times as long the agent takes."""
        return self.seconds / self.idle_seconds


def of_a_process(place: Path) -> Start:
    """`relay-agent run`, against `relay-agent --version`."""

    @contextmanager
    def started(sandbox: Sandbox) -> Iterator[None]:
        with tempfile.TemporaryDirectory(dir=place) as directory, RunningAgent(sandbox, Path(directory)) as agent:
            yield
            agent.stop()

    return _measure(started, lambda: subprocess.run([EXECUTABLE, "--version"], check=True, stdout=subprocess.DEVNULL))


def of_the_image() -> Start:
    """`docker run`, against a container whose Python ends at once."""

    @contextmanager
    def started(sandbox: Sandbox) -> Iterator[None]:
        agent_id = sandbox.add_agent()
        settings = {**sandbox.environment(agent_id), "RELAY_ADMIN_ADDR": "off"}
        given = [part for name, value in settings.items() for part in ("-e", f"{name}={value}")]
        container = Container(sandbox, fresh_name("bench"), agent_id)
        try:
            container.run(*CONFINED, *given)
            yield
        finally:
            docker("rm", "--force", "--volumes", container.name, check=False)

    try:
        return _measure(started, lambda: docker("run", "--rm", "--label", MARK, "--entrypoint", "python3", image(), "-ISsc", "pass"))
    finally:
        engine.sweep()


def image_is_missing() -> str | None:
    """Why the image cannot be measured here, None where it can."""
    try:
        if docker("version", check=False).returncode:
            return "no Docker engine answers here"
    except OSError:
        return "there is no docker here"
    if not (DIST / "IMAGE_ID").is_file() or docker("image", "inspect", image(), check=False).returncode:
        return "there is no image here (make dist-image builds it)"
    return None


def _measure(started: Callable[[Sandbox], AbstractContextManager[None]], idle: Callable[[], object]) -> Start:
    """Turn about, so that what else the machine does falls on both; the first of each fills the page cache."""
    took: list[float] = []
    nothing: list[float] = []
    with Sandbox() as sandbox:
        for _ in range(ROUNDS + 1):
            began = time.monotonic()
            idle()
            nothing.append(time.monotonic() - began)
            took.append(_until_the_first_poll(sandbox, started))
    return Start(min(took[1:]), min(nothing[1:]))


def _until_the_first_poll(sandbox: Sandbox, started: Callable[[Sandbox], AbstractContextManager[None]]) -> float:
    sandbox.aws_calls.clear()
    began = time.monotonic()
    with started(sandbox):
        wait_until(sandbox, lambda: any(call.operation == "ReceiveMessage" for call in list(sandbox.aws_calls)), PATIENCE_SECONDS)
        return time.monotonic() - began
