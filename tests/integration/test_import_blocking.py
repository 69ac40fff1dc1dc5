"""What `run` loads, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sender_side import TOKEN

RUN = """
import os, sys
from relay_agent.cli.main import main
from relay_agent.core import failpoints

def arm(point):  # `run` calls this when it has read the settings, just before it imports the agent.
    import relay_agent.agent.agent
    exec({then!r})
    print(*sys.modules, flush=True)
    os._exit(0)

failpoints.arm = arm
main(["run"])
"""


def loaded(then: str = "") -> set[str]:
    """The modules that `run` has loaded, in a fresh interpreter, when it has imported the agent and what `then` imports."""
    environment = os.environ | {"API_TARGET": "https://api.example", "ORG_SLUG": "acme", "AGENT_ID": "agent-1", "JWT": TOKEN}
    done = subprocess.run(
        [sys.executable, "-Werror", "-c", RUN.format(then=then)], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def modules() -> set[str]:
    """What the agent loads before its first call, in the order of `run`."""
    return loaded()


@pytest.mark.parametrize(
    "unwanted",
    [
        "rich",
        "charset_normalizer",
        "chardet",
        "cryptography",
        "cffi",
        "spnego",
        "pygments",
        "markdown_it",
        "boto3",
        "tomllib",
        "difflib",
        "s3transfer",
        "flask",
        "ministack",
        "relay_agent.cli.checks",
        "relay_agent.sandbox",
    ],
)
def test_run_loads_no_module_that_it_does_not_need(modules: set[str], unwanted: str) -> None:
    assert unwanted not in modules


def test_a_blocked_module_can_be_loaded_afterwards() -> None:
    names = {"rich", "charset_normalizer", "cryptography", "cffi"}
    assert names <= loaded(f"import {', '.join(names)}")
