"""check_relay_agent.sh and textfile.sh of docs/monitoring: what they print and end with, on an engine or agent that the test plays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.pages import ROOT

PLUGIN = ROOT / "docs" / "monitoring" / "check_relay_agent.sh"
ENGINE = """#!/bin/sh
case "$*" in
"exec "*) printf '%s\\n' "$SAYS"; exit $CODE ;;
"container inspect "*) printf '%s\\n' "$RUNNING"; exit $INSPECT ;;
esac
"""


def plugin(tmp_path: Path, says: str, code: int, running: str = "true false false", inspect: int = 0, *arguments: str) -> tuple[int, str]:
    """The plugin's exit code and output, with an engine that answers so."""
    engine = tmp_path / "docker"
    engine.write_text(ENGINE, encoding="utf-8")
    engine.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SAYS": says,
        "CODE": str(code),
        "RUNNING": running,
        "INSPECT": str(inspect),
    }
    done = subprocess.run([PLUGIN, *arguments], env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return done.returncode, done.stdout.rstrip("\n")


@pytest.mark.parametrize("code, state", [(0, "OK"), (1, "WARNING"), (2, "CRITICAL"), (3, "UNKNOWN")])
def test_the_agents_own_line_and_code_are_passed_on(tmp_path: Path, code: int, state: str) -> None:
    line = f"RELAY AGENT {state} - text | time=1.00s;;;0;30"
    assert plugin(tmp_path, line, code) == (code, line)


@pytest.mark.parametrize(
    "says, code, running, inspect, expected, words",
    [
        ("Error response from daemon: Container x is not running", 1, "false false false", 0, 2, "does not stay up"),
        ("Error response from daemon: Container x is restarting", 1, "true true false", 0, 2, "does not stay up"),
        ("Error response from daemon: Container x is paused", 1, "true false true", 0, 2, "is paused"),
        ("Error: No such container: x", 1, "Error: No such container: x", 1, 2, "there is no container"),
        ("permission denied", 1, "permission denied while trying to connect", 1, 3, "may not use it"),
        ("docker: not found", 127, "Cannot connect to the Docker daemon", 1, 3, "does not answer"),
        ('exec: "relay-agent": executable file not found', 126, "true false false", 0, 3, "executable file not found"),
        ("Error: No such option: --nagios", 2, "true false false", 0, 3, "No such option"),
    ],
)
def test_an_engine_that_cannot_run_it_is_critical_only_if_the_container_does_not_run(
    tmp_path: Path, says: str, code: int, running: str, inspect: int, expected: int, words: str
) -> None:
    found, line = plugin(tmp_path, says, code, running, inspect)
    assert found == expected
    assert line.startswith(f"RELAY AGENT {'CRITICAL' if expected == 2 else 'UNKNOWN'} - ")
    assert words in line


def test_a_bar_in_what_the_engine_says_begins_no_performance_data(tmp_path: Path) -> None:
    assert "|" not in plugin(tmp_path, "odd | thing\nmore", 1)[1]
