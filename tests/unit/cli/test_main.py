"""The command line as a whole: which commands there are, and with which code `run` ends.

What a new process imports is tested in `tests/integration/test_new_processes.py`, a start that fails in `test_failed_start`, a whole
agent in `tests/integration/test_agent_start.py`.
"""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from relay_agent import __version__
from relay_agent.agent.agent import Agent
from relay_agent.cli.main import main

COMMANDS = [
    "run",
    "check",
    "explain",
    "policy",
    "status",
    "commands",
    "support-bundle",
    "qualify",
    "retire",
    "send",
    "keygen",
    "encrypt",
    "decrypt",
    "sandbox",
]


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def test_every_command_is_listed_and_can_be_asked_for_help() -> None:
    listed = run("--help").stdout.partition("Commands:\n")[2]
    assert [line.split()[0] for line in listed.splitlines()] == COMMANDS
    assert [command for command in COMMANDS if run(command, "--help").exit_code] == []


def test_the_version_is_the_package_s() -> None:
    assert __version__ in run("--version").stdout


def test_a_command_that_does_not_exist_is_wrong_usage() -> None:
    assert run("nonsense").exit_code == 2


# --- run, once the agent is built ---


def ended(agent: Agent) -> None:
    """Release what an agent holds that was built and is not run."""
    agent.pages.close()
    agent.platform.client.close()
    agent.flow.journal.close()


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True)])
def test_an_agent_that_ends_unexpectedly_says_so_in_one_line_unless_at_level_debug(
    configured: pytest.MonkeyPatch, level: str, shown: bool
) -> None:
    def broken(agent: Agent) -> int:
        ended(agent)
        raise RuntimeError("with a secret in it")

    configured.setenv("RELAY_LOG_LEVEL", level)
    configured.setattr(Agent, "run", broken)
    found = run("run")
    assert (found.exit_code, isinstance(found.exception, RuntimeError)) == (1, shown)
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(line["event"], "unexpected RuntimeError." in line["reason"]) for line in lines] == (
        [] if shown else [("agent-giving-up", True)]
    )
    assert "secret" not in found.output


def test_the_agent_s_exit_code_is_the_command_s(configured: pytest.MonkeyPatch) -> None:
    def refused(agent: Agent) -> int:
        ended(agent)
        return 3

    configured.setattr(Agent, "run", refused)
    assert run("run").exit_code == 3
