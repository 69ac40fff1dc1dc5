"""An agent that freezes in C code ends for its supervisor; one that only drains for long does not.

In separate processes, since the freeze ends them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from relay_agent.sandbox.server import Sandbox
from tests.agents import agent_environment

FROZEN = "__import__('ctypes').PyDLL(None).sleep(60)"
"""A call into C that keeps the interpreter's lock."""


def run(code: str, directory: Path, environment: dict[str, str] | None = None, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


AGENT = """
import re, sys
import relay_agent.agent.agent as agent
from relay_agent.agent.heartbeat import Heartbeat
from relay_agent.cli.main import main
from relay_agent.diagnostics.watchdog import Watchdog
from relay_agent.relay.intake import Intake
agent.STUCK_SECONDS = 3.0
{patch}
main(["run"])
"""


@pytest.mark.parametrize(
    "patch, where",
    [
        (f"Watchdog.verdict = lambda self: {FROZEN}", "_supervise"),
        (f"Intake.recover = lambda self, *_: {FROZEN}", "recover"),
        (f"Heartbeat.step = lambda self: {FROZEN}", "step"),
        (f"Watchdog.verdict = lambda self: self_stop()\nagent.Shutdown.run = lambda *_, **__: {FROZEN}", "_stop"),
    ],
    ids=["at-work", "recovering", "another-thread", "stopping"],
)
def test_an_agent_that_freezes_ends_for_its_supervisor(sandbox: Sandbox, tmp_path: Path, patch: str, where: str) -> None:
    stop = "import os, signal\ndef self_stop():\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    environment = agent_environment(sandbox, sandbox.add_agent(), tmp_path, {"RELAY_DRAIN_SECONDS": "1"})
    ended = run(AGENT.format(patch=stop + patch), tmp_path, environment, timeout=50)
    assert ended.returncode == 1, ended.stdout
    assert f"in {where}" in ended.stderr
    assert environment["JWT"] not in ended.stderr


def test_an_agent_whose_drain_is_longer_than_the_limit_drains(sandbox: Sandbox, tmp_path: Path) -> None:
    patch = (
        "import os, signal, threading\n"
        "Watchdog.verdict = lambda self: os.kill(os.getpid(), signal.SIGTERM)\n"
        "run = agent.Shutdown.run\n"
        "agent.Shutdown.run = lambda *given, **named: (threading.Event().wait(6), run(*given, **named))\n"
    )
    environment = agent_environment(sandbox, sandbox.add_agent(), tmp_path, {"RELAY_DRAIN_SECONDS": "20"})
    ended = run(AGENT.format(patch=patch), tmp_path, environment, timeout=50)
    assert (ended.returncode, ended.stderr) == (0, "")
