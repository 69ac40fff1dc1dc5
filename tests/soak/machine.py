"""One of several agents and all that is its own: a machine with a clock, names, a disk, and a network that can fail.

`python -m tests.soak.machine run` is the agent on such a machine. The soak's side, `Machine`, owns the process, the ports before SQS and
the targets, and what the journal holds; the conductor calls it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import time_machine

from relay_agent.cli.main import main
from relay_agent.sandbox.server import Sandbox
from tests.agents import agent_environment
from tests.soak.front import Front, FrontLoop
from tests.soak.supervisor import DRAIN_SECONDS, AgentLog, Supervisor

TARGET_NAME = "instruments.soak.test"
LEASE_SECONDS = 5
LOST = "lost"
_CLOCK, _ADDRESS = "SOAK_CLOCK", "SOAK_TARGETS"
_LOOK_SECONDS = 0.05
_ROOT = Path(__file__).parents[2]


class Machine:
    """A machine whose agent runs until `lose` or `finish`. All machines reach one target server, each through a port of its own."""

    def __init__(
        self, number: int, sandbox: Sandbox, fronts: FrontLoop, directory: Path, targets: tuple[int, int], excused: Callable[[], set[int]]
    ) -> None:
        """`targets` is the port that the agents are asked to call, and the one where the target server listens."""
        self.name = f"agent {number}"
        self.sqs = Front(fronts, int(sandbox.aws_endpoint.rpartition(":")[2]))
        self.targets = Front(fronts, targets[1], f"127.0.1.{number}", targets[0])
        self.directory = directory / f"agent-{number}"
        self.directory.mkdir(parents=True)
        self._clock = self.directory / "clock"
        self.jump(0.0)
        self.log = AgentLog(directory / f"agent-{number}.log")
        self.lost = False
        arguments = (sys.executable, "-m", "tests.soak.machine", "run")
        self.supervisor = Supervisor(self._environment(sandbox), self.directory, self.log, excused, arguments)

    @property
    def state(self) -> Path:
        """The agent's state directory, or where it was put when the machine was lost."""
        return self.directory / (LOST if self.lost else "state")

    def jump(self, seconds: float) -> None:
        """Set the machine's clock so many seconds ahead of the others', or behind; a running agent notices within a moment."""
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(f"{seconds:g}")
        fresh.replace(self._clock)

    def lose(self) -> None:
        """Let the machine end for good, its disk with it."""
        self.supervisor.lose()
        (self.directory / "state").rename(self.directory / LOST)
        self.lost = True

    def journal(self) -> dict[str, str]:
        """What the journal holds: the state of each command, by its id."""
        path = self.state / "journal.db"
        if not path.exists():
            return {}
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            return dict(connection.execute("SELECT id, state FROM commands"))

    def _environment(self, sandbox: Sandbox) -> dict[str, str]:
        ours: dict[str, str | None] = {
            "RELAY_SHARED_QUEUE": "true",
            "RELAY_LEASE_SECONDS": str(LEASE_SECONDS),
            "RELAY_QUEUE_SIZE": "50",
            "RELAY_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}",
            "RELAY_HEARTBEAT_SECONDS": "5",
            "RELAY_CONFIG_REFRESH_SECONDS": "10",
            "RELAY_METRICS_SECONDS": "10",
            "AWS_ENDPOINT_URL": f"http://{self.sqs.host}:{self.sqs.port}",
            "no_proxy": "*",
            "PYTHONPATH": str(_ROOT),
            _CLOCK: str(self._clock),
            _ADDRESS: self.targets.host,
        }
        return agent_environment(sandbox, sandbox.agent_id, self.directory, ours)


# --- in the agent's process ---


def _run() -> None:
    """Run the agent with this machine's clock and names."""
    path = Path(os.environ[_CLOCK])
    ahead = _ahead(path)
    traveller = time_machine.travel(datetime.now(UTC) + timedelta(seconds=ahead), tick=True).start()
    threading.Thread(target=_follow, args=(path, ahead, traveller), name="soak-clock", daemon=True).start()
    address, resolve = os.environ[_ADDRESS], socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve(address if host == TARGET_NAME else host, *arguments, **options)

    socket.getaddrinfo = look_up
    main()


def _follow(path: Path, ahead: float, traveller: Any) -> None:
    """Let the clock jump whenever the file says something else. Leases and durations are measured on other clocks, which do not."""
    never = threading.Event()
    while not never.wait(_LOOK_SECONDS):
        wanted = ahead
        with contextlib.suppress(OSError, ValueError):
            wanted = _ahead(path)
        if wanted != ahead:
            traveller.shift(timedelta(seconds=wanted - ahead))
            ahead = wanted


def _ahead(path: Path) -> float:
    return float(path.read_text())


if __name__ == "__main__":
    _run()
