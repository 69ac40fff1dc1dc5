"""The console script where the agent's packages are not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest


def started(missing: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Start the console script's function in an interpreter that lacks a package."""
    program = f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['relay-agent', *{list(args)!r}]\n"
    program += "from relay_agent.cli.entry import main; main()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    "missing, args", [("click", ()), ("click", ("run",)), ("pydantic", ("send", "http://h/")), ("structlog", ("run",))]
)
def test_without_the_agents_packages_one_line_says_what_to_install(missing: str, args: tuple[str, ...]) -> None:
    done = started(missing, *args)
    assert (done.returncode, done.stdout) == (2, "")
    line = f"relay-agent: {missing} is not installed; install the agent: pip install 'tdp-relay-agent[agent]'\n"
    assert done.stderr == line


def test_with_them_the_commands_are_listed() -> None:
    done = started("no_such_package", "--help")
    assert done.returncode == 0 and "Commands:" in done.stdout
